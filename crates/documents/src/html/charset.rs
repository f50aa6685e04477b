//! The charset a page declares about itself in its first bytes (`meta charset`, `http-equiv`, XML declaration).

/// Bytes in which browsers look for the declaration, and some.
const WINDOW: usize = 4_096;

/// The declared label, unchecked.
pub(super) fn declared(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(WINDOW)]).to_ascii_lowercase();
    if let Some(rest) = head.trim_start().strip_prefix("<?xml") {
        let declaration = &rest[..rest.find("?>").unwrap_or(rest.len())];
        if let Some(label) = value_after(declaration, "encoding") {
            return Some(label);
        }
    }
    head.split("<meta").skip(1).find_map(|tag| value_after(&tag[..tag.find('>').unwrap_or(tag.len())], "charset"))
}

fn value_after(text: &str, name: &str) -> Option<String> {
    let rest = text[text.find(name)? + name.len()..].trim_start().strip_prefix('=')?.trim_start();
    let label: String = (rest.trim_start_matches(['"', '\'']).chars())
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.'))
        .collect();
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::declared;

    #[test]
    fn all_spellings_are_found() {
        for page in [
            "<meta charset=\"Shift_JIS\">",
            "<!-- x --><META content='text/html; charset=shift_jis' http-equiv=Content-Type>",
            "<?xml version='1.0' encoding='Shift_JIS'?><html>",
        ] {
            assert_eq!(declared(page.as_bytes()).as_deref(), Some("shift_jis"), "{page}");
        }
        assert_eq!(declared(b"<p>charset=utf-8</p>"), None);
    }
}
