//! How a command ends, for people and scripts.

use docmill_model::{Code, Failure};
use std::process::ExitCode;

/// The exit codes, as every `--help` shows them.
pub const HELP: &str = "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 configuration or a missing part · \
4 a service does not answer · 5 the API refused · 6 a document failed, an invariant is violated or was not judged, or a check failed";

/// Why a command did not end with 0.
#[derive(Debug)]
pub enum Ending {
    /// Something went wrong here.
    Failed(Failure),
    /// The API answered with a problem.
    Refused(Failure),
    /// The command did its work and found something bad, which it has already shown.
    Found,
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Ending::Failed(failure)
    }
}

impl Ending {
    /// Prints what has not been shown yet and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (failure, code) = match self {
            Ending::Found => return ExitCode::from(6),
            Ending::Refused(failure) => (failure, 5),
            Ending::Failed(failure) => {
                let code = match failure.code {
                    Code::ConfigInvalid | Code::PartMissing | Code::Conflict | Code::PipelineInvalid => 3,
                    Code::DatabaseUnavailable | Code::BrokerUnavailable | Code::StoreUnavailable => 4,
                    _ => 1,
                };
                (failure, code)
            }
        };
        eprintln!("docmill: {failure}");
        if let (Some(limit), Some(measured)) = (failure.limit, failure.measured) {
            eprintln!("         limit {limit}, measured {measured}");
        }
        ExitCode::from(code)
    }
}
