//! The `tool` profile: a locked process that becomes one allow-listed binary, and the parent's call of it.

use super::lockdown::{Walls, lock};
use super::{Setup, ToolSetup};
use docmill_model::{Code, Failure};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Exit status of a launcher that could not build its sandbox.
const NO_SANDBOX: u8 = 71;
/// Most bytes a tool may write.
const OUTPUT_BYTES: u64 = 32 << 20;

/// Locks this process and executes the tool; returns only when that failed.
pub(super) fn become_tool(setup: &ToolSetup) -> ExitCode {
    let mut executable: Vec<PathBuf> = vec![setup.binary.clone()];
    executable.extend(["/lib", "/lib64", "/usr/lib", "/usr/lib64"].map(PathBuf::from));
    executable.extend(setup.libraries.iter().cloned());
    let mut readable = setup.readable.clone();
    readable.extend(["/etc/ld.so.cache", "/dev/null"].map(PathBuf::from));
    let walls = Walls {
        address_space_bytes: setup.memory_bytes,
        cpu_secs: setup.cpu_secs,
        readable: &readable,
        executable: &executable,
        landlock_required: setup.landlock_required,
    };
    if lock(&walls).is_err() {
        return ExitCode::from(NO_SANDBOX);
    }
    let mut command = std::process::Command::new(&setup.binary);
    command.args(&setup.arguments).env_clear();
    command.envs(setup.environment.iter().map(|(key, value)| (key, value)));
    let _error = command.exec();
    ExitCode::from(NO_SANDBOX)
}

/// How to start a launcher.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    /// Our binary.
    pub child: PathBuf,
    /// Its arguments before the setup.
    pub arguments: Vec<String>,
}

impl Launcher {
    /// A command that starts our binary with `setup`, an empty environment and a process group of its own.
    ///
    /// # Errors
    /// `INTERNAL` when the setup cannot be written.
    pub fn command(&self, setup: &Setup) -> Result<tokio::process::Command, Failure> {
        let setup = serde_json::to_string(setup)
            .map_err(|_| Failure::new(Code::Internal, "the child's setup cannot be written"))?;
        let mut command = tokio::process::Command::new(&self.child);
        command.args(&self.arguments).arg(setup).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Runs a tool over `input` and returns what it wrote.
    ///
    /// # Errors
    /// `PARSER_TIMEOUT`, `PARSER_CPU`, `PARSER_MEMORY`, `OUTPUT_LIMIT`, `OCR_FAILED`, `SANDBOX_UNAVAILABLE`.
    pub async fn run(&self, setup: ToolSetup, input: &[&[u8]], wall: Duration) -> Result<String, Failure> {
        let (memory, cpu) = (setup.memory_bytes, setup.cpu_secs);
        let mut command = self.command(&Setup::Tool(setup))?;
        command.stderr(Stdio::null());
        let mut child = command
            .spawn()
            .map_err(|_| Failure::new(Code::SandboxUnavailable, "the tool's launcher cannot be started"))?;
        let group = child.id();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                for part in input {
                    // A tool that has seen enough closes its end; its answer tells whether that was right.
                    if stdin.write_all(part).await.is_err() {
                        break;
                    }
                }
            }
        };
        let mut output = Vec::new();
        let read = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(OUTPUT_BYTES + 1).read_to_end(&mut output).await;
            }
        };
        let finished = tokio::time::timeout(wall, async {
            tokio::join!(write, read);
            child.wait().await
        })
        .await;
        super::parent::kill_group(group);
        let status = match finished {
            Err(_) => {
                let _ = child.wait().await;
                return Err(Failure::limit(
                    Code::ParserTimeout,
                    "recognition took too long",
                    wall.as_secs(),
                    wall.as_secs(),
                ));
            }
            Ok(status) => status.map_err(|_| Failure::new(Code::OcrFailed, "the tool's end cannot be observed"))?,
        };
        if output.len() as u64 > OUTPUT_BYTES {
            return Err(Failure::limit(
                Code::OutputLimit,
                "the tool wrote too much",
                OUTPUT_BYTES,
                output.len() as u64,
            ));
        }
        if status.success() {
            return Ok(String::from_utf8_lossy(&output).into_owned());
        }
        let (signal, exit) = (status.signal(), status.code());
        let failure = match (signal, exit) {
            (Some(libc::SIGXCPU), _) => {
                Failure::limit(Code::ParserCpu, "recognition took too much processor time", cpu, cpu)
            }
            (_, Some(code)) if code == i32::from(NO_SANDBOX) => {
                Failure::new(Code::SandboxUnavailable, "the tool's sandbox cannot be built")
            }
            (Some(libc::SIGABRT), _) => {
                Failure::limit(Code::ParserMemory, "recognition needs more memory than it may", memory, memory)
            }
            _ => Failure::new(Code::OcrFailed, "the tool failed"),
        };
        // The failure of a page tells neither; what the tool wrote may be the document's text and is told nowhere.
        tracing::warn!(code = %failure.code, exit, signal, "a recognition ended badly");
        Err(failure)
    }
}
