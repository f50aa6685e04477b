//! TREC run files: `question Q0 entry rank score tag`, what trec_eval and its kin read.

use super::beir::Rankings;
use docmill_model::{Code, Failure};
use std::fmt::Write as _;
use std::path::Path;

/// The rankings as text, ranks from 1. Whitespace within ids and tag becomes `_`: columns are split at it.
#[must_use]
pub fn run_text(rankings: &Rankings, tag: &str) -> String {
    let column = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("_");
    let mut out = String::new();
    for (question, ranking) in rankings {
        for (place, (entry, score)) in ranking.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{} Q0 {} {} {score:.6} {}", column(question), column(entry), place + 1, column(tag));
        }
    }
    out
}

/// Writes the rankings to `path`.
///
/// # Errors
/// `FIELD_INVALID` when the file cannot be written.
pub fn write_run(path: &Path, rankings: &Rankings, tag: &str) -> Result<(), Failure> {
    std::fs::write(path, run_text(rankings, tag)).map_err(|error| {
        Failure::new(Code::FieldInvalid, format!("{} cannot be written ({})", path.display(), error.kind()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_six_columns_and_ranks_from_one() {
        let rankings = Rankings::from([("q 1".to_owned(), vec![("a".to_owned(), 2.5), ("b".to_owned(), 1.0)])]);
        assert_eq!(
            run_text(&rankings, "docmill hybrid"),
            "q_1 Q0 a 1 2.500000 docmill_hybrid\nq_1 Q0 b 2 1.000000 docmill_hybrid\n"
        );
    }
}
