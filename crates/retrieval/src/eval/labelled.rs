//! Documents with labelled fields, as public sets keep them: Kleister-NDA, SROIE, invoice2data, and one plain layout for
//! anybody's own.
//!
//! Values are brought into the form in which Docmill extracts (ISO dates and durations, decimal amounts), so that they
//! can be compared for equality. Not here: extracting (the stage's) and reading files (the parser's).

use super::beir::{invalid, read_lines, read_text};
use docmill_model::Failure;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How a set keeps its documents and labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelledFormat {
    /// Contracts: `expected-shared.jsonl` and `text/*.txt`.
    KleisterNda,
    /// Receipts: `key/*.json` and `box/*.csv`.
    Sroie,
    /// Invoices: `*.pdf` beside `*.json`.
    Invoice2data,
    /// `labels.jsonl` with `{"name", "text" | "file", "expected": {JSON pointer: [values]}}`.
    Pointers,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its text.
    Text(String),
    /// A file to be parsed.
    File(PathBuf),
}

/// A document with its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Its name in the set.
    pub name: String,
    /// What to extract from.
    pub content: Content,
    /// Labelled values by field.
    pub expected: BTreeMap<String, Vec<String>>,
}

/// How two values are compared.
#[derive(Clone, Copy)]
enum Form {
    Exact,
    Lower,
    Name,
}

/// A field of a set: its name, where Docmill puts it, and how it is compared.
type Field = (&'static str, &'static str, Form);

const CONTRACT: &[Field] = &[
    ("effective_date", "/effective_date", Form::Exact),
    ("jurisdiction", "/jurisdiction", Form::Lower),
    ("party", "/parties", Form::Name),
    ("term", "/term", Form::Exact),
];
const RECEIPT: &[Field] = &[
    ("company", "/supplier", Form::Name),
    ("total", "/total/amount", Form::Exact),
    ("date", "/invoice_date", Form::Exact),
];
const INVOICE: &[Field] = &[
    ("amount", "/total/amount", Form::Exact),
    ("date", "/invoice_date", Form::Exact),
    ("invoice_number", "/invoice_number", Form::Exact),
    ("iban", "/iban", Form::Exact),
    ("vat", "/vat_id", Form::Exact),
    ("amount_untaxed", "/net_total/amount", Form::Exact),
];

impl LabelledFormat {
    /// The shipped extraction schema that suits the set; `None` for one's own.
    #[must_use]
    pub fn schema(self) -> Option<&'static str> {
        match self {
            Self::KleisterNda => Some("contracts"),
            Self::Sroie | Self::Invoice2data => Some("invoices"),
            Self::Pointers => None,
        }
    }

    /// Reads the documents of `folder` in the order of the set.
    ///
    /// # Errors
    /// `FIELD_INVALID` with file and line.
    pub fn read(self, folder: &Path) -> Result<Vec<Labelled>, Failure> {
        match self {
            Self::KleisterNda => contracts(folder),
            Self::Sroie => receipts(folder),
            Self::Invoice2data => invoices(folder),
            Self::Pointers => pointers(folder),
        }
    }

    /// The values of `field` in extracted `data`, in the form in which the labels are.
    #[must_use]
    pub fn found(self, field: &str, data: &Value) -> Vec<String> {
        let fields = match self {
            Self::KleisterNda => CONTRACT,
            Self::Sroie => RECEIPT,
            Self::Invoice2data => INVOICE,
            Self::Pointers => return data.pointer(field).map(values).unwrap_or_default(),
        };
        let known = fields.iter().find(|(name, ..)| *name == field);
        let found = known.and_then(|(_, pointer, form)| Some(form.of(&values(data.pointer(pointer)?))));
        found.unwrap_or_default()
    }
}

impl Form {
    fn of(self, values: &[String]) -> Vec<String> {
        match self {
            Form::Exact => values.to_vec(),
            Form::Lower => values.iter().map(|value| value.to_lowercase()).collect(),
            Form::Name => names(values),
        }
    }
}

