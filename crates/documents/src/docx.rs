//! DOCX: the words of a word-processing package in the order in which they are read.
//!
//! Body first, then foot- and endnotes, then page headers and footers as furniture. Deleted text of tracked changes
//! is dropped, inserted text kept, hidden runs flagged. Charts are read as tables, when they are drawn; one that cannot
//! be read leaves the rest standing. External targets are recorded and never opened; macros, embedded objects and
//! comments are not read.

mod archive;
mod chart;
mod drawn;
mod fields;
mod notes;
mod numbering;
mod package;
mod story;
mod styles;
mod table;
mod xml;

use crate::ParseOptions;
use crate::blocks::DocumentBuilder;
use crate::limits::Limits;
use archive::Archive;
use docmill_model::document::{BlockKind, Format, ParsedDocument};
use docmill_model::{Code, Failure};
use package::Package;
use story::{Resources, Story};

/// Characters of a part's name in paths and messages.
const NAME_CHARS: usize = 100;

/// Reads a word-processing package (also with macros or as a template; the macros are ignored).
///
/// # Errors
/// `ARCHIVE_ENCRYPTED`, `ARCHIVE_UNSAFE_PATH`, `ENTRY_LIMIT`, `EXPANSION_LIMIT`, `TYPE_MISMATCH`, `DOCX_MALFORMED`,
/// `XML_DTD_FORBIDDEN`, `XML_LIMIT`, `EMPTY_TEXT`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let limits = &options.limits;
    let mut package = Package::open(Archive::open(bytes, limits)?, limits)?;
    let mut builder = DocumentBuilder::new(Format::Docx);
    package.core_properties(&mut builder)?;
    let main = package.main_part()?;
    let relations = package.relations_of(&main)?;
    let mut resources = Resources {
        styles: styles::Styles::read(&package.related(&relations, "/styles")?, limits)?,
        numbering: numbering::Numbering::read(&package.related(&relations, "/numbering")?, limits)?,
        package,
        relations,
        drawings: drawn::Drawings::default(),
        failed: Vec::new(),
        notes: notes::Notes::default(),
    };
    let body = resources.package.required(&main)?;
    let mut story = Story::new(&mut resources, &mut builder, "body", None);
    xml::walk_past(&story::SKIPPED, &body, limits, |token| story.token(token))?;
    story.finish()?;
    drop(body);
    append_notes(&mut resources, &mut builder, limits)?;
    append_page_parts(&mut resources, &mut builder, limits)?;
    for (path, failure) in resources.failed {
        builder.failed_part(path, failure);
    }
    builder.finish()
}

/// Foot- and endnotes that the body refers to, in the order of the references.
fn append_notes(resources: &mut Resources, builder: &mut DocumentBuilder, limits: &Limits) -> Result<(), Failure> {
    for kind in [notes::Kind::Footnote, notes::Kind::Endnote] {
        let Some(name) = resources.relations.targets(&[kind.relation()]).into_iter().next() else { continue };
        let part = resources.package.optional(&name)?;
        let own = resources.package.relations_of(&name)?;
        let main = std::mem::replace(&mut resources.relations, own);
        let collected = notes::collect(&part, kind, resources, limits)?;
        resources.relations = main;
        for (number, content) in collected {
            builder.block(BlockKind::Footnote, format!("{}[{number}]", kind.name()), &content);
        }
    }
    Ok(())
}

/// Page headers and footers, each once.
fn append_page_parts(resources: &mut Resources, builder: &mut DocumentBuilder, limits: &Limits) -> Result<(), Failure> {
    let targets: Vec<String> = resources.relations.targets(&["/header", "/footer"]);
    for target in targets {
        let part = resources.package.optional(&target)?;
        let name = target.rsplit('/').next().unwrap_or(&target).trim_end_matches(".xml");
        // It stands in the path of each block.
        let name: String = name.chars().take(NAME_CHARS).collect();
        let own = resources.package.relations_of(&target)?;
        let main = std::mem::replace(&mut resources.relations, own);
        let mut story = Story::new(resources, builder, &name, Some(BlockKind::Furniture));
        xml::walk_past(&story::SKIPPED, &part, limits, |token| story.token(token))?;
        story.finish()?;
        resources.relations = main;
    }
    Ok(())
}

fn malformed(message: impl Into<String>) -> Failure {
    Failure::new(Code::DocxMalformed, message)
}

#[cfg(test)]
mod tests;
