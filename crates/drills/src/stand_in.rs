//! A model without weights.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

/// What the name of every stand-in begins with.
const PREFIX: &str = "drill-";
/// What comes next in it, if anything.
const KINDS: [&str; 4] = ["wait-", "wide-", "hear-", ""];
/// Milliseconds that there are stand-ins for.
const MILLIS: [u64; 14] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 40_000];
/// Longest stretch of work between two questions whether it is still wanted.
const SLICE: Duration = Duration::from_millis(100);

/// A model that costs a set time for each task and gives vectors that depend on the texts alone, or words that depend on
/// the sound alone.
///
/// `drill-20` burns 20 ms of processor time for a task; `drill-wait-20` lets 20 ms pass; `drill-0` does nothing.
/// `drill-wide-20` has such long vectors that every result becomes an object in storage. `drill-hear-20` hears a word in
/// every stretch of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn {
    waits: bool,
    hears: bool,
    cost: Duration,
    dimensions: usize,
}

/// What a text can demand instead of a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `drill:panic`: the work panics.
    Panic,
    /// `drill:abort`: the process ends.
    Abort,
    /// `drill:kill`: the process is killed, as by a kernel that is out of memory.
    Kill,
    /// `drill:hang`: the work never ends and never asks whether it is wanted.
    Hang,
    /// `drill:memory 8`: out of memory when more than 8 texts are worked on at once.
    Memory(usize),
    /// `drill:memory-once FILE`: out of memory, but only once: it makes the file.
    MemoryOnce(PathBuf),
    /// `drill:fill 100`: the process takes 100 MB more, and keeps them.
    Fill(usize),
}

impl StandIn {
    /// All of them with their names; none in a build that is not for tests.
    pub fn all() -> impl Iterator<Item = (String, Self)> {
        let names = KINDS.into_iter().flat_map(|kind| MILLIS.map(|millis| format!("{PREFIX}{kind}{millis}")));
        names.filter_map(|name| Self::named(&name).map(|model| (name, model)))
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX).filter(|_| crate::ARMED)?;
        let (kind, millis) = KINDS.into_iter().find_map(|kind| Some((kind, rest.strip_prefix(kind)?)))?;
        let millis = millis.parse().ok().filter(|millis| MILLIS.contains(millis))?;
        let dimensions = if kind == "wide-" { 10_000 } else { 8 };
        Some(Self { waits: kind == "wait-", hears: kind == "hear-", cost: Duration::from_millis(millis), dimensions })
    }

    /// True when it takes sound, not texts.
    pub fn hears(self) -> bool {
        self.hears
    }

    /// Numbers in a vector.
    pub fn dimensions(self) -> usize {
        self.dimensions
    }

    /// The work of one task, cut in slices: at least one, each of at most 100 ms.
    pub fn slices(self) -> impl Iterator<Item = Duration> {
        let count = self.cost.as_nanos().div_ceil(SLICE.as_nanos()).max(1) as u32;
        std::iter::repeat_n(self.cost / count, count as usize)
    }

    /// Does one slice of work.
    pub fn spend(self, slice: Duration) {
        if self.waits {
            return thread::sleep(slice);
        }
        let end = processor_time() + slice;
        while processor_time() < end {
            std::hint::spin_loop();
        }
    }

    /// The vector of a text: of norm 1, the same wherever and whenever it is made.
    pub fn vector(self, text: &str) -> Vec<f32> {
        // splitmix64 for the numbers.
        let mut state = fnv_1a(text.bytes());
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64 - 0.5
        };
        let values: Vec<f64> = (0..self.dimensions).map(|_| next()).collect();
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        values.into_iter().map(|value| (value / norm) as f32).collect()
    }

    /// What is heard: the same wherever and whenever, and something else in other sound.
    pub fn heard(self, samples: &[f32]) -> String {
        format!("{:016x}", fnv_1a(samples.iter().flat_map(|sample| sample.to_le_bytes())))
    }

    /// `drill:die-until FILE: WHY`: as long as there is no such file, the task's message becomes a dead letter at once,
    /// with this cause.
    pub fn death(text: &str) -> Option<&str> {
        let (file, why) = text.strip_prefix("drill:die-until ").filter(|_| crate::ARMED)?.split_once(": ")?;
        (!std::path::Path::new(file).exists()).then_some(why)
    }

    /// What a text demands.
    pub fn order(text: &str) -> Option<Order> {
        let order = text.strip_prefix("drill:")?.trim();
        match order.split_once(' ') {
            Some(("memory", most)) => most.trim().parse().ok().map(Order::Memory),
            Some(("memory-once", file)) => Some(Order::MemoryOnce(file.trim().into())),
            Some(("fill", megabytes)) => megabytes.trim().parse().ok().map(Order::Fill),
            None if order == "panic" => Some(Order::Panic),
            None if order == "abort" => Some(Order::Abort),
            None if order == "kill" => Some(Order::Kill),
            None if order == "hang" => Some(Order::Hang),
            _ => None,
        }
    }
}

