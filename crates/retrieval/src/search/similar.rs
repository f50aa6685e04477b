//! Near-duplicates among candidates: passages that say the same in almost the same words. Pure.
//!
//! Shingles of five letters, compared by their Jaccard index (Broder, "On the resemblance and containment of documents",
//! 1997). Passages whose digits differ are never the same: they state other amounts, dates or numbers. A near-duplicate
//! gives its place to whatever ranks below it, and keeps it when nothing does.

use std::cell::OnceCell;

/// Letters of a shingle.
const SHINGLE: usize = 5;
/// Share of all shingles that two passages have in common, from which they are one.
const MIN_JACCARD: f64 = 0.9;

/// Which of the texts, best first, are shown.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// Their places, in order.
    pub shown: Vec<usize>,
    /// How many of them repeat no earlier one.
    pub distinct: usize,
    /// Places of near-duplicates that are not shown, each with the place of what it repeats.
    pub left_out: Vec<(usize, usize)>,
}

/// Chooses `k` of `texts`: near-duplicates of an earlier one come last.
pub(super) fn distinct_first<'t>(texts: impl Iterator<Item = &'t str>, k: usize) -> Choice {
    let mut kept: Vec<(usize, Signature)> = Vec::new();
    let mut copies = Vec::new();
    for (place, text) in texts.enumerate() {
        if kept.len() == k {
            break;
        }
        let signature = Signature::of(text);
        match kept.iter().find(|(_, earlier)| earlier.is_like(&signature)) {
            Some((original, _)) => copies.push((place, *original)),
            None => kept.push((place, signature)),
        }
    }
    let missing = k.saturating_sub(kept.len()).min(copies.len());
    let left_out = copies.split_off(missing);
    let mut shown: Vec<usize> = kept.iter().map(|(place, _)| *place).chain(copies.iter().map(|copy| copy.0)).collect();
    shown.sort_unstable();
    Choice { shown, distinct: kept.len(), left_out }
}

/// What a passage is compared by.
struct Signature {
    digits: String,
    letters: Vec<char>,
    /// Hashes of the shingles, sorted, each once; made when a passage of the same digits is compared.
    shingles: OnceCell<Vec<u64>>,
}

impl Signature {
    fn of(text: &str) -> Self {
        let letters: Vec<char> = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let digits = letters.iter().filter(|c| c.is_numeric()).collect();
        Self { digits, letters, shingles: OnceCell::new() }
    }

    fn shingles(&self) -> &[u64] {
        self.shingles.get_or_init(|| {
            let mut shingles: Vec<u64> =
                self.letters.windows(SHINGLE.min(self.letters.len().max(1))).map(hash).collect();
            shingles.sort_unstable();
            shingles.dedup();
            shingles
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        if self.digits != other.digits {
            return false;
        }
        let (one, two) = (self.shingles(), other.shingles());
        let (fewer, more) = (one.len().min(two.len()), one.len().max(two.len()));
        if fewer == 0 || (fewer as f64) < MIN_JACCARD * more as f64 {
            return false;
        }
        let shared = shared(one, two);
        shared as f64 >= MIN_JACCARD * (fewer + more - shared) as f64
    }
}

/// A number for a shingle: its letters mixed by multiplication (Knuth, TAOCP 6.4). Nobody gains by making two alike.
fn hash(shingle: &[char]) -> u64 {
    let mix = |hash: u64, letter: &char| (hash.rotate_left(5) ^ u64::from(*letter)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    shingle.iter().fold(0, mix)
}

/// How many numbers two sorted lists have in common.
fn shared(one: &[u64], other: &[u64]) -> usize {
    let (mut at, mut count) = (0, 0);
    for number in one {
        while other.get(at).is_some_and(|candidate| candidate < number) {
            at += 1;
        }
        count += usize::from(other.get(at) == Some(number));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAUSE: &str = "The supplier is liable for damage caused by gross negligence of its staff, and for nothing else \
                          whatsoever, unless the parties have agreed upon something different in writing beforehand.";

    fn shown(texts: &[&str], k: usize) -> Vec<usize> {
        distinct_first(texts.iter().copied(), k).shown
    }

    #[test]
    fn a_near_duplicate_gives_its_place_to_what_ranks_below() {
        let edited = CLAUSE.replace("beforehand", "before").replace(", and", " and");
        assert_eq!(shown(&[CLAUSE, &edited, "Fees are due monthly."], 2), [0, 2]);
        assert_eq!(shown(&[CLAUSE, &edited, "Fees are due monthly.", &edited], 3), [0, 1, 2], "nothing else is left");
        assert_eq!(shown(&[CLAUSE, &edited], 5), [0, 1]);
        let choice = distinct_first([CLAUSE, "Fees are due monthly.", &edited, "Rent is due."].into_iter(), 3);
        assert_eq!(choice, Choice { shown: vec![0, 1, 3], distinct: 3, left_out: vec![(2, 0)] });
    }

    #[test]
    fn other_figures_and_other_words_are_no_duplicates() {
        let (first, second) = (format!("{CLAUSE} Cap: 5,000 EUR."), format!("{CLAUSE} Cap: 6,000 EUR."));
        assert_eq!(shown(&[&first, &second, "Fees."], 2), [0, 1]);
        let other = CLAUSE.replace("damage caused by gross negligence of its staff", "late delivery of ordered goods");
        assert_eq!(shown(&[CLAUSE, &other, "Fees."], 2), [0, 1]);
        assert_eq!(shown(&["", "!", "a", "b"], 3), [0, 1, 2]);
        assert_eq!(shown(&[], 3), [0; 0]);
    }

    #[test]
    fn scripts_without_spaces_are_compared_too() {
        let clause = "供应商对其员工的重大过失所造成的损害承担责任,除非双方事先另有书面约定,否则不承担任何其他责任。";
        assert_eq!(shown(&[clause, &format!("{clause}特此"), "费用按月支付。"], 2), [0, 2]);
    }
}
