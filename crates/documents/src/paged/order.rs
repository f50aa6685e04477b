//! Reading order of the lines of one page.
//!
//! The order of the file is kept where it reads well, because most programs write in reading order. Where lines run
//! across a gutter between columns they are cut there, and where lines jump about the page is sorted by recursive
//! cuts into columns and bands (XY cut, Nagy and Seth 1984).

use super::{EXTRA, Line, PageDraft};
use docmill_model::document::{PageOutcome, Rect};

/// Lines that must agree on a gutter.
const AGREEING: usize = 5;
/// Least share of the page's width on each side of a gutter.
const SIDE: f32 = 0.18;

/// Puts the lines of a page into reading order.
pub(super) fn arrange(page: &PageDraft, lines: Vec<Line>) -> Vec<Line> {
    let is_extra = |line: &Line| line.words.first().is_some_and(|&w| page.words[w as usize].is(EXTRA));
    let (extra, mut lines): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(is_extra);
    // The recogniser has looked at the page as a whole already.
    if !matches!(page.outcome, PageOutcome::Ocr { .. }) {
        let gutter = gutter(page, &lines);
        if let Some(gutter) = gutter {
            lines = lines.into_iter().flat_map(|line| cut(page, line, gutter)).collect();
        }
        if gutter.is_some() || is_disordered(&lines) {
            let mut sorted = Vec::with_capacity(lines.len());
            sort(page, lines, 0, &mut sorted);
            lines = sorted;
        }
    }
    for line in extra {
        let at = place_of(&lines, &line);
        lines.insert(at, line);
    }
    lines
}

/// Where a form's value belongs: after the line left of it, else after the last one above it.
fn place_of(lines: &[Line], value: &Line) -> usize {
    let middle = (value.rect.y0 + value.rect.y1) / 2.0;
    let beside = (lines.iter().enumerate())
        .filter(|(_, l)| l.rect.y0 <= middle && middle <= l.rect.y1 && l.rect.x0 <= value.rect.x0)
        .max_by(|a, b| a.1.rect.x0.total_cmp(&b.1.rect.x0));
    let above = || lines.iter().rposition(|l| l.rect.y1 <= middle && overlap(l.rect, value.rect) > 0.0);
    let higher = || lines.iter().rposition(|l| l.rect.y1 <= middle);
    beside.map(|(at, _)| at).or_else(above).or_else(higher).map_or(0, |at| at + 1)
}

fn overlap(a: Rect, b: Rect) -> f32 {
    a.x1.min(b.x1) - a.x0.max(b.x0)
}

/// True when lines of one column often lie above the line before them.
fn is_disordered(lines: &[Line]) -> bool {
    let back = |pair: &&[Line]| {
        let (a, b) = (pair[0].rect, pair[1].rect);
        let narrow = (a.x1 - a.x0).min(b.x1 - b.x0).max(1.0);
        b.y1 < a.y0 + 0.2 * (a.y1 - a.y0) && overlap(a, b) > 0.5 * narrow
    };
    let jumps = lines.windows(2).filter(back).count();
    jumps >= 3 && jumps * 12 >= lines.len()
}

/// The gaps of a line: right end of a word, left end of the next one in x order.
fn gaps<'a>(page: &'a PageDraft, line: &'a Line) -> impl Iterator<Item = (f32, f32)> + 'a {
    line.words.windows(2).map(|pair| (page.words[pair[0] as usize].rect.x1, page.words[pair[1] as usize].rect.x0))
}

