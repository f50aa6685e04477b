//! Small durable file operations: private modes, atomic replacement, random secrets kept in files.

use docmill_model::{Code, Failure};
use rand::RngExt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Turns an IO error into one line that names the path.
pub fn io_failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("cannot {what} {}: {error}", path.display()))
}

/// Creates a directory (and parents) that only its owner can enter.
///
/// # Errors
/// `CONFIG_INVALID` naming the path.
pub fn private_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|e| io_failure("create", path, &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|e| io_failure("protect", path, &e))
}

/// Replaces a file atomically and durably: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// `CONFIG_INVALID` naming the path.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".tmp-{}", uuid::Uuid::new_v4()));
    let written = (|| -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    written.map_err(|e| io_failure("write", path, &e))
}

/// The secret in `path`, made on first use: 32 random bytes as hex.
///
/// # Errors
/// `CONFIG_INVALID` naming the path.
pub fn secret(path: &Path) -> Result<String, Failure> {
    if let Ok(text) = fs::read_to_string(path)
        && text.trim().len() == 64
    {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0u8; 32];
    rand::rng().fill(&mut bytes);
    let text = hex::encode(bytes);
    replace(path, text.as_bytes(), 0o600)?;
    Ok(text)
}
