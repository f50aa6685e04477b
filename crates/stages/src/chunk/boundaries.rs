//! Where a run of atoms is cut, decided by the atoms near each place and nothing else.
//!
//! Every place between two atoms has a rank: how strongly the structure asks for a cut there, then a hash of the atom
//! that follows. A place is cut when no place within the window has a better rank (local-minimum chunking: content-
//! defined like a rolling hash, but bounded below by the window). Gaps that are still too long are split at their best
//! inner place. Nothing depends on where the run starts, so an edit moves only the cuts beside it. Pure.

use std::ops::Range;

/// How strongly the structure asks for a cut before an atom; smaller is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seam {
    /// A heading starts.
    Heading,
    /// Prose, list, table or code begins or ends.
    Kind,
    /// A new paragraph.
    Block,
    /// A new sentence, row, item or line.
    Sentence,
    /// Inside a sentence that is too long by itself.
    Word,
    /// Right after a heading: only when nothing else is left.
    AfterHeading,
}

/// An atom as the cutter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    /// Tokens, at least 1.
    pub tokens: u32,
    /// The seam before it.
    pub seam: Seam,
    /// Hash of its words.
    pub hash: u64,
}

/// Bounds in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Distance within which a better place wins.
    pub window: u32,
    /// No cut nearer to an end of the run.
    pub min: u32,
    /// No piece longer, as far as atoms allow.
    pub max: u32,
}

/// The pieces of a run, as ranges of atoms: in order, not empty, covering all.
pub(super) fn pieces(atoms: &[Weight], bounds: Bounds) -> Vec<Range<usize>> {
    let places = Places::of(atoms);
    let mut out = Vec::new();
    let mut start = 0;
    for cut in (1..atoms.len()).filter(|&at| places.is_cut(at, bounds)) {
        places.split(start..cut, bounds, &mut out);
        start = cut;
    }
    if start < atoms.len() {
        places.split(start..atoms.len(), bounds, &mut out);
    }
    out
}

struct Places<'a> {
    atoms: &'a [Weight],
    /// Tokens before each atom; one more entry for the total.
    before: Vec<u32>,
}

impl<'a> Places<'a> {
    fn of(atoms: &'a [Weight]) -> Self {
        let mut before = vec![0];
        for atom in atoms {
            before.push(before[before.len() - 1] + atom.tokens);
        }
        Self { atoms, before }
    }

    fn rank(&self, at: usize) -> (Seam, u64) {
        (self.atoms[at].seam, self.atoms[at].hash)
    }

    fn is_candidate(&self, at: usize, bounds: Bounds) -> bool {
        let total = self.before[self.atoms.len()];
        self.atoms[at].seam < Seam::AfterHeading
            && self.before[at] >= bounds.min
            && total - self.before[at] >= bounds.min
    }

    fn is_cut(&self, at: usize, bounds: Bounds) -> bool {
        if !self.is_candidate(at, bounds) {
            return false;
        }
        let rank = self.rank(at);
        let here = self.before[at];
        let beaten_left = (1..at)
            .rev()
            .take_while(|&other| here - self.before[other] <= bounds.window)
            .any(|other| self.is_candidate(other, bounds) && self.rank(other) <= rank);
        let beaten_right = (at + 1..self.atoms.len())
            .take_while(|&other| self.before[other] - here <= bounds.window)
            .any(|other| self.is_candidate(other, bounds) && self.rank(other) < rank);
        !beaten_left && !beaten_right
    }

    fn split(&self, range: Range<usize>, bounds: Bounds, out: &mut Vec<Range<usize>>) {
        let size = self.before[range.end] - self.before[range.start];
        if size <= bounds.max || range.len() == 1 {
            out.push(range);
            return;
        }
        let cut = self.best_inside(&range, size, bounds);
        self.split(range.start..cut, bounds, out);
        self.split(cut..range.end, bounds, out);
    }

    /// The best place that leaves both sides long enough and, where two pieces suffice, short enough.
    fn best_inside(&self, range: &Range<usize>, size: u32, bounds: Bounds) -> usize {
        let least = if size <= 2 * bounds.max { (size - bounds.max).max(size / 4) } else { size / 4 };
        let offset = |at: usize| self.before[at] - self.before[range.start];
        let inner = range.start + 1..range.end;
        let allowed = |at: &usize| {
            offset(*at) >= least && size - offset(*at) >= least && self.atoms[*at].seam < Seam::AfterHeading
        };
        let best = inner.clone().filter(allowed).min_by_key(|&at| self.rank(at));
        best.or_else(|| inner.min_by_key(|&at| offset(at).abs_diff(size / 2))).unwrap_or(range.start + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Seam, Weight, pieces};

    const BOUNDS: Bounds = Bounds { window: 90, min: 40, max: 214 };

    fn atoms(count: usize, tokens: u32) -> Vec<Weight> {
        let hash = |i: usize| {
            (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        (0..count).map(|i| Weight { tokens, seam: Seam::Sentence, hash: hash(i) }).collect()
    }

    #[test]
    fn pieces_cover_the_run_within_bounds() {
        for count in [1, 2, 5, 40, 300] {
            let atoms = atoms(count, 23);
            let found = pieces(&atoms, BOUNDS);
            assert_eq!(found.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert!(found.iter().all(|piece| piece.len() as u32 * 23 <= BOUNDS.max));
        }
        assert!(pieces(&[], BOUNDS).is_empty());
    }

    #[test]
    fn a_heading_starts_a_piece_and_keeps_what_follows() {
        let mut atoms = atoms(12, 20);
        atoms[6].seam = Seam::Heading;
        atoms[7].seam = Seam::AfterHeading;
        let found = pieces(&atoms, BOUNDS);
        assert!(found.iter().any(|piece| piece.start == 6), "{found:?}");
        assert!(found.iter().all(|piece| piece.start != 7));
    }

    #[test]
    fn equal_atoms_are_still_cut() {
        let same = vec![Weight { tokens: 10, seam: Seam::Sentence, hash: 7 }; 100];
        assert!(pieces(&same, BOUNDS).iter().all(|piece| piece.len() <= 21));
    }
}
