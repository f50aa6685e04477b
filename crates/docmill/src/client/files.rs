//! Files to upload: found in folders, hashed, and given the media type their name suggests.

use docmill_model::{Code, Failure, Sha256Hex};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file as it is declared.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its hash.
    pub sha256: Sha256Hex,
    /// Media type by its extension.
    pub content_type: &'static str,
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::NotFound, format!("cannot read {}: {error}", path.display()))
}

/// Reads and hashes a file. Blocks.
///
/// # Errors
/// `NOT_FOUND` naming the path.
pub fn read(path: &Path) -> Result<LocalFile, Failure> {
    let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let (mut hasher, mut buffer, mut size_bytes) = (Sha256::new(), vec![0; 1 << 20], 0u64);
    loop {
        let read = file.read(&mut buffer).map_err(|e| unreadable(path, &e))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
    Ok(LocalFile {
        path: path.to_owned(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        size_bytes,
        sha256: Sha256Hex::from_digest(&hasher.finalize().into()),
        content_type: content_type(path),
    })
}

/// The files of `paths`, folders walked in order of names; hidden files and folders inside are left out.
///
/// # Errors
/// `NOT_FOUND` naming a path that cannot be read.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let walk = walkdir::WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path())) {
            let entry = entry.map_err(|e| unreadable(path, &e))?;
            if entry.file_type().is_file() {
                found.push(entry.into_path());
            }
        }
    }
    Ok(found)
}

/// Names of editors' and shells' own files.
pub fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.ends_with('~') || name.ends_with(".part")
}

/// The media type a name suggests; the roles look at the bytes.
pub fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "pdf" => "application/pdf",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "html" | "htm" | "xhtml" => "text/html",
        "md" | "markdown" => "text/markdown",
        "txt" | "text" | "log" => "text/plain",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "tif" | "tiff" => "image/tiff",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}
