//! Inline styles by which an element hides its text from readers. Style sheets are not read.

use std::collections::HashMap;

/// Pixels beyond which an element was moved out of sight.
const FAR: f32 = 500.0;

/// True when the declarations of a `style` attribute hide the element.
pub(super) fn hides(style: &str) -> bool {
    let style = style.to_ascii_lowercase();
    let declarations: HashMap<&str, &str> = (style.split(';'))
        .filter_map(|declaration| declaration.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim().trim_end_matches("!important").trim_end()))
        .collect();
    let value = |name: &str| declarations.get(name).copied();
    let is = |name: &str, word: &str| value(name) == Some(word);
    let zero = |name: &str| value(name).and_then(length).is_some_and(|length| length == 0.0);
    let far = |name: &str| value(name).and_then(length).is_some_and(|length| length <= -FAR);
    let moved = (is("position", "absolute") || is("position", "fixed"))
        && ["left", "right", "top", "bottom"].into_iter().any(far);
    let paint = value("color").and_then(colour);
    let ground = value("background-color").or(value("background")).and_then(colour);
    is("display", "none")
        || is("visibility", "hidden")
        || is("visibility", "collapse")
        || zero("opacity")
        || zero("font-size")
        || far("text-indent")
        || moved
        || (paint.is_some() && paint == ground)
}

/// A length in pixels, or a plain number.
fn length(value: &str) -> Option<f32> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let number: f32 = value[..value.len() - unit.len()].parse().ok()?;
    match unit {
        "" | "px" | "pt" | "%" => Some(number),
        "em" | "rem" | "ex" | "ch" | "vw" | "vh" => Some(number * 16.0),
        _ => None,
    }
}

/// A colour as red, green and blue.
fn colour(value: &str) -> Option<[u8; 3]> {
    let value = value.split_whitespace().next()?;
    match value {
        "white" => return Some([255; 3]),
        "black" => return Some([0; 3]),
        _ => {}
    }
    let hex = value.strip_prefix('#').filter(|hex| hex.is_ascii())?;
    let part = |at: usize, digits: usize| u8::from_str_radix(hex.get(at..at + digits)?, 16).ok();
    match hex.len() {
        3 => Some([part(0, 1)? * 17, part(1, 1)? * 17, part(2, 1)? * 17]),
        6 => Some([part(0, 2)?, part(2, 2)?, part(4, 2)?]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::hides;

    #[test]
    fn styles_that_hide_and_styles_that_do_not() {
        for style in [
            "display:none",
            "Display : NONE !important",
            "visibility:hidden;color:red",
            "opacity:0",
            "opacity: 0.0;",
            "font-size:0px",
            "font-size: 0",
            "position:absolute;left:-9999px",
            "top:-100em; position:fixed",
            "text-indent:-9999px",
            "color:#fff;background:white",
            "background-color:#FFFFFF; color: #ffffff",
            "color:#abc;background:#aabbcc url(x.png)",
        ] {
            assert!(hides(style), "{style}");
        }
        for style in [
            "",
            "display:block",
            "opacity:0.5",
            "font-size:0.9em",
            "left:-9999px",
            "position:absolute;left:-10px",
            "text-indent:-2em",
            "color:#fff;background:#000",
            "color:white",
            "background:white",
            "color:red;background:url(x.png)",
        ] {
            assert!(!hides(style), "{style}");
        }
    }
}
