//! Fields: instructions (links, page numbers) whose result stands in the text.

/// An open complex field.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// The instruction so far.
    pub instruction: String,
    /// True once the result begins.
    pub has_result: bool,
    /// Depth of paragraphs where the result began, and its mark there.
    pub place: Option<(usize, usize)>,
}

/// The target of a `HYPERLINK` instruction.
pub(super) fn link_target(instruction: &str) -> Option<String> {
    let rest = instruction.trim_start();
    let keyword = rest.get(..9)?;
    if !keyword.eq_ignore_ascii_case("hyperlink") {
        return None;
    }
    let rest = rest[9..].trim();
    let (prefix, rest) = match rest.strip_prefix("\\l") {
        Some(anchor) => ("#", anchor.trim_start()),
        None => ("", rest),
    };
    let target = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split_whitespace().next(),
    };
    target.filter(|t| !t.is_empty()).map(|t| format!("{prefix}{t}"))
}

#[cfg(test)]
mod tests {
    use super::link_target;

    #[test]
    fn targets_of_links() {
        assert_eq!(link_target(" HYPERLINK \"http://a/b\" \\o \"tip\" ").as_deref(), Some("http://a/b"));
        assert_eq!(link_target("HYPERLINK \\l \"_Toc1\"").as_deref(), Some("#_Toc1"));
        assert_eq!(link_target("PAGEREF _Toc1 \\h"), None);
    }
}
