//! Data sets in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`, and `answers.jsonl` where there is one.
//!
//! Judgements are read with three columns (BEIR) or four (TREC). A folder that cannot be read is refused with file and
//! line; its words are never part of a message. Thakur et al., BEIR, NeurIPS 2021.

use super::outcome::fingerprint;
use docmill_model::{Code, Failure};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Most entries or questions of one folder.
pub const MAX_LINES: usize = 2_000_000;

/// A passage to be found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Entry {
    /// Its id in the data set.
    #[serde(rename = "_id")]
    pub id: String,
    /// Title; may be empty.
    #[serde(default)]
    pub title: String,
    /// The words.
    pub text: String,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Question {
    /// Its id in the data set.
    #[serde(rename = "_id")]
    pub id: String,
    /// The words.
    pub text: String,
}

/// A data set in memory.
#[derive(Clone, Debug, Default)]
pub struct BeirFolder {
    /// Name of the folder.
    pub name: String,
    /// Which judgements were read (`train`, `test`, …).
    pub split: String,
    /// Every passage.
    pub entries: Vec<Entry>,
    /// The judged questions, in the order of their file.
    pub questions: Vec<Question>,
    /// Grades of entries by question id; only questions with at least one grade above 0.
    pub judgements: HashMap<String, HashMap<String, u32>>,
    /// Gold answers by question id; empty without `answers.jsonl`.
    pub answers: HashMap<String, Vec<String>>,
}

impl BeirFolder {
    /// Reads the folder with the judgements of `split`; without one, `test` where it exists, else the first by name.
    ///
    /// # Errors
    /// `FIELD_INVALID` with file and line.
    pub fn read(folder: &Path, split: Option<&str>) -> Result<Self, Failure> {
        let path = judgements_path(folder, split)?;
        let judgements = read_judgements(&path)?;
        let mut questions: Vec<Question> = read_lines(&folder.join("queries.jsonl"))?;
        questions.retain(|question| judgements.contains_key(&question.id));
        let answers = folder.join("answers.jsonl");
        Ok(Self {
            name: name_of(folder),
            split: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            entries: read_lines(&folder.join("corpus.jsonl"))?,
            questions,
            judgements,
            answers: if answers.exists() { read_answers(&answers)? } else { HashMap::new() },
        })
    }

    /// Identity of passages, questions, judgements and answers.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let judged = |question: &Question| {
            let sorted: BTreeMap<_, _> = self.judgements.get(&question.id).into_iter().flatten().collect();
            format!("{sorted:?} {:?}", self.answers.get(&question.id))
        };
        let judged: Vec<String> = self.questions.iter().map(judged).collect();
        let entries = self.entries.iter().flat_map(|entry| [entry.id.as_str(), &entry.title, &entry.text]);
        let questions = self.questions.iter().flat_map(|question| [question.id.as_str(), &question.text]);
        fingerprint(entries.chain(questions).chain(judged.iter().map(String::as_str)))
    }

    /// The entries that answer a question: graded above 0.
    #[must_use]
    pub fn relevant(&self, question: &str) -> HashSet<&str> {
        let graded = self.judgements.get(question).into_iter().flatten();
        graded.filter(|(_, grade)| **grade > 0).map(|(id, _)| id.as_str()).collect()
    }
}

/// The folder's own name, after its parent's where that tells more (`xquad/en`).
fn name_of(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match absolute.parent().map(name) {
        Some(parent) if name(&absolute).chars().count() <= 3 && !parent.is_empty() => {
            format!("{parent}/{}", name(&absolute))
        }
        _ => name(&absolute),
    }
}

fn judgements_path(folder: &Path, split: Option<&str>) -> Result<PathBuf, Failure> {
    let qrels = folder.join("qrels");
    if let Some(split) = split {
        return Ok(qrels.join(format!("{split}.tsv")));
    }
    let test = qrels.join("test.tsv");
    if test.exists() {
        return Ok(test);
    }
    let listed = std::fs::read_dir(&qrels).map_err(|_| invalid(&qrels, 0, "cannot be listed"))?;
    let mut found: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tsv"));
    found.sort();
    found.into_iter().next().ok_or_else(|| invalid(&qrels, 0, "holds no judgements (*.tsv)"))
}

fn read_judgements(path: &Path) -> Result<HashMap<String, HashMap<String, u32>>, Failure> {
    let mut judgements: HashMap<String, HashMap<String, u32>> = HashMap::new();
    for (number, line) in open(path)?.enumerate() {
        let line = line.map_err(|_| invalid(path, number + 1, "is not UTF-8 text"))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (question, entry, grade) = match columns[..] {
            [] => continue,
            [question, entry, grade] | [question, _, entry, grade] => (question, entry, grade.parse::<i64>()),
            _ => return Err(invalid(path, number + 1, "needs three or four columns")),
        };
        match grade {
            Ok(grade) => {
                let grade = u32::try_from(grade).unwrap_or(0);
                judgements.entry(question.to_owned()).or_default().insert(entry.to_owned(), grade);
            }
            Err(_) if number == 0 => {}
            Err(_) => return Err(invalid(path, number + 1, "needs a whole number as its last column")),
        }
    }
    judgements.retain(|_, grades| grades.values().any(|&grade| grade > 0));
    Ok(judgements)
}

