//! Whether anything has happened in a folder. The kernel queues its notice within the call that makes the change, so the
//! next question sees it; and asking in vain costs a fraction of looking at the file.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// The notices of one folder (inotify(7)).
#[derive(Debug)]
pub(crate) struct Changes(Option<OwnedFd>);

impl Changes {
    /// Notices of what happens from now on in the folder of this file.
    pub(crate) fn beside(file: &Path) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self(watch(folder.unwrap_or(Path::new("."))).ok())
    }

    /// Whether anything may have happened since the last question. Where there are no notices it always may.
    pub(crate) fn any(&self) -> bool {
        let Some(notices) = &self.0 else { return true };
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut reader = Reader::new(notices, &mut buffer);
        let mut any = false;
        loop {
            match reader.next() {
                Ok(_) => any = true,
                Err(Errno::AGAIN) => return any,
                Err(_) => return true,
            }
        }
    }
}

fn watch(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let notices = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let written = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::CREATE;
    add_watch(
        &notices,
        folder,
        written | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::DELETE_SELF,
    )?;
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        let changes = Changes::beside(&file);
        assert!(changes.0.is_some());
        assert!(!changes.any());
        std::fs::write(&file, "a").unwrap();
        assert!(changes.any());
        assert!(!changes.any());
        std::fs::remove_file(&file).unwrap();
        assert!(changes.any());
        assert!(!changes.any());
        std::fs::write(folder.path().join("next"), "b").unwrap();
        std::fs::rename(folder.path().join("next"), &file).unwrap();
        assert!(changes.any());
    }

    #[test]
    fn without_notices_anything_may_have_happened() {
        let changes = Changes::beside(Path::new("/no/such/folder/script"));
        assert!(changes.any() && changes.any());
    }
}
