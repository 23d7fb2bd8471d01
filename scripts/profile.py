"""Folded stacks, added up: microseconds of CPU a signature by thread, and in each thread by what it was doing.

profile.py FOLDED MICROSECONDS: all samples together are so many microseconds a signature. What a sample was doing is told
by the first rule below that a frame of its stack meets; the rules name functions of ours, of libraries and of the kernel.
"""

import collections
import re
import sys

RULES = [
    ("sign: eight at a time", r"libcrypto_mb|mbx_"),
    ("sign: nonces", r"rfc6979|hsm_pool::nonce|rand"),
    ("sign: verify one in 64", r"Lane.*::check|SoftKey::check|verify"),
    ("sign: seal for the journal", r"vault|seal_signature|aes_gcm|aead"),
    ("sign: the rest", r"hsm_pool::(multi|sm2_key|soft)|ecp_nistz|aws_lc.*(rsa|ecdsa|bn_)"),
    ("commit: SQLite", r"sqlite3|pager|btree"),
    ("commit: sync", r"fdatasync|fsync|vfs_fsync"),
    ("commit: our part", r"store::(committer|journal|record|ledger|usage|index)"),
    ("audit", r"store::audit|actors::audit"),
    ("QUIC: sockets", r"sendmsg|recvmsg|udp_|sys_send|sys_recv"),
    ("QUIC: packets", r"quinn|rustls"),
    ("frames and proof", r"protocol::|ciborium|minicbor|hmac"),
    ("gate, shard, metering", r"actors::"),
    ("queue and lanes", r"hsm_pool::"),
    ("waking and sleeping", r"futex|schedule|epoll|eventfd|poll_idle|wake"),
    ("allocator", r"malloc|free|calloc|realloc|_int_"),
]


def kind(frames):
    # The innermost frames decide before the outer ones: everything has main in it.
    for name, rule in RULES:
        if any(re.search(rule, frame) for frame in frames):
            return name
    return "other"


def main(path, microseconds):
    threads = collections.defaultdict(collections.Counter)
    with open(path) as file:
        for line in file:
            stack, _, count = line.rstrip().rpartition(" ")
            thread, *frames = stack.split(";")
            threads[re.sub(r"[-\s\d:]+$", "", thread)][kind(frames)] += int(count)
    all_samples = sum(sum(kinds.values()) for kinds in threads.values())
    each = float(microseconds) / all_samples
    for thread, kinds in sorted(threads.items(), key=lambda item: -sum(item[1].values())):
        total = sum(kinds.values())
        if total * each < 0.05:
            continue
        print(f"{thread:20} {total * each:6.2f} µs")
        for name, count in kinds.most_common():
            if count * each >= 0.05:
                print(f"    {name:28} {count * each:6.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