/// The x position of a gutter that many lines of running text leave free although they run across it.
fn gutter(page: &PageDraft, lines: &[Line]) -> Option<f32> {
    let width = page.width.max(1.0);
    let bins = (width as usize + 1).min(20_000);
    let mut free = vec![0usize; bins];
    for line in lines.iter().filter(|l| l.words.len() >= 6) {
        for (left, right) in gaps(page, line) {
            if right - left >= 0.95 * line.size.max(4.0) && left > SIDE * width && right < (1.0 - SIDE) * width {
                for bin in
                    &mut free[left.ceil() as usize..(right.floor() as usize).min(bins - 1).max(left.ceil() as usize)]
                {
                    *bin += 1;
                }
            }
        }
    }
    let (at, &count) =
        free.iter().enumerate().max_by_key(|&(at, count)| (*count, usize::MAX - at.abs_diff(bins / 2)))?;
    if count < AGREEING {
        return None;
    }
    let x = at as f32 + 0.5;
    let crossing: Vec<&Line> =
        lines.iter().filter(|l| l.rect.x0 < x - SIDE * width && l.rect.x1 > x + SIDE * width).collect();
    let cuttable =
        crossing.iter().filter(|l| gaps(page, l).any(|(a, b)| a <= x && x <= b && b - a >= 0.95 * l.size)).count();
    let words =
        |line: &Line, left: bool| line.words.iter().filter(|&&w| (page.words[w as usize].rect.x1 <= x) == left).count();
    let prose = crossing.iter().filter(|l| words(l, true) >= 4 && words(l, false) >= 4).count();
    // Rows of a table leave gutters too, but several in a line; columns of text leave one.
    let wide = |line: &Line| gaps(page, line).filter(|(a, b)| b - a >= 0.95 * line.size.max(4.0)).count();
    let most = crossing.iter().filter(|l| wide(l) <= 1).count();
    (cuttable * 10 >= crossing.len() * 6 && prose * 10 >= cuttable * 7 && most * 10 >= crossing.len() * 7).then_some(x)
}

/// A line in two, when it leaves the gutter free.
fn cut(page: &PageDraft, line: Line, x: f32) -> Vec<Line> {
    let free = gaps(page, &line).any(|(a, b)| a <= x && x <= b && b - a >= 0.7 * line.size);
    if !free {
        return vec![line];
    }
    let (left, right): (Vec<u32>, Vec<u32>) = line.words.iter().partition(|&&w| page.words[w as usize].rect.x1 <= x);
    [left, right].into_iter().filter(|words| !words.is_empty()).map(|words| Line::of(page, words)).collect()
}

/// Sorts by cutting; the first line of every part begins a region.
fn sort(page: &PageDraft, mut lines: Vec<Line>, depth: usize, out: &mut Vec<Line>) {
    if lines.len() > 1 && depth < 40 {
        if let Some((left, right)) = columns(page, &lines) {
            sort(page, left, depth + 1, out);
            sort(page, right, depth + 1, out);
            return;
        }
        if let Some((above, below)) = bands(&mut lines) {
            sort(page, above, depth + 1, out);
            sort(page, below, depth + 1, out);
            return;
        }
    }
    lines.sort_by(|a, b| a.rect.y0.total_cmp(&b.rect.y0));
    rows(&mut lines);
    if let Some(first) = lines.first_mut() {
        first.region = true;
    }
    out.append(&mut lines);
}

