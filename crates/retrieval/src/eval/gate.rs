//! Conditions under which an evaluation fails.
//!
//! `METRIC < NUMBER` (also `<=`, `>`, `>=`) looks at a figure, `change METRIC < NUMBER` at its difference to the
//! baseline, `worse METRIC` holds when the measure fell, or a time rose by a tenth, by more than luck explains (paired
//! bootstrap over the cases, p below 0.05).
//! `METRIC` is `suite.measure`; `*` stands for any characters, and one match is enough.

use super::outcome::{Change, Outcome};
use docmill_model::{Code, Failure};
use std::fmt::{Display, Formatter};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    text: String,
    metric: String,
    test: Test,
    /// True when it may be about nothing that was measured.
    is_optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Figure(Order, f64),
    Change(Order, f64),
    Worse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "<" => Some(Order::Below),
            "<=" => Some(Order::AtMost),
            ">" => Some(Order::Above),
            ">=" => Some(Order::AtLeast),
            _ => None,
        }
    }

    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Order::Below => value < limit,
            Order::AtMost => value <= limit,
            Order::Above => value > limit,
            Order::AtLeast => value >= limit,
        }
    }
}

impl Display for Gate {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Gate {
    /// Reads a condition.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the forms there are.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let compared = |order: &str, number: &str| {
            let number = number.parse::<f64>().ok().filter(|number| number.is_finite());
            Order::parse(order).zip(number)
        };
        let read = match words[..] {
            ["worse", metric] => Some((metric, Test::Worse)),
            ["change", metric, order, number] => {
                compared(order, number).map(|(order, number)| (metric, Test::Change(order, number)))
            }
            [metric, order, number] => {
                compared(order, number).map(|(order, number)| (metric, Test::Figure(order, number)))
            }
            _ => None,
        };
        let (metric, test) = read.ok_or_else(|| {
            let forms = "`suite.measure < 0.7`, `change suite.measure < -0.01` or `worse suite.*`";
            Failure::new(Code::ConfigInvalid, format!("`{text}` is no condition; write {forms}"))
        })?;
        Ok(Self { text: text.trim().to_owned(), metric: metric.to_owned(), test, is_optional: false })
    }

    /// The same condition for a run of some suites only: about nothing that was measured, it is left out.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Refuses a condition that none of the suites called `suites` can meet, before they run.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn check(&self, suites: &[&str]) -> Result<(), Failure> {
        let head = self.metric.split_once('*').map(|(head, _)| head);
        let concerns = |suite: &&str| {
            let start = format!("{suite}.");
            head.unwrap_or(&self.metric).starts_with(&start) || head.is_some_and(|head| start.starts_with(head))
        };
        if self.is_optional || suites.iter().any(concerns) { Ok(()) } else { Err(self.about_nothing()) }
    }

    fn about_nothing(&self) -> Failure {
        Failure::new(Code::ConfigInvalid, format!("`{}`: nothing called {} is measured", self.text, self.metric))
    }

    /// True when the condition compares with an earlier run.
    #[must_use]
    pub fn needs_baseline(&self) -> bool {
        !matches!(self.test, Test::Figure(..))
    }

    /// What fulfils the condition, in words; empty when nothing does.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the condition is about nothing that was measured: a gate that never closes is a mistake.
    pub fn broken(&self, outcomes: &[Outcome], changes: &[Change]) -> Result<Vec<String>, Failure> {
        let mut looked_at = 0;
        let mut broken = Vec::new();
        let mut look = |name: &str, holds: bool, shown: String| {
            looked_at += 1;
            if holds {
                broken.push(format!("{}: {name} {shown}", self.text));
            }
        };
        for outcome in outcomes {
            for measure in &outcome.measures {
                let name = format!("{}.{}", outcome.suite, measure.name);
                if let Test::Figure(order, limit) = self.test
                    && matches(&self.metric, &name)
                {
                    look(&name, order.holds(measure.value, limit), format!("is {:.4}", measure.value));
                }
            }
        }
        for change in changes.iter().filter(|change| matches(&self.metric, &change.name)) {
            let difference = change.after - change.before;
            let shown = format!("went from {:.4} to {:.4}", change.before, change.after);
            match self.test {
                Test::Figure(..) => {}
                Test::Change(order, limit) => look(&change.name, order.holds(difference, limit), shown),
                // A figure that is not made of cases is never worse by more than luck.
                Test::Worse if change.paired.is_none() => {}
                Test::Worse => look(&change.name, change.is_loss(), shown),
            }
        }
        if looked_at == 0 && !self.is_optional {
            return Err(self.about_nothing());
        }
        Ok(broken)
    }
}

