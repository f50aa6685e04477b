//! Splits separated values into records by RFC 4180, with the two liberties real files take: quotes inside plain
//! fields are ordinary characters, and text after a closing quote belongs to the field.
//!
//! Written here because the reader must tell where a quote was opened that never closes; a reader that accepts
//! it swallows the rest of the file into one cell.

use docmill_model::{Code, Failure};

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The fields, unquoted.
    pub fields: Vec<String>,
}

/// Records that the sniffer compares.
const SNIFFED: usize = 100;
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// All records of `text`; blank lines are none.
///
/// # Errors
/// [`Code::CsvMalformed`] with the number of the record whose quote never closes.
pub(super) fn read_records(text: &str, delimiter: char) -> Result<Vec<Record>, Failure> {
    split(text, delimiter, usize::MAX).map_err(|row| Failure {
        code: Code::CsvMalformed,
        message: format!("the quote opened in row {row} never closes"),
        limit: None,
        measured: Some(row as u64),
    })
}

/// The delimiter under which most records have the same number of fields, more than one; comma when none has.
pub(super) fn sniff_delimiter(text: &str, prefer_tab: bool) -> char {
    let mut best = (if prefer_tab { '\t' } else { ',' }, 0.0);
    let order = if prefer_tab { ['\t', ',', ';', '|'] } else { DELIMITERS };
    for delimiter in order {
        let Ok(records) = split(text, delimiter, SNIFFED) else { continue };
        let widths: Vec<usize> = records.iter().map(|r| r.fields.len()).collect();
        let Some(&usual) = widths.iter().max_by_key(|&&w| (widths.iter().filter(|&&x| x == w).count(), w)) else {
            continue;
        };
        if usual < 2 {
            continue;
        }
        let agreeing = widths.iter().filter(|&&w| w == usual).count() as f64 / widths.len() as f64;
        let points = agreeing * agreeing * (1.0 + (usual as f64).ln());
        if points > best.1 * 1.05 {
            best = (delimiter, points);
        }
    }
    best.0
}

/// Up to `most` records, or the number of the record whose quote never closes.
fn split(text: &str, delimiter: char, most: usize) -> Result<Vec<Record>, usize> {
    let mut records = Vec::new();
    let mut fields: Vec<String> = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut at_start) = (false, true);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if at_start => quoted = true,
            _ if quoted => field.push(c),
            _ if c == delimiter => fields.push(std::mem::take(&mut field)),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' => {
                fields.push(std::mem::take(&mut field));
                keep(&mut records, &mut fields);
                if records.len() == most {
                    return Ok(records);
                }
            }
            _ => field.push(c),
        }
        at_start = !quoted && (c == delimiter || matches!(c, '\n' | '\r'));
    }
    if quoted {
        return Err(records.len() + 1);
    }
    fields.push(field);
    keep(&mut records, &mut fields);
    Ok(records)
}

fn keep(records: &mut Vec<Record>, fields: &mut Vec<String>) {
    let fields = std::mem::take(fields);
    if fields.len() > 1 || fields.iter().any(|f| !f.trim().is_empty()) {
        records.push(Record { fields });
    }
}

#[cfg(test)]
mod tests {
    use super::{read_records, sniff_delimiter};

    #[test]
    fn delimiters_are_told_apart() {
        assert_eq!(sniff_delimiter("a;b\n1,5;2\n3,5;4\n", false), ';');
        assert_eq!(sniff_delimiter("a\tb\nx, y\tz\n", false), '\t');
        assert_eq!(sniff_delimiter("a|b|c\n1|2|3\n", false), '|');
        assert_eq!(sniff_delimiter("one\ntwo\n", false), ',');
    }

    #[test]
    fn quotes_inside_plain_fields_are_characters() {
        let records = read_records("5\" pipe,\"a\"b,c\r\n\r\nlast", ',').expect("reads");
        assert_eq!(records[0].fields, ["5\" pipe", "ab", "c"]);
        assert_eq!(records[1].fields, ["last"]);
    }
}
