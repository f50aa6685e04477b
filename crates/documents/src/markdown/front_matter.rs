//! Front matter: the simple `key: value` lines between `---` (YAML) or `+++` (TOML) at the top of a file.
//!
//! Only flat values are read, into metadata; nested ones are passed over. Nothing is interpreted or executed.

use crate::blocks::DocumentBuilder;

/// Keys that are kept, and the metadata name they get.
const KEYS: [(&str, &str); 10] = [
    ("title", "title"),
    ("author", "author"),
    ("authors", "author"),
    ("date", "date"),
    ("description", "description"),
    ("summary", "description"),
    ("keywords", "keywords"),
    ("tags", "keywords"),
    ("lang", "language"),
    ("language", "language"),
];

/// Reads front matter into metadata and returns how many bytes of `text` it takes (0 when there is none).
pub(super) fn read(text: &str, builder: &mut DocumentBuilder) -> usize {
    let fence = match text.split_once('\n').map(|(first, _)| first.trim_end()) {
        Some("---") => "---",
        Some("+++") => "+++",
        _ => return 0,
    };
    let mut end = text.find('\n').map_or(text.len(), |at| at + 1);
    let mut values: Vec<(&str, &str)> = Vec::new();
    for line in text[end..].split_inclusive('\n') {
        end += line.len();
        let content = line.trim_end();
        if content == fence || (fence == "---" && content == "...") {
            for (key, value) in values {
                record(builder, key, value);
            }
            return end;
        }
        let separator = if fence == "---" { ':' } else { '=' };
        match content.split_once(separator) {
            Some((key, value)) if !key.is_empty() => values.push((key, value)),
            // Prose between two rules is no front matter.
            None if fence == "---" && !content.is_empty() && !content.starts_with(['-', ' ', '#', ']', '[']) => {
                return 0;
            }
            _ => {}
        }
    }
    0
}

fn record(builder: &mut DocumentBuilder, key: &str, value: &str) {
    let key = key.trim().to_ascii_lowercase();
    let Some((_, name)) = KEYS.iter().find(|(known, _)| *known == key) else { return };
    let value = value.trim().trim_matches(['[', ']']).trim();
    let unquoted = ['"', '\''].iter().find_map(|&q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value);
    builder.metadata(name, unquoted);
}
