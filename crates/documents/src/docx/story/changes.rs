//! What single elements do to an open story: properties, signs, fields, references and links.

use super::super::fields::{Field, link_target};
use super::super::notes::Kind;
use super::super::table::{self, TableState};
use super::super::xml::Tag;
use super::{Open, Paragraph, Story};

/// Font size in half points below which no reader sees text (2 pt).
const TINY_HALF_POINTS: u32 = 4;

/// Shade from which on a colour is that of paper.
const PALE: u8 = 236;
/// Styles of tables without colours.
const PLAIN_TABLES: [&str; 3] = ["TableGrid", "TableNormal", "TableGridLight"];

/// True for `FFFFFF` and what looks like it.
fn is_pale(colour: Option<&str>) -> bool {
    let Some(hex) = colour.filter(|hex| hex.len() == 6 && hex.is_ascii()) else { return false };
    (0..3).all(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).is_ok_and(|shade| shade >= PALE))
}

/// True for shading that leaves the ground in the colour of paper: a pale fill, or none, and no pattern over it.
pub(in super::super) fn is_paper(shading: &Tag) -> bool {
    let fill = shading.attr("fill").filter(|fill| fill != "auto");
    let plain = shading.attr("val").is_none_or(|pattern| pattern == "clear" || pattern == "nil");
    plain && fill.is_none_or(|fill| is_pale(Some(&fill)))
}

impl Story<'_, '_> {
    /// Elements that change something and hold no text of their own.
    pub(super) fn property_or_sign(&mut self, name: &str, tag: &Tag) {
        match name {
            "tab" | "ptab" if !self.inside_properties() => self.push("\t"),
            "br" | "cr" => self.push("\n"),
            "noBreakHyphen" => self.push("-"),
            "sym" => self.symbol(tag),
            "vanish" | "specVanish" if tag.is_on() => self.hide_run(),
            "rStyle" if tag.attr("val").is_some_and(|style| self.resources.styles.is_shaded(&style)) => {
                self.shade(true)
            }
            "rStyle" if tag.attr("val").is_some_and(|style| self.resources.styles.is_hidden(&style)) => self.hide_run(),
            "sz" if tag.number().is_some_and(|half_points| half_points < TINY_HALF_POINTS) => self.hide_run(),
            "color" if is_pale(tag.attr("val").as_deref()) => self.pale_run(),
            "highlight" if tag.attr("val").is_some_and(|colour| colour != "none" && colour != "white") => {
                self.shade(true)
            }
            "shd" => self.shade(!is_paper(tag)),
            "background" => self.coloured_pages = !is_pale(tag.attr("color").as_deref()),
            "srgbClr" | "schemeClr" if matches!(self.open.last(), Some(Open::ShapeFill)) => {
                let value = tag.attr("val");
                let paper = is_pale(value.as_deref()) || matches!(value.as_deref(), Some("bg1" | "lt1"));
                self.shapes.last_mut().into_iter().for_each(|shape| *shape = paper);
            }
            // A shape that shines through has the ground of whatever lies behind it; other changes make another colour.
            "alpha" | "lumMod" | "shade" => self.change_fill(),
            "tblStyle" if tag.attr("val").is_some_and(|style| !PLAIN_TABLES.contains(&style.as_str())) => {
                self.table(|table| table.shaded = true)
            }
            "pStyle" => {
                let style = tag.attr("val");
                let shaded = style.as_deref().is_some_and(|style| self.resources.styles.is_shaded(style));
                self.paragraph(|p| (p.style, p.shaded) = (style, p.shaded || shaded));
            }
            "outlineLvl" => self.paragraph(|p| p.outline = tag.number()),
            "numPr" => self.paragraph(|p| p.numbering = Some((None, None))),
            "numId" => self.paragraph(|p| p.numbering = p.numbering.map(|(_, level)| (tag.number(), level))),
            "ilvl" => self.paragraph(|p| p.numbering = p.numbering.map(|(number, _)| (number, tag.number()))),
            "gridSpan" => self.shape(|shape| shape.columns = tag.number().unwrap_or(1)),
            "vMerge" => self.shape(|shape| shape.continues = tag.attr("val").is_none_or(|val| val == "continue")),
            "gridBefore" => self.table(|table| table.skip(tag.number().unwrap_or(0))),
            "hidden" if tag.is_on() && matches!(self.open.last(), Some(Open::Plain)) => {
                self.table(TableState::hide_row)
            }
            "docPr" | "cNvPr"
                if tag.attr("hidden").is_some_and(|value| matches!(value.as_str(), "1" | "true" | "on")) =>
            {
                self.unseen_above = self.unseen_above.or(Some(self.open.len()));
            }
            "tblHeader" if tag.is_on() => self.table(TableState::mark_header),
            "footnoteReference" => self.reference(Kind::Footnote, tag),
            "endnoteReference" => self.reference(Kind::Endnote, tag),
            "fldChar" => self.field(tag.attr("fldCharType").as_deref()),
            _ => {}
        }
    }

    pub(super) fn push(&mut self, words: &str) {
        self.paragraph(|p| p.inline.push(words));
    }

