//! Locks the calling process, for good: resource limits, no new privileges, Landlock, system call filter.
//!
//! Must run while the process has one thread; Landlock and the filter bind the calling thread and what it starts.

use crate::frames::Lockdown;
use docmill_model::{Code, Failure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What stays possible.
pub(super) struct Walls<'a> {
    /// Address space of the process.
    pub address_space_bytes: u64,
    /// Processor time.
    pub cpu_secs: u64,
    /// Files and folders that may be read.
    pub readable: &'a [PathBuf],
    /// Files and folders that may be read and executed; empty for a process that executes nothing.
    pub executable: &'a [PathBuf],
    /// Refuse to go on without Landlock.
    pub landlock_required: bool,
}

/// System calls of a process that computes and talks over open descriptors.
const COMPUTE: [i64; 33] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_ppoll,
];

/// Further calls of a program that starts, loads its libraries and opens its files; Landlock says which.
const START: [i64; 17] = [
    libc::SYS_execve,
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_prlimit64,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_getcwd,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getdents64,
    libc::SYS_set_tid_address,
    libc::SYS_getuid,
    libc::SYS_dup,
];

#[cfg(target_arch = "x86_64")]
const START_HERE: [i64; 6] =
    [libc::SYS_arch_prctl, libc::SYS_access, libc::SYS_readlink, libc::SYS_open, libc::SYS_stat, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const START_HERE: [i64; 0] = [];

/// Builds the walls.
///
/// # Errors
/// `SANDBOX_UNAVAILABLE` when a mandatory one cannot be built.
pub(super) fn lock(walls: &Walls) -> Result<Lockdown, Failure> {
    rustix::thread::set_no_new_privs(true).map_err(|_| unavailable("no_new_privs is refused"))?;
    let landlock = landlock(walls)?;
    if walls.landlock_required && landlock != "full" {
        return Err(unavailable("Landlock is required by the configuration, and the kernel does not enforce it fully"));
    }
    // After Landlock, whose rules need descriptors of their own.
    limit_resources(walls)?;
    filter(!walls.executable.is_empty())?;
    Ok(Lockdown {
        landlock: landlock.to_owned(),
        seccomp: true,
        pdfium: false,
        address_space_bytes: walls.address_space_bytes,
    })
}

fn unavailable(message: &str) -> Failure {
    Failure::new(Code::SandboxUnavailable, message)
}

fn limit_resources(walls: &Walls) -> Result<(), Failure> {
    let cap = |resource, value| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
            .map_err(|_| unavailable("a resource limit is refused"))
    };
    // The soft limit's signal tells processor time apart from other ends; the hard one follows.
    let cpu = Rlimit { current: Some(walls.cpu_secs), maximum: Some(walls.cpu_secs + 2) };
    setrlimit(Resource::Cpu, cpu).map_err(|_| unavailable("a resource limit is refused"))?;
    cap(Resource::As, walls.address_space_bytes)?;
    cap(Resource::Fsize, 0)?;
    cap(Resource::Core, 0)?;
    cap(Resource::Nofile, if walls.executable.is_empty() { 4 } else { 64 })?;
    cap(Resource::Nproc, 0)
}

fn landlock(walls: &Walls) -> Result<&'static str, Failure> {
    let abi = ABI::V6;
    let build = || {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        ruleset
            .add_rules(path_beneath_rules(walls.readable, read))?
            .add_rules(path_beneath_rules(walls.executable, read | AccessFs::Execute))?
            .restrict_self()
    };
    let status = build().map_err(|_| unavailable("Landlock refuses the rules"))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    })
}

fn filter(starts: bool) -> Result<(), Failure> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = COMPUTE.iter().map(|&call| (call, Vec::new())).collect();
    if starts {
        rules.extend(START.iter().chain(&START_HERE).map(|&call| (call, Vec::new())));
        rules.extend([libc::SYS_mmap, libc::SYS_mprotect].map(|call| (call, Vec::new())));
    } else {
        // Memory may be written or executed, but a locked parser has no reason to make any executable.
        let plain = || rule(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
        rules.insert(libc::SYS_mmap, vec![plain()?]);
        rules.insert(libc::SYS_mprotect, vec![plain()?]);
    }
    // Ending itself is allowed (abort), signalling others is not.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Eq, own)?]);
    rules.insert(libc::SYS_clone, Vec::new());
    rules.insert(libc::SYS_clone3, Vec::new());
    // "Not supported" instead of "not permitted": libraries then go on with the thread they have. This filter comes
    // first, because the other one ends the installing of filters.
    let threads = [libc::SYS_clone, libc::SYS_clone3].map(|call| (call, Vec::new())).into_iter().collect();
    install(threads, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    install(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Failure> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    condition.and_then(|c| SeccompRule::new(vec![c])).map_err(|_| unavailable("the system call filter cannot be built"))
}

fn install(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<(), Failure> {
    let failed = || unavailable("the system call filter cannot be built");
    let arch = std::env::consts::ARCH.try_into().map_err(|_| failed())?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|_| failed())?;
    let program: BpfProgram = filter.try_into().map_err(|_| failed())?;
    apply_filter(&program).map_err(|_| unavailable("the kernel refuses the system call filter"))
}

#[cfg(test)]
mod tests {
    use super::{COMPUTE, START};

    /// Everything that no filter names is denied, also what no library lets the probe try.
    #[test]
    fn no_filter_lets_through_what_leads_out() {
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_kill,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execveat,
        ] {
            assert!(!COMPUTE.contains(&call) && !START.contains(&call), "system call {call} is allowed");
        }
        assert!(!COMPUTE.contains(&libc::SYS_execve) && !COMPUTE.contains(&libc::SYS_openat));
    }
}
