//! Numbers of list items and headings, which the file does not hold as text: counted as a reader sees them.

use super::xml::{Token, walk};
use crate::limits::Limits;
use docmill_model::Failure;
use std::collections::{HashMap, HashSet};

const LEVELS: usize = 9;
/// Characters of the text of a level, which stands before each of its paragraphs; Word shows no more than 30 or so.
const TEXT_CHARS: usize = 100;

#[derive(Clone, Debug, Default)]
struct Level {
    start: u32,
    format: String,
    text: String,
}

#[derive(Clone, Debug, Default)]
struct Instance {
    definition: u32,
    starts: HashMap<u32, u32>,
}

/// Definitions and running counters.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    definitions: HashMap<u32, Vec<Level>>,
    instances: HashMap<u32, Instance>,
    counters: HashMap<u32, [Option<u32>; LEVELS]>,
    started: HashSet<(u32, u32)>,
}

impl Numbering {
    /// Reads the part of numbering definitions.
    ///
    /// # Errors
    /// Those of [`walk`].
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Failure> {
        let mut all = Self::default();
        let (mut definition, mut instance, mut level) = (None, None, 0u32);
        walk(bytes, limits, |token| {
            let Token::Start(tag) = token else { return Ok(()) };
            let id = |name: &str| tag.attr(name).and_then(|value| value.trim().parse::<u32>().ok());
            match tag.name() {
                "abstractNum" => {
                    definition = id("abstractNumId");
                    instance = None;
                    all.definitions.insert(definition.unwrap_or(0), vec![Level::default(); LEVELS]);
                }
                "num" => {
                    instance = id("numId");
                    definition = None;
                    all.instances.insert(instance.unwrap_or(0), Instance::default());
                }
                "lvl" | "lvlOverride" => level = id("ilvl").unwrap_or(0).min(LEVELS as u32 - 1),
                "startOverride" => {
                    if let (Some(number), Some(start)) = (instance, tag.number()) {
                        all.instances.entry(number).or_default().starts.insert(level, start);
                    }
                }
                "abstractNumId" => {
                    if let (Some(number), Some(target)) = (instance, tag.number()) {
                        all.instances.entry(number).or_default().definition = target;
                    }
                }
                name @ ("start" | "numFmt" | "lvlText") => {
                    if let Some(level) =
                        definition.and_then(|d| all.definitions.get_mut(&d)).and_then(|d| d.get_mut(level as usize))
                    {
                        match name {
                            "start" => level.start = tag.number().unwrap_or(1),
                            "numFmt" => level.format = tag.attr("val").unwrap_or_default(),
                            _ => level.text = tag.attr("val").unwrap_or_default().chars().take(TEXT_CHARS).collect(),
                        }
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Counts one paragraph and returns its label (`2.1.`), `Some("")` for a bullet, `None` when it is not numbered.
    pub fn label(&mut self, number: u32, level: u32) -> Option<String> {
        let level = level.min(LEVELS as u32 - 1);
        let instance = self.instances.get(&number).filter(|_| number != 0)?;
        let levels = self.definitions.get(&instance.definition)?;
        let restart = instance.starts.get(&level).copied().filter(|_| self.started.insert((number, level)));
        let counters = self.counters.entry(instance.definition).or_default();
        let own = &levels[level as usize];
        let next = counters[level as usize].map_or(own.start, |count| count.saturating_add(1));
        counters[level as usize] = Some(restart.unwrap_or(next));
        counters[level as usize + 1..].fill(None);
        if matches!(own.format.as_str(), "bullet" | "none") {
            return Some(String::new());
        }
        let mut label = own.text.clone();
        for (index, above) in levels.iter().enumerate().take(level as usize + 1) {
            let count = counters[index].unwrap_or(above.start);
            label = label.replace(&format!("%{}", index + 1), &spell(count, &above.format));
        }
        Some(label)
    }
}

fn spell(count: u32, format: &str) -> String {
    match format {
        "lowerLetter" => letters(count),
        "upperLetter" => letters(count).to_uppercase(),
        "lowerRoman" => roman(count),
        "upperRoman" => roman(count).to_uppercase(),
        "decimalZero" => format!("{count:02}"),
        "none" => String::new(),
        _ => count.to_string(),
    }
}

/// a … z, aa, bb, … as Word counts.
fn letters(count: u32) -> String {
    let Some(index) = count.checked_sub(1) else { return String::new() };
    let letter = char::from(b'a' + (index % 26) as u8);
    std::iter::repeat_n(letter, (index / 26 + 1).min(20) as usize).collect()
}

fn roman(count: u32) -> String {
    const SIGNS: [(u32, &str); 13] = [
        (1000, "m"),
        (900, "cm"),
        (500, "d"),
        (400, "cd"),
        (100, "c"),
        (90, "xc"),
        (50, "l"),
        (40, "xl"),
        (10, "x"),
        (9, "ix"),
        (5, "v"),
        (4, "iv"),
        (1, "i"),
    ];
    let mut left = count.min(10_000);
    let mut out = String::new();
    for (value, sign) in SIGNS {
        while left >= value {
            out.push_str(sign);
            left -= value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{letters, roman};

    #[test]
    fn numbers_are_spelled_as_word_does() {
        assert_eq!([letters(1), letters(26), letters(27), letters(28)], ["a", "z", "aa", "bb"]);
        assert_eq!([roman(4), roman(1999), roman(0)], ["iv", "mcmxcix", ""]);
    }
}
