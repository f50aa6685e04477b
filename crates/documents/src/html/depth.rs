//! Refuses markup that nests too deeply before a tree is built: the tree builder looks through its whole stack for
//! many tags, so that depth costs time squared.
//!
//! The scan follows the rules of implied end tags only as far as needed not to call flat markup deep.

use docmill_model::{Code, Failure};

const VOID: [&str; 16] = [
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta",
    "param", "source", "wbr",
];
/// Elements whose content is characters, not tags.
const RAW: [&str; 9] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript"];
const BLOCKS: [&str; 27] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "center",
    "div",
    "dl",
    "fieldset",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "ul",
];

/// Checks the nesting of `text` against `limit` elements.
///
/// # Errors
/// [`Code::DepthLimit`].
pub(super) fn check(text: &str, limit: u64) -> Result<(), Failure> {
    let mut open: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('<') {
        at += found + 1;
        let rest = &text[at..];
        if rest.starts_with("!--") {
            at += rest.find("-->").map_or(rest.len(), |end| end + 3);
            continue;
        }
        let closing = rest.starts_with('/');
        let name: String = (rest[usize::from(closing)..].chars())
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':'))
            .take(40)
            .collect::<String>()
            .to_ascii_lowercase();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || VOID.contains(&name.as_str()) {
            continue;
        }
        if closing {
            close(&mut open, &name);
            continue;
        }
        let end = tag_end(rest);
        let empty = rest[..end].ends_with('/') && is_foreign(&open, &name);
        at += end;
        if RAW.contains(&name.as_str()) {
            at += raw_end(&text[at..], &name);
        } else if !empty {
            imply_ends(&mut open, &name);
            open.push(name);
            if open.len() as u64 > limit {
                let measured = open.len() as u64;
                return Err(Failure::limit(Code::DepthLimit, "elements nest too deeply", limit, measured));
            }
        }
    }
    Ok(())
}

/// Bytes up to the `>` of a tag, quoted values passed over.
fn tag_end(rest: &str) -> usize {
    let mut quote = None;
    for (at, b) in rest.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return at,
            (None, b'"' | b'\'') if rest[..at].trim_end().ends_with('=') => quote = Some(b),
            (Some(open), b) if b == open => quote = None,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes up to and including the name of the end tag of a raw element.
fn raw_end(rest: &str, name: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(found) = rest[at..].find("</") {
        at += found + 2;
        if bytes[at..].len() >= name.len() && bytes[at..at + name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            return at + name.len();
        }
    }
    rest.len()
}

fn is_foreign(open: &[String], name: &str) -> bool {
    matches!(name, "svg" | "math") || open.iter().any(|n| n == "svg" || n == "math")
}

fn close(open: &mut Vec<String>, name: &str) {
    if let Some(at) = open.iter().rposition(|n| n == name) {
        open.truncate(at);
    }
}

/// Closes what the start tag `name` ends by itself: items by items, cells by cells, paragraphs by blocks.
fn imply_ends(open: &mut Vec<String>, name: &str) {
    let (ended, barrier): (&[&str], &[&str]) = match name {
        "li" => (&["li"], &["ul", "ol", "menu"]),
        "dt" | "dd" => (&["dt", "dd"], &["dl"]),
        "td" | "th" => (&["td", "th"], &["table", "tr"]),
        "tr" => (&["tr"], &["table"]),
        "tbody" | "thead" | "tfoot" => (&["tbody", "thead", "tfoot"], &["table"]),
        "option" => (&["option"], &["select"]),
        _ if BLOCKS.contains(&name) => (&["p"], &["table", "td", "th", "button", "object", "caption"]),
        _ => return,
    };
    for at in (0..open.len()).rev() {
        if ended.contains(&open[at].as_str()) {
            open.truncate(at);
            return;
        }
        if barrier.contains(&open[at].as_str()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use docmill_model::Code;

    #[test]
    fn deep_markup_is_refused_and_flat_markup_is_not() {
        let failure = check(&"<div>".repeat(100_000), 512).expect_err("deep");
        assert_eq!((failure.code, failure.measured), (Code::DepthLimit, Some(513)));
        for flat in [
            "<li>x".repeat(5_000),
            "<p>x<br><img src=a>".repeat(5_000),
            format!("<table>{}", "<tr><td><font>x<td><b>y".repeat(5_000)),
            "<div a='>'></div>".repeat(5_000),
            format!("<script>{}</script>", "'<div>'".repeat(5_000)),
            format!("<svg>{}</svg>", "<path d='x'/>".repeat(5_000)),
        ] {
            assert_eq!(check(&flat, 512), Ok(()), "{}", &flat[..20]);
        }
    }
}
