//! Small file systems that can be filled: tmpfs mounts, where this user may make them.

use anyhow::{Context, Result, ensure};
use docmill_embedded::Home;
use rand::RngExt;
use rand::rngs::StdRng;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Folders under the data folder with their sizes; the index of the API is one.
const MOUNTS: [(&str, &str); 3] = [("nats", "64m"), ("objects", "768m"), ("api", "256m")];

/// Mounts them; says why not when this user may not.
pub fn mount(home: &Home) -> Result<()> {
    for (name, size) in MOUNTS {
        let folder = home.data().join(name);
        std::fs::create_dir_all(&folder)?;
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).output();
        let mounted = mounted.context("there is no mount command")?;
        ensure!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr).trim());
        home.give(&folder)?;
    }
    Ok(())
}

/// True when this user may mount.
pub fn may_mount() -> bool {
    docmill_embedded::home::is_root()
}

/// Takes the mounts of a home away again.
pub fn unmount(home: &Home) {
    for (name, _) in MOUNTS {
        let folder = home.data().join(name);
        let _ = Command::new("umount").arg("-l").arg(folder).stderr(Stdio::null()).status();
    }
}

/// A file that takes all the space there is; the space returns when it is dropped.
pub struct Full(PathBuf);

/// Fills one of the mounts; returns which.
pub fn fill(home: &Home, rng: &mut StdRng) -> Result<(&'static str, Full)> {
    let (name, _) = MOUNTS[rng.random_range(0..MOUNTS.len())];
    let full = Full(home.data().join(name).join("filler"));
    let mut file = std::fs::File::create(&full.0)?;
    for block in [vec![7u8; 1 << 20], vec![7u8; 4096], vec![7u8; 1]] {
        while file.write_all(&block).is_ok() {}
    }
    Ok((name, full))
}

impl Drop for Full {
    fn drop(&mut self) {
        // Twice: the first attempt may meet a server that just removes the folder around it.
        for _ in 0..2 {
            if std::fs::remove_file(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
