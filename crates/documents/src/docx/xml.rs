//! XML events with limits: no document type declaration, bounded depth and attributes, no entity but the five of
//! XML itself. A violation ends the parse before anything is expanded.

use super::malformed;
use crate::limits::Limits;
use docmill_model::{Code, Failure};
use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesRef, BytesStart, Event};
use std::borrow::Cow;

/// One step through a part. An empty element is a start and an end.
pub(super) enum Token<'a, 'b> {
    /// An element begins.
    Start(&'a Tag<'b>),
    /// The innermost element ends.
    End,
    /// Characters.
    Text(&'a str),
}

/// A start tag; names are given without their prefix.
pub(super) struct Tag<'b> {
    start: BytesStart<'b>,
}

impl Tag<'_> {
    /// Name without prefix.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.start.local_name().into_inner()).unwrap_or_default()
    }

    /// The value of the attribute of that name (without prefix).
    pub fn attr(&self, name: &str) -> Option<String> {
        let found = self
            .start
            .attributes()
            .with_checks(false)
            .flatten()
            .find(|a| a.key.local_name().into_inner() == name.as_bytes())?;
        let raw = String::from_utf8_lossy(&found.value);
        Some(unescape(&raw).map_or_else(|_| raw.to_string(), Cow::into_owned))
    }

    /// A number in the attribute `val`.
    pub fn number(&self) -> Option<u32> {
        self.attr("val")?.trim().parse().ok()
    }

    /// An on/off property: present means on, unless its `val` says otherwise.
    pub fn is_on(&self) -> bool {
        !matches!(self.attr("val").as_deref(), Some("0" | "false" | "off" | "none"))
    }
}

/// Attribute bytes below which counting is not worth it.
const FEW_BYTES: usize = 2_048;

/// Walks through a part and hands every token to `visit`. Empty bytes are an empty part.
///
/// # Errors
/// `XML_DTD_FORBIDDEN`, `XML_LIMIT`, `DOCX_MALFORMED`, and what `visit` returns.
pub(super) fn walk(
    bytes: &[u8],
    limits: &Limits,
    visit: impl FnMut(Token) -> Result<(), Failure>,
) -> Result<(), Failure> {
    walk_past(&[], bytes, limits, visit)
}

/// As [`walk`], without the elements of the names `past` and all they hold; limits hold there too.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn walk_past(
    past: &[&str],
    bytes: &[u8],
    limits: &Limits,
    mut visit: impl FnMut(Token) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut inside = 0u64;
    steps(bytes, limits, |token| match token {
        Token::Start(tag) if inside > 0 || past.contains(&tag.name()) => {
            inside += 1;
            Ok(())
        }
        Token::End if inside > 0 => {
            inside -= 1;
            Ok(())
        }
        Token::Text(_) if inside > 0 => Ok(()),
        token => visit(token),
    })
}

fn steps(bytes: &[u8], limits: &Limits, mut visit: impl FnMut(Token) -> Result<(), Failure>) -> Result<(), Failure> {
    let text = decode(bytes);
    let mut reader = Reader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0u64;
    loop {
        match reader.read_event().map_err(|_| damaged(reader.error_position()))? {
            Event::Start(start) => {
                depth += 1;
                check(&start, depth, limits)?;
                visit(Token::Start(&Tag { start }))?;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                visit(Token::End)?;
            }
            Event::Text(words) => {
                let words = words.xml10_content().map_err(|_| damaged(reader.buffer_position()))?;
                visit(Token::Text(&words))?;
            }
            Event::CData(words) => {
                let words = words.decode().map_err(|_| damaged(reader.buffer_position()))?;
                visit(Token::Text(&words))?;
            }
            Event::GeneralRef(reference) => {
                let c = resolve(&reference).ok_or_else(|| damaged(reader.buffer_position()))?;
                visit(Token::Text(&c))?;
            }
            Event::DocType(_) => {
                return Err(Failure::new(Code::XmlDtdForbidden, "the XML has a document type declaration"));
            }
            Event::Eof if depth > 0 => return Err(malformed("the XML ends inside an element")),
            Event::Eof => return Ok(()),
            // Empty elements come as a start and an end.
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => {}
        }
    }
}

fn damaged(position: u64) -> Failure {
    malformed(format!("the XML is damaged at byte {position}"))
}

fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, length)) => encoding.decode_without_bom_handling(&bytes[length..]).0,
        None => String::from_utf8_lossy(bytes),
    }
}

fn check(start: &BytesStart, depth: u64, limits: &Limits) -> Result<(), Failure> {
    if depth > limits.xml_depth {
        return Err(Failure::limit(Code::XmlLimit, "XML elements nest too deeply", limits.xml_depth, depth));
    }
    if start.attributes_raw().len() > FEW_BYTES {
        let most = limits.xml_attributes;
        let count = start.attributes().with_checks(false).take(most as usize + 1).count() as u64;
        if count > most {
            return Err(Failure::limit(Code::XmlLimit, "an XML element has too many attributes", most, count));
        }
    }
    Ok(())
}

fn resolve(reference: &BytesRef) -> Option<String> {
    if let Some(c) = reference.resolve_char_ref().ok()? {
        return Some(c.to_string());
    }
    resolve_predefined_entity(&reference.decode().ok()?).map(str::to_owned)
}
