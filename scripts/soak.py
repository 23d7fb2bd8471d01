"""A soak run, judged: the engine's memory and the percentiles of its report, minute by minute.

The first fifth of the run is warming up (caches, the allocator's arenas); after it nothing may grow. The middle of what is
left is compared, not its ends, so that one slow second decides nothing.
"""

import json
import statistics
import sys

# Growth that is noise: MiB, and a part of what there was.
MEMORY_MIB, MEMORY_PART = 16, 0.10
# Drift that is noise: milliseconds, and a part.
DRIFT_MS, DRIFT_PART = 0.5, 0.25


def halves(values):
    """Medians of the two halves of what follows the warming up."""
    steady = values[len(values) // 5 :]
    middle = len(steady) // 2
    return statistics.median(steady[: middle or 1]), statistics.median(steady[middle:])


def minutes(timeline):
    """Seconds of a report by minute; a short run is cut into tenths."""
    length = min(60, max(1, len(timeline) // 10))
    parts = [timeline[at : at + length] for at in range(0, len(timeline), length)]
    # What is left at the end is no minute.
    return length, [part for part in parts if 2 * len(part) > length]


def memory_of(samples, begin_ms, end_ms):
    inside = [mib for at, mib in samples if begin_ms <= at < end_ms]
    return statistics.median(inside) if inside else None


def main(report_path, memory_path):
    with open(report_path) as file:
        report = json.load(file)
    with open(memory_path) as file:
        samples = [(float(at), float(mib)) for at, mib in (line.split() for line in file)]
    started = report["run"]["started_unix_ms"]
    length, parts = minutes(report["timeline"])
    print(f"| from second | signatures/s | failed | p50 ms | p99 ms | longest ms | memory MiB |\n|---|---|---|---|---|---|---|")
    rows = []
    for number, part in enumerate(parts):
        begin = started + 1000 * number * length
        row = {name: statistics.median(point[name] for point in part) for name in ("p50_ms", "p99_ms")}
        row["mib"] = memory_of(samples, begin, begin + 1000 * length)
        rows.append(row)
        ok, failed = sum(point["ok"] for point in part), sum(point["failed"] for point in part)
        mib = "–" if row["mib"] is None else f"{row['mib']:.0f}"
        longest = max(point["max_ms"] for point in part)
        print(f"| {number * length} | {ok / len(part):,.0f} | {failed} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {longest:.0f} | {mib} |")
    latency = report["latency_ms"]
    print(f"\n{report['signatures_per_second']:,.0f}/s for {report['seconds']:.0f} s, errors {report['errors'] or 'none'}; ms: "
          f"avg {latency['avg']:.2f}, p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f}, p99.9 {latency['p999']:.2f}, max {latency['max']:.0f}")
    if report["saturated"]:
        print("verdict: the generator was saturated; this run proves nothing")
        return 5
    faults = judge(report, rows)
    print("verdict: " + ("flat memory, no drift, SLA kept" if not faults else "; ".join(faults)))
    return 1 if faults else 0


def judge(report, rows):
    faults = [] if report["kept"] else ["the SLA was not kept"]
    memory = [row["mib"] for row in rows if row["mib"] is not None]
    if len(rows) < 5 or len(memory) < 5:
        return faults + ["too short to see a drift"]
    first, second = halves(memory)
    if second - first > max(MEMORY_MIB, MEMORY_PART * first):
        faults.append(f"memory grew from {first:.0f} to {second:.0f} MiB")
    for name in ("p50_ms", "p99_ms"):
        first, second = halves([row[name] for row in rows])
        if second - first > max(DRIFT_MS, DRIFT_PART * first):
            faults.append(f"{name} drifted from {first:.2f} to {second:.2f}")
    return faults


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
