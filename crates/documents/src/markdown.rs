//! CommonMark with tables and footnotes: blocks by their structure, front matter as metadata.
//!
//! The text is what a reader of the rendered page sees; raw HTML counts as its text, without scripts and styles, and hides
//! what it would hide there.
//! Blocks are found by their line in the file (`line[12]`). Links and images are never fetched.

mod front_matter;
mod unseen;

use crate::ParseOptions;
use crate::blocks::{CellDraft, DocumentBuilder, TableDraft};
use crate::encoding;
use crate::html;
use crate::inline::Inline;
use crate::text::{check_lines, record_charset, unify_lines};
use docmill_model::document::{BlockKind, Format, ParsedDocument};
use docmill_model::{Code, Failure};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use unseen::Unseen;

/// Reads Markdown.
///
/// # Errors
/// `ENCODING_UNKNOWN`, `LINE_LIMIT`, `DEPTH_LIMIT`, `EMPTY_TEXT`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let decoded = encoding::decode(bytes, None)?;
    let text = unify_lines(&decoded.text);
    check_lines(&text, options.limits.line_bytes)?;
    let mut builder = DocumentBuilder::new(Format::Markdown);
    record_charset(&mut builder, decoded.charset, decoded.replacements);
    let skipped = front_matter::read(&text, &mut builder);
    let body = &text[skipped..];
    let mut reader = Reader::new(builder, options.limits.depth, Lines::new(&text, skipped));
    let extensions =
        Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for (event, range) in Parser::new_ext(body, extensions).into_offset_iter() {
        reader.event(event, range.start)?;
    }
    reader.flush();
    reader.builder.finish()
}

/// Line numbers by byte offset.
struct Lines {
    starts: Vec<usize>,
    skipped: usize,
}

impl Lines {
    fn new(text: &str, skipped: usize) -> Self {
        Self { starts: std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect(), skipped }
    }

    fn path(&self, offset: usize) -> String {
        format!("line[{}]", self.starts.partition_point(|&start| start <= offset + self.skipped))
    }
}

struct Reader {
    builder: DocumentBuilder,
    lines: Lines,
    depth: u64,
    limit: u64,
    role: BlockKind,
    path: String,
    inline: Inline,
    links: Vec<(usize, String)>,
    /// Next number per open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    footnote: Option<String>,
    table: Option<TableDraft>,
    row: u32,
    column: u32,
    html: String,
    unseen: Unseen,
    in_code: bool,
}

impl Reader {
    fn new(builder: DocumentBuilder, limit: u64, lines: Lines) -> Self {
        Self {
            builder,
            lines,
            depth: 0,
            limit,
            role: BlockKind::Paragraph,
            path: String::new(),
            inline: Inline::default(),
            links: Vec::new(),
            lists: Vec::new(),
            footnote: None,
            table: None,
            row: 0,
            column: 0,
            html: String::new(),
            unseen: Unseen::default(),
            in_code: false,
        }
    }

    fn event(&mut self, event: Event, offset: usize) -> Result<(), Failure> {
        match event {
            Event::Start(tag) => {
                self.depth += 1;
                if self.depth > self.limit {
                    return Err(Failure::limit(
                        Code::DepthLimit,
                        "the Markdown nests too deeply",
                        self.limit,
                        self.depth,
                    ));
                }
                self.start(tag, offset);
            }
            Event::End(tag) => {
                self.depth -= 1;
                self.end(tag);
            }
            Event::Text(text) if self.in_code => self.inline.push(&text),
            Event::Text(text) => self.open(offset).push_collapsed(&text),
            Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => self.open(offset).push(&text),
            Event::Html(text) => self.html.push_str(&text),
            Event::InlineHtml(tag) => self.inline_html(&tag),
            Event::FootnoteReference(name) => self.open(offset).push(&format!("[{name}]")),
            Event::SoftBreak => self.inline.push_collapsed(" "),
            Event::HardBreak => self.inline.line_break(),
            Event::TaskListMarker(done) => self.open(offset).push(if done { "[x] " } else { "[ ] " }),
            Event::Rule => self.flush(),
        }
        Ok(())
    }