/// Gold answers as SQuAD keeps them (`answers: [{text}]`) or as one `answer`.
#[derive(serde::Deserialize)]
struct AnswerLine {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    answer: Option<String>,
    #[serde(default)]
    answers: Vec<AnswerText>,
}

#[derive(serde::Deserialize)]
struct AnswerText {
    text: String,
}

fn read_answers(path: &Path) -> Result<HashMap<String, Vec<String>>, Failure> {
    let lines: Vec<AnswerLine> = read_lines(path)?;
    let texts = |line: AnswerLine| line.answers.into_iter().map(|answer| answer.text).chain(line.answer).collect();
    Ok(lines.into_iter().map(|line| (line.id.clone(), texts(line))).collect())
}

/// Every line of a file of JSON lines.
pub(super) fn read_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let mut out = Vec::new();
    for (number, line) in open(path)?.enumerate() {
        let line = line.map_err(|_| invalid(path, number + 1, "is not UTF-8 text"))?;
        if line.trim().is_empty() {
            continue;
        }
        if out.len() == MAX_LINES {
            let message = format!("{} has too many lines", path.display());
            return Err(Failure::limit(Code::FieldInvalid, message, MAX_LINES as u64, number as u64 + 1));
        }
        out.push(serde_json::from_str(&line).map_err(|_| invalid(path, number + 1, "has not the documented shape"))?);
    }
    Ok(out)
}

/// A whole file of text.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| invalid(path, 0, &format!("cannot be read ({})", error.kind())))
}

fn open(path: &Path) -> Result<std::io::Lines<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(|error| invalid(path, 0, &format!("cannot be read ({})", error.kind())))?;
    Ok(BufReader::new(file).lines())
}

pub(super) fn invalid(path: &Path, line: usize, what: &str) -> Failure {
    let place = if line == 0 { path.display().to_string() } else { format!("{}:{line}", path.display()) };
    Failure::new(Code::FieldInvalid, format!("{place} {what}"))
}

/// The ids of a ranking without repetition, best first: several passages of one document count once.
#[must_use]
pub fn distinct<'r>(ranking: impl Iterator<Item = &'r str>) -> Vec<&'r str> {
    let mut seen = HashSet::new();
    ranking.filter(|id| seen.insert(*id)).collect()
}

/// Rankings by question id: `(entry id, score)`, best first.
pub type Rankings = BTreeMap<String, Vec<(String, f64)>>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("qrels")).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    const CORPUS: (&str, &str) =
        ("corpus.jsonl", "{\"_id\": \"a\", \"title\": \"T\", \"text\": \"x\"}\n\n{\"_id\": \"b\", \"text\": \"y\"}\n");
    const QUERIES: (&str, &str) =
        ("queries.jsonl", "{\"_id\": \"1\", \"text\": \"q\"}\n{\"_id\": \"2\", \"text\": \"r\"}\n");

    #[test]
    fn both_column_layouts_read_and_only_judged_questions_stay() {
        for qrels in ["query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\tb\t0\n", "1 0 a 1\n1 0 b 0\n2 0 b -1\n"] {
            let folder = folder(&[CORPUS, QUERIES, ("qrels/train.tsv", qrels)]);
            let read = BeirFolder::read(folder.path(), None).unwrap();
            assert_eq!((read.split.as_str(), read.entries.len(), read.questions.len()), ("train", 2, 1));
            assert_eq!(read.relevant("1"), HashSet::from(["a"]));
            assert!(read.relevant("2").is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_by_file_and_line() {
        let folder = folder(&[CORPUS, ("queries.jsonl", "{\"_id\": 7}\n"), ("qrels/test.tsv", "h h h\n1 a one\n")]);
        let message = |split| BeirFolder::read(folder.path(), split).unwrap_err().message;
        assert!(message(None).ends_with("test.tsv:2 needs a whole number as its last column"));
        assert!(message(Some("dev")).contains("dev.tsv cannot be read"));
        std::fs::write(folder.path().join("qrels/test.tsv"), "1 a 1\n").unwrap();
        assert!(message(None).ends_with("queries.jsonl:1 has not the documented shape"));
    }

    #[test]
    fn answers_of_both_shapes_read() {
        let answers = "{\"_id\": \"1\", \"answers\": [{\"text\": \"x\"}, {\"text\": \"z\"}]}\n{\"_id\": \"2\", \"answer\": \"y\"}\n";
        let folder = folder(&[CORPUS, QUERIES, ("qrels/test.tsv", "1 a 1\n"), ("answers.jsonl", answers)]);
        let read = BeirFolder::read(folder.path(), None).unwrap();
        assert_eq!((read.answers["1"].len(), read.answers["2"][0].as_str()), (2, "y"));
    }
}
