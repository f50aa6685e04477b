//! What one parse may cost. Each limit that speaks ends the parse with its own code, its value and what was measured.
//!
//! The defaults are those of the project's reliability goals; a pipeline may lower or raise each of them.

use std::time::Duration;

/// Limits of one parse.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Pages of a PDF or images of a multi-page image (`PAGE_LIMIT`): 5,000.
    pub pages: u64,
    /// Pages that are recognised by OCR per document; later ones fail with `PAGE_LIMIT`: 500.
    pub ocr_pages: u64,
    /// Pixels of one image, checked before it is decoded (`PIXEL_LIMIT`): 100 million.
    pub pixels: u64,
    /// Bytes that an archive or a PDF may unpack to (`EXPANSION_LIMIT`): 200 MB.
    pub expanded_bytes: u64,
    /// Unpacked bytes per packed byte, once `ratio_free_bytes` are passed (`EXPANSION_LIMIT`): 100.
    pub expansion_ratio: u64,
    /// Unpacked bytes of one entry below which the ratio is not looked at: 1 MB.
    pub ratio_free_bytes: u64,
    /// Entries of an archive (`ENTRY_LIMIT`): 10,000.
    pub entries: u64,
    /// Nesting of XML elements (`XML_LIMIT`): 100.
    pub xml_depth: u64,
    /// Attributes of one XML element (`XML_LIMIT`): 1,000.
    pub xml_attributes: u64,
    /// Nesting of HTML and Markdown elements (`DEPTH_LIMIT`): 512.
    pub depth: u64,
    /// Nesting of objects inside a PDF (`PDF_NESTING_LIMIT`): 500.
    pub pdf_depth: u64,
    /// Bytes of one line of text (`LINE_LIMIT`): 16 MiB.
    pub line_bytes: u64,
    /// Bytes of the serialised result (`OUTPUT_LIMIT`): 256 MiB.
    pub output_bytes: u64,
    /// Memory of the parsing child above what it starts with (`PARSER_MEMORY`): 480 MiB, so that it stays below 512 MB resident.
    pub memory_bytes: u64,
    /// Processor time of the parsing child in seconds (`PARSER_CPU`): 100.
    pub cpu_secs: u64,
    /// Wall clock of the parsing child in seconds, not counting its waits for OCR (`PARSER_TIMEOUT`): 120.
    pub wall_secs: u64,
    /// Wall clock of one page of a PDF in seconds, not counting waits for OCR; the page fails, the others are read
    /// (`PARSER_TIMEOUT`): 25.
    pub page_secs: u64,
    /// Address space of one OCR process (`PARSER_MEMORY`): 1 GiB.
    pub ocr_memory_bytes: u64,
    /// Wall clock and processor time of one OCR process in seconds (`PARSER_TIMEOUT`): 60.
    pub ocr_page_secs: u64,
    /// Wall clock for the OCR of a whole document in seconds; later pages fail with `PARSER_TIMEOUT`: 900.
    pub ocr_total_secs: u64,
}

impl Limits {
    /// What is left for another try at the same file, after tries that worked `own` and waited `recognising` for OCR.
    pub(crate) fn after(&self, own: Duration, recognising: Duration) -> Self {
        let wall_secs = self.wall_secs.saturating_sub(own.as_secs());
        let ocr_total_secs = self.ocr_total_secs.saturating_sub(recognising.as_secs());
        Self { wall_secs, ocr_total_secs, ..self.clone() }
    }
}

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            pages: 5_000,
            ocr_pages: 500,
            pixels: 100_000_000,
            expanded_bytes: 200_000_000,
            expansion_ratio: 100,
            ratio_free_bytes: 1_000_000,
            entries: 10_000,
            xml_depth: 100,
            xml_attributes: 1_000,
            depth: 512,
            pdf_depth: 500,
            line_bytes: 16 * MIB,
            output_bytes: 256 * MIB,
            memory_bytes: 480 * MIB,
            cpu_secs: 100,
            wall_secs: 120,
            page_secs: 25,
            ocr_memory_bytes: 1024 * MIB,
            ocr_page_secs: 60,
            ocr_total_secs: 900,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;
    use std::time::Duration;

    #[test]
    fn all_tries_share_the_time() {
        let limits = Limits { wall_secs: 10, ocr_total_secs: 900, ..Limits::default() };
        let left = limits.after(Duration::from_secs(4), Duration::from_secs(700));
        assert_eq!((left.wall_secs, left.ocr_total_secs), (6, 200));
        let left = limits.after(Duration::from_secs(40), Duration::from_secs(1_000));
        assert_eq!((left.wall_secs, left.ocr_total_secs), (0, 0));
    }
}
