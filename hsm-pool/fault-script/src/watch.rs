//! The shell around the rules: the file that an environment variable names, the clock, and the faults that end a call.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::changes::Changes;
use crate::rules::{Rules, Verdict};
use crate::script::{Crash, Script};
use crate::vocabulary::Vocabulary;

/// A script file, read anew when it has changed. A file that is not there says nothing.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    vocabulary: &'static Vocabulary,
    changes: Changes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Which file the rules were read from.
    stamp: Option<Stamp>,
    read: Instant,
    rules: Rules,
    random: fastrand::Rng,
    /// The file there is now has no meaning, and the rules are those of the one before.
    broken: bool,
}

/// Tells one version of a file from another; one that was moved into its place has another inode.
type Stamp = (u64, u64, Option<SystemTime>);

#[expect(
    clippy::disallowed_methods,
    reason = "a C library has no caller that could give it the time"
)]
fn now() -> Instant {
    Instant::now()
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.modified().ok()))
}

impl Watch {
    /// The script in the file that this environment variable names; `None` without the variable.
    pub fn from_environment(variable: &str, vocabulary: &'static Vocabulary) -> Option<Self> {
        Some(Self::new(std::env::var_os(variable)?.into(), vocabulary))
    }

    /// The script in this file.
    pub fn new(path: PathBuf, vocabulary: &'static Vocabulary) -> Self {
        let state = State {
            stamp: None,
            read: now(),
            rules: Rules::new(Script::default()),
            random: fastrand::Rng::new(),
            broken: false,
        };
        // Notices begin before the first look, so that no change falls between the two.
        let changes = Changes::beside(&path);
        let watch = Self {
            path,
            vocabulary,
            changes,
            state: Mutex::new(state),
        };
        watch.look(&mut watch.state.lock());
        watch
    }

    /// What becomes of a call of the function at this place of the vocabulary.
    pub fn judge(&self, function: usize) -> Verdict {
        let mut state = self.newest();
        let State {
            rules, random, read, ..
        } = &mut *state;
        rules.judge(function, now().saturating_duration_since(*read), random)
    }

    /// Whether the file there is now could not be understood. What was wrong went to standard error.
    pub fn is_broken(&self) -> bool {
        self.newest().broken
    }

    fn newest(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if self.changes.any() {
            self.look(&mut state);
        }
        state
    }

    fn look(&self, state: &mut State) {
        let stamp = stamp(&self.path);
        if stamp != state.stamp {
            state.stamp = stamp;
            self.read(state);
        }
    }

    fn read(&self, state: &mut State) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        match Script::parse(&text, self.vocabulary) {
            Ok(script) => {
                state.random = script
                    .seed
                    .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
                state.rules = Rules::new(script);
                state.read = now();
                state.broken = false;
            }
            Err(error) => {
                eprintln!(
                    "{}: {error}; the script before it stays in force",
                    self.path.display()
                );
                state.broken = true;
            }
        }
    }
}

/// Never returns.
pub fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Ends the process.
#[expect(unsafe_code, reason = "a segmentation fault cannot be had without")]
pub fn crash(how: Crash) -> ! {
    match how {
        Crash::Abort => std::process::abort(),
        Crash::Exit(code) => std::process::exit(code),
        Crash::Segfault => {
            // SAFETY: none; the first page is never mapped, and the fault is what was asked for.
            unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(0) };
            std::process::abort()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Fault;
    use crate::script::tests::{SIGN, VOCABULARY};

    struct File {
        folder: tempfile::TempDir,
        watch: Watch,
    }

    impl File {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let watch = Watch::new(folder.path().join("script"), &VOCABULARY);
            Self { folder, watch }
        }

        fn write(&self, script: &str) {
            let next = self.folder.path().join("next");
            std::fs::write(&next, script).unwrap();
            std::fs::rename(next, self.folder.path().join("script")).unwrap();
        }

        fn fault(&self) -> Fault {
            self.watch.judge(SIGN).fault
        }
    }

    #[test]
    fn the_call_after_a_change_obeys_it() {
        let file = File::new();
        assert_eq!(file.fault(), Fault::Ok);
        file.write("hang");
        assert_eq!(file.fault(), Fault::Hang);
        file.write("lost");
        assert_eq!(file.fault(), Fault::Lost);
        std::fs::remove_file(file.folder.path().join("script")).unwrap();
        assert_eq!(file.fault(), Fault::Ok);
    }

    #[test]
    fn counting_goes_on_while_the_file_stays() {
        let file = File::new();
        file.write("times 1 wrong");
        assert_eq!([file.fault(), file.fault()], [Fault::Wrong, Fault::Ok]);
    }

    #[test]
    fn a_script_without_meaning_leaves_the_one_before_in_force() {
        let file = File::new();
        file.write("wrong");
        assert_eq!(file.fault(), Fault::Wrong);
        file.write("worng");
        assert!(file.watch.is_broken());
        assert_eq!(file.fault(), Fault::Wrong);
        file.write("ok");
        assert!(!file.watch.is_broken());
        assert_eq!(file.fault(), Fault::Ok);
    }
}
