//! The tags of markup as it is written, without a tree: what opens or closes an element, in order.

const VOID: [&str; 16] = [
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta",
    "param", "source", "wbr",
];
/// Elements whose content is characters, not tags.
const RAW: [&str; 9] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript"];
/// A tag as written.
pub(super) struct Written<'a> {
    /// Lower-case name, cut at 40 characters.
    pub name: String,
    /// True for an end tag.
    pub closing: bool,
    /// What stands between the angle brackets of a start tag.
    pub inner: &'a str,
}

/// True for elements whose content is characters, not tags.
pub(super) fn is_raw(name: &str) -> bool {
    RAW.contains(&name)
}

/// The start and end tags of `text`; those of void elements, comments and the content of raw elements are passed over.
pub(super) fn tags(text: &str) -> impl Iterator<Item = Written<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
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
                return Some(Written { name, closing, inner: "" });
            }
            let inner = &rest[..tag_end(rest)];
            at += inner.len();
            if is_raw(&name) {
                at += raw_end(&text[at..], &name);
            }
            return Some(Written { name, closing, inner });
        }
        None
    })
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
