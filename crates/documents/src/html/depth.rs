//! Refuses markup that nests too deeply before a tree is built: the tree builder looks through its whole stack for
//! many tags, so that depth costs time squared.
//!
//! The scan follows the rules of implied end tags only as far as needed not to call flat markup deep.

use super::tags::{is_raw, tags};
use docmill_model::{Code, Failure};

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
    for tag in tags(text) {
        let name = tag.name;
        if tag.closing {
            close(&mut open, &name);
            continue;
        }
        let empty = tag.inner.ends_with('/') && is_foreign(&open, &name);
        if !is_raw(&name) && !empty {
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
