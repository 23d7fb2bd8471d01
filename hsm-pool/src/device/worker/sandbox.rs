//! What a worker process gives up. It holds a PIN and open sessions, and runs a vendor's library.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// No core dump, no debugger, no swapping where that is allowed. Failing to set one of these is no reason to stop:
/// the machine may not allow it, and the device is still needed.
pub(super) fn seal() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // With a small limit a locked process would fail at its next allocation, which is worse than not locking.
    if rustix::process::getrlimit(Resource::Memlock).current.is_none() || rustix::process::geteuid().is_root()
    {
        let _ = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    }
}

/// Locks the process in, after the token is open and before there are other threads: it starts no program and looks
/// into no other process, and with `writable` it writes only there and listens on no port. What this kernel does
/// not know is not enforced; the device is needed all the same.
pub(super) fn confine(writable: Option<&[&str]>) {
    if let Some(folders) = writable {
        let _ = restrict_files(folders);
    }
    let _ = restrict_calls();
}

fn restrict_files(writable: &[&str]) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V5;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp)?
        .create()?;
    for (path, access) in allowed(writable, abi) {
        // A folder that is not there needs no rule.
        if let Ok(folder) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn allowed<'a>(
    writable: &'a [&'a str],
    abi: ABI,
) -> impl Iterator<Item = (&'a str, landlock::BitFlags<AccessFs>)> {
    let everywhere = [("/", AccessFs::from_read(abi))];
    let devices = [("/dev/null", AccessFs::WriteFile.into())];
    let own = writable.iter().map(move |path| (*path, AccessFs::from_all(abi)));
    everywhere.into_iter().chain(devices).chain(own)
}

/// What no PKCS#11 or SDF library needs to sign: starting programs, looking into other processes, changing the
/// system. A list of what is allowed would have to know every vendor's library.
const FORBIDDEN: [libc::c_long; 20] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
];

fn restrict_calls() -> Option<()> {
    let rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into().ok()?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).ok()?;
    let program: BpfProgram = filter.try_into().ok()?;
    seccompiler::apply_filter(&program).ok()
}