fn contracts(folder: &Path) -> Result<Vec<Labelled>, Failure> {
    let lines: Vec<Value> = read_lines(&folder.join("expected-shared.jsonl"))?;
    let document = |line: &Value| {
        let name = text(&line["file"]).replace(".pdf", ".txt");
        let wanted = |field: &str| values(&line["expected"][field]);
        let terms = wanted("term").iter().map(|term| duration(term)).collect();
        let expected = [
            ("effective_date", wanted("effective_date")),
            ("jurisdiction", Form::Lower.of(&wanted("jurisdiction"))),
            ("party", names(&wanted("party"))),
            ("term", terms),
        ];
        let content = Content::Text(read_text(&folder.join("text").join(&name))?);
        Ok(Labelled { name, content, expected: labels(expected) })
    };
    lines.iter().map(document).collect()
}

fn receipts(folder: &Path) -> Result<Vec<Labelled>, Failure> {
    let document = |file: &PathBuf| {
        let (name, line) = (stem(file), json(file)?);
        let boxes = read_text(&folder.join("box").join(format!("{name}.csv")))?;
        let total = values(&line["total"]);
        let amounts = total.iter().map(|t| t.trim_start_matches(['R', 'M', '$', ' ']).replace(',', "")).collect();
        let dates = values(&line["date"]).iter().map(|date| day_first(date)).collect();
        let expected = [("company", names(&values(&line["company"]))), ("total", amounts), ("date", dates)];
        Ok(Labelled { name, content: Content::Text(transcript(&boxes)), expected: labels(expected) })
    };
    files(&folder.join("key"), "json")?.iter().map(document).collect()
}

fn invoices(folder: &Path) -> Result<Vec<Labelled>, Failure> {
    let mut documents = Vec::new();
    for file in files(folder, "pdf")? {
        let labelled = file.with_extension("json");
        if !labelled.exists() {
            continue;
        }
        let line = json(&labelled)?;
        let wanted = |field: &str| match &line[0][field] {
            Value::Number(number) => number.as_f64().map(|number| format!("{number:.2}")).into_iter().collect(),
            other => values(other),
        };
        let expected = INVOICE.iter().map(|(field, ..)| ((*field).to_owned(), wanted(field))).collect();
        documents.push(Labelled { name: stem(&file), content: Content::File(file), expected });
    }
    Ok(documents)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PointerLine {
    name: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
    expected: BTreeMap<String, Vec<String>>,
}

fn pointers(folder: &Path) -> Result<Vec<Labelled>, Failure> {
    let path = folder.join("labels.jsonl");
    let lines: Vec<PointerLine> = read_lines(&path)?;
    let document = |(number, line): (usize, PointerLine)| {
        let content = match (line.text, line.file) {
            (Some(text), None) => Content::Text(text),
            (None, Some(file)) => Content::File(folder.join(file)),
            _ => return Err(invalid(&path, number + 1, "needs either `text` or `file`")),
        };
        Ok(Labelled { name: line.name, content, expected: line.expected })
    };
    lines.into_iter().enumerate().map(document).collect()
}

fn labels<const N: usize>(fields: [(&str, Vec<String>); N]) -> BTreeMap<String, Vec<String>> {
    fields.into_iter().map(|(field, values)| (field.to_owned(), values)).collect()
}

fn json(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read_text(path)?).map_err(|_| invalid(path, 0, "is not JSON"))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Failure> {
    let listed = std::fs::read_dir(folder).map_err(|_| invalid(folder, 0, "cannot be listed"))?;
    let mut found: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|own| own == extension));
    found.sort();
    Ok(found)
}

/// Top, bottom, and the words with their left edges.
type Line = (i32, i32, Vec<(i32, String)>);

