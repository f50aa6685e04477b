//! Whether a difference between two systems on the same questions is more than luck: paired bootstrap.
//!
//! Questions are drawn with replacement; the share of draws in which the second system is not better is the one-sided
//! p-value (Efron and Tibshirani 1993; Sakai, SIGIR 2006). Draws are seeded: equal input, equal result.

/// A comparison of two systems, second less first.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Mean difference per question.
    pub difference: f64,
    /// Lower end of the 95 % interval of the mean difference.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of draws in which the difference has not the sign of the mean; small means unlikely to be luck.
    pub p_value: f64,
}

/// Compares scores of the same questions in the same order over `draws` resamples; `None` when the lengths differ or
/// there is nothing to compare.
#[must_use]
pub fn paired_bootstrap(first: &[f64], second: &[f64], draws: u32) -> Option<Comparison> {
    if first.len() != second.len() || first.is_empty() || draws == 0 {
        return None;
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
    let count = differences.len();
    let mean = differences.iter().sum::<f64>() / count as f64;
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut means: Vec<f64> = (0..draws)
        .map(|_| {
            (0..count).map(|_| differences[(next(&mut state) % count as u64) as usize]).sum::<f64>() / count as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[((share * f64::from(draws)) as usize).min(means.len() - 1)];
    let against = means.iter().filter(|&&drawn| if mean >= 0.0 { drawn <= 0.0 } else { drawn >= 0.0 }).count();
    Some(Comparison { difference: mean, low: at(0.025), high: at(0.975), p_value: against as f64 / f64::from(draws) })
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_steady_gain_is_significant_and_noise_is_not() {
        let first: Vec<f64> = (0..200).map(|n| f64::from(n % 7) / 10.0).collect();
        let better: Vec<f64> =
            first.iter().enumerate().map(|(n, score)| score + if n % 5 == 0 { -0.01 } else { 0.03 }).collect();
        let gain = paired_bootstrap(&first, &better, 2_000).unwrap();
        assert!((gain.difference - 0.022).abs() < 1e-9 && gain.p_value < 0.01 && gain.low > 0.0, "{gain:?}");
        let shuffled: Vec<f64> =
            first.iter().enumerate().map(|(n, score)| score + if n % 2 == 0 { 0.05 } else { -0.05 }).collect();
        assert!(paired_bootstrap(&first, &shuffled, 2_000).unwrap().p_value > 0.2);
        assert_eq!(paired_bootstrap(&first, &first[1..], 10), None);
        assert_eq!(paired_bootstrap(&first, &better, 500), paired_bootstrap(&first, &better, 500));
    }
}
