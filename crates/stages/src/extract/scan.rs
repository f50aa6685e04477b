//! Recognisers: each finds every value of one kind in a text, with its normal form. They know nothing of fields.

pub(super) mod addresses;
pub(super) mod amounts;
pub(super) mod contacts;
pub(super) mod dates;
pub(super) mod jurisdictions;
pub(super) mod lines;
pub(super) mod measures;
pub(super) mod parties;

/// A regular expression of this crate; a broken one fails every test.
macro_rules! pattern {
    ($text:expr) => {{
        static PATTERN: std::sync::LazyLock<Option<regex::Regex>> =
            std::sync::LazyLock::new(|| regex::Regex::new($text).ok());
        PATTERN.as_ref()
    }};
}
pub(super) use pattern;

/// All matches of an optional expression.
pub(super) fn captures<'t>(
    pattern: Option<&'static regex::Regex>,
    text: &'t str,
) -> impl Iterator<Item = regex::Captures<'t>> {
    pattern.into_iter().flat_map(move |pattern| pattern.captures_iter(text))
}
