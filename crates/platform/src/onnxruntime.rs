//! ONNX Runtime, loaded once a process from the path given, never from the environment, and the files of its models.

use docmill_model::{Code, Failure};
use ort::environment::Environment;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The one environment of the process, with the library at `path`.
pub(crate) fn environment(path: &Path) -> Result<Environment, Failure> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !path.is_file() {
        return Err(Failure::new(Code::PartMissing, format!("{} does not exist", path.display())));
    }
    let library = |error: &dyn std::fmt::Display| {
        Failure::new(Code::ConfigInvalid, format!("{} cannot be used: {error}", path.display()))
    };
    let environment = ort::init_from(&path).map_err(|e| library(&e))?.build().map_err(|e| library(&e))?;
    Ok(loaded.insert(environment).clone())
}

/// A file of a model's folder.
pub(crate) fn model_file(folder: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    std::fs::read(&path)
        .map_err(|error| Failure::new(Code::PartMissing, format!("cannot read {}: {error}", path.display())))
}