    /// The current text; a block without one of its own (a tight list item) starts here.
    fn open(&mut self, offset: usize) -> &mut Inline {
        if self.inline.is_blank() && self.path.is_empty() {
            self.path = self.lines.path(offset);
        }
        &mut self.inline
    }

    fn inline_html(&mut self, tag: &str) {
        if tag.to_ascii_lowercase().starts_with("<br") {
            self.inline.line_break();
        }
        self.unseen.read(tag, true, &mut self.inline);
    }

    fn start(&mut self, tag: Tag, offset: usize) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.begin(self.prose_role(), offset),
            Tag::Heading { level, .. } => self.begin(BlockKind::Heading { level: number(level) }, offset),
            Tag::CodeBlock(_) => {
                self.begin(BlockKind::Code, offset);
                self.in_code = true;
            }
            Tag::List(first) => {
                self.flush();
                self.lists.push(first);
            }
            Tag::Item => {
                self.begin(BlockKind::ListItem, offset);
                if let Some(Some(next)) = self.lists.last_mut() {
                    let label = format!("{next}. ");
                    *next += 1;
                    self.inline.push(&label);
                }
            }
            Tag::FootnoteDefinition(name) => {
                self.begin(BlockKind::Footnote, offset);
                self.inline.push(&format!("[{name}] "));
                self.footnote = Some(name.to_string());
            }
            Tag::Table(_) => {
                self.begin(BlockKind::Paragraph, offset);
                self.table = Some(TableDraft::default());
                self.row = 0;
            }
            Tag::TableHead | Tag::TableRow => self.column = 0,
            Tag::TableCell => self.inline = Inline::default(),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.open(offset);
                self.links.push((self.inline.mark(), dest_url.to_string()));
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::Item => self.flush(),
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.flush();
            }
            TagEnd::HtmlBlock => {
                let html = std::mem::take(&mut self.html);
                self.inline.append(html::fragment(&html));
                self.unseen.read(&html, false, &mut self.inline);
                self.flush();
            }
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
            }
            TagEnd::FootnoteDefinition => {
                self.flush();
                self.footnote = None;
            }
            TagEnd::TableCell => self.cell(),
            TagEnd::TableHead | TagEnd::TableRow => self.row += 1,
            TagEnd::Table => {
                let path = std::mem::take(&mut self.path);
                if let Some(table) = self.table.take() {
                    self.builder.table(table, path, false);
                }
            }
            TagEnd::Link | TagEnd::Image => {
                if let Some((start, target)) = self.links.pop() {
                    self.inline.link(start, &target);
                }
            }
            _ => {}
        }
    }

    fn cell(&mut self) {
        let mut content = std::mem::take(&mut self.inline);
        self.unseen.end_block(&mut content);
        let (row, column) = (self.row, self.column);
        self.column += 1;
        if let Some(table) = &mut self.table {
            table.cells.push(CellDraft { row, column, row_span: 1, column_span: 1, header: row == 0, content });
        }
    }

    fn prose_role(&self) -> BlockKind {
        match (&self.footnote, self.lists.is_empty()) {
            (Some(_), _) => BlockKind::Footnote,
            (None, false) => BlockKind::ListItem,
            (None, true) => BlockKind::Paragraph,
        }
    }

    /// Starts a block, unless the open one is a list label or footnote mark that waits for its words.
    fn begin(&mut self, role: BlockKind, offset: usize) {
        let label_waits =
            self.inline.as_str().ends_with(' ') && matches!(self.role, BlockKind::ListItem | BlockKind::Footnote);
        if !(label_waits && role == self.role && self.links.is_empty() && self.inline.as_str().len() < 12) {
            self.flush();
        }
        self.role = role;
        if self.path.is_empty() {
            self.path = self.lines.path(offset);
        }
    }

    fn flush(&mut self) {
        let mut inline = std::mem::take(&mut self.inline);
        self.unseen.end_block(&mut inline);
        let path = std::mem::take(&mut self.path);
        self.links.clear();
        self.builder.block(self.role, path, &inline);
        self.role = self.prose_role();
    }
}

