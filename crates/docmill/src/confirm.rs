//! Asks before what cannot be taken back, or costs: at a terminal the person, elsewhere `--yes` is the answer.

use docmill_model::{Code, Failure};
use std::io::IsTerminal;

/// Passes when `yes` was given or the person at the terminal agrees. `what` completes "this would …".
///
/// # Errors
/// `FIELD_INVALID` when nobody agreed.
pub fn agreed(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::FieldInvalid, format!("this would {what}; repeat it with --yes")));
    }
    eprint!("{what}? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Code::FieldInvalid, "nothing was changed")),
    }
}
