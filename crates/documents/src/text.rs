//! Plain text: paragraphs apart by blank lines, with headings and list items where the shape is unmistakable.
//!
//! Lines keep their breaks, so that spans follow the file. There are no pages; a block is found by the number of
//! its first line (`line[12]`).

use crate::ParseOptions;
use crate::blocks::DocumentBuilder;
use crate::encoding;
use crate::inline::Inline;
use docmill_model::document::{BlockKind, Format, ParsedDocument};
use docmill_model::{Code, Failure};

/// Longest line that can be a heading, in characters.
const HEADING_CHARS: usize = 80;

/// Reads plain text in any detected encoding.
///
/// # Errors
/// [`Code::EncodingUnknown`], [`Code::LineLimit`], [`Code::EmptyText`].
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let decoded = encoding::decode(bytes, None)?;
    let text = unify_lines(&decoded.text);
    check_lines(&text, options.limits.line_bytes)?;
    let mut builder = DocumentBuilder::new(Format::Text);
    record_charset(&mut builder, decoded.charset, decoded.replacements);
    let mut paragraph: Vec<&str> = Vec::new();
    let mut first = 1;
    for (index, line) in text.split('\n').enumerate() {
        if line.trim().is_empty() {
            flush(&mut builder, &mut paragraph, first);
        } else {
            if paragraph.is_empty() {
                first = index + 1;
            }
            paragraph.push(line);
        }
    }
    flush(&mut builder, &mut paragraph, first);
    builder.finish()
}

/// Line ends as `\n`; a form feed ends a paragraph.
pub(crate) fn unify_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\u{c}', "\n\n")
}

/// Refuses text with a line above the limit (bytes of UTF-8).
pub(crate) fn check_lines(text: &str, limit: u64) -> Result<(), Failure> {
    for (index, line) in text.split('\n').enumerate() {
        if line.len() as u64 > limit {
            let message = format!("line {} has {} bytes, the limit is {limit}", index + 1, line.len());
            return Err(Failure::limit(Code::LineLimit, message, limit, line.len() as u64));
        }
    }
    Ok(())
}

/// Writes how the bytes were decoded into the document's metadata.
pub(crate) fn record_charset(builder: &mut DocumentBuilder, charset: &str, replacements: u64) {
    builder.metadata("charset", charset);
    builder.metadata("replacements", &replacements.to_string());
}

fn flush(builder: &mut DocumentBuilder, lines: &mut Vec<&str>, first: usize) {
    let lines = std::mem::take(lines);
    let path = |index: usize| format!("line[{}]", first + index);
    match lines.as_slice() {
        [] => {}
        [title, rule] if underline(rule).is_some() && title.chars().count() <= HEADING_CHARS => {
            let level = underline(rule).unwrap_or(1);
            builder.block(BlockKind::Heading { level }, path(0), &Inline::of(title));
        }
        [line] if heading_level(line).is_some() => {
            let level = heading_level(line).unwrap_or(1);
            builder.block(BlockKind::Heading { level }, path(0), &Inline::of(line));
        }
        _ => paragraph_or_list(builder, &lines, path),
    }
}

/// A run of lines: list items where lines start with a marker (with their indented continuation), else a paragraph.
fn paragraph_or_list(builder: &mut DocumentBuilder, lines: &[&str], path: impl Fn(usize) -> String) {
    let mut start = 0;
    while start < lines.len() {
        let item = is_list_item(lines[start]);
        let mut end = start + 1;
        while end < lines.len() && !is_list_item(lines[end]) && (!item || lines[end].starts_with([' ', '\t'])) {
            end += 1;
        }
        let role = if item { BlockKind::ListItem } else { BlockKind::Paragraph };
        builder.block(role, path(start), &Inline::of(&lines[start..end].join("\n")));
        start = end;
    }
}

/// `====` underlines a first-level heading, `----` a second-level one.
fn underline(line: &str) -> Option<u8> {
    let line = line.trim_end();
    let all = |mark: char| line.len() >= 3 && line.chars().all(|c| c == mark);
    if all('=') { Some(1) } else { all('-').then_some(2) }
}

/// The level of a line that stands alone and is a heading by its shape: capitals, or `1.2 Title`.
fn heading_level(line: &str) -> Option<u8> {
    let line = line.trim();
    let length = line.chars().count();
    if !(3..=HEADING_CHARS).contains(&length) || line.ends_with(['.', ',', ';', ':', '!', '?']) {
        return None;
    }
    if let Some((number, title)) = line.split_once(' ') {
        let digits = number.trim_end_matches('.');
        let numbered = !digits.is_empty()
            && digits
                .split('.')
                .all(|part| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit()));
        if numbered && title.starts_with(char::is_uppercase) {
            return Some((digits.split('.').count() as u8).min(6));
        }
    }
    let letters: Vec<char> = line.chars().filter(|c| c.is_alphabetic()).collect();
    let capitals = letters.len() >= 4 && letters.iter().all(|c| c.is_uppercase());
    capitals.then_some(1)
}

/// A bullet, or a short number or letter with a dot or bracket, then a space.
fn is_list_item(line: &str) -> bool {
    let line = line.trim_start();
    if ["- ", "* ", "+ ", "\u{2022} ", "\u{2022}\t", "\u{25e6} ", "\u{2013} ", "\u{b7} "]
        .iter()
        .any(|m| line.starts_with(m))
    {
        return true;
    }
    let line = line.strip_prefix('(').unwrap_or(line);
    let label = line.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let short = line.as_bytes()[..label].iter().all(u8::is_ascii_digit) && label <= 3 || label == 1;
    let rest = &line[label..];
    label > 0 && short && [". ", ") ", ".\t", ")\t"].iter().any(|m| rest.starts_with(m))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::ParseOptions;
    use docmill_model::document::BlockKind;
    use docmill_model::{CanonicalText, Code};

    fn blocks(text: &str) -> Vec<(BlockKind, String)> {
        let document = parse(text.as_bytes(), &ParseOptions::default()).expect("parses");
        assert_eq!(document.violations(), Vec::<String>::new());
        let canonical = CanonicalText::from_canonical(document.text.clone());
        (document.blocks.iter()).map(|b| (b.role, canonical.slice(b.span).expect("inside").to_owned())).collect()
    }

    #[test]
    fn shapes_are_recognised() {
        let text = "TERMS OF LEASE\n\nThe tenant pays\r\nevery month.\n\n2.1 Deposit\n\n- first\n  goes on\n- second\n\nTitle\n=====\n";
        let expected = [
            (BlockKind::Heading { level: 1 }, "TERMS OF LEASE"),
            (BlockKind::Paragraph, "The tenant pays\nevery month."),
            (BlockKind::Heading { level: 2 }, "2.1 Deposit"),
            (BlockKind::ListItem, "- first\n  goes on"),
            (BlockKind::ListItem, "- second"),
            (BlockKind::Heading { level: 1 }, "Title"),
        ];
        let expected: Vec<(BlockKind, String)> =
            expected.iter().map(|(role, text)| (*role, (*text).to_owned())).collect();
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn limits_and_emptiness_have_codes() {
        let mut options = ParseOptions::default();
        options.limits.line_bytes = 10;
        let failure = parse(b"short\nmuch longer line", &options).expect_err("too long");
        assert_eq!((failure.code, failure.measured), (Code::LineLimit, Some(16)));
        assert_eq!(parse(b" \n\t\n", &ParseOptions::default()).map_err(|f| f.code), Err(Code::EmptyText));
    }
}
