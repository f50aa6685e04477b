//! One story of the package (body, a note, a page header): paragraphs and tables in the order of the markup.
//!
//! Deleted and moved-away text, the fallback of alternate content and phonetic guides are skipped; text boxes are
//! read where they are anchored; hidden runs are flagged.

mod changes;
mod drawings;
mod roles;

pub(super) use changes::is_paper;

use super::drawn::Drawings;
use super::fields::{Field, link_target};
use super::notes::Notes;
use super::numbering::Numbering;
use super::package::{Package, Relations};
use super::styles::Styles;
use super::table::{self, TableState};
use super::xml::{Tag, Token};
use crate::blocks::DocumentBuilder;
use crate::inline::Inline;
use docmill_model::Failure;
use docmill_model::document::BlockKind;
use drawings::Drawing;

/// What all stories of a package share.
pub(super) struct Resources<'p> {
    /// Where parts come from.
    pub package: Package<'p>,
    /// Paragraph and run styles.
    pub styles: Styles,
    /// List counters.
    pub numbering: Numbering,
    /// Relations of the part being read.
    pub relations: Relations,
    /// What was drawn so far.
    pub drawings: Drawings,
    /// What could not be read, with its path.
    pub failed: Vec<(String, Failure)>,
    /// Notes that were referred to.
    pub notes: Notes,
}

/// One paragraph or table of a collected story.
pub(super) struct Piece(Inline);

impl Piece {
    /// All pieces as the text of note `number`.
    pub fn join(pieces: Vec<Piece>, number: usize) -> Inline {
        let mut out = Inline::of(&format!("[{number}] "));
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                out.push("\n");
            }
            out.append(piece.0);
        }
        out
    }
}

/// Elements whose content is no text of the document: what a story is read past.
pub(super) const SKIPPED: [&str; 15] = [
    "del",
    "moveFrom",
    "Fallback",
    "rt",
    "sdtPr",
    "pPrChange",
    "rPrChange",
    "tblPrChange",
    "tcPrChange",
    "sectPrChange",
    "trPrChange",
    "tblGridChange",
    "delInstrText",
    "docPart",
    "binData",
];

/// What the end of an open element means.
enum Open {
    Plain,
    Paragraph,
    ParagraphProperties,
    Run {
        hidden_from: Option<usize>,
        /// Where text in the colour of paper begins, which is seen where the run is shaded.
        pale_from: Option<usize>,
        /// It has a ground of its own.
        shaded: bool,
    },
    Text,
    Instruction,
    Link {
        mark: usize,
        target: String,
    },
    Table,
    Row,
    Cell,
    /// A drawn shape, which may hold a text box.
    Shape,
    ShapeProperties,
    ShapeFill,
}

#[derive(Default)]
struct Paragraph {
    inline: Inline,
    style: Option<String>,
    outline: Option<u32>,
    numbering: Option<(Option<u32>, Option<u32>)>,
    /// It has a ground of its own.
    shaded: bool,
    /// What is drawn in it.
    drawings: Vec<Drawing>,
}

/// The reader of one story.
pub(super) struct Story<'a, 'p> {
    resources: &'a mut Resources<'p>,
    builder: &'a mut DocumentBuilder,
    part: String,
    role: Option<BlockKind>,
    open: Vec<Open>,
    paragraphs: Vec<Paragraph>,
    tables: Vec<TableState>,
    fields: Vec<Field>,
    /// The open shapes: whether each is filled in the colour of paper.
    shapes: Vec<bool>,
    /// Depth of elements from which on a drawing that is not shown holds everything.
    unseen_above: Option<usize>,
    /// The pages have a ground that is not the paper's.
    coloured_pages: bool,
    collected: Option<Vec<Piece>>,
    paragraph_count: usize,
    table_count: usize,
    drawing_count: usize,
}

impl<'a, 'p> Story<'a, 'p> {
    /// A story whose blocks go to `builder` with paths below `part`, all with `role` where one is given.
    pub fn new(
        resources: &'a mut Resources<'p>,
        builder: &'a mut DocumentBuilder,
        part: &str,
        role: Option<BlockKind>,
    ) -> Self {
        Self {
            resources,
            builder,
            part: part.to_owned(),
            role,
            open: Vec::new(),
            paragraphs: Vec::new(),
            tables: Vec::new(),
            fields: Vec::new(),
            shapes: Vec::new(),
            unseen_above: None,
            coloured_pages: false,
            collected: None,
            paragraph_count: 0,
            table_count: 0,
            drawing_count: 0,
        }
    }

    /// Keeps finished pieces instead of handing them to the builder.
    pub fn collect(&mut self) {
        self.collected = Some(Vec::new());
    }

    /// The pieces kept since the last call.
    pub fn take_collected(&mut self) -> Vec<Piece> {
        self.collected.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What all stories share.
    pub fn resources(&self) -> &Resources<'p> {
        self.resources
    }