    fn symbol(&mut self, tag: &Tag) {
        let code = tag.attr("char").and_then(|hex| u32::from_str_radix(hex.trim(), 16).ok());
        if let Some(c) = code.and_then(char::from_u32).filter(|c| !('\u{e000}'..='\u{f8ff}').contains(c)) {
            self.push(c.encode_utf8(&mut [0; 4]));
        }
    }

    fn reference(&mut self, kind: Kind, tag: &Tag) {
        if let Some(id) = tag.attr("id") {
            let unseen = self.is_unseen() || self.paragraphs.last().is_some_and(|p| self.has_hidden_style(p));
            let number = self.resources.notes.refer(kind, &id, unseen);
            self.push(&format!("[{number}]"));
        }
    }

    fn inside_properties(&self) -> bool {
        self.open
            .iter()
            .rev()
            .take_while(|o| !matches!(o, Open::Paragraph))
            .any(|o| matches!(o, Open::ParagraphProperties))
    }

    /// True inside a run or a drawing that is not shown.
    pub(super) fn is_unseen(&self) -> bool {
        let hidden = |open: &Open| matches!(open, Open::Run { hidden_from: Some(_), .. });
        self.unseen_above.is_some() || self.open.iter().any(hidden)
    }

    pub(super) fn has_hidden_style(&self, paragraph: &Paragraph) -> bool {
        paragraph.style.as_deref().is_some_and(|style| self.resources.styles.is_hidden(style))
    }

    fn hide_run(&mut self) {
        let mark = self.paragraphs.last().map(|p| p.inline.mark());
        // The innermost element is the run's property list; a paragraph mark's properties hide no text.
        if !self.inside_properties()
            && let Some(Open::Run { hidden_from, .. }) = self.open.iter_mut().rev().find(|o| !matches!(o, Open::Plain))
        {
            *hidden_from = mark;
        }
    }

    /// The run is written in the colour of paper. In a table with colours of its own that tells nothing, nor in a text
    /// box, behind which anything may lie, unless its fill is that of paper.
    fn pale_run(&mut self) {
        let boxes = self.paragraphs.len().saturating_sub(1);
        let boxed = boxes > 0 && (self.shapes.len() != boxes || self.shapes.last() != Some(&true));
        let tables = self.tables.iter().rev().find_map(TableState::is_coloured).unwrap_or(false);
        let coloured = boxed || tables || (self.coloured_pages && boxes == 0);
        let mark = self.paragraphs.last().filter(|p| !coloured && !p.shaded).map(|p| p.inline.mark());
        if !self.inside_properties()
            && let Some(Open::Run { pale_from, .. }) = self.open.iter_mut().rev().find(|o| !matches!(o, Open::Plain))
        {
            *pale_from = mark;
        }
    }

    /// The innermost run, paragraph, cell or table has a ground of its own, which is `coloured` or that of paper.
    fn shade(&mut self, coloured: bool) {
        match self.open.iter_mut().rev().find(|o| !matches!(o, Open::Plain)) {
            Some(Open::Run { shaded, .. }) => *shaded |= coloured,
            Some(Open::ParagraphProperties) => self.paragraph(|p| p.shaded |= coloured),
            Some(Open::Cell) => self.table(|table| table.cell_ground = Some(coloured)),
            _ => self.table(|table| table.shaded |= coloured),
        }
    }

    fn change_fill(&mut self) {
        // The innermost open element is the colour, within the fill.
        if matches!(self.open.as_slice(), [.., Open::ShapeFill, Open::Plain])
            && let Some(paper) = self.shapes.last_mut()
        {
            *paper = false;
        }
    }

    pub(super) fn open_link(&mut self, target: Option<String>) -> Open {
        match (target, self.paragraphs.last()) {
            (Some(target), Some(paragraph)) => Open::Link { mark: paragraph.inline.mark(), target },
            _ => Open::Plain,
        }
    }

    fn field(&mut self, kind: Option<&str>) {
        let depth = self.paragraphs.len();
        match kind {
            Some("begin") => self.fields.push(Field::default()),
            Some("separate") => {
                let mark = self.paragraphs.last().map(|p| p.inline.mark());
                if let Some(field) = self.fields.last_mut() {
                    field.has_result = true;
                    field.place = mark.map(|mark| (depth, mark));
                }
            }
            Some("end") => {
                let Some(field) = self.fields.pop() else { return };
                let target = link_target(&field.instruction).filter(|_| field.has_result);
                if let (Some(target), Some((_, mark))) = (target, field.place.filter(|place| place.0 == depth)) {
                    self.paragraph(|p| p.inline.link(mark.min(p.inline.mark()), &target));
                }
            }
            _ => {}
        }
    }

    pub(super) fn paragraph(&mut self, change: impl FnOnce(&mut Paragraph)) {
        if let Some(paragraph) = self.paragraphs.last_mut() {
            change(paragraph);
        }
    }

    pub(super) fn table(&mut self, change: impl FnOnce(&mut TableState)) {
        if let Some(table) = self.tables.last_mut() {
            change(table);
        }
    }

    fn shape(&mut self, change: impl FnOnce(&mut table::CellShape)) {
        if let Some(shape) = self.tables.last_mut().and_then(TableState::shape) {
            change(shape);
        }
    }
}