/// FNV-1a, 64 bits.
fn fnv_1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    // Without that clock, which Linux has had for twenty years, time that passes has to do.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or_else(|_| since_start(), Duration::from)
}

fn since_start() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "armed")]
    #[test]
    fn a_vector_is_the_texts_own() {
        for (name, model) in StandIn::all() {
            let vector = model.vector("a text");
            assert_eq!(vector, model.vector("a text"), "{name}");
            assert_ne!(vector, model.vector("b text"), "{name}");
            assert!((vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
            assert_eq!(vector.len(), model.dimensions(), "{name}");
        }
    }

    #[cfg(feature = "armed")]
    #[test]
    fn other_sound_is_heard_otherwise() {
        let model = StandIn::named("drill-hear-0").expect("known");
        assert!(model.hears() && StandIn::named("drill-0").is_some_and(|model| !model.hears()));
        assert_eq!(model.heard(&[0.5, 0.25]), model.heard(&[0.5, 0.25]));
        assert_ne!(model.heard(&[0.5, 0.25]), model.heard(&[0.25, 0.5]));
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(StandIn::order("drill:memory 8"), Some(Order::Memory(8)));
        assert_eq!(StandIn::order("drill: hang"), Some(Order::Hang));
        assert_eq!(StandIn::order("drill:memory-once /tmp/f"), Some(Order::MemoryOnce("/tmp/f".into())));
        assert_eq!(StandIn::order("drill:fill 100"), Some(Order::Fill(100)));
        assert_eq!((StandIn::order("drill:memory"), StandIn::order("a text")), (None, None));
    }

    #[cfg(feature = "armed")]
    #[test]
    fn a_name_tells_the_cost() {
        let spent = |name: &str| StandIn::named(name).expect("known").slices().collect::<Vec<_>>();
        assert_eq!(spent("drill-0"), [Duration::ZERO]);
        assert_eq!(spent("drill-wait-50"), [Duration::from_millis(50)]);
        assert_eq!(spent("drill-1000"), [SLICE; 10]);
        assert_eq!(StandIn::all().count(), KINDS.len() * MILLIS.len());
        assert_eq!((StandIn::named("drill-3"), StandIn::named("base")), (None, None));
    }

    #[cfg(feature = "armed")]
    #[test]
    fn a_text_dies_until_its_cause_is_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        let mended = folder.path().join("mended");
        let text = format!("drill:die-until {}: it rains in", mended.display());
        assert_eq!((StandIn::death(&text), StandIn::death("a text")), (Some("it rains in"), None));
        std::fs::write(&mended, "").expect("written");
        assert_eq!(StandIn::death(&text), None);
    }

    #[cfg(feature = "armed")]
    #[test]
    fn burning_takes_processor_time() {
        let before = processor_time();
        let model = StandIn::named("drill-20").expect("known");
        model.slices().for_each(|slice| model.spend(slice));
        assert!(processor_time() - before >= Duration::from_millis(20));
    }

    #[cfg(not(feature = "armed"))]
    #[test]
    fn there_are_none_in_the_product() {
        assert_eq!((StandIn::all().count(), StandIn::named("drill-20")), (0, None));
    }
}
