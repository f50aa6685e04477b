//! What a paragraph is: heading, list item or running text, and the number that it bears.

use super::super::styles;
use super::{Paragraph, Story};
use docmill_model::document::BlockKind;

impl Story<'_, '_> {
    pub(super) fn role_of(&self, paragraph: &Paragraph) -> BlockKind {
        let style = paragraph.style.as_deref();
        let outline = paragraph.outline.and_then(styles::heading);
        outline.or_else(|| self.resources.styles.role(style)).unwrap_or_else(|| {
            let listed = self.numbering_of(paragraph).is_some();
            if listed { BlockKind::ListItem } else { BlockKind::Paragraph }
        })
    }

    fn numbering_of(&self, paragraph: &Paragraph) -> Option<(u32, u32)> {
        let inherited = self.resources.styles.numbering(paragraph.style.as_deref());
        let (number, level) = match paragraph.numbering {
            Some((number, level)) => {
                (number.or(inherited.map(|i| i.0))?, level.or(inherited.map(|i| i.1)).unwrap_or(0))
            }
            None => inherited?,
        };
        (number != 0).then_some((number, level))
    }

    pub(super) fn label_of(&mut self, paragraph: &Paragraph) -> Option<String> {
        let (number, level) = self.numbering_of(paragraph)?;
        if paragraph.inline.is_blank() {
            return None;
        }
        self.resources.numbering.label(number, level)
    }
}
