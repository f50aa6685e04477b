//! Separated values: one table with addressable cells, and one block per row that reads on its own.
//!
//! A data row is written `Header: value; Header: value`, so that a row found by search or cited says what its
//! values mean. Ragged rows are kept as they are. Blocks are found by record number (`row[3]`, header included).

mod records;

use crate::ParseOptions;
use crate::blocks::DocumentBuilder;
use crate::encoding;
use crate::inline::Inline;
use crate::text::{check_lines, record_charset};
use docmill_model::document::{BlockKind, Cell, Format, ParsedDocument, Table};
use docmill_model::{Failure, Span};
use records::{Record, read_records, sniff_delimiter};

/// Reads comma, semicolon, tab or pipe separated values in any detected encoding.
///
/// # Errors
/// `ENCODING_UNKNOWN`, `LINE_LIMIT`, `CSV_MALFORMED` with the row, `EMPTY_TEXT`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let decoded = encoding::decode(bytes, None)?;
    check_lines(&decoded.text, options.limits.line_bytes)?;
    let delimiter = sniff_delimiter(&decoded.text, prefers_tab(options));
    let records = read_records(&decoded.text, delimiter)?;
    let mut builder = DocumentBuilder::new(Format::Csv);
    record_charset(&mut builder, decoded.charset, decoded.replacements);
    let name = if delimiter == '\t' { "tab".to_owned() } else { delimiter.to_string() };
    builder.metadata("delimiter", &name);
    let header = header_row(&records);
    let mut cells: Vec<Cell> = Vec::new();
    let mut columns = 0;
    for (index, record) in records.iter().enumerate() {
        columns = columns.max(record.fields.len());
        let names = header.filter(|&at| index > at).map(|at| records[at].fields.as_slice());
        let role = match header {
            Some(at) if at == index => BlockKind::Table { table: 0 },
            _ => BlockKind::ListItem,
        };
        let (content, places) = row_text(record, names);
        let place = builder.block(role, format!("row[{}]", index + 1), &content);
        cells.extend(places.iter().enumerate().map(|(column, &(start, end))| Cell {
            row: index as u32,
            column: column as u32,
            row_span: 1,
            column_span: 1,
            header: header == Some(index),
            span: place.map_or(Span::new(0, 0), |row| {
                Span::new((row.start + start).min(row.end), (row.start + end).min(row.end))
            }),
        }));
    }
    builder.table_over(Table { rows: records.len() as u32, columns: columns as u32, cells });
    builder.finish()
}

fn prefers_tab(options: &ParseOptions) -> bool {
    let tab_name = options.name.as_deref().is_some_and(|name| name.to_ascii_lowercase().ends_with(".tsv"));
    tab_name || options.declared_type.as_deref().is_some_and(|kind| kind.contains("tab-separated"))
}

/// The first row that has a name in every column it shares with the rows below, all different and none a number.
///
/// Title lines above (one filled cell, or blank ones) are passed over; without such a row there is no header.
fn header_row(records: &[Record]) -> Option<usize> {
    let widest = records.iter().map(|r| r.fields.len()).max().unwrap_or(0);
    let filled = |r: &Record| r.fields.iter().filter(|f| !f.trim().is_empty()).count();
    let title = |r: &Record| widest > 1 && filled(r) <= 1;
    let at = records.iter().position(|r| !title(r))?;
    let below = records.get(at + 1)?;
    let names: Vec<&str> = records[at].fields.iter().map(|f| f.trim()).filter(|f| !f.is_empty()).collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let named = !names.is_empty() && names.len() + 1 >= filled(below) && distinct.len() == names.len();
    let plain = names.iter().all(|name| !is_value(name) && name.chars().count() <= 100);
    (named && plain && (widest > 1 || records[at + 1..].iter().any(|r| r.fields.iter().any(|f| is_value(f)))))
        .then_some(at)
}