/// Boxes (`x0,y0,…,words`) as lines from top to bottom.
fn transcript(boxes: &str) -> String {
    let mut rows: Vec<(i32, i32, i32, String)> = Vec::new();
    for line in boxes.lines() {
        let parts: Vec<&str> = line.splitn(9, ',').collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<i32>().ok()).unwrap_or(0);
        if let Some(words) = parts.get(8) {
            rows.push((number(1), number(5), number(0), (*words).to_owned()));
        }
    }
    rows.sort();
    let mut lines: Vec<Line> = Vec::new();
    for (top, bottom, left, words) in rows {
        let middle = (top + bottom) / 2;
        match lines.iter_mut().find(|(from, to, _)| *from <= middle && middle <= *to) {
            Some((_, _, line)) => line.push((left, words)),
            None => lines.push((top, bottom, vec![(left, words)])),
        }
    }
    let joined = lines.into_iter().map(|(_, _, mut line)| {
        line.sort();
        line.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(" ")
    });
    joined.collect::<Vec<_>>().join("\n")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

fn values(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text.clone()],
        Value::Array(all) => all.iter().map(text).collect(),
        _ => Vec::new(),
    }
}

/// Letters and digits in lower case, spellings of legal forms unified.
fn names(names: &[String]) -> Vec<String> {
    let forms = [("incorporated", "inc"), ("limited", "ltd"), (" and ", "&"), ("l.l.c", "llc")];
    let tidy = |name: &String| {
        let unified = forms.iter().fold(name.to_lowercase(), |name, (long, short)| name.replace(long, short));
        unified.chars().filter(|c| c.is_alphanumeric() || *c == '&').collect::<String>()
    };
    names.iter().map(tidy).collect::<BTreeSet<_>>().into_iter().collect()
}

/// `2 years` as `P2Y`.
fn duration(term: &str) -> String {
    let (count, unit) = term.split_once(' ').unwrap_or((term, ""));
    format!("P{count}{}", unit.to_uppercase().chars().next().unwrap_or('?'))
}

/// A date whose day comes first, or its year, in ISO 8601; anything else as it is.
fn day_first(date: &str) -> String {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let parts: Vec<&str> = date.split(['/', '-', '.', ' ']).filter(|part| !part.is_empty()).collect();
    let month = |part: &str| {
        let named = MONTHS.iter().position(|name| part.to_lowercase().starts_with(name));
        named.map_or_else(|| part.to_owned(), |at| format!("{:02}", at + 1))
    };
    match parts.as_slice() {
        [day, m, year] if day.len() <= 2 => {
            format!("{}{year}-{:0>2}-{day:0>2}", if year.len() == 2 { "20" } else { "" }, month(m))
        }
        [year, m, day] => format!("{year}-{:0>2}-{day:0>2}", month(m)),
        _ => date.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_take_the_form_in_which_they_are_extracted() {
        assert_eq!(day_first("15/01/2019"), "2019-01-15");
        assert_eq!(day_first("5 MAR 18"), "2018-03-05");
        assert_eq!(duration("2 years"), "P2Y");
        assert_eq!(names(&["Acme Limited".to_owned(), "ACME LTD".to_owned()]), ["acmeltd"]);
        let data = serde_json::json!({"total": {"amount": "12.00"}, "parties": ["A, Inc."]});
        assert_eq!(LabelledFormat::Sroie.found("total", &data), ["12.00"]);
        assert_eq!(LabelledFormat::KleisterNda.found("party", &data), ["ainc"]);
        assert_eq!(LabelledFormat::Pointers.found("/total/amount", &data), ["12.00"]);
        assert!(LabelledFormat::Sroie.found("absent", &data).is_empty());
    }

    #[test]
    fn boxes_become_lines_and_own_labels_are_read() {
        assert_eq!(transcript("50,0,90,0,90,10,50,10,B\n0,1,40,1,40,9,0,9,A\n0,20,9,20,9,30,0,30,C,D"), "A B\nC,D");
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"name": "a", "text": "Total 3.00", "expected": {"/total/amount": ["3.00"]}}"#;
        std::fs::write(folder.path().join("labels.jsonl"), line).unwrap();
        let read = LabelledFormat::Pointers.read(folder.path()).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].expected["/total/amount"][0].as_str()), ("a", "3.00"));
        std::fs::write(folder.path().join("labels.jsonl"), r#"{"name": "a", "expected": {}}"#).unwrap();
        assert!(LabelledFormat::Pointers.read(folder.path()).unwrap_err().message.contains("labels.jsonl:1"));
    }
}
