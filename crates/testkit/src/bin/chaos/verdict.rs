//! What a campaign comes to: counts that must be zero, invariants, equality with the fault-free run, recovery times.

use crate::faults::Happened;
use crate::plant::Plant;
use crate::work::Acknowledged;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Healing that is still under way gets this long before it counts as a violation: a delivery whose sender was killed is sent
/// again when its lease of a minute has run out.
const GRACE: Duration = Duration::from_secs(90);

/// Points of a crash-point sweep.
#[derive(Debug, Default, serde::Serialize)]
pub struct Points {
    /// Known: met by the documents when nothing was armed.
    pub total: usize,
    /// Chosen to die at.
    pub swept: usize,
    /// Died at.
    pub met: usize,
    /// Chosen and not met again.
    pub unmet: Vec<String>,
}

/// The result, as printed.
#[derive(Debug, Default, serde::Serialize)]
pub struct Verdict {
    pub documents: usize,
    pub kills: usize,
    pub faults: usize,
    pub lost: i64,
    pub duplicated: i64,
    pub stuck: i64,
    pub invariant_violations: Vec<String>,
    pub export_equal: bool,
    pub differences: Vec<String>,
    pub recovery_secs_p50: Option<f64>,
    pub recovery_secs_p99: Option<f64>,
    pub seed: u64,
    pub seconds: f64,
    pub fault_free_seconds: Option<f64>,
    pub states: BTreeMap<String, i64>,
    pub attempts: BTreeMap<String, i64>,
    /// What a crash-point sweep met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<Points>,
    /// What a campaign against the index node came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<crate::node::Figures>,
    /// What a restore drill came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<crate::restore::Figures>,
    /// What a campaign of updates came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<crate::prober::Figures>,
    /// What every event once more, after the end of all work, came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated: Option<crate::repeat::Figures>,
    /// What was asked of the searches of a campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searches: Option<crate::searches::Figures>,
    /// What should have been tried and was not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untried: Vec<String>,
    /// Per kind of fault: how often it was asked for and hit something, and seconds until work went on.
    pub kinds: BTreeMap<String, Value>,
    pub embedder: String,
    pub source: String,
    pub left_out: Vec<String>,
    pub peak_rss_mb: BTreeMap<String, u64>,
}

impl Verdict {
    /// Enters that something was to be tried, and how often it was.
    pub fn tried(&mut self, what: &str, count: usize) {
        if count == 0 {
            self.untried.push(what.to_owned());
        }
    }

    /// Enters how often a kind of fault was asked for, and how often it hit something.
    pub fn asked(&mut self, kind: &str, asked: usize, tried: usize) {
        if asked > 0 {
            self.tried(&format!("{kind}: asked for, and never hit anything"), tried);
            let figures = self.kinds.entry(kind.to_owned()).or_insert_with(|| json!({}));
            figures["asked"] = asked.into();
            figures["tried"] = tried.into();
        }
    }

    /// Enters what every event once more came to; nothing where work had not ended.
    pub fn repeated(&mut self, figures: Option<crate::repeat::Figures>) {
        let is_whole = figures.as_ref().is_some_and(crate::repeat::Figures::is_whole);
        self.tried("every event once more after the end of all work", usize::from(is_whole));
        if let Some(begun) = figures.as_ref().map(|figures| figures.attempts_begun).filter(|begun| *begun != 0) {
            self.invariant_violations.push(format!("repeated_event_begins_nothing: {begun} attempts"));
        }
        self.repeated = figures;
    }

    /// Enters seconds of recovery by kind, and over all.
    pub fn recoveries(&mut self, by_kind: BTreeMap<String, Vec<f64>>) {
        let all: Vec<f64> = by_kind.values().flatten().copied().collect();
        self.recovery_secs_p50 = percentile(&all, 0.5);
        self.recovery_secs_p99 = percentile(&all, 0.99);
        for (kind, secs) in by_kind {
            let figures =
                json!({"measured": secs.len(), "p50": percentile(&secs, 0.5), "p99": percentile(&secs, 0.99)});
            self.kinds.insert(kind, figures);
        }
    }

    /// Nothing lost, doubled, stuck, violated or different, everything tried, and every point of a sweep met.
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.stuck == 0
            && self.invariant_violations.is_empty()
            && self.export_equal
            && self.untried.is_empty()
            && self.points.as_ref().is_none_or(|points| points.unmet.is_empty())
    }
}

/// Things that must not be there twice.
const DOUBLES: &[(&str, &str)] = &[
    (
        "documents of the same bytes",
        "SELECT count(*) FROM (SELECT 1 FROM document_versions GROUP BY tenant_id, sha256 HAVING count(*) > 1) d",
    ),
    (
        "jobs done twice",
        "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE outcome = 'done' GROUP BY tenant_id, job_id HAVING count(*) > 1) d",
    ),
    (
        "runs of one version",
        "SELECT count(*) FROM (SELECT 1 FROM runs GROUP BY tenant_id, version_id HAVING count(*) > 1) d",
    ),
    (
        "visible generations of one document",
        "SELECT count(*) FROM (SELECT 1 FROM generations WHERE state = 'visible' GROUP BY tenant_id, document_id HAVING count(*) > 1) d",
    ),
    (
        "settlements told twice",
        "SELECT count(*) FROM (SELECT 1 FROM document_events WHERE kind = 'run.settled' GROUP BY tenant_id, run_id HAVING count(*) > 1) d",
    ),
];

