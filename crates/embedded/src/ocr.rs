//! Tesseract: used when installed, installed when Docmill is set up by root, otherwise unpacked into the home.

use crate::home::{Home, is_root};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where tesseract and its language data are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tesseract {
    /// The binary.
    pub binary: PathBuf,
    /// The folder with `*.traineddata`.
    pub tessdata: PathBuf,
    /// Extra library folder (when unpacked without installation).
    pub libraries: Option<PathBuf>,
}

/// Finds an installed or unpacked tesseract.
#[must_use]
pub fn find(home: &Home) -> Option<Tesseract> {
    installed().or_else(|| under(&home.parts().join("tesseract")))
}

/// The tesseract of this machine, if any.
#[must_use]
pub fn installed() -> Option<Tesseract> {
    under(Path::new("/"))
}

fn under(root: &Path) -> Option<Tesseract> {
    let binary = ["usr/bin/tesseract", "usr/local/bin/tesseract"].iter().map(|b| root.join(b)).find(|b| b.is_file())?;
    let data = ["usr/share/tesseract-ocr/5/tessdata", "usr/share/tesseract-ocr/4.00/tessdata", "usr/share/tessdata"];
    let tessdata = data.iter().map(|d| root.join(d)).find(|d| d.join("eng.traineddata").is_file())?;
    let libraries =
        (root != Path::new("/")).then(|| root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    Some(Tesseract { binary, tessdata, libraries })
}

/// Makes tesseract available if that is possible; its absence is never fatal (scans then end `OCR_UNAVAILABLE`).
pub fn provide(home: &Home, progress: &mut dyn FnMut(&str)) -> Option<Tesseract> {
    if let Some(found) = find(home) {
        return Some(found);
    }
    progress("installing tesseract-ocr");
    if is_root() {
        install()
    } else {
        unpack(home)
    }
    let found = find(home);
    if found.is_none() {
        progress(
            "tesseract-ocr could not be installed: scans will end OCR_UNAVAILABLE (fix: apt-get install tesseract-ocr)",
        );
    }
    found
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn install() {
    let _ = quiet("apt-get").args(["update", "-qq"]).status();
    let _ = quiet("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends", "tesseract-ocr", "tesseract-ocr-deu"])
        .status();
}

/// Downloads the packages that are not installed and unpacks them without installing.
fn unpack(home: &Home) {
    let download = home.parts().join(".download-tesseract");
    let _ = std::fs::remove_dir_all(&download);
    if std::fs::create_dir_all(&download).is_err() {
        return;
    }
    let simulated = Command::new("apt-get")
        .args(["install", "--simulate", "--no-install-recommends", "tesseract-ocr", "tesseract-ocr-deu"])
        .output();
    let Ok(output) = simulated else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let packages: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("Inst ")?.split(' ').next()).collect();
    if packages.is_empty()
        || !quiet("apt-get").arg("download").args(&packages).current_dir(&download).status().is_ok_and(|s| s.success())
    {
        return;
    }
    let staging = home.parts().join(".unpack-tesseract");
    let _ = std::fs::remove_dir_all(&staging);
    let Ok(entries) = std::fs::read_dir(&download) else { return };
    for package in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "deb")) {
        if !quiet("dpkg").arg("-x").arg(&package).arg(&staging).status().is_ok_and(|s| s.success()) {
            return;
        }
    }
    let _ = std::fs::rename(&staging, home.parts().join("tesseract"));
    let _ = std::fs::remove_dir_all(&download);
}
