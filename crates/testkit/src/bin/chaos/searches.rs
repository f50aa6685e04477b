//! Searches of a campaign. A question is made of the words of one passage, so that its answer is known; whatever else is
//! found must be visible, of the tenant, and as it stands in Postgres.

use crate::index_files;
use crate::plant::{Plant, Tenant};
use crate::requests::request;
use crate::verdict::Verdict;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Which halves are asked.
pub const MODES: [&str; 2] = ["lexical", "hybrid"];
/// Words of a question; shorter words tell little.
const WORDS: usize = 12;
const WORD_CHARS: usize = 4;
/// Passages wanted.
const K: usize = 20;
/// Longer than the API gives each half.
const PATIENCE: Duration = Duration::from_secs(20);
/// Questions for each tenant once work has ended.
const KNOWN: i64 = 40;
/// Scores this near to each other, relatively, are the same: sums of the same numbers in another order.
const SCORE: f64 = 1e-4;
/// At most one question in this many may be a poor one; while things broke, one for this many that were answered.
const MOST_POOR: usize = 20;
/// Questions that were missed while things broke and are asked again at most: a broken node takes long over each.
const MOST_MISSED: usize = 200;
/// Until an index at rest holds nothing that was removed.
const REST: Duration = Duration::from_secs(40);

/// Counts of what was asked.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    /// While things broke: answered in full, by one half that said so, refused with a reason, and by nobody.
    pub answered: usize,
    pub degraded: usize,
    pub refused: usize,
    pub away: usize,
    /// Answered without the passage by a node that had not yet said it was ready.
    pub incomplete_before_ready: usize,
    /// Answered without the passage by a node that was ready, and those of them that were not judged: their questions
    /// were more than are asked again.
    pub missed: usize,
    pub missed_not_judged: usize,
    /// Once work has ended: questions in all modes, and those whose passage was found.
    pub known: usize,
    pub right: usize,
    /// Of them those that an index built anew answers as well: the passage is found, and the best has the same score.
    pub same_anew: usize,
    /// Whose passage neither index finds, with the same best: the words are those of many passages.
    pub poor: usize,
    /// Of the missed those whose question is as poor once work has ended. Among fewer passages its words may have done:
    /// that excuses a few only.
    pub poor_while_broken: usize,
    /// Chunks found in the indexes, all of which were held against Postgres.
    pub chunks_compared: usize,
}

impl Figures {
    /// Enters a search that a node that was ready answered without the passage. A question that was missed `before` is
    /// only counted.
    pub fn misses<'a>(&mut self, before: &mut Vec<Asked<'a>>, asked: Asked<'a>) {
        self.missed += asked.missed;
        match before.iter().position(|other| other.is_same(&asked)) {
            Some(at) => before[at].missed += asked.missed,
            None if before.len() < MOST_MISSED => before.push(asked),
            None => self.missed_not_judged += asked.missed,
        }
    }

    /// What there is too much of to be excused.
    fn too_poor(&self) -> Vec<String> {
        let mut found = Vec::new();
        let Self { poor, known, poor_while_broken, answered, .. } = self;
        if poor * MOST_POOR > *known {
            found.push(format!("{poor} of {known} questions have no answer in any index"));
        }
        if poor_while_broken * MOST_POOR > *answered {
            let missed = format!("{poor_while_broken} searches by poor words missed while things broke");
            found.push(format!("{missed}, and only {answered} were answered"));
        }
        found
    }
}

/// A question whose answer is known.
#[derive(Clone, Debug)]
pub struct Question {
    pub words: String,
    /// The passage that must be found.
    pub chunk: Uuid,
}

/// A question as it is asked.
pub struct Asked<'a> {
    pub tenant: &'a Tenant,
    pub question: Question,
    pub mode: &'static str,
    /// How often a node that was ready did not find the passage while things broke.
    pub missed: usize,
}

