//! Tesseract, run by the parent for its locked children: one sandboxed process a page, one thread each.

use crate::frames::{OcrRequest, Reading};
use crate::limits::Limits;
use crate::sandbox::ToolSetup;
use crate::sandbox::tool::Launcher;
use docmill_model::{Code, Failure};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Where tesseract is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TesseractConfig {
    /// The binary.
    pub binary: PathBuf,
    /// The folder with `*.traineddata`.
    pub tessdata: PathBuf,
    /// Extra library folder, when it is unpacked rather than installed.
    pub libraries: Option<PathBuf>,
}

/// A recogniser with its language packs and its slots.
pub(crate) struct Recogniser {
    config: TesseractConfig,
    launcher: Launcher,
    packs: Vec<String>,
    slots: Semaphore,
    landlock_required: bool,
}

impl Recogniser {
    /// `None` when the binary or every language pack is missing.
    pub fn find(config: TesseractConfig, launcher: Launcher, slots: usize, landlock_required: bool) -> Option<Self> {
        let files = std::fs::read_dir(&config.tessdata).ok()?;
        let mut packs: Vec<String> = (files.flatten())
            .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".traineddata")?.to_owned()))
            .collect();
        packs.sort();
        let usable = config.binary.is_file() && packs.iter().any(|pack| pack != "osd");
        usable.then(|| Self { config, launcher, packs, slots: Semaphore::new(slots.max(1)), landlock_required })
    }

    /// Installed language packs (`osd` among them, where installed).
    pub fn packs(&self) -> &[String] {
        &self.packs
    }

    /// Words of an image as tesseract's table, or its orientation.
    ///
    /// # Errors
    /// Those of [`Launcher::run`]; `OCR_FAILED` for a request whose numbers do not fit.
    pub async fn recognise(&self, request: &OcrRequest, pixels: &[u8], limits: &Limits) -> Result<String, Failure> {
        let area = u64::from(request.width) * u64::from(request.height);
        let languages: Vec<&str> = request.languages.split('+').collect();
        // The child is not trusted: what it asks for must exist and fit.
        let sound =
            area > 0 && area == pixels.len() as u64 && languages.iter().all(|l| self.packs.iter().any(|p| p == l));
        if !sound {
            return Err(Failure::new(Code::OcrFailed, "the parser asked for an impossible recognition"));
        }
        let _slot = self.slots.acquire().await.map_err(|_| Failure::new(Code::Internal, "recognition is shut down"))?;
        let header = format!("P5\n{} {}\n255\n", request.width, request.height);
        let setup = self.setup(request, limits);
        self.launcher.run(setup, &[header.as_bytes(), pixels], Duration::from_secs(limits.ocr_page_secs)).await
    }

    fn setup(&self, request: &OcrRequest, limits: &Limits) -> ToolSetup {
        let mut arguments: Vec<String> = ["stdin", "stdout", "--dpi"].map(str::to_owned).to_vec();
        arguments.push(request.dpi.clamp(70, 2_400).to_string());
        let rest: &[&str] = match request.reading {
            Reading::Orientation => &["--psm", "0"],
            Reading::Page => &["-l", &request.languages, "--psm", "3", "-c", "tessedit_create_tsv=1"],
            Reading::Sparse => &["-l", &request.languages, "--psm", "11", "-c", "tessedit_create_tsv=1"],
        };
        arguments.extend(rest.iter().map(|&argument| argument.to_owned()));
        let tessdata = self.config.tessdata.to_string_lossy().into_owned();
        let mut environment =
            vec![("TESSDATA_PREFIX".to_owned(), tessdata), ("OMP_THREAD_LIMIT".to_owned(), "1".to_owned())];
        if let Some(libraries) = &self.config.libraries {
            environment.push(("LD_LIBRARY_PATH".to_owned(), libraries.to_string_lossy().into_owned()));
        }
        ToolSetup {
            binary: self.config.binary.clone(),
            arguments,
            environment,
            readable: vec![self.config.tessdata.clone()],
            libraries: self.config.libraries.iter().cloned().collect(),
            memory_bytes: limits.ocr_memory_bytes,
            cpu_secs: limits.ocr_page_secs,
            landlock_required: self.landlock_required,
        }
    }
}
