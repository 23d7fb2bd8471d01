//! What the fuzz targets run: a parser each.

mod parsers;

pub use parsers::*;
