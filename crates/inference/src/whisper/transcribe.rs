//! From windows of samples to segments.

use candle_core::Tensor;
use warren_audio::MEL_FRAMES;

use super::{
    MAX_TOKENS, RATE, SpeechOptions, SpeechOutput, SpokenSegment, Whisper,
    attempt::{Attempt, TEMPERATURES, Verdict},
    choose::{Draws, probability},
    decoder::{Heard, Row},
    search::Search,
    segments::{Span, spans},
};
use crate::{Gate, InferenceError, gate::pass};

/// Loudness, as the root mean square of 50 ms, below which nobody is heard: 10 dB over the noise of 16-bit samples.
/// The model invents words for digital silence, so it is not asked.
const AUDIBLE: f32 = 1e-4;

/// Shortest rest of a window that is heard again, in seconds.
const SHORTEST_REST: f64 = 1.0;

/// Loudness of a rest in proportion to its piece, below which the model is believed.
const QUIET: f32 = 0.05;

/// The same for a rest that the model took for silence: in seconds, and in loudness.
const LONG_REST: f64 = 2.5;
const LOUD: f32 = 0.25;

/// The share of the work on a piece that encoding it is.
const ENCODED: f64 = 0.25;

/// A window, or the rest of one after the point where the model stopped.
#[derive(Clone, Copy)]
struct Piece<'a> {
    window: usize,
    /// Seconds from the start of the window.
    offset: f64,
    samples: &'a [f32],
}

impl Piece<'_> {
    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / RATE as f64
    }
}

/// Pieces that are decoded together.
struct Group<'a> {
    pieces: &'a [Piece<'a>],
    heard: Vec<Heard>,
    prompt: &'a [u32],
    options: &'a SpeechOptions,
}

/// How much of a piece is done, 0 to 1, when attempt number `step` at decoding it is through by `through`, 0 to 1.
///
/// Encoding counts for a quarter. Each attempt then brings the rest nearer by four fifths, since one more may follow;
/// so progress goes on in all of them.
fn share_done(step: usize, through: f64) -> f64 {
    let before = (0..step).fold(ENCODED, |done, _| done + 0.8 * (1.0 - done));
    before + 0.8 * (1.0 - before) * through
}

/// Reports seconds done, and never fewer than before.
struct Progress<'a> {
    report: &'a dyn Fn(f64),
    reported: f64,
    /// Seconds of the groups before the present one.
    before: f64,
    /// Of each piece of the present group.
    group: Vec<f64>,
}

impl<'a> Progress<'a> {
    fn new(report: &'a dyn Fn(f64)) -> Self {
        Self { report, reported: 0.0, before: 0.0, group: Vec::new() }
    }

    fn at(&mut self, piece: usize, seconds: f64) {
        if self.group.len() <= piece {
            self.group.resize(piece + 1, 0.0);
        }
        self.group[piece] = seconds;
        self.tell(self.before + self.group.iter().sum::<f64>());
    }

    /// The present group is over, after so many seconds.
    fn group_done(&mut self, seconds: f64) {
        self.before += seconds;
        self.group.clear();
        self.tell(self.before);
    }

    fn tell(&mut self, seconds: f64) {
        if seconds > self.reported {
            self.reported = seconds;
            (self.report)(seconds);
        }
    }
}