/// Judges a plant whose work has ended. `acknowledged` are the documents the API has accepted.
pub fn judge(plant: &Plant, acknowledged: &Acknowledged, verdict: &mut Verdict) -> Result<()> {
    verdict.stuck = plant.count("SELECT count(*) FROM documents WHERE state IN ('uploading', 'processing')")?
        + plant.count("SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead', 'cancelled')")?;
    for (what, sql) in DOUBLES {
        let count = plant.count(sql)?;
        verdict.duplicated += count;
        if count > 0 {
            verdict.differences.push(format!("{count} {what}"));
        }
    }
    let rows = |sql: &'static str| -> Result<Vec<(String, i64)>> {
        plant.runtime.block_on(async { Ok(sqlx::query_as(sql).fetch_all(&mut plant.owner().await?).await?) })
    };
    let known: Acknowledged = plant.runtime.block_on(async {
        let sql = "SELECT tenant_id::text, name FROM documents WHERE state <> 'expired'";
        let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut plant.owner().await?).await?;
        anyhow::Ok(rows.into_iter().collect())
    })?;
    let lost: Vec<_> = acknowledged.difference(&known).collect();
    verdict.lost = lost.len() as i64;
    verdict.differences.extend(lost.into_iter().take(5).map(|(tenant, name)| format!("lost: {name} of {tenant}")));
    verdict.states =
        rows("SELECT state || coalesce(' ' || code, ''), count(*) FROM documents GROUP BY 1")?.into_iter().collect();
    verdict.attempts =
        rows("SELECT coalesce(outcome, 'open'), count(*) FROM attempts GROUP BY 1")?.into_iter().collect();
    verdict.invariant_violations = violations(plant, crate::invariants::violations)?;
    Ok(())
}

/// What the doctor and `further` invariants find, once healing had its time.
pub fn violations(plant: &Plant, further: impl Fn(&Plant) -> Result<Vec<String>>) -> Result<Vec<String>> {
    let (started, mut looks) = (Instant::now(), 0);
    loop {
        let mut found = Vec::new();
        match plant.ask(&["doctor"]) {
            Ok(report) => {
                let invariants = report["invariants"].as_array().cloned().unwrap_or_default();
                if invariants.is_empty() {
                    found.push("doctor: the API did not evaluate the invariants".to_owned());
                }
                let unfinished = report["unfinished"].as_array().into_iter().flatten();
                found.extend(unfinished.map(|name| format!("doctor: {name} was not judged")));
                for invariant in invariants {
                    for violation in invariant["violations"].as_array().into_iter().flatten() {
                        found.push(format!("{}: {} {}", invariant["name"], violation["subject"], violation["detail"]));
                    }
                }
            }
            Err(error) => found.push(format!("doctor: {error:#}")),
        }
        found.extend(further(plant)?);
        // A look reads every object, which may take longer than the grace.
        looks += 1;
        if found.is_empty() || (looks > 1 && started.elapsed() > GRACE) {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// For every fault: seconds from its end (a kill: from the kill) until an attempt that began afterwards was done.
pub fn recovery(plant: &Plant, faults: &[Happened], verdict: &mut Verdict) -> Result<()> {
    let done: Vec<(OffsetDateTime, OffsetDateTime)> = plant.runtime.block_on(async {
        let sql = "SELECT started_at, finished_at FROM attempts WHERE outcome = 'done' ORDER BY started_at";
        anyhow::Ok(sqlx::query_as(sql).fetch_all(&mut plant.owner().await?).await?)
    })?;
    let mut by_kind: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for fault in faults {
        let secs = by_kind.entry(fault.kind.name().to_owned()).or_default();
        let from = done.partition_point(|(started, _)| *started < fault.healed_at);
        // The first to start need not be the first to end, but one of the next few is.
        if let Some(first) = done[from..].iter().take(32).map(|(_, finished)| *finished).min() {
            secs.push((first - fault.healed_at).as_seconds_f64());
        }
    }
    verdict.recoveries(by_kind);
    Ok(())
}

/// Nearest rank, to hundredths.
fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(rank).map(|value| (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repeat::Figures;

    fn clean() -> Verdict {
        Verdict { export_equal: true, ..Verdict::default() }
    }

    #[test]
    fn what_was_asked_for_and_hit_nothing_is_not_clean() {
        let mut verdict = clean();
        verdict.recoveries(BTreeMap::from([("kill".to_owned(), vec![0.5, 1.5])]));
        verdict.asked("kill", 2, 2);
        verdict.asked("disk", 0, 0);
        assert!(verdict.is_clean(), "nobody asked for a full disk");
        assert_eq!(verdict.kinds["kill"], json!({"measured": 2, "p50": 0.5, "p99": 1.5, "asked": 2, "tried": 2}));
        verdict.asked("truncated", 10, 0);
        assert!(!verdict.is_clean());
        assert_eq!(verdict.kinds["truncated"], json!({"asked": 10, "tried": 0}));
    }

    #[test]
    fn events_come_again_whole_and_begin_nothing() {
        let whole = || Figures { jobs: 7, events: 70, stored: 70, ..Figures::default() };
        let is_clean = |figures| {
            let mut verdict = clean();
            verdict.repeated(figures);
            verdict.is_clean()
        };
        assert!(is_clean(Some(whole())));
        assert!(!is_clean(None), "work had not ended");
        assert!(!is_clean(Some(Figures { stored: 69, ..whole() })));
        assert!(!is_clean(Some(Figures { unheard: 1, ..whole() })));
        assert!(!is_clean(Some(Figures { attempts_begun: 1, ..whole() })));
    }
}
