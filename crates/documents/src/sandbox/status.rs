//! Memory of a process as the kernel counts it.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Sizes of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Largest resident size.
    pub peak_rss_bytes: u64,
    /// Largest address space.
    pub peak_size_bytes: u64,
    /// Address space now.
    pub size_bytes: u64,
}

/// Reads an open `/proc/…/status`; works after the process may open nothing any more.
pub(super) fn read(status: &File) -> Memory {
    let mut buffer = [0; 4_096];
    let length = status.read_at(&mut buffer, 0).unwrap_or(0);
    parse(&String::from_utf8_lossy(&buffer[..length]))
}

/// Reads the sizes of another process; zeros when it is gone.
pub(super) fn of(pid: u32) -> Memory {
    File::open(format!("/proc/{pid}/status")).map(|file| read(&file)).unwrap_or_default()
}

fn parse(text: &str) -> Memory {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1_024)
    };
    Memory {
        peak_rss_bytes: value("VmHWM:").unwrap_or(0),
        peak_size_bytes: value("VmPeak:").unwrap_or(0),
        size_bytes: value("VmSize:").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_own_process_has_sizes() {
        let memory = super::of(std::process::id());
        assert!(
            memory.peak_rss_bytes > 1 << 20 && memory.peak_size_bytes >= memory.peak_rss_bytes.max(memory.size_bytes)
        );
        assert_eq!(super::of(u32::MAX), super::Memory::default());
    }
}