impl Whisper {
    /// Writes down what is said in `windows`: mono, 16 kHz, at most 30 s each, best cut where nobody speaks.
    ///
    /// The windows are encoded one by one and decoded in groups. What comes out for a window depends on its samples,
    /// the language and the task alone: on the processor every row's arithmetic is bitwise the same in any group, and
    /// the chance that higher temperatures need is seeded from the samples. The one thing windows share is the
    /// language, detected on the first of them in which somebody speaks.
    ///
    /// A window that decodes to a loop or to a guess is tried again at rising temperatures, unless one pass is all that
    /// is wanted. If none is good, the best is kept, its loop cut off after one round.
    ///
    /// `gate` is asked before every forward pass, and how many windows are decoded together at most. `progress` hears the
    /// seconds of audio done, summed over the windows, those that are being worked on in part; it never falls.
    ///
    /// # Errors
    /// [`InferenceError::Unsupported`] for a language or task that the model cannot do,
    /// [`InferenceError::InputInvalid`] for a window over 30 s, [`InferenceError::Interrupted`] from the gate,
    /// [`InferenceError::OutOfMemory`], [`InferenceError::Internal`].
    pub fn transcribe(
        &self,
        windows: &[&[f32]],
        options: &SpeechOptions,
        gate: &dyn Gate,
        progress: &dyn Fn(f64),
    ) -> Result<SpeechOutput, InferenceError> {
        if options.translate && !self.multilingual() {
            let reason = "translation needs a multilingual model; this one knows only English";
            return Err(InferenceError::Unsupported(reason.into()));
        }
        let given = options.language.as_deref().map(|code| self.language(code)).transpose()?;
        if let Some(index) = windows.iter().position(|window| window.len() > warren_audio::MAX_WINDOW) {
            let seconds = windows[index].len() as f64 / RATE as f64;
            return Err(InferenceError::InputInvalid(format!("window {index} has {seconds:.1} s; at most 30 s fit")));
        }

        let mut pieces: Vec<Piece<'_>> = windows
            .iter()
            .enumerate()
            .filter(|(_, samples)| loudest(samples) > AUDIBLE)
            .map(|(window, samples)| Piece { window, offset: 0.0, samples })
            .collect();
        let (language, language_probability, mut encoded) = match given {
            Some(language) => (language, 1.0, Vec::new()),
            None if !self.multilingual() => (0, 1.0, Vec::new()),
            None => self.listen_for_language(&pieces, gate)?,
        };
        let prompt = self.prompt(language, options.translate);
        let together = (self.rows.min(gate.rows()) / options.beam_size.max(1)).max(1);

        let mut segments = vec![Vec::new(); windows.len()];
        let mut progress = Progress::new(progress);
        while !pieces.is_empty() {
            let mut rests = Vec::new();
            for pieces in pieces.chunks(together) {
                let mut heard: Vec<Heard> = encoded.drain(..pieces.len().min(encoded.len())).collect();
                for (index, piece) in pieces.iter().enumerate().skip(heard.len()) {
                    heard.push(self.hear(piece.samples, gate)?);
                    progress.at(index, ENCODED * piece.seconds());
                }
                let group = Group { pieces, heard, prompt: &prompt, options };
                let attempts = self.best_attempts(&group, gate, &mut progress)?;
                let mut done = 0.0;
                for (piece, attempt) in pieces.iter().zip(attempts) {
                    let rest = self.write_down(piece, attempt, &mut segments[piece.window])?;
                    done += piece.seconds() - rest.map_or(0.0, |rest| rest.seconds());
                    rests.extend(rest);
                }
                progress.group_done(done);
            }
            pieces = rests;
        }
        for window in &mut segments {
            window.sort_by(|a: &SpokenSegment, b| a.start.total_cmp(&b.start));
        }
        let language = self.tokens.languages[language].0.clone();
        Ok(SpeechOutput { language, language_probability, windows: segments })
    }

    fn prompt(&self, language: usize, translate: bool) -> Vec<u32> {
        let tokens = &self.tokens;
        if !self.multilingual() {
            return vec![tokens.start];
        }
        let task = if translate { tokens.translate } else { tokens.transcribe };
        vec![tokens.start, tokens.languages[language].1, task]
    }

