//! A small disk of the test's own: a tmpfs in a mount namespace that a shell holds open. The engine enters it, nothing
//! outside sees it, and it is gone with the shell.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use protocol::client::Profile;

use crate::support::{BINARY, Ran, run};

pub(crate) struct RamDisk {
    shell: Child,
    /// Closed when the disk goes, which ends the shell.
    _orders: ChildStdin,
    /// Where it is mounted, as those who have entered see it.
    at: PathBuf,
    flags: Vec<String>,
}

impl RamDisk {
    /// Mounts it on a new folder.
    pub(crate) fn mount(at: &Path, mib: u32) -> Self {
        std::fs::create_dir(at).unwrap();
        let is_root = rustix::process::getuid().is_root();
        // Without root a user namespace lends us the right to mount.
        let user: &[&str] = if is_root {
            &[]
        } else {
            &["--user", "--map-root-user"]
        };
        let script =
            format!("mount -t tmpfs -o size={mib}m,mode=0700 tmpfs \"$0\" && echo mounted && read _");
        let mut shell = Command::new("unshare")
            .arg("--mount")
            .args(user)
            .args(["sh", "-c", &script])
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "mounted\n",
            "this system lets nobody mount a tmpfs, not even in a namespace"
        );
        let user: &[&str] = if is_root {
            &[]
        } else {
            &["--user", "--preserve-credentials"]
        };
        let flags = user.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            _orders: shell.stdin.take().unwrap(),
            shell,
            at: at.into(),
            flags,
        }
    }

    /// The command that runs another one where the disk can be seen.
    pub(crate) fn enter(&self) -> Vec<String> {
        let target = self.shell.id().to_string();
        let mut words: Vec<String> = ["nsenter", "--mount", "--target", &target]
            .map(str::to_owned)
            .into();
        words.extend(self.flags.iter().cloned());
        // The working folder is looked up again, inside.
        words.push(format!("--wdns={}", self.at.parent().unwrap().display()));
        words
    }

    /// A path on the disk, as everybody sees it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.shell.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    pub(crate) fn read_profile(&self, name: &str) -> Profile {
        Profile::read(&self.path(name)).unwrap()
    }

    /// Takes all the room there is.
    pub(crate) fn fill(&self) {
        let mut ballast = std::fs::File::create(self.path("ballast")).unwrap();
        for bytes in [&[0; 65_536][..], &[0; 512]] {
            while ballast.write_all(bytes).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.path("ballast")).unwrap();
    }

    /// Runs a command of the binary on the disk.
    pub(crate) fn cinnabar(&self, folder: &Path, arguments: &[&str]) -> Ran {
        let words = self.enter();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg(BINARY)
            .args(["--home", "var"])
            .args(arguments);
        run(command.current_dir(folder))
    }
}

impl Drop for RamDisk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
