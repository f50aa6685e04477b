//! Tries to get out of the sandbox, from inside it. Every attempt must be denied; a test and `docmill doctor` ask.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, daemon, execve};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::IoSliceMut;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

/// Attempts by name and what came of each: `denied` or `ALLOWED`.
pub(super) fn attempts() -> BTreeMap<&'static str, &'static str> {
    let denied = |success: bool| if success { "ALLOWED" } else { "denied" };
    let parent = rustix::process::getppid();
    let pid = parent.map(|pid| Pid::from_raw(pid.as_raw_nonzero().get()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    BTreeMap::from([
        ("open_file", denied(std::fs::File::open("/etc/passwd").is_ok())),
        ("open_proc", denied(std::fs::File::open("/proc/self/mem").is_ok())),
        ("list_folder", denied(std::fs::read_dir("/").is_ok())),
        ("create_file", denied(std::fs::write("/tmp/docmill-probe", b"x").is_ok())),
        ("make_folder", denied(std::fs::create_dir("/tmp/docmill-probe-folder").is_ok())),
        ("remove_file", denied(std::fs::remove_file("/tmp/docmill-probe-victim").is_ok_and(|()| true))),
        // A refused connection means that the packet was sent.
        (
            "connect_tcp",
            denied(TcpStream::connect_timeout(&address, Duration::from_millis(200)).map_or_else(refused, |_| true)),
        ),
        ("bind_udp", denied(UdpSocket::bind("127.0.0.1:0").is_ok())),
        ("connect_unix", denied(UnixStream::connect("/run/docmill-probe").map_or_else(refused, |_| true))),
        ("socket_pair", denied(UnixDatagram::pair().is_ok())),
        ("execute", denied(Command::new("/bin/true").spawn().is_ok())),
        // Where this is allowed there is no answer, which is a failed probe too.
        ("become_another_program", denied(execve(c"/bin/true", &[c"true"], &[] as &[&CStr]).is_ok())),
        ("fork", denied(forks())),
        ("fork_thread", denied(std::thread::Builder::new().spawn(|| {}).is_ok())),
        ("signal_parent", denied(parent.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()))),
        (
            "watch_parent",
            denied(
                parent
                    .is_some_and(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).is_ok()),
            ),
        ),
        ("ptrace_parent", denied(pid.is_some_and(|pid| ptrace::attach(pid).is_ok()))),
        ("ptrace_consent_to_parent", denied(ptrace::traceme().is_ok())),
        ("read_parents_memory", denied(pid.is_some_and(reads_memory))),
        ("ptrace_consent", denied(rustix::process::set_ptracer(rustix::process::PTracer::Any).is_ok())),
        ("raise_limit", denied(raises_limit())),
        ("change_folder", denied(std::env::set_current_dir("/").is_ok())),
        ("environment", denied(std::env::vars_os().next().is_some())),
    ])
}

/// `daemon` forks; where that is forbidden its error is that of the filter, where it is not it may fail later.
fn forks() -> bool {
    !matches!(daemon(true, true), Err(Errno::ENOSYS | Errno::EPERM | Errno::EAGAIN))
}

/// An address that is not mapped is still an address that was looked at.
fn reads_memory(pid: Pid) -> bool {
    let mut bytes = [0; 8];
    let from = [RemoteIoVec { base: 0x1000, len: bytes.len() }];
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &from);
    matches!(read, Ok(_) | Err(Errno::EFAULT))
}

fn raises_limit() -> bool {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(4), maximum: Some(4) }).is_ok()
}