    /// The language of the first window in which somebody speaks, or of the likeliest one, with its probability; and
    /// the windows encoded on the way, for the first group.
    fn listen_for_language(
        &self,
        pieces: &[Piece<'_>],
        gate: &dyn Gate,
    ) -> Result<(usize, f32, Vec<Heard>), InferenceError> {
        let mut encoded = Vec::new();
        let mut likeliest = None;
        for (index, piece) in pieces.iter().enumerate() {
            let heard = self.hear(piece.samples, gate)?;
            let detected = self.detect(&heard, gate)?;
            if index < self.rows.min(gate.rows()).max(1) {
                encoded.push(heard);
            }
            let likelier = likeliest.is_none_or(|best: super::language::Detected| detected.no_speech < best.no_speech);
            if likelier {
                likeliest = Some(detected);
            }
            if detected.no_speech < 0.6 {
                break;
            }
        }
        Ok(match likeliest {
            Some(best) => (best.language, best.probability, encoded),
            // Nothing to hear: any language is right, and none is sure.
            None => (self.language("en")?, 0.0, encoded),
        })
    }

    fn hear(&self, samples: &[f32], gate: &dyn Gate) -> Result<Heard, InferenceError> {
        let mel = self.mel.compute(samples);
        pass(gate, "encode", || {
            self.threads.run(|| {
                let mel = Tensor::from_vec(mel, (self.dimensions.mels, MEL_FRAMES), &candle_core::Device::Cpu)?;
                let mel = mel.to_device(&self.device)?.to_dtype(self.decoder.dtype())?;
                let encoded = self.encoder.forward(&mel, gate)?;
                gate.wanted()?;
                self.decoder.hear(&encoded)
            })
        })
    }

    /// The best attempt at each piece of a group.
    fn best_attempts(
        &self,
        group: &Group<'_>,
        gate: &dyn Gate,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Attempt>, InferenceError> {
        let mut best: Vec<Option<Attempt>> = vec![None; group.pieces.len()];
        let mut open: Vec<usize> = (0..group.pieces.len()).collect();
        let tries = if group.options.single_pass { 1 } else { TEMPERATURES.len() };
        for (step, temperature) in TEMPERATURES.into_iter().take(tries).enumerate() {
            let mut still_open = Vec::new();
            for (piece, attempt) in self.decode(group, &open, step, gate, progress)? {
                if attempt.verdict() == Verdict::Poor {
                    tracing::debug!(
                        temperature,
                        avg_logprob = attempt.avg_logprob(),
                        compression_ratio = attempt.compression(),
                        "decoding failed at this temperature"
                    );
                    still_open.push(piece);
                    best[piece] = Some(match best[piece].take() {
                        Some(before) => before.better(attempt),
                        None => attempt,
                    });
                } else {
                    best[piece] = Some(attempt);
                }
            }
            still_open.sort_unstable();
            open = still_open;
            if open.is_empty() {
                break;
            }
        }
        Ok(best.into_iter().flatten().collect())
    }

    /// Decodes the pieces numbered `open` once, at temperature number `step`. They come back as they end.
    fn decode(
        &self,
        group: &Group<'_>,
        open: &[usize],
        step: usize,
        gate: &dyn Gate,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<(usize, Attempt)>, InferenceError> {
        let Group { pieces, heard, prompt, options } = group;
        let temperature = TEMPERATURES[step];
        let start = |piece: &usize| {
            let draws = Draws::for_audio(pieces[*piece].samples, step);
            let said = self.decoder.start(self.capacity())?;
            Ok(Search::new(*piece, options.beam_size, temperature, draws, said, prompt[0]))
        };
        let mut searches: Vec<Search> = open.iter().map(start).collect::<Result<_, InferenceError>>()?;
        let mut finished = Vec::new();

        for position in 0.. {
            let last_of_prompt = position + 1 >= prompt.len();
            let mut logits = pass(gate, "decode", || {
                self.threads.run(|| {
                    let mut rows: Vec<Row<'_>> =
                        searches.iter_mut().flat_map(|search| search.rows(&heard[search.piece])).collect();
                    let hidden = self.decoder.step(&mut rows)?;
                    // Scores are wanted after the start token, for silence, and from the end of the prompt on.
                    if position == 0 || last_of_prompt { self.decoder.logits(&hidden) } else { Ok(Vec::new()) }
                })
            })?;
            if position == 0 {
                for (search, logits) in searches.iter_mut().zip(&logits) {
                    search.no_speech(probability(logits, self.tokens.no_speech));
                }
            }
            if !last_of_prompt {
                for search in &mut searches {
                    search.prompt(prompt[position + 1]);
                }
                continue;
            }

            let mut going = Vec::with_capacity(searches.len());
            for mut search in searches {
                let own = logits.drain(..search.width()).collect();
                let seconds = pieces[search.piece].seconds();
                if search.advance(own, &self.tokens.vocabulary)? {
                    let through = (search.reached() / seconds).min(1.0).max(search.length() as f64 / MAX_TOKENS as f64);
                    progress.at(search.piece, seconds * share_done(step, through));
                    going.push(search);
                } else {
                    let (piece, mut attempt) = search.best();
                    attempt.finish(&self.tokens.text(&attempt.said)?);
                    finished.push((piece, attempt));
                }
            }
            searches = going;
            if searches.is_empty() {
                break;
            }
        }
        Ok(finished)
    }

    /// Adds what `attempt` heard in `piece` to its window's segments. Returns the rest of the piece if the model
    /// stopped in the middle of it.
    fn write_down<'a>(
        &self,
        piece: &Piece<'a>,
        mut attempt: Attempt,
        segments: &mut Vec<SpokenSegment>,
    ) -> Result<Option<Piece<'a>>, InferenceError> {
        if attempt.verdict() == Verdict::Silence {
            return Ok(None);
        }
        attempt.cut_loop(&self.tokens.vocabulary);
        let mut spans = spans(&attempt.said, &self.tokens.vocabulary, piece.seconds());
        let resumed = spans.resume.and_then(|resume| rest(piece, resume, SHORTEST_REST, QUIET));
        let rest = resumed.or_else(|| spans.silent_from.and_then(|from| rest(piece, from, LONG_REST, LOUD)));
        if rest.is_none() {
            spans.closed.extend(spans.open.take());
        }
        for Span { start, end, tokens } in spans.closed {
            let text = self.tokens.text(&tokens)?;
            if text.trim().is_empty() {
                continue;
            }
            segments.push(SpokenSegment {
                start: piece.offset + start,
                end: piece.offset + end,
                text: text.trim().to_owned(),
                avg_logprob: attempt.avg_logprob(),
                no_speech_prob: attempt.no_speech,
                compression_ratio: attempt.compression(),
                temperature: attempt.temperature,
            });
        }
        Ok(rest)
    }
}

/// What is left of `piece` from `resume` seconds on, if it is worth another look: at least `shortest` seconds, and no
/// quieter than `quietest` times the whole.
fn rest<'a>(piece: &Piece<'a>, resume: f64, shortest: f64, quietest: f32) -> Option<Piece<'a>> {
    let samples = &piece.samples[((resume * RATE as f64) as usize).min(piece.samples.len())..];
    let rest = Piece { window: piece.window, offset: piece.offset + resume, samples };
    let long = resume >= SHORTEST_REST && rest.seconds() >= shortest;
    // A quiet rest only makes the model invent things.
    (long && loudest(samples) >= quietest * loudest(piece.samples)).then_some(rest)
}