/// Numbers, amounts, dates and addresses are values, not names.
fn is_value(field: &str) -> bool {
    let field = field.trim();
    let digits = field.chars().filter(char::is_ascii_digit).count();
    let other = field.chars().filter(|c| c.is_alphabetic()).count();
    (digits > 0 && other == 0) || (digits >= 6 && digits >= other) || field.contains('@') || field.contains("://")
}

/// The row as it reads, and the canonical character range of each field in it.
fn row_text(record: &Record, names: Option<&[String]>) -> (Inline, Vec<(u32, u32)>) {
    let mut text = String::new();
    let mut chars = 0u32;
    let mut places = Vec::with_capacity(record.fields.len());
    let mut first = true;
    for (column, field) in record.fields.iter().enumerate() {
        let value = Inline::of(field).canonical();
        let name = names.and_then(|names| names.get(column)).map(|n| Inline::of(n).canonical()).filter(|n| n.chars > 0);
        if names.is_some() && value.chars == 0 {
            places.push((chars, chars));
            continue;
        }
        let separator = if names.is_some() { "; " } else { " | " };
        for piece in
            [(!first).then_some(separator), name.as_ref().map(|n| n.text.as_str()), name.as_ref().map(|_| ": ")]
        {
            let piece = piece.unwrap_or_default();
            text.push_str(piece);
            chars += piece.chars().count() as u32;
        }
        first = false;
        places.push((chars, chars + value.chars));
        text.push_str(&value.text);
        chars += value.chars;
    }
    // A row that begins with empty fields would lose its leading blanks, and every place would move.
    let lead = text.chars().take_while(|c| c.is_whitespace()).count() as u32;
    for place in &mut places {
        *place = (place.0.saturating_sub(lead), place.1.saturating_sub(lead));
    }
    (Inline::of(&text), places)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::ParseOptions;
    use docmill_model::{CanonicalText, Code};

    fn rows(text: &str) -> (Vec<String>, Vec<String>) {
        let document = parse(text.as_bytes(), &ParseOptions::default()).expect("parses");
        assert_eq!(document.violations(), Vec::<String>::new());
        let canonical = CanonicalText::from_canonical(document.text.clone());
        let of = |span| canonical.slice(span).expect("inside").to_owned();
        let blocks = document.blocks.iter().map(|b| of(b.span)).collect();
        (blocks, document.tables[0].cells.iter().map(|c| of(c.span)).collect())
    }

    #[test]
    fn a_row_names_its_values_and_cells_point_at_them() {
        let (blocks, cells) = rows("Team;City;Cups\nBlues;\"St\nLouis\";1\n\"a \"\"b\"\"\";;2\n");
        assert_eq!(blocks, ["Team | City | Cups", "Team: Blues; City: St\nLouis; Cups: 1", "Team: a \"b\"; Cups: 2"]);
        assert_eq!(cells, ["Team", "City", "Cups", "Blues", "St\nLouis", "1", "a \"b\"", "", "2"]);
    }

    #[test]
    fn titles_above_and_ragged_rows_are_kept() {
        let (blocks, cells) = rows("Stanley Cups,,\nTeam,City,Cups\nBlues,STL,1,extra\nFlyers\n");
        assert_eq!(blocks[0], "Stanley Cups |  |");
        assert_eq!(blocks[2..], ["Team: Blues; City: STL; Cups: 1; extra".to_owned(), "Team: Flyers".to_owned()]);
        assert_eq!(cells.len(), 11);
    }

    #[test]
    fn numbers_are_no_header() {
        let (blocks, _) = rows("1\t2\t3\na\tb\tc\n");
        assert_eq!(blocks, ["1 | 2 | 3", "a | b | c"]);
        let (blocks, cells) = rows(",x,1\n,y,2\n");
        assert_eq!((blocks[0].as_str(), cells[1].as_str()), ("| x | 1", "x"));
    }

    #[test]
    fn an_open_quote_names_its_row() {
        let failure = parse(b"a,b\n1,2\n\"open,3\n4,5\n", &ParseOptions::default()).expect_err("malformed");
        assert_eq!((failure.code, failure.measured), (Code::CsvMalformed, Some(3)));
    }
}