fn number(level: HeadingLevel) -> u8 {
    level as u8
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::ParseOptions;
    use docmill_model::document::{BlockKind, ParsedDocument};
    use docmill_model::{CanonicalText, Code};

    fn read(text: &str) -> (ParsedDocument, Vec<(BlockKind, String)>) {
        let document = parse(text.as_bytes(), &ParseOptions::default()).expect("parses");
        assert_eq!(document.violations(), Vec::<String>::new());
        let canonical = CanonicalText::from_canonical(document.text.clone());
        let blocks = (document.blocks.iter()).map(|b| (b.role, canonical.slice(b.span).expect("inside").to_owned()));
        let blocks = blocks.collect();
        (document, blocks)
    }

    #[test]
    fn structure_becomes_blocks() {
        let (document, blocks) = read(concat!(
            "---\ntitle: \"The *Plan*\"\nauthor: Ada\n---\n# One\n\nSome *soft*\ntext [there](http://x/y)[^n].\n\n",
            "- a\n- b\n  1. deep\n  2. deeper\n\n```rust\nfn  x() {}\n```\n\n| A | B |\n|---|---|\n| 1 | `2` |\n\n[^n]: A note.\n"
        ));
        let expected = [
            (BlockKind::Heading { level: 1 }, "One"),
            (BlockKind::Paragraph, "Some soft text there[n]."),
            (BlockKind::ListItem, "a"),
            (BlockKind::ListItem, "b"),
            (BlockKind::ListItem, "1. deep"),
            (BlockKind::ListItem, "2. deeper"),
            (BlockKind::Code, "fn  x() {}"),
            (BlockKind::Table { table: 0 }, "A | B\n1 | 2"),
            (BlockKind::Footnote, "[n] A note."),
        ];
        let expected: Vec<(BlockKind, String)> =
            expected.iter().map(|(role, text)| (*role, (*text).to_owned())).collect();
        assert_eq!(blocks, expected);
        assert_eq!(document.metadata.get("title").map(String::as_str), Some("The *Plan*"));
        assert_eq!(document.links[0].target, "http://x/y");
        assert_eq!(document.blocks[0].path.as_deref(), Some("line[5]"));
    }

    #[test]
    fn scripts_in_raw_html_are_dropped() {
        let (document, _) =
            read("before\n\n<div>kept <b>words</b><script>alert('gone')</script></div>\n\nafter<br>line\n");
        assert_eq!(document.text, "before\n\nkept words\n\nafter\nline");
    }

    #[test]
    fn what_raw_html_hides_is_flagged() {
        let (document, blocks) = read(concat!(
            "Seen <span hidden>in <span>line</span> two</span> and *seen*.\n\n",
            "Open <b style='display:none'>to the end\n\nSeen again.\n\n",
            "<div hidden>\nraw words\n\n- an *item*\n\n| A | B |\n|---|---|\n| 1 | 2 |\n\n</div>\n\n",
            "<p>One <i style='font-size:0'>small</i> word</p>\n\nThe end.\n"
        ));
        let canonical = CanonicalText::from_canonical(document.text.clone());
        let hidden: Vec<&str> = document.hidden.iter().filter_map(|&span| canonical.slice(span)).collect();
        let flagged = ["in line two", "to the end", "raw words", "an item", "A | B\n1 | 2", "small"];
        assert_eq!(hidden, flagged);
        let seen = blocks.iter().filter(|(role, _)| *role == BlockKind::Paragraph).map(|(_, words)| words.as_str());
        let paragraphs = ["Seen in line two and seen.", "Open to the end", "Seen again.", "One small word", "The end."];
        assert_eq!(seen.collect::<Vec<_>>(), paragraphs);
    }

    #[test]
    fn deep_quotes_stop_at_the_limit() {
        let failure = parse("> ".repeat(5_000).as_bytes(), &ParseOptions::default()).err().map(|f| f.code);
        assert!(matches!(failure, Some(Code::DepthLimit | Code::EmptyText)), "{failure:?}");
    }
}
