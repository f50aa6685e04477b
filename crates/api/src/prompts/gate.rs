//! What a version has to have measured before it is rolled out.
//!
//! The settings name a suite file and conditions for a prompt. A version that somebody newly gets needs a kept run of that
//! file (`docmill eval run FILE --prompt NAME@VERSION`) that passed its own conditions and fulfils none of these. A rollback
//! is never held up: it goes back to what held before.

use docmill_model::{Code, Failure};
use docmill_platform::gateway::prompts::evaluations::EvaluationRow;
use docmill_retrieval::eval::{Gate, Outcome};
use std::collections::BTreeMap;
use time::format_description::well_known::Rfc3339;

/// Most conditions that are named in a refusal.
const NAMED: usize = 5;

/// The gate of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutGate {
    /// Name of the suite file.
    pub evaluation: String,
    /// Conditions on its figures under which a version is refused; none of them compares with a baseline.
    pub fail_if: Vec<Gate>,
}

impl RolloutGate {
    /// Whether `version` of prompt `name` may be rolled out by what is kept of it.
    ///
    /// # Errors
    /// `EVALUATION_MISSING` when nothing is kept, or not what the conditions are about; `EVALUATION_FAILED` with what was
    /// measured against which limit.
    pub fn check(&self, name: &str, version: i32, rows: &[EvaluationRow]) -> Result<(), Failure> {
        let id = format!("{name}@{version}");
        let missing = |what: &str| {
            let how = format!("run `docmill eval run FILE --prompt {id}` with the suite file `{}`", self.evaluation);
            Failure::new(Code::EvaluationMissing, format!("{id}: {what}; {how}"))
        };
        let row = rows.iter().find(|row| row.version == version && row.evaluation == self.evaluation);
        let row = row.ok_or_else(|| missing("no evaluation is kept"))?;
        let outcomes: Vec<Outcome> =
            serde_json::from_value(row.suites.clone()).map_err(|_| missing("the kept evaluation cannot be read"))?;
        let mut broken = row.failed.clone();
        for gate in &self.fail_if {
            let found = gate.broken(&outcomes, &[]);
            broken.extend(found.map_err(|about_nothing| missing(&about_nothing.message))?);
        }
        if broken.is_empty() {
            return Ok(());
        }
        let left_out = broken.len().saturating_sub(NAMED);
        broken.truncate(NAMED);
        let more = if left_out == 0 { String::new() } else { format!("; and {left_out} more") };
        let at = row.created_at.format(&Rfc3339).unwrap_or_default();
        let message = format!("{id} failed `{}` at {at}: {}{more}", self.evaluation, broken.join("; "));
        Err(Failure::new(Code::EvaluationFailed, message))
    }
}

/// The gate of a prompt, as it is shown.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptGate {
    /// Name of the suite file that has to be passed.
    pub evaluation: String,
    /// Conditions on its figures under which a version is refused.
    pub fail_if: Vec<String>,
}

impl From<&RolloutGate> for PromptGate {
    fn from(gate: &RolloutGate) -> Self {
        let fail_if = gate.fail_if.iter().map(ToString::to_string).collect();
        Self { evaluation: gate.evaluation.clone(), fail_if }
    }
}

/// What a version measured.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptEvaluation {
    /// The version.
    pub version: i32,
    /// Name of the suite file.
    pub evaluation: String,
    /// What the run failed, in words; empty when it passed.
    pub failed: Vec<String>,
    /// The figures by `suite.measure`.
    pub figures: BTreeMap<String, f64>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: time::OffsetDateTime,
}

impl From<EvaluationRow> for PromptEvaluation {
    fn from(row: EvaluationRow) -> Self {
        let outcomes: Vec<Outcome> = serde_json::from_value(row.suites).unwrap_or_default();
        let named = |outcome: &Outcome| {
            let name = |measure: &str| format!("{}.{measure}", outcome.suite);
            outcome.measures.iter().map(|measure| (name(&measure.name), measure.value)).collect::<Vec<_>>()
        };
        let figures = outcomes.iter().flat_map(named).collect();
        Self {
            version: row.version,
            evaluation: row.evaluation,
            failed: row.failed,
            figures,
            created_at: row.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use docmill_retrieval::eval::Measure;
    use time::OffsetDateTime;

    fn row(version: i32, f1: f64, failed: &[&str]) -> EvaluationRow {
        let measures = vec![Measure::plain("token_f1", f1), Measure::plain("declined", 0.9)];
        let outcomes = [Outcome { suite: "faq".to_owned(), measures, ..Outcome::default() }];
        EvaluationRow {
            version,
            evaluation: "nightly".to_owned(),
            suites: serde_json::to_value(outcomes).unwrap(),
            failed: failed.iter().map(|&why| why.to_owned()).collect(),
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_version_passes_by_its_own_run_of_the_named_file_alone() {
        let fail_if = vec![Gate::parse("faq.token_f1 < 0.5").unwrap(), Gate::parse("faq.declined < 0.8").unwrap()];
        let gate = RolloutGate { evaluation: "nightly".to_owned(), fail_if };
        let rows =
            [row(2, 0.61, &[]), row(3, 0.4125, &[]), row(4, 0.61, &["worse *: faq.token_f1 went from 0.7 to 0.61"])];
        assert_eq!(gate.check("answer", 2, &rows), Ok(()));
        let failed = gate.check("answer", 3, &rows).unwrap_err();
        assert_eq!(failed.code, Code::EvaluationFailed);
        assert!(failed.message.contains("answer@3") && failed.message.contains("faq.token_f1 < 0.5"), "{failed}");
        assert!(failed.message.contains("is 0.4125") && !failed.message.contains("declined"), "{failed}");
        let own = gate.check("answer", 4, &rows).unwrap_err();
        assert!(own.code == Code::EvaluationFailed && own.message.contains("worse *"), "{own}");
        assert_eq!(gate.check("answer", 5, &rows).unwrap_err().code, Code::EvaluationMissing);
        let other = RolloutGate { evaluation: "weekly".to_owned(), ..gate };
        assert_eq!(other.check("answer", 2, &rows).unwrap_err().code, Code::EvaluationMissing);
    }

    #[test]
    fn a_run_that_left_out_what_the_gate_looks_at_does_not_pass_it() {
        let fail_if = vec![Gate::parse("injection.resisted < 1").unwrap()];
        let gate = RolloutGate { evaluation: "nightly".to_owned(), fail_if };
        let failure = gate.check("answer", 2, &[row(2, 0.9, &[])]).unwrap_err();
        assert_eq!(failure.code, Code::EvaluationMissing);
        assert!(failure.message.contains("injection.resisted"), "{failure}");
    }
}
