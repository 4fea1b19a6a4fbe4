//! The next token, from scores that the rules have restricted.

use crate::kernels::{dispatch, exp};

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: u32,
    /// Natural logarithm of its probability among the allowed tokens, at temperature 1.
    pub(crate) logprob: f32,
}

/// Random numbers from a seed (SplitMix64: Steele, Lea, Flood 2014). Ours, because a sample must be the same after a
/// crash, on another machine and in a later release, which library generators do not promise.
#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The same for the same samples and temperature step.
    pub(crate) fn for_audio(samples: &[f32], step: usize) -> Self {
        let fnv = |hash: u64, bits: u32| (hash ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = samples.iter().map(|sample| sample.to_bits()).fold(0xcbf2_9ce4_8422_2325, fnv);
        Self(hash.wrapping_add((step as u64) << 56))
    }

    /// Uniform in [0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Chooses the next token: the most probable at temperature 0, else one drawn from `softmax(logits / temperature)`.
pub(crate) fn choose(logits: &[f32], first_time: u32, temperature: f32, draws: &mut Draws) -> Choice {
    let allowed = Allowed::of(logits, first_time);
    allowed.choice(if temperature > 0.0 { draw(allowed.logits, temperature, draws) } else { argmax(allowed.logits) })
}

/// The `count` most probable next tokens, the first of equals first; fewer where fewer are possible, but always one, as
/// when damaged weights give no score that is a number.
pub(crate) fn likeliest(logits: &[f32], first_time: u32, count: usize) -> Vec<Choice> {
    let allowed = Allowed::of(logits, first_time);
    let mut indices: Vec<usize> =
        (0..allowed.logits.len()).filter(|index| allowed.logits[*index] > f32::NEG_INFINITY).collect();
    let order = |a: &usize, b: &usize| allowed.logits[*b].total_cmp(&allowed.logits[*a]).then(a.cmp(b));
    if count < indices.len() {
        indices.select_nth_unstable_by(count, order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    if indices.is_empty() {
        indices.push(argmax(allowed.logits));
    }
    indices.into_iter().map(|index| allowed.choice(index)).collect()
}

/// The scores that a token may be chosen from.
struct Allowed<'a> {
    logits: &'a [f32],
    /// The token of the first of them.
    first: u32,
    /// Natural logarithm of the sum of their exponentials.
    log_total: f32,
}

impl<'a> Allowed<'a> {
    /// All tokens; only times when they together are more probable than any single text token (the last of the
    /// reference's timestamp rules).
    fn of(logits: &'a [f32], first_time: u32) -> Self {
        let (text, times) = logits.split_at(first_time as usize);
        let (text_top, times_top) = (top(text), top(times));
        let highest = text_top.max(times_top);
        let (text_sum, times_sum) = (sum(text, highest), sum(times, highest));
        let time_only = times_sum > exp(text_top - highest);
        let (logits, first, total) =
            if time_only { (times, first_time, times_sum) } else { (logits, 0, text_sum + times_sum) };
        Self { logits, first, log_total: highest + total.ln() }
    }

    fn choice(&self, index: usize) -> Choice {
        Choice { token: self.first + index as u32, logprob: self.logits[index] - self.log_total }
    }
}

/// Probability of `token` among all tokens.
pub(crate) fn probability(logits: &[f32], token: u32) -> f32 {
    let highest = top(logits);
    exp(logits[token as usize] - highest) / sum(logits, highest)
}

fn argmax(values: &[f32]) -> usize {
    // The first of equals, so that ties do not depend on the order of comparison.
    values.iter().enumerate().fold(0, |best, (index, value)| if *value > values[best] { index } else { best })
}

fn draw(logits: &[f32], temperature: f32, draws: &mut Draws) -> usize {
    let highest = top(logits);
    let weight = |logit: f32| f64::from((logit - highest) / temperature).exp();
    let allowed = || logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut left = draws.next() * allowed().map(|(_, logit)| weight(*logit)).sum::<f64>();
    for (index, logit) in allowed() {
        left -= weight(*logit);
        if left < 0.0 {
            return index;
        }
    }
    argmax(logits)
}

const LANES: usize = 16;

fn top(values: &[f32]) -> f32 {
    dispatch(|| {
        let mut tops = [f32::NEG_INFINITY; LANES];
        let blocks = values.chunks_exact(LANES);
        let rest = blocks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for block in blocks {
            for (top, value) in tops.iter_mut().zip(block) {
                *top = if *value > *top { *value } else { *top };
            }
        }
        tops.iter().copied().fold(rest, f32::max)
    })
}

fn sum(values: &[f32], highest: f32) -> f32 {
    dispatch(|| {
        let mut sums = [0.0_f32; LANES];
        let blocks = values.chunks_exact(LANES);
        let rest: f32 = blocks.remainder().iter().map(|value| exp(value - highest)).sum();
        for block in blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += exp(value - highest);
            }
        }
        sums.iter().sum::<f32>() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> Draws {
        Draws::for_audio(&[0.5, -0.25], 1)
    }

    #[test]
    fn greedy_takes_the_most_probable_and_its_probability() {
        let mut logits = vec![0.0_f32; 40];
        logits[3] = 2.0;
        logits[30..].fill(f32::NEG_INFINITY);
        let choice = choose(&logits, 30, 0.0, &mut draws());
        assert_eq!(choice.token, 3);
        let expected = 2.0 - (2.0_f32.exp() + 29.0).ln();
        assert!((choice.logprob - expected).abs() < 1e-5);
    }

    #[test]
    fn many_likely_times_beat_one_likelier_word() {
        let mut logits = vec![f32::NEG_INFINITY; 40];
        logits[3] = 1.0;
        logits[30..40].fill(0.0);
        // ten times e^0 against e^1
        assert!(choose(&logits, 30, 0.0, &mut draws()).token >= 30);
        logits[33..40].fill(f32::NEG_INFINITY);
        logits[3] = 2.0;
        assert_eq!(choose(&logits, 30, 0.0, &mut draws()).token, 3);
    }

    #[test]
    fn the_likeliest_come_in_order_and_only_where_they_are_possible() {
        let mut logits: Vec<f32> = (0..40).map(|i| (i * 7 % 11) as f32).collect();
        logits[30..].fill(f32::NEG_INFINITY);
        let all = likeliest(&logits, 30, 100);
        assert_eq!(all.len(), 30);
        assert!(all.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert!((all.iter().map(|choice| choice.logprob.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(likeliest(&logits, 30, 4), all[..4]);
        assert_eq!(all[0], choose(&logits, 30, 0.0, &mut draws()));
        // The first of equals first: 3, 14 and 25 score 10.
        assert_eq!(all[..3].iter().map(|choice| choice.token).collect::<Vec<_>>(), [3, 14, 25]);
        assert_eq!(likeliest(&[f32::NAN; 40], 30, 4).len(), 1);
        logits[30..].fill(9.0);
        assert!(likeliest(&logits, 30, 4).iter().all(|choice| choice.token >= 30), "times are likelier together");
    }

    #[test]
    fn drawing_repeats_itself_and_keeps_to_allowed_tokens() {
        let mut logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
        logits[50..].fill(f32::NEG_INFINITY);
        let run =
            |mut draws: Draws| -> Vec<u32> { (0..200).map(|_| choose(&logits, 90, 1.0, &mut draws).token).collect() };
        assert_eq!(run(draws()), run(draws()));
        assert_ne!(run(draws()), run(Draws::for_audio(&[0.5, -0.25], 2)));
        assert_ne!(run(draws()), run(Draws::for_audio(&[0.5, -0.26], 1)));
        assert!(run(draws()).iter().all(|token| *token < 50));
    }

    #[test]
    fn draws_follow_the_temperature() {
        let logits = [1.0, 0.0, f32::NEG_INFINITY];
        let share = |temperature| {
            let mut draws = draws();
            (0..4000).filter(|_| choose(&logits, 2, temperature, &mut draws).token == 0).count() as f64 / 4000.0
        };
        let expected = |t: f64| 1.0 / (1.0 + (-1.0 / t).exp());
        assert!((share(1.0) - expected(1.0)).abs() < 0.03);
        assert!((share(0.2) - expected(0.2)).abs() < 0.03);
    }
}
