//! Merkle tree arithmetic of RFC 6962 section 2.1: hashes, roots, proofs. Knows nothing of tiles and files: a
//! [`Nodes`] gives the hash of any complete subtree.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A SHA-256 hash in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hash {
    /// Bytes of a hash.
    pub const BYTES: usize = 32;

    /// Reads base64; `None` if it is not that of 32 bytes.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(super) fn sha256(bytes: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, bytes);
        Self(std::array::from_fn(|i| digest.as_ref()[i]))
    }

    /// The hash of a leaf.
    pub fn of_leaf(entry: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&[0]);
        hash.update(entry);
        let digest = hash.finish();
        Self(std::array::from_fn(|i| digest.as_ref()[i]))
    }

    /// The hash of an inner node.
    pub fn of_node(left: Self, right: Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self::sha256(&bytes)
    }

    /// The root of a tree without leaves.
    pub fn of_nothing() -> Self {
        Self::sha256(&[])
    }
}

/// The root over complete subtrees of one height, as many as a power of two.
pub(super) fn complete_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Hash::of_nothing(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            Hash::of_node(complete_root(left), complete_root(right))
        }
    }
}

/// Where the hashes of complete subtrees come from.
pub trait Nodes {
    /// Why one cannot be had.
    type Error;

    /// The hash of the subtree over leaves `index << height` up to but without `(index + 1) << height`.
    fn node(&mut self, height: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The largest power of two below `count`, which is at least 2 (RFC 6962 section 2.1, k).
const fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The hash over leaves `from..to`; where that is a complete subtree it is asked for, otherwise put together.
fn range<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let count = to - from;
    if count.is_power_of_two() {
        let height = count.trailing_zeros();
        return nodes.node(height as u8, from >> height);
    }
    let middle = from + split(count);
    Ok(Hash::of_node(
        range(nodes, from, middle)?,
        range(nodes, middle, to)?,
    ))
}

/// The root of the first `size` leaves.
pub fn root<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 {
        return Ok(Hash::of_nothing());
    }
    range(nodes, 0, size)
}

/// The inclusion proof of a leaf in the tree of the first `size` leaves, from the leaf's sibling up.
///
/// # Panics
/// When the leaf is not in that tree.
pub fn inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(index < size, "leaf {index} of {size}");
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range(nodes, middle, to)?);
            to = middle;
        } else {
            path.push(range(nodes, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `size` leaves begins with the tree of `old` leaves (RFC 6962 section 2.1.2).
///
/// # Panics
/// When the old tree is the larger one.
pub fn consistency<N: Nodes>(nodes: &mut N, old: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(old <= size, "from {old} to {size}");
    let mut path = Vec::new();
    if old == 0 || old == size {
        return Ok(path);
    }
    let (mut from, mut to) = (0, size);
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range(nodes, middle, to)?);
            to = middle;
        } else {
            path.push(range(nodes, from, middle)?);
            from = middle;
        }
    }
    // The old tree itself is known to whoever checks.
    if from != 0 {
        path.push(range(nodes, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Index or sizes do not fit together.
    #[error("the proof is for something that is not in the tree")]
    OutOfTree,
    /// Too few or too many hashes for these sizes.
    #[error("the proof has the wrong length")]
    Length,
    /// Another root follows from it.
    #[error("another root follows from the proof")]
    Root,
}

/// A walk up two edges of a tree at once, as RFC 9162 section 2.1 describes it.
struct Walk {
    node: u64,
    last: u64,
}

impl Walk {
    /// Whether the next hash of the path is to the left; moves up. `None`: there is nothing further up.
    fn step(&mut self) -> Option<bool> {
        if self.last == 0 {
            return None;
        }
        let left = self.node & 1 == 1 || self.node == self.last;
        if left {
            self.skip_while(|node| node & 1 == 0 && node != 0);
        }
        self.up();
        Some(left)
    }

    fn skip_while(&mut self, more: impl Fn(u64) -> bool) {
        while more(self.node) {
            self.up();
        }
    }

    const fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }
}

/// Checks that a leaf is in the tree with this root (RFC 9162 section 2.1.3.2).
pub fn check_inclusion(
    leaf: Hash,
    index: u64,
    path: &[Hash],
    size: u64,
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree);
    }
    let mut walk = Walk {
        node: index,
        last: size - 1,
    };
    let mut hash = leaf;
    for &sibling in path {
        hash = match walk.step().ok_or(ProofError::Length)? {
            true => Hash::of_node(sibling, hash),
            false => Hash::of_node(hash, sibling),
        };
    }
    match (walk.last, hash == root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length),
    }
}

/// Checks that a tree begins with an older one (RFC 9162 section 2.1.4.2). Every tree begins with the empty one.
pub fn check_consistency(old: (u64, Hash), path: &[Hash], new: (u64, Hash)) -> Result<(), ProofError> {
    let ((old_size, old_root), (size, root)) = (old, new);
    if old_size > size {
        return Err(ProofError::OutOfTree);
    }
    if old_size == 0 || old_size == size {
        let same = old_size == 0 || old_root == root;
        return match (path.is_empty(), same) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Root),
            (false, _) => Err(ProofError::Length),
        };
    }
    // A complete old tree is itself the first hash of the path.
    let known = old_size.is_power_of_two().then_some(old_root);
    let mut hashes = known.into_iter().chain(path.iter().copied());
    let first = hashes.next().ok_or(ProofError::Length)?;
    let mut walk = Walk {
        node: old_size - 1,
        last: size - 1,
    };
    walk.skip_while(|node| node & 1 == 1);
    let (mut old_hash, mut hash) = (first, first);
    for sibling in hashes {
        if walk.step().ok_or(ProofError::Length)? {
            old_hash = Hash::of_node(sibling, old_hash);
            hash = Hash::of_node(sibling, hash);
        } else {
            hash = Hash::of_node(hash, sibling);
        }
    }
    match (walk.last, old_hash == old_root && hash == root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Root),
        _ => Err(ProofError::Length),
    }
}
