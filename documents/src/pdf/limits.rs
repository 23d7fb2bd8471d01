//! How much a PDF may ask for. The file itself is limited by whoever brings it; these bounds keep the work and the
//! memory in proportion to it.

/// Deepest nesting of arrays and dictionaries in one object.
pub(crate) const DEPTH_MAX: usize = 48;
/// Most numbers, names, strings, … in one object.
pub(crate) const NODES_MAX: usize = 1 << 20;
/// Most cross-reference sections, and so revisions, of a file.
pub(crate) const SECTIONS_MAX: usize = 1_000;
/// Largest object number. ISO 32000 allows more than any file has.
pub(crate) const OBJECT_NUMBER_MAX: u32 = 8_388_607;
/// Most bytes that one stream may decode to.
pub(crate) const DECODED_BYTES_MAX: usize = 64 << 20;
/// Most bytes that all decoded streams of one file may have together.
pub(crate) const DECODED_TOTAL_BYTES_MAX: usize = 512 << 20;
/// Most filters on one stream.
pub(crate) const FILTERS_MAX: usize = 4;
/// Deepest page tree or field tree.
pub(crate) const TREE_DEPTH_MAX: usize = 32;
/// Most pages that are walked over.
pub(crate) const PAGES_MAX: usize = 200_000;
/// Most form fields that are walked over.
pub(crate) const FIELDS_MAX: usize = 100_000;
/// Largest file: offsets of a cross-reference table have ten digits (ISO 32000-2 7.5.4).
pub(crate) const FILE_BYTES_MAX: usize = 9_999_999_999;