impl Asked<'_> {
    fn is_same(&self, other: &Self) -> bool {
        let key = |asked: &Self| (asked.question.chunk, asked.mode);
        key(self) == key(other) && self.tenant.id == other.tenant.id
    }
}

/// What a search came to.
pub enum Said {
    /// The passages found with where else they stand, best first, the score of the best, and whether a half was missing.
    Found { hits: Vec<(Uuid, String)>, copies: BTreeSet<Uuid>, best: f64, degraded: bool },
    /// A status other than 200.
    Refused(u16, String),
    /// Nobody answered.
    Away,
}

impl Said {
    /// True when the passage is among those found.
    pub fn holds(&self, chunk: &Uuid) -> bool {
        matches!(self, Said::Found { hits, copies, .. } if copies.contains(chunk) || hits.iter().any(|(hit, _)| hit == chunk))
    }

    /// True when nothing was missing.
    fn is_whole(&self) -> bool {
        matches!(self, Said::Found { degraded: false, .. })
    }

    /// True when both are whole and have the same best. Which of two passages that say nearly the same comes first is left
    /// to the last bit of their scores.
    fn is_like(&self, other: &Said) -> bool {
        let (Said::Found { best, .. }, Said::Found { best: other_best, .. }) = (self, other) else { return false };
        self.is_whole() && other.is_whole() && (best - other_best).abs() <= SCORE * best.abs()
    }
}

/// Questions about what is visible now: one a document, in the order of files where `random` is false.
pub fn questions(plant: &Plant, tenant: &Tenant, limit: i64, random: bool) -> Result<Vec<Question>> {
    let rows: Vec<(Uuid, String)> = plant.runtime.block_on(async {
        let sql = "SELECT id, text FROM (
                SELECT DISTINCT ON (d.id) c.id, c.text, v.sha256 FROM documents d
                JOIN chunks c ON c.tenant_id = d.tenant_id AND c.generation_id = d.visible_generation AND NOT c.has_hidden
                JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id
                WHERE d.tenant_id = $1::uuid ORDER BY d.id, c.ordinal) AS first
             ORDER BY CASE WHEN $3 THEN random() ELSE 0 END, sha256 LIMIT $2";
        let query = sqlx::query_as(sql).bind(&tenant.id).bind(limit).bind(random);
        anyhow::Ok(query.fetch_all(&mut plant.owner().await?).await?)
    })?;
    Ok(rows.into_iter().filter_map(|(chunk, text)| Some(Question { words: words(&text)?, chunk })).collect())
}

/// Distinct words of a passage; `None` when it has few.
fn words(text: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let long = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() >= WORD_CHARS);
    let chosen: Vec<&str> = long.filter(|word| seen.insert(word.to_lowercase())).take(WORDS).collect();
    (chosen.len() >= WORDS / 2).then(|| chosen.join(" "))
}

