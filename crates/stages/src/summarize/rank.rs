//! Which sentences stand for the document: centrality, position, and no repetition.
//!
//! LexRank (Erkan and Radev 2004) on cosine similarity of sentence embeddings, with a prior for places where authors
//! say what matters, then maximal marginal relevance (Carbonell and Goldstein 1998). Pure and deterministic.

use super::candidates::Candidate;

/// How sentences are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Most sentences; at most a third of the candidates, but one.
    pub most: usize,
    /// Similarity below this does not count as a vote.
    pub threshold: f32,
    /// Share of a sentence's own weight (rank and place) against its likeness to what is already chosen.
    pub own_weight: f32,
    /// How much the beginning of the document is preferred.
    pub lead_weight: f32,
}

impl Choice {
    /// Up to `most` sentences, with the weights that did best on scientific abstracts and stories.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, threshold: 0.2, own_weight: 0.7, lead_weight: 0.0 }
    }
}

/// Indices of the chosen sentences in reading order; `vectors` are L2-normalised, one a sentence.
#[must_use]
pub fn choose(sentences: &[Candidate], vectors: &[Vec<f32>], choice: &Choice) -> Vec<usize> {
    let count = sentences.len().min(vectors.len());
    let most = choice.most.min(count.div_ceil(3)).max(usize::from(count > 0));
    let similarity = Similarity::of(&vectors[..count]);
    let weights = weights(sentences, &similarity, choice);
    let mut chosen: Vec<usize> = Vec::with_capacity(most);
    while chosen.len() < most {
        let marginal = |at: usize| {
            let repeated = chosen.iter().map(|&other| similarity.get(at, other)).fold(0.0, f32::max);
            choice.own_weight * weights[at] - (1.0 - choice.own_weight) * repeated
        };
        let rest = (0..count).filter(|at| !chosen.contains(at));
        let Some(best) = rest.max_by(|&a, &b| marginal(a).total_cmp(&marginal(b)).then(b.cmp(&a))) else { break };
        chosen.push(best);
    }
    chosen.sort_unstable();
    chosen
}

/// Rank and place of each sentence, scaled to 0–1.
fn weights(sentences: &[Candidate], similarity: &Similarity, choice: &Choice) -> Vec<f32> {
    let ranks = similarity.lexrank(choice.threshold);
    let place = |candidate: &Candidate| {
        let lead = (-6.0 * candidate.position).exp();
        1.0 + choice.lead_weight * lead + if candidate.opens_paragraph { 0.1 } else { 0.0 }
    };
    let raw: Vec<f32> = ranks.iter().zip(sentences).map(|(rank, candidate)| rank * place(candidate)).collect();
    let largest = raw.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    raw.into_iter().map(|weight| weight / largest).collect()
}

struct Similarity {
    count: usize,
    values: Vec<f32>,
}

impl Similarity {
    fn of(vectors: &[Vec<f32>]) -> Self {
        let count = vectors.len();
        let mut values = vec![0.0; count * count];
        for a in 0..count {
            for b in a..count {
                let cosine: f32 = vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum();
                values[a * count + b] = cosine;
                values[b * count + a] = cosine;
            }
        }
        Self { count, values }
    }

    fn get(&self, a: usize, b: usize) -> f32 {
        self.values[a * self.count + b]
    }

    /// Stationary probabilities of a walk that moves to similar sentences; damping 0.85.
    fn lexrank(&self, threshold: f32) -> Vec<f32> {
        let n = self.count;
        let vote = |a: usize, b: usize| if a != b && self.get(a, b) > threshold { self.get(a, b) } else { 0.0 };
        let totals: Vec<f32> = (0..n).map(|a| (0..n).map(|b| vote(a, b)).sum()).collect();
        let mut ranks = vec![1.0 / n.max(1) as f32; n];
        for _ in 0..50 {
            let received =
                |b: usize| (0..n).filter(|&a| totals[a] > 0.0).map(|a| ranks[a] * vote(a, b) / totals[a]).sum::<f32>();
            let next: Vec<f32> = (0..n).map(|b| 0.15 / n as f32 + 0.85 * received(b)).collect();
            let moved: f32 = next.iter().zip(&ranks).map(|(new, old)| (new - old).abs()).sum();
            ranks = next;
            if moved < 1e-6 {
                break;
            }
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Choice, choose};
    use docmill_model::Span;

    fn sentence(index: u32) -> Candidate {
        Candidate {
            text: format!("sentence {index}"),
            span: Span::new(index, index + 1),
            page: None,
            position: index as f32 / 5.0,
            opens_paragraph: false,
        }
    }

    #[test]
    fn central_sentences_are_chosen_and_repetitions_are_not() {
        let sentences: Vec<Candidate> = (0..6).map(sentence).collect();
        let unit = |x: f32, y: f32, z: f32| {
            let norm = (x * x + y * y + z * z).sqrt();
            vec![x / norm, y / norm, z / norm]
        };
        // 0 and 1 say the same and are central; 2 and 3 are another theme; 4 and 5 stand alone.
        let vectors = [
            unit(1.0, 0.5, 0.0),
            unit(1.0, 0.5, 0.0),
            unit(0.3, 1.0, 0.0),
            unit(0.2, 1.0, 0.1),
            unit(0.0, 0.0, 1.0),
            unit(0.0, 0.1, -1.0),
        ];
        let chosen = choose(&sentences, &vectors, &Choice::new(2));
        assert_eq!(chosen.len(), 2);
        assert!(chosen[0] < 2 && (chosen[1] == 2 || chosen[1] == 3), "{chosen:?}");
    }

    #[test]
    fn few_sentences_and_none() {
        assert_eq!(choose(&[sentence(0)], &[vec![1.0]], &Choice::new(5)), [0]);
        assert!(choose(&[], &[], &Choice::new(5)).is_empty());
    }
}
