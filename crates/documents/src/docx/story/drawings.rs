//! Charts and diagrams of a story: placed after the paragraph that they are drawn in.

use super::super::drawn::Drawn;
use super::{Piece, Resources, Story};
use crate::inline::Inline;
use docmill_model::document::BlockKind;

/// A chart or diagram on its way to the end of its paragraph.
pub(super) struct Drawing {
    drawn: Drawn,
    path: String,
    /// Readers do not see it.
    hidden: bool,
}

/// Drawings that could not be read, per document; those beyond are not listed, so that a short file cannot become a long list.
const FAILURES: usize = 1_000;

impl Story<'_, '_> {
    /// A drawing refers to a part.
    pub(super) fn draw(&mut self, id: &str) {
        self.drawing_count += 1;
        let hidden = self.is_unseen() || self.paragraphs.last().is_some_and(|p| self.has_hidden_style(p));
        let Resources { drawings, package, relations, .. } = &mut *self.resources;
        match drawings.draw(package, relations, id, hidden) {
            Ok(Some(drawn)) => {
                let path = format!("{}/{}[{}]", self.part, drawn.name(), self.drawing_count);
                let drawing = Drawing { drawn, path, hidden };
                match self.paragraphs.last_mut() {
                    Some(paragraph) => paragraph.drawings.push(drawing),
                    None => self.place(drawing),
                }
            }
            Ok(None) => {}
            Err(failure) if self.resources.failed.len() < FAILURES => {
                let path = format!("{}/drawing[{}]", self.part, self.drawing_count);
                self.resources.failed.push((path, failure));
            }
            Err(_) => {}
        }
    }

    pub(super) fn place(&mut self, drawing: Drawing) {
        let Drawing { drawn, path, hidden } = drawing;
        let seen = |mut words: Inline| {
            if hidden {
                words.hide(0);
            }
            words
        };
        if self.collected.is_some() || !self.tables.is_empty() {
            let words = seen(drawn.flat());
            match (self.tables.last_mut(), &mut self.collected) {
                (Some(table), _) => table.paragraph(words),
                (None, Some(pieces)) => pieces.push(Piece(words)),
                (None, None) => {}
            }
            return;
        }
        match drawn {
            Drawn::Chart(chart) => {
                let titles = seen(Inline::of(&chart.titles.join("\n")));
                self.builder.block(self.role.unwrap_or(BlockKind::Caption), format!("{path}/title"), &titles);
                for (number, mut table) in chart.tables.into_iter().enumerate() {
                    for cell in &mut table.cells {
                        cell.content = seen(std::mem::take(&mut cell.content));
                    }
                    self.builder.table(table, format!("{path}/tbl[{}]", number + 1), self.role.is_some());
                }
            }
            Drawn::Diagram(texts) => {
                for (number, text) in texts.iter().enumerate() {
                    let path = format!("{path}/pt[{}]", number + 1);
                    self.builder.block(self.role.unwrap_or(BlockKind::ListItem), path, &seen(Inline::of(text)));
                }
            }
        }
    }
}