/// Asks as the tenant.
pub fn ask(plant: &Plant, tenant: &Tenant, question: &Question, mode: &str) -> Said {
    let body = json!({"query": question.words, "k": K, "mode": mode, "copies": true}).to_string();
    let Ok(Some(answer)) = request(plant, tenant, ("POST", "/v1/search"), Some(&body), PATIENCE) else {
        return Said::Away;
    };
    // A process that dies while it answers leaves half of one.
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else { return Said::Away };
    if answer.status != 200 {
        return Said::Refused(answer.status, body["code"].as_str().unwrap_or_default().to_owned());
    }
    let id = |value: &Value| value["chunk_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    let hits = body["hits"].as_array().cloned().unwrap_or_default();
    let copies = hits.iter().flat_map(|hit| hit["copies"].as_array().into_iter().flatten()).filter_map(id).collect();
    let best = hits.first().and_then(|hit| hit["score"].as_f64()).unwrap_or_default();
    let text = |hit: &Value| hit["text"].as_str().unwrap_or_default().to_owned();
    let hits = hits.iter().filter_map(|hit| Some((id(hit)?, text(hit)))).collect();
    Said::Found { hits, copies, best, degraded: body["degraded"].is_string() }
}

/// How many of the passages are not what is visible to the tenant, word by word.
pub fn wrong(plant: &Plant, tenant: &Tenant, said: &Said) -> Result<i64> {
    let Said::Found { hits, copies, .. } = said else { return Ok(0) };
    let ids: Vec<Uuid> = hits.iter().map(|(id, _)| *id).chain(copies.iter().copied()).collect();
    let texts: Vec<Option<&str>> =
        hits.iter().map(|(_, text)| Some(text.as_str())).chain(copies.iter().map(|_| None)).collect();
    plant.runtime.block_on(async {
        let sql = "SELECT count(*) FROM unnest($1::uuid[], $2::text[]) AS h (id, text) WHERE NOT EXISTS (
                SELECT 1 FROM chunks c JOIN documents d ON d.tenant_id = c.tenant_id AND d.visible_generation = c.generation_id
                WHERE c.tenant_id = $3::uuid AND c.id = h.id AND (h.text IS NULL OR c.has_hidden OR h.text = c.text))";
        let query = sqlx::query_scalar(sql).bind(&ids).bind(&texts).bind(&tenant.id);
        Ok(query.fetch_one(&mut plant.owner().await?).await?)
    })
}