    /// Takes one step.
    ///
    /// # Errors
    /// None at present; the signature is that of the walk's visitor.
    pub fn token(&mut self, token: Token) -> Result<(), Failure> {
        match token {
            Token::Start(tag) => {
                let open = self.start(tag);
                self.open.push(open);
            }
            Token::End => {
                if let Some(open) = self.open.pop() {
                    self.end(open);
                }
                self.unseen_above = self.unseen_above.filter(|depth| self.open.len() >= *depth);
            }
            Token::Text(words) => match self.open.last() {
                Some(Open::Text) => self.push(words),
                Some(Open::Instruction) => {
                    if let Some(field) = self.fields.last_mut().filter(|f| f.instruction.len() < 4_096) {
                        field.instruction.push_str(words);
                    }
                }
                _ => {}
            },
        }
        Ok(())
    }

    /// Hands over what is still open.
    ///
    /// # Errors
    /// None at present.
    pub fn finish(mut self) -> Result<(), Failure> {
        while let Some(open) = self.open.pop() {
            self.end(open);
        }
        Ok(())
    }

    fn start(&mut self, tag: &Tag) -> Open {
        match tag.name() {
            "p" => {
                self.paragraphs.push(Paragraph::default());
                return Open::Paragraph;
            }
            "pPr" => return Open::ParagraphProperties,
            "r" => return Open::Run { hidden_from: None, pale_from: None, shaded: false },
            "t" => return Open::Text,
            "instrText" => return Open::Instruction,
            "tbl" => {
                self.tables.push(TableState::default());
                return Open::Table;
            }
            "tr" => {
                self.table(TableState::begin_row);
                return Open::Row;
            }
            "tc" => {
                self.table(TableState::begin_cell);
                return Open::Cell;
            }
            "hyperlink" => {
                let target = tag.attr("id").and_then(|id| self.resources.relations.address(&id).map(str::to_owned));
                let target = target.or_else(|| tag.attr("anchor").map(|anchor| format!("#{anchor}")));
                return self.open_link(target);
            }
            "fldSimple" => {
                let target = tag.attr("instr").and_then(|instruction| link_target(&instruction));
                return self.open_link(target);
            }
            "wsp" => {
                self.shapes.push(false);
                return Open::Shape;
            }
            "spPr" => return Open::ShapeProperties,
            "solidFill" if matches!(self.open.last(), Some(Open::ShapeProperties)) => return Open::ShapeFill,
            "chart" | "relIds" => {
                if let Some(id) = tag.attr("id").or_else(|| tag.attr("dm")) {
                    self.draw(&id);
                }
            }
            name => self.property_or_sign(name, tag),
        }
        Open::Plain
    }

    fn end(&mut self, open: Open) {
        match open {
            Open::Paragraph => self.end_paragraph(),
            Open::Run { hidden_from, pale_from, shaded } => {
                if let Some(mark) = hidden_from.or(pale_from.filter(|_| !shaded)) {
                    self.paragraph(|p| p.inline.hide(mark));
                }
            }
            Open::Link { mark, target } => self.paragraph(|p| p.inline.link(mark, &target)),
            Open::Cell => self.table(TableState::end_cell),
            Open::Table => self.end_table(),
            Open::Shape => drop(self.shapes.pop()),
            _ => {}
        }
    }

    fn end_paragraph(&mut self) {
        let Some(done) = self.paragraphs.pop() else { return };
        let role = self.role_of(&done);
        let label = self.label_of(&done).unwrap_or_default();
        let mut inline = if label.is_empty() { Inline::default() } else { Inline::of(&format!("{label} ")) };
        let blank = done.inline.is_blank();
        // A text box is shown with the run that it is anchored in.
        let hidden = self.has_hidden_style(&done) || self.is_unseen();
        inline.append(done.inline);
        let drawings = done.drawings;
        if hidden {
            inline.hide(0);
        }
        match (self.tables.last_mut(), &mut self.collected) {
            (Some(table), _) => table.paragraph(inline),
            (None, _) if blank => self.paragraph_count += 1,
            (None, collected) => {
                self.paragraph_count += 1;
                match collected {
                    Some(pieces) => pieces.push(Piece(inline)),
                    None => {
                        let path = format!("{}/p[{}]", self.part, self.paragraph_count);
                        self.builder.block(self.role.unwrap_or(role), path, &inline);
                    }
                }
            }
        }
        drawings.into_iter().for_each(|drawing| self.place(drawing));
    }

    fn end_table(&mut self) {
        let Some(done) = self.tables.pop().map(TableState::finish) else { return };
        if let Some(outer) = self.tables.last_mut() {
            outer.paragraph(table::flat(done));
            return;
        }
        self.table_count += 1;
        match &mut self.collected {
            Some(pieces) => pieces.push(Piece(table::flat(done))),
            None => {
                let path = format!("{}/tbl[{}]", self.part, self.table_count);
                self.builder.table(done, path, self.role.is_some());
            }
        }
    }
}
