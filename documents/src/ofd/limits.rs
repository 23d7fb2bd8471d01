//! Bounds on what a package may ask of its reader.

/// Largest package, in bytes.
pub(super) const PACKAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most entries of a package, folders included.
pub(super) const ENTRIES_MAX: usize = 20_000;
/// Largest entry when inflated, in bytes.
pub(super) const ENTRY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// All entries together when inflated, in bytes: verification reads every one of them.
pub(super) const INFLATED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Longest name of an entry, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 512;
/// Largest XML file, in bytes.
pub(super) const XML_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most nodes of an XML file, attributes not counted.
pub(super) const XML_NODES_MAX: u32 = 2_000_000;
/// Most documents in a package.
pub(super) const DOCUMENTS_MAX: usize = 100;
/// Most signatures of a document.
pub(super) const SIGNATURES_MAX: usize = 200;
/// Most stamps of one signature.
pub(super) const STAMPS_MAX: usize = 5000;
/// Most XML files that are followed to learn what a document consists of.
pub(super) const FOLLOWED_MAX: usize = ENTRIES_MAX;

const _: () = assert!(ENTRY_BYTES_MAX <= INFLATED_BYTES_MAX);
// Without ZIP64 an archive cannot have more.
const _: () = assert!(ENTRIES_MAX < 0xffff && PACKAGE_BYTES_MAX < 0xffff_ffff);