/// Once work has ended: the right passages are found; what was missed while things broke is excused where its words are
/// poor, a few times; the files of the index hold what Postgres says, by tantivy's own count; and an index built anew
/// gives the same answers.
pub fn judge<'a>(
    plant: &Plant,
    tenants: &'a [Tenant],
    missed: Vec<Asked<'a>>,
    figures: &mut Figures,
    verdict: &mut Verdict,
) -> Result<()> {
    plant.wait_ready()?;
    let (started, folder) = (Instant::now(), index_files::folder(plant));
    while !index_files::is_at_rest(&folder) && started.elapsed() < REST {
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut asked = missed;
    for tenant in tenants {
        for question in questions(plant, tenant, KNOWN, false)? {
            asked.extend(MODES.map(|mode| Asked { tenant, question: question.clone(), mode, missed: 0 }));
        }
    }
    let answers = || -> Vec<Said> {
        asked.iter().map(|Asked { tenant, question, mode, .. }| ask(plant, tenant, question, mode)).collect()
    };
    let (before, mut found) = (answers(), Vec::new());
    for (Asked { tenant, mode, .. }, said) in asked.iter().zip(&before) {
        let wrong = wrong(plant, tenant, said)?;
        if wrong > 0 {
            found.push(format!("{mode} search: {wrong} passages that are not visible to {}", tenant.id));
        }
    }
    plant.kill("api")?;
    for tenant in tenants {
        let (held, differing) = compare(plant, tenant)?;
        figures.chunks_compared += held;
        found.extend(differing);
    }
    index_files::wipe(plant)?;
    plant.run("api", &[])?;
    plant.wait_ready()?;
    for ((Asked { question, mode, missed, .. }, said), anew) in asked.iter().zip(&before).zip(&answers()) {
        let [held, held_anew] = [said, anew].map(|said| said.is_whole() && said.holds(&question.chunk));
        if *missed > 0 {
            if !held && !held_anew && said.is_like(anew) {
                figures.poor_while_broken += missed;
            } else {
                let chunk = question.chunk;
                found.push(format!("{mode} search: {chunk} was not found by a node that was ready, {missed} times"));
            }
            continue;
        }
        figures.known += 1;
        figures.right += usize::from(held);
        match (held, held_anew) {
            (true, true) if said.is_like(anew) => figures.same_anew += 1,
            (false, false) if said.is_like(anew) => figures.poor += 1,
            (false, _) => found.push(format!("{mode} search: {} is not found by its own words", question.chunk)),
            (true, _) => {
                found.push(format!("{mode} search for {}: an index built anew answers otherwise", question.chunk));
            }
        }
    }
    found.extend(figures.too_poor());
    found.truncate(20);
    verdict.invariant_violations.extend(found);
    let (all, left) = (figures.missed, figures.missed_not_judged);
    let what = format!("judging what was missed: {left} of {all} are beyond the first {MOST_MISSED} questions");
    verdict.tried(&what, usize::from(left == 0));
    verdict.tried("searches whose answer is known", figures.known);
    verdict.tried("comparison of the index with Postgres", figures.chunks_compared);
    Ok(())
}

/// Chunks in the tenant's index, and where they are not those of what is visible, each once.
fn compare(plant: &Plant, tenant: &Tenant) -> Result<(usize, Option<String>)> {
    let held = index_files::chunks(&index_files::folder(plant), &tenant.id)
        .with_context(|| format!("the index of {} cannot be read", tenant.id))?;
    let (visible, others): (Vec<Uuid>, Vec<Uuid>) = plant.runtime.block_on(async {
        let sql = "SELECT c.id, g.state FROM chunks c
             JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
             WHERE c.tenant_id = $1::uuid ORDER BY c.id";
        let query = sqlx::query_as(sql).bind(&tenant.id);
        let rows: Vec<(Uuid, String)> = query.fetch_all(&mut plant.owner().await?).await?;
        let (visible, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, state)| state == "visible");
        let ids = |rows: Vec<(Uuid, String)>| rows.into_iter().map(|(id, _)| id).collect();
        anyhow::Ok((ids(visible), ids(others)))
    })?;
    let (others, mut of_visible) = (BTreeSet::from_iter(others), held.clone());
    // A generation that a failed run left unfinished may be there: nobody sees it.
    of_visible.retain(|id| !others.contains(id));
    let differs = of_visible != visible;
    let differing = differs
        .then(|| format!("index files of {}: {} chunks, {} are visible", tenant.id, of_visible.len(), visible.len()));
    Ok((held.len(), differing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> Tenant {
        Tenant { id: id.to_owned(), key: String::new() }
    }

    fn missed<'a>(tenant: &'a Tenant, chunk: usize, mode: &'static str) -> Asked<'a> {
        let question = Question { words: String::new(), chunk: Uuid::from_u128(chunk as u128) };
        Asked { tenant, question, mode, missed: 1 }
    }

    #[test]
    fn a_question_is_asked_again_once_however_often_it_was_missed() {
        let (one, other) = (tenant("one"), tenant("other"));
        let (mut figures, mut before) = (Figures::default(), Vec::new());
        for _ in 0..3 {
            figures.misses(&mut before, missed(&one, 1, MODES[0]));
        }
        figures.misses(&mut before, missed(&one, 1, MODES[1]));
        figures.misses(&mut before, missed(&other, 1, MODES[0]));
        assert_eq!(before.iter().map(|asked| asked.missed).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!((figures.missed, figures.missed_not_judged), (5, 0));
        for chunk in 0..MOST_MISSED {
            figures.misses(&mut before, missed(&one, 2 + chunk, MODES[0]));
        }
        figures.misses(&mut before, missed(&one, 1, MODES[0]));
        assert_eq!((before.len(), before[0].missed), (MOST_MISSED, 4));
        assert_eq!((figures.missed, figures.missed_not_judged), (MOST_MISSED + 6, 3), "told, not forgotten");
    }

    #[test]
    fn few_poor_questions_are_excused() {
        let few = Figures { answered: 40, poor_while_broken: 2, known: 20, poor: 1, ..Figures::default() };
        assert!(few.too_poor().is_empty());
        assert_eq!(Figures { poor_while_broken: 3, ..few }.too_poor().len(), 1);
        let none_answered = Figures { poor_while_broken: 1, ..Figures::default() };
        assert_eq!(none_answered.too_poor().len(), 1);
        assert!(Figures::default().too_poor().is_empty(), "a drill asks nothing while things break");
    }
}
