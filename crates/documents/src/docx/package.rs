//! Parts of the package and how they refer to each other (Open Packaging Conventions).

use super::archive::Archive;
use super::malformed;
use super::xml::{Token, walk};
use crate::blocks::DocumentBuilder;
use crate::limits::Limits;
use docmill_model::{Code, Failure};
use std::collections::{HashMap, HashSet};

/// One relation of a part.
#[derive(Clone, Debug)]
struct Relation {
    kind: String,
    /// Part name, or the address as written for an external one.
    target: String,
    external: bool,
}

/// The relations of one part.
#[derive(Clone, Debug, Default)]
pub(super) struct Relations {
    /// In the order of the file.
    all: Vec<Relation>,
    /// Where the first of each id is.
    by_id: HashMap<String, usize>,
}

impl Relations {
    /// The external address behind a relation id.
    pub fn address(&self, id: &str) -> Option<&str> {
        self.find(id, true).map(|relation| relation.target.as_str())
    }

    /// Kind and part name behind a relation id.
    pub fn part(&self, id: &str) -> Option<(&str, &str)> {
        self.find(id, false).map(|relation| (relation.kind.as_str(), relation.target.as_str()))
    }

    fn find(&self, id: &str, external: bool) -> Option<&Relation> {
        self.by_id.get(id).map(|&at| &self.all[at]).filter(|relation| relation.external == external)
    }

    /// Part names of all relations whose kind ends with one of `kinds`, each once.
    pub fn targets(&self, kinds: &[&str]) -> Vec<String> {
        let wanted = |r: &&Relation| !r.external && kinds.iter().any(|kind| r.kind.ends_with(kind));
        let mut found = HashSet::new();
        let targets = self.all.iter().filter(wanted).map(|relation| relation.target.as_str());
        targets.filter(|target| found.insert(*target)).map(str::to_owned).collect()
    }
}

/// The opened package.
pub(super) struct Package<'a> {
    archive: Archive<'a>,
    limits: &'a Limits,
    roots: Relations,
}

/// Core properties (local names) and the metadata keys they fill.
const PROPERTIES: [(&str, &str); 9] = [
    ("title", "title"),
    ("creator", "author"),
    ("lastModifiedBy", "modified_by"),
    ("created", "date"),
    ("modified", "modified"),
    ("subject", "subject"),
    ("description", "description"),
    ("keywords", "keywords"),
    ("language", "language"),
];

impl<'a> Package<'a> {
    /// Reads the relations of the package itself.
    ///
    /// # Errors
    /// Those of [`Archive::read`] and [`walk`].
    pub fn open(mut archive: Archive<'a>, limits: &'a Limits) -> Result<Self, Failure> {
        let bytes = archive.read("_rels/.rels")?.unwrap_or_default();
        let roots = read_relations(&bytes, "", limits)?;
        Ok(Self { archive, limits, roots })
    }

    /// What reading may cost.
    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Name of the main part.
    ///
    /// # Errors
    /// `TYPE_MISMATCH` when the package is no word-processing document, `DOCX_MALFORMED` when the part is missing.
    pub fn main_part(&self) -> Result<String, Failure> {
        let named = self.roots.targets(&["/officeDocument"]).into_iter().next();
        let name = named.unwrap_or_else(|| "word/document.xml".to_owned());
        if self.archive.has(&name) && !name.starts_with("xl/") && !name.starts_with("ppt/") {
            return Ok(name);
        }
        if name.starts_with("word/") && self.archive.has("[Content_Types].xml") {
            return Err(malformed("the main part of the document is missing"));
        }
        Err(Failure::new(Code::TypeMismatch, "the archive holds no word-processing document"))
    }

    /// A part that must exist.
    ///
    /// # Errors
    /// Those of [`Archive::read`]; `DOCX_MALFORMED` when it is missing.
    pub fn required(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        self.archive.read(name)?.ok_or_else(|| malformed("a part of the document is missing"))
    }

    /// A part, or nothing.
    ///
    /// # Errors
    /// Those of [`Archive::read`].
    pub fn optional(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        Ok(self.archive.read(name)?.unwrap_or_default())
    }

    /// The first part related by `kind`, or nothing.
    ///
    /// # Errors
    /// Those of [`Archive::read`].
    pub fn related(&mut self, relations: &Relations, kind: &str) -> Result<Vec<u8>, Failure> {
        match relations.targets(&[kind]).first() {
            Some(name) => self.optional(name),
            None => Ok(Vec::new()),
        }
    }

    /// The relations of a part.
    ///
    /// # Errors
    /// Those of [`Archive::read`] and [`walk`].
    pub fn relations_of(&mut self, part: &str) -> Result<Relations, Failure> {
        let (folder, file) = part.rsplit_once('/').unwrap_or(("", part));
        let bytes = self.optional(&format!("{folder}/_rels/{file}.rels"))?;
        read_relations(&bytes, folder, self.limits)
    }

    /// Copies title, author and dates into the document's metadata.
    ///
    /// # Errors
    /// Those of [`Archive::read`] and [`walk`].
    pub fn core_properties(&mut self, builder: &mut DocumentBuilder) -> Result<(), Failure> {
        let roots = self.roots.clone();
        let bytes = self.related(&roots, "/core-properties")?;
        let (mut open, mut value) = (None, String::new());
        walk(&bytes, self.limits, |token| {
            match token {
                Token::Start(tag) => {
                    open = PROPERTIES.iter().find(|(name, _)| *name == tag.name()).map(|(_, key)| *key);
                    value.clear();
                }
                Token::Text(words) => value.push_str(words),
                Token::End => {
                    if let Some(key) = open.take() {
                        builder.metadata(key, &value);
                    }
                }
            }
            Ok(())
        })
    }
}

fn read_relations(bytes: &[u8], folder: &str, limits: &Limits) -> Result<Relations, Failure> {
    let mut found = Relations::default();
    walk(bytes, limits, |token| {
        if let Token::Start(tag) = token
            && tag.name() == "Relationship"
        {
            let external = tag.attr("TargetMode").is_some_and(|mode| mode == "External");
            let written = tag.attr("Target").unwrap_or_default();
            let target = if external { written } else { resolve(folder, &written) };
            let (id, kind) = (tag.attr("Id").unwrap_or_default(), tag.attr("Type").unwrap_or_default());
            found.by_id.entry(id).or_insert(found.all.len());
            found.all.push(Relation { kind, target, external });
        }
        Ok(())
    })?;
    Ok(found)
}

/// A target relative to a folder, without `.` and `..`.
fn resolve(folder: &str, target: &str) -> String {
    let base = if target.starts_with('/') { "" } else { folder };
    let mut steps: Vec<&str> = Vec::new();
    for step in base.split('/').chain(target.split('/')) {
        match step {
            "" | "." => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    steps.join("/")
}