/// True when `name` has the form of `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(left) = name.strip_prefix(head) else { return false };
    rest.is_empty() || (0..=left.len()).any(|at| left.is_char_boundary(at) && matches(rest, &left[at..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::eval::{Measure, compare};

    fn outcomes(shift: f64) -> Vec<Outcome> {
        let cases = |value: f64| (0..50).map(|n| (n.to_string(), value)).collect();
        let measures = vec![
            Measure::mean_of("hybrid.ndcg@10", cases(0.5 + shift)),
            Measure::quantile_of("hybrid.p50_ms", 0.5, cases(8.0 - 100.0 * shift)),
            Measure::plain("hybrid.p99_ms", 9.0),
        ];
        vec![Outcome { suite: "scifact".to_owned(), measures, ..Outcome::default() }]
    }

    #[test]
    fn conditions_close_the_gate_exactly_when_they_hold() {
        let (before, after) = (outcomes(0.0), outcomes(-0.02));
        let changes = compare(&before, &after).unwrap();
        for (text, closed) in [
            ("scifact.hybrid.ndcg@10 < 0.479", false),
            ("scifact.hybrid.ndcg@10 <= 0.481", true),
            ("scifact.*.ndcg@10 < 0.49", true),
            ("*.p50_ms > 10", false),
            ("*.p50_ms >= 10", true),
            ("change scifact.hybrid.ndcg@10 < -0.01", true),
            ("change scifact.hybrid.ndcg@10 < -0.03", false),
            ("worse *", true),
            ("worse *_ms", true),
            ("worse *.hybrid.*", true),
        ] {
            let broken = Gate::parse(text).unwrap().broken(&after, &changes).unwrap();
            assert_eq!(!broken.is_empty(), closed, "{text}: {broken:?}");
        }
        assert!(Gate::parse("worse *").unwrap().broken(&after, &compare(&after, &before).unwrap()).unwrap().is_empty());
        let timeless = Gate::parse("worse *.p99_ms").unwrap();
        assert!(timeless.broken(&after, &changes).is_err(), "a gate that never closes is a mistake");
    }

    #[test]
    fn conditions_about_suites_that_do_not_run_are_known_before_anything_runs() {
        for (text, ok) in [
            ("scifact.hybrid.ndcg@10 < 1", true),
            ("*.ndcg@10 < 1", true),
            ("sci*10 < 1", true),
            ("worse *", true),
            ("xquad-*.ndcg@10 < 1", false),
            ("scifact-train.ndcg@10 < 1", false),
        ] {
            let gate = Gate::parse(text).unwrap();
            assert_eq!(gate.check(&["scifact", "receipts"]).is_ok(), ok, "{text}");
            assert!(gate.optional().check(&["scifact"]).is_ok(), "{text}");
        }
        let absent = Gate::parse("xquad-en.hybrid.ndcg@10 < 1").unwrap().optional();
        assert_eq!(absent.broken(&outcomes(0.0), &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_read_or_is_about_nothing_is_refused() {
        for text in ["", "a.b", "a.b < x", "a.b == 1", "worse", "change a < NaN", "a < 1 or b < 2"] {
            assert!(Gate::parse(text).is_err(), "{text}");
        }
        let failure = Gate::parse("scifact.hybird.ndcg@10 < 1").unwrap().broken(&outcomes(0.0), &[]).unwrap_err();
        assert_eq!(failure.code, Code::ConfigInvalid);
    }
}