/// Two columns with a gap over the whole height, each with some lines of some width.
fn columns(page: &PageDraft, lines: &[Line]) -> Option<(Vec<Line>, Vec<Line>)> {
    let mut spans: Vec<(f32, f32)> = lines.iter().map(|l| (l.rect.x0, l.rect.x1)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut reach = spans.first()?.1;
    let mut best: Option<(f32, f32)> = None;
    for &(x0, x1) in &spans {
        let gap = x0 - reach;
        if gap > 5.0 && best.is_none_or(|(width, _)| gap > width) {
            best = Some((gap, (x0 + reach) / 2.0));
        }
        reach = reach.max(x1);
    }
    let x = best?.1;
    let (left, right): (Vec<Line>, Vec<Line>) = lines.iter().cloned().partition(|l| l.rect.x1 <= x);
    let wide = |part: &[Line]| {
        let mean = part.iter().map(|l| l.rect.x1 - l.rect.x0).sum::<f32>() / part.len().max(1) as f32;
        part.len() >= 3 && mean >= 0.12 * page.width
    };
    (wide(&left) && wide(&right)).then_some((left, right))
}

/// Above and below the widest free band.
fn bands(lines: &mut [Line]) -> Option<(Vec<Line>, Vec<Line>)> {
    lines.sort_by(|a, b| a.rect.y0.total_cmp(&b.rect.y0));
    let mut reach = lines.first()?.rect.y1;
    let mut best: Option<(f32, usize)> = None;
    for (at, line) in lines.iter().enumerate().skip(1) {
        let gap = line.rect.y0 - reach;
        if gap > 0.0 && best.is_none_or(|(width, _)| gap > width) {
            best = Some((gap, at));
        }
        reach = reach.max(line.rect.y1);
    }
    let at = best?.1;
    Some((lines[..at].to_vec(), lines[at..].to_vec()))
}

/// Within lines sorted downwards, puts those of one row in order from the left.
fn rows(lines: &mut [Line]) {
    let mut start = 0;
    while start < lines.len() {
        let middle = (lines[start].rect.y0 + lines[start].rect.y1) / 2.0;
        let length = lines[start..].iter().take_while(|l| l.rect.y0 < middle).count().max(1);
        lines[start..start + length].sort_by(|a, b| a.rect.x0.total_cmp(&b.rect.x0));
        start += length;
    }
}

#[cfg(test)]
mod tests {
    use super::arrange;
    use crate::paged::{LINE, PageDraft, WordDraft, lines};
    use docmill_model::document::{PageOutcome, Rect};

    fn page(words: &[(&str, f32, f32, bool)]) -> PageDraft {
        let mut page = PageDraft::empty(1, 600.0, 800.0, 0, PageOutcome::Text);
        for &(text, x0, y0, line) in words {
            let start = page.buffer.len() as u32;
            page.buffer.push_str(text);
            let rect = Rect { x0, y0, x1: x0 + 5.0 * text.len() as f32, y1: y0 + 12.0 };
            let flags = if line { LINE } else { 0 };
            page.words.push(WordDraft {
                start,
                end: page.buffer.len() as u32,
                rect,
                size: 10.0,
                confidence: 1.0,
                flags,
            });
        }
        page
    }

    fn read(page: &PageDraft) -> Vec<String> {
        arrange(page, lines(page)).iter().map(|l| l.text(page)).collect()
    }

    #[test]
    fn lines_that_run_over_a_gutter_are_cut_into_columns() {
        let mut words = Vec::new();
        let texts: Vec<(String, String)> = (0..8).map(|i| (format!("left{i}"), format!("rite{i}"))).collect();
        for (row, (left, right)) in texts.iter().enumerate() {
            let y = 100.0 + 14.0 * row as f32;
            for column in 0..5 {
                words.push((left.as_str(), 50.0 + 30.0 * column as f32, y, column == 0));
            }
            for column in 0..5 {
                words.push((right.as_str(), 320.0 + 30.0 * column as f32, y, false));
            }
        }
        let read = read(&page(&words));
        assert_eq!(read.len(), 16);
        assert!(
            read[..8].iter().all(|l| l.starts_with("left")) && read[8..].iter().all(|l| l.starts_with("rite")),
            "{read:?}"
        );
    }

    #[test]
    fn a_page_in_good_order_is_left_alone() {
        let words = [
            ("one", 50.0, 100.0, true),
            ("two", 50.0, 114.0, true),
            ("three", 320.0, 100.0, true),
            ("four", 320.0, 114.0, true),
        ];
        assert_eq!(read(&page(&words)), ["one", "two", "three", "four"]);
    }

    #[test]
    fn lines_written_backwards_are_sorted() {
        let texts = ["five", "four", "three", "two", "one"];
        let words: Vec<_> = texts.iter().enumerate().map(|(i, &t)| (t, 50.0, 200.0 - 16.0 * i as f32, true)).collect();
        assert_eq!(read(&page(&words)), ["one", "two", "three", "four", "five"]);
    }
}
