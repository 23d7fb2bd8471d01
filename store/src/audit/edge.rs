//! The right edge of a growing tree: for each level the tile that is not full yet. All there is to know for adding leaves
//! and for the root, in at most 8 × 255 hashes.

use super::tile::{LEVELS_MAX, Tile, WIDTH};
use super::tree::{Hash, complete_root};

/// The edge of a tree of a certain size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// The hashes of the last tile of each level, the lowest first; never 256.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge that a tree of `size` leaves has, with the hashes that `read` gives for its partial tiles.
    pub fn read<E>(size: u64, mut read: impl FnMut(Tile) -> Result<Vec<Hash>, E>) -> Result<Self, E> {
        let mut levels = Vec::new();
        for level in 0..LEVELS_MAX {
            let there = size >> (8 * u32::from(level));
            if there == 0 {
                break;
            }
            let last = Tile::new(level, there / WIDTH as u64, (there % WIDTH as u64) as u16);
            levels.push(last.map(&mut read).transpose()?.unwrap_or_default());
        }
        Ok(Self { size, levels })
    }

    /// Leaves in the tree.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; `full` gets every tile that this fills.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut full: impl FnMut(Tile, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..LEVELS_MAX {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::with_capacity(WIDTH));
            }
            let hashes = &mut self.levels[usize::from(level)];
            hashes.push(hash);
            if hashes.len() < WIDTH {
                break;
            }
            let index = (self.size >> (8 * (u32::from(level) + 1))) - 1;
            full(Tile::full(level, index), hashes)?;
            hash = complete_root(hashes);
            hashes.clear();
        }
        Ok(())
    }

    /// The tiles that are not full, the lowest first.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        (0u8..).zip(&self.levels).filter_map(|(level, hashes)| {
            let index = self.size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            Some((Tile::new(level, index, hashes.len() as u16)?, &hashes[..]))
        })
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut root = None;
        for hashes in &self.levels {
            let mut rest = &hashes[..];
            // From the right: the smallest complete subtree, then ever larger ones.
            while !rest.is_empty() {
                let (more, last) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let last = complete_root(last);
                root = Some(root.map_or(last, |right| Hash::of_node(last, right)));
                rest = more;
            }
        }
        root.unwrap_or_else(Hash::of_nothing)
    }
}
