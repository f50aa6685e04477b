//! What a reader sees of a document, and where: the parts of a span that are not hidden, and the page a character is on.

use docmill_model::Span;
use docmill_model::document::Page;

/// `span` without the `hidden` spans, which are sorted and apart.
pub(crate) fn visible(span: Span, hidden: &[Span]) -> impl Iterator<Item = Span> {
    let first = hidden.partition_point(|h| h.end <= span.start);
    let mut edges = vec![span.start];
    for h in hidden[first..].iter().take_while(|h| h.start < span.end) {
        edges.extend([h.start.max(span.start), h.end.min(span.end)]);
    }
    edges.push(span.end);
    (0..edges.len() / 2).map(move |i| Span::new(edges[2 * i], edges[2 * i + 1])).filter(|s| !s.is_empty())
}

/// The page of the character at `at`; `None` for formats without pages.
pub(crate) fn page_at(pages: &[Page], at: u32) -> Option<u32> {
    let index = pages.partition_point(|page| page.span.end <= at);
    pages.get(index).or(pages.last()).map(|page| page.number)
}

#[cfg(test)]
mod tests {
    use super::visible;
    use docmill_model::Span;

    #[test]
    fn hidden_parts_are_cut_out() {
        let hidden = [Span::new(0, 2), Span::new(5, 7), Span::new(12, 20)];
        let parts: Vec<Span> = visible(Span::new(1, 15), &hidden).collect();
        assert_eq!(parts, [Span::new(2, 5), Span::new(7, 12)]);
        assert_eq!(visible(Span::new(13, 14), &hidden).count(), 0);
    }
}
