//! Tiles (c2sp.org/tlog-tiles): which hash lies in which file. A tile at level L holds up to 256 hashes of complete
//! subtrees with 256^L leaves each; a full one is 8,192 bytes and never changes.

use std::fmt;

/// Hashes in a full tile.
pub(super) const WIDTH: usize = 256;
/// Levels that a tree of at most 2^64 leaves has.
pub(super) const LEVELS_MAX: u8 = 8;

/// Where a tile is, and how many hashes of it there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// A full tile.
    pub const fn full(level: u8, index: u64) -> Self {
        Self {
            level,
            index,
            width: WIDTH as u16,
        }
    }

    /// The tile with that many hashes; `None` when no tile has so many, or so few.
    pub const fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        if level >= LEVELS_MAX || width == 0 || width as usize > WIDTH {
            return None;
        }
        Some(Self { level, index, width })
    }

    /// Its level.
    pub const fn level(self) -> u8 {
        self.level
    }

    /// Its number within the level.
    pub const fn index(self) -> u64 {
        self.index
    }

    /// Its hashes.
    pub const fn width(self) -> usize {
        self.width as usize
    }

    /// Whether it will never have more.
    pub const fn is_full(self) -> bool {
        self.width() == WIDTH
    }

    /// Whether a tree of `size` leaves has all its hashes.
    pub fn is_within(self, size: u64) -> bool {
        let there = size >> (8 * u32::from(self.level));
        let first = self.index.checked_mul(WIDTH as u64);
        first.is_some_and(|first| first < there && there - first >= u64::from(self.width))
    }

    /// The tile as a tree of `size` leaves has it: full or partial; `None` if it has nothing of it.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let there = size.checked_shr(8 * u32::from(level))?;
        let first = index.checked_mul(WIDTH as u64)?;
        let width = there.checked_sub(first)?.min(WIDTH as u64);
        Self::new(level, index, width as u16)
    }

    /// The tile that holds the subtree of this height and index, and the hashes in it that the subtree is the root of.
    pub fn of_node(height: u8, index: u64) -> (Self, std::ops::Range<usize>) {
        let (level, within) = (height / 8, u32::from(height % 8));
        let first = index << within;
        let at = (first % WIDTH as u64) as usize;
        let to = at + (1 << within);
        let tile = Self {
            level,
            index: first / WIDTH as u64,
            width: to as u16,
        };
        (tile, at..to)
    }
}

/// What a path names: hashes or, beside level 0, what was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TilePath {
    /// `tile/L/N`.
    Hashes(Tile),
    /// `tile/entries/N`; its level is 0.
    Entries(Tile),
}

impl TilePath {
    /// The tile.
    pub const fn tile(self) -> Tile {
        match self {
            Self::Hashes(tile) | Self::Entries(tile) => tile,
        }
    }

    /// The same with another number of hashes.
    pub(super) const fn with(self, tile: Tile) -> Self {
        match self {
            Self::Hashes(_) => Self::Hashes(tile),
            Self::Entries(_) => Self::Entries(tile),
        }
    }

    /// Reads a path as [`fmt::Display`] writes it, and in no other spelling.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok().filter(|width| *width < WIDTH as u16)?),
            None => (rest, WIDTH as u16),
        };
        let mut index: u64 = 0;
        for part in number.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            index = index
                .checked_mul(1000)?
                .checked_add(digits.parse().ok().filter(|part| *part < 1000)?)?;
        }
        let parsed = match level {
            "entries" => Self::Entries(Tile::new(0, index, width)?),
            level => Self::Hashes(Tile::new(level.parse().ok()?, index, width)?),
        };
        // The one spelling: no signs, no more zeros than belong there, an x where it belongs.
        (parsed.to_string() == path).then_some(parsed)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = self.tile();
        match self {
            Self::Hashes(tile) => write!(f, "tile/{}/", tile.level)?,
            Self::Entries(_) => f.write_str("tile/entries/")?,
        }
        write_index(f, tile.index / 1000)?;
        write!(f, "{:03}", tile.index % 1000)?;
        if !tile.is_full() {
            write!(f, ".p/{}", tile.width)?;
        }
        Ok(())
    }
}

fn write_index(f: &mut fmt::Formatter<'_>, above: u64) -> fmt::Result {
    if above == 0 {
        return Ok(());
    }
    write_index(f, above / 1000)?;
    write!(f, "x{:03}/", above % 1000)
}
