//! The path of headings above each place of a document, within a token budget.

use docmill_platform::tokens::TokenCounter;

/// Longest title kept in a path, in characters.
const MAX_TITLE_CHARS: usize = 120;

/// The headings in force while walking the blocks in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Headings {
    open: Vec<(u8, String)>,
}

impl Headings {
    /// A heading of `level` (1 highest) starts; it closes those of its own and deeper levels.
    pub fn enter(&mut self, level: u8, title: &str) {
        self.open.retain(|(open, _)| *open < level);
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        if !title.is_empty() {
            self.open.push((level, title.chars().take(MAX_TITLE_CHARS).collect()));
        }
    }

    /// Titles above a heading of `level`, outermost first.
    pub fn above(&self, level: u8) -> Vec<String> {
        self.open.iter().filter(|(open, _)| *open < level).map(|(_, title)| title.clone()).collect()
    }

    /// Titles above running text, outermost first.
    pub fn path(&self) -> Vec<String> {
        self.above(u8::MAX)
    }
}

/// Drops titles, outermost first, then words, until the path costs at most `budget` tokens.
pub(super) fn fit(mut path: Vec<String>, budget: usize, tokens: &TokenCounter) -> Vec<String> {
    while path.len() > 1 && cost(&path, tokens) > budget {
        path.remove(0);
    }
    while cost(&path, tokens) > budget {
        let Some(last) = path.pop() else { break };
        let characters = last.chars().count();
        let shorter = match last.rfind(char::is_whitespace) {
            Some(space) => last[..space].trim_end().to_owned(),
            None => last.chars().take(characters / 2).collect(),
        };
        if !shorter.is_empty() {
            path.push(shorter);
        }
    }
    path
}

fn cost(path: &[String], tokens: &TokenCounter) -> usize {
    if path.is_empty() { 0 } else { tokens.count(&path.join(" > ")) }
}

#[cfg(test)]
mod tests {
    use super::{Headings, fit};
    use docmill_platform::tokens::TokenCounter;

    #[test]
    fn a_heading_closes_its_own_and_deeper_levels() {
        let mut headings = Headings::default();
        headings.enter(1, "Contract");
        headings.enter(2, "Term");
        headings.enter(3, "Notice");
        headings.enter(2, "  Fees\n and costs ");
        assert_eq!(headings.path(), ["Contract", "Fees and costs"]);
        assert_eq!(headings.above(2), ["Contract"]);
    }

    #[test]
    fn a_path_beyond_the_budget_loses_outer_titles_then_words() {
        let words = TokenCounter::words();
        let path = vec!["one two three".to_owned(), "four five six".to_owned()];
        let fitted = fit(path, 5, &words);
        assert_eq!(fitted, ["four five six"]);
        assert!(words.count(&fit(fitted, 2, &words).join(" ")) <= 2);
        assert!(fit(Vec::new(), 2, &words).is_empty());
    }
}