/// Root mean square of the loudest 50 ms.
fn loudest(samples: &[f32]) -> f32 {
    let power = |block: &[f32]| block.iter().map(|sample| sample * sample).sum::<f32>() / block.len() as f32;
    samples.chunks(RATE / 20).map(power).fold(0.0, f32::max).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_on_in_every_attempt_and_never_back() {
        let shares: Vec<_> =
            (0..TEMPERATURES.len()).flat_map(|step| [0.0, 0.5, 1.0].map(|through| share_done(step, through))).collect();
        assert_eq!(shares[0], ENCODED);
        assert!(
            shares.windows(2).all(|pair| pair[0] <= pair[1]) && shares.iter().all(|share| *share < 1.0),
            "{shares:?}"
        );

        let told = std::cell::RefCell::new(Vec::new());
        let report = |seconds| told.borrow_mut().push(seconds);
        let mut progress = Progress::new(&report);
        progress.at(1, 2.0);
        progress.at(0, 5.0);
        // Part of it is heard again.
        progress.group_done(6.0);
        progress.at(0, 0.5);
        progress.at(0, 4.0);
        assert_eq!(*told.borrow(), [2.0, 7.0, 10.0]);
    }

    #[test]
    fn only_a_long_and_loud_rest_is_heard_again() {
        let mut samples = vec![0.5_f32; 10 * RATE];
        fn piece(samples: &[f32]) -> Piece<'_> {
            Piece { window: 3, offset: 2.0, samples }
        }
        let found = rest(&piece(&samples), 4.0, SHORTEST_REST, QUIET).unwrap();
        assert_eq!((found.window, found.offset, found.samples.len()), (3, 6.0, 6 * RATE));
        assert!(rest(&piece(&samples), 0.5, SHORTEST_REST, QUIET).is_none());
        assert!(rest(&piece(&samples), 9.5, SHORTEST_REST, QUIET).is_none());
        samples[4 * RATE..].fill(0.001);
        assert!(rest(&piece(&samples), 4.0, SHORTEST_REST, QUIET).is_none());
    }
}
