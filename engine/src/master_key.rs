//! The master key: read from a file that only its owner may read, or from an open descriptor; never from an argument
//! or the environment.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use actors::call::Ticket;
use actors::vault::{MASTER_KEY_BYTES, Vault};
use aws_lc_rs::rand;
use protocol::error_code::{Code, Refusal};
use store::Store;
use zeroize::Zeroizing;

use crate::config::MasterKeySource;

/// Reads the master key.
pub(crate) fn read(source: &MasterKeySource) -> Result<Vault, Refusal> {
    let bytes = match source {
        MasterKeySource::File(path) => read_file(path)?,
        MasterKeySource::Descriptor(number) => read_descriptor(*number)?,
    };
    Vault::new(&bytes).map_err(|error| Refusal::new(Code::Usage, error.to_string()))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Refusal + '_ {
    move |error| Refusal::new(Code::File, format!("master key {}: {error}", path.display()))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut file = std::fs::File::open(path).map_err(|error| {
        let hint = "; `cinnabar init` makes one, `serve --dev` makes one by itself";
        Refusal::new(
            Code::File,
            format!("master key {}: {error}{hint}", path.display()),
        )
    })?;
    let mode = file.metadata().map_err(failed(path))?.mode();
    if mode & 0o077 != 0 {
        let text = format!(
            "master key {}: mode {:04o} lets others read it; it must be 0600",
            path.display(),
            mode & 0o7777
        );
        return Err(Refusal::new(Code::Usage, text));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MASTER_KEY_BYTES + 1));
    file.read_to_end(&mut bytes).map_err(failed(path))?;
    Ok(bytes)
}

/// Opening the descriptor through /proc needs no unsafe code and leaves the caller's own descriptor alone.
fn read_descriptor(number: i32) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let failed = |error| {
        Refusal::new(
            Code::File,
            format!("master key from descriptor {number}: {error}"),
        )
    };
    let mut file = std::fs::File::open(format!("/proc/self/fd/{number}")).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MASTER_KEY_BYTES + 1));
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Makes a master key file, unless there is one. True: it was made.
pub(crate) fn make(path: &Path) -> Result<bool, Refusal> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed(path))?;
    }
    if path.exists() {
        return Ok(false);
    }
    // Written beside and then given its name, which fails if there is one by now: a crash leaves no half a key under it.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let linked = write_new(&beside).and_then(|()| std::fs::hard_link(&beside, path));
    // If this fails, a key that nothing uses is left over.
    let _ = std::fs::remove_file(&beside);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(path)(error)),
    }
}

fn write_new(path: &Path) -> std::io::Result<()> {
    let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
    rand::fill(&mut key[..]).map_err(|_| std::io::Error::other("no randomness"))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&key[..])?;
    file.sync_all()
}

const CHECK_NAME: &str = "master-key-check";
const CHECK_TEXT: &[u8] = b"cinnabar";

/// Whether this is the key of a data folder that an engine may be using.
pub(crate) fn check_beside(home: &Path, vault: &Vault) -> Result<(), Refusal> {
    let failed = |error: store::StoreError| error.refusal();
    let reader = store::Reader::beside(home).map_err(failed)?;
    match reader.meta(CHECK_NAME).map_err(failed)? {
        Some(wrapped) => opens(vault, &wrapped),
        None => Ok(()),
    }
}

fn opens(vault: &Vault, wrapped: &[u8]) -> Result<(), Refusal> {
    let other = |_| Refusal::new(Code::Usage, "this is not the master key of this data folder");
    vault
        .unwrap(wrapped, CHECK_NAME.as_bytes())
        .map(drop)
        .map_err(other)
}

/// Whether this is the key that the store's secrets are wrapped under; notes it for a new store.
pub(crate) fn check(store: &Store<Ticket>, vault: &Vault) -> Result<(), Refusal> {
    let failed = |error: store::StoreError| error.refusal();
    match store.meta(CHECK_NAME).map_err(failed)? {
        Some(wrapped) => opens(vault, &wrapped),
        None => {
            let wrapped = vault
                .wrap(CHECK_TEXT, CHECK_NAME.as_bytes())
                .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
            store.set_meta(CHECK_NAME, &wrapped).map_err(failed)
        }
    }
}
