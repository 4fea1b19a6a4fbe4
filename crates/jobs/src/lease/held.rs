//! The worker's side of the table: the leases that one process holds, and when it must stop using them.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

/// Why a forward pass must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The lease is no longer held, or has not been renewed in time.
    LeaseLost,
    /// The coordinator wants the device back at once.
    Yield,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaseLost => "the lease on the device was lost",
            Self::Yield => "the coordinator wants the device back",
        })
    }
}

impl std::error::Error for Interrupted {}

/// The device may be in use without a right to it: the process has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The lease.
    pub lease: String,
    /// Its fence.
    pub fence: u64,
    /// For people.
    pub why: Why,
}

/// Why a process has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Not renewed for this long.
    Overdue(Duration),
    /// The coordinator does not know the lease, and a forward pass is running.
    LostInUse,
    /// A forward pass has run for this long: it hangs.
    Hung(Duration),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overdue(age) => write!(f, "last renewed {:.1} s ago", age.as_secs_f64()),
            Self::LostInUse => f.write_str("the coordinator took it away during a forward pass"),
            Self::Hung(age) => {
                write!(f, "a forward pass has not ended for {:.0} s, and nothing else ends it", age.as_secs_f64())
            }
        }
    }
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Granted, but no renewal has been answered yet: how old the grant is cannot be known.
    Unconfirmed,
    /// Held and not asked for.
    Good,
    /// To be given back at the task boundary.
    Wanted,
    /// To be given back before the next forward pass.
    WantedNow,
    /// Not to be used any more, or never held.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    fence: u64,
    /// When the last report whose answer renewed the lease was sent.
    renewed: Option<Instant>,
    passes: u32,
    /// Since when there has been a pass all the time.
    busy: Option<Instant>,
    wanted: Option<Standing>,
    lost: Option<Lost>,
}

/// How a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lost {
    /// The coordinator does not know it.
    Taken,
    /// It could not be renewed in time; the coordinator may still know it.
    Overdue,
}

/// All leases of this process, by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldLeases {
    self_fence: Duration,
    keeps_memory: bool,
    longest_pass: Duration,
    leases: BTreeMap<String, Held>,
}

impl HeldLeases {
    /// `keeps_memory`: models stay on the device for as long as the process lives, so that a lease cannot be lost
    /// quietly; see [`Self::overdue`].
    pub const fn new(self_fence: Duration, keeps_memory: bool) -> Self {
        Self { self_fence, keeps_memory, longest_pass: Duration::MAX, leases: BTreeMap::new() }
    }

    /// The same, and a pass that takes longer than this is a breach.
    #[must_use]
    pub fn with_longest_pass(self, longest_pass: Duration) -> Self {
        Self { longest_pass, ..self }
    }

    /// A grant; it cannot be used before its first renewal. The same lease again changes nothing.
    pub fn granted(&mut self, lease: &str, fence: u64) {
        let again = self.leases.get(lease).is_some_and(|held| held.fence == fence && held.lost.is_none());
        if !again {
            let held = Held { fence, renewed: None, passes: 0, busy: None, wanted: None, lost: None };
            self.leases.insert(lease.to_owned(), held);
        }
    }

    /// Given back: no longer watched, no longer usable. True when the coordinator has to be told: it may know the lease.
    pub fn given_back(&mut self, lease: &str) -> bool {
        self.leases.remove(lease).is_some_and(|held| held.lost != Some(Lost::Taken))
    }

    /// True when nothing is held or waits to be given back.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// What a report asks to renew.
    pub fn to_renew(&self) -> impl Iterator<Item = (&str, u64)> {
        self.leases.iter().filter(|(_, held)| held.lost.is_none()).map(|(lease, held)| (lease.as_str(), held.fence))
    }

    /// The answer to a report sent at `sent`.
    pub fn renewed(&mut self, leases: &[String], sent: Instant) {
        for lease in leases {
            if let Some(held) = self.leases.get_mut(lease).filter(|held| held.lost.is_none()) {
                held.renewed = held.renewed.max(Some(sent));
            }
        }
    }

    /// The coordinator does not know these leases.
    pub fn lost(&mut self, leases: &[String]) -> Option<Breach> {
        let mut breach = None;
        for lease in leases {
            if let Some(held) = self.leases.get_mut(lease) {
                held.lost = Some(Lost::Taken);
                if held.passes > 0 {
                    breach = Some(Breach { lease: lease.clone(), fence: held.fence, why: Why::LostInUse });
                }
            }
        }
        breach
    }

    /// The coordinator wants the lease back.
    pub fn wanted(&mut self, lease: &str, urgent: bool) {
        if let Some(held) = self.leases.get_mut(lease) {
            held.wanted = Some(if urgent { Standing::WantedNow } else { Standing::Wanted });
        }
    }

    /// How the lease stands.
    pub fn standing(&self, lease: &str) -> Standing {
        match self.leases.get(lease) {
            None => Standing::Lost,
            Some(held) if held.lost.is_some() => Standing::Lost,
            Some(Held { renewed: None, .. }) => Standing::Unconfirmed,
            Some(held) => held.wanted.unwrap_or(Standing::Good),
        }
    }

    /// A forward pass wants to start.
    ///
    /// # Errors
    /// [`Interrupted`]: it must not.
    pub fn enter(&mut self, lease: &str, now: Instant) -> Result<(), Interrupted> {
        let held = self.leases.get_mut(lease).filter(|held| held.lost.is_none()).ok_or(Interrupted::LeaseLost)?;
        if held.wanted == Some(Standing::WantedNow) {
            return Err(Interrupted::Yield);
        }
        match held.age(now) {
            Some(age) if age < self.self_fence => {
                held.passes += 1;
                held.busy.get_or_insert(now);
                Ok(())
            }
            Some(_) => {
                // The watchdog comes a moment later; until then, nobody shall take the lease for a good one.
                if !self.keeps_memory {
                    held.lost = Some(Lost::Overdue);
                }
                Err(Interrupted::LeaseLost)
            }
            None => Err(Interrupted::LeaseLost),
        }
    }

    /// A forward pass has ended; a breach if it ran past its right.
    pub fn leave(&mut self, lease: &str, now: Instant) -> Option<Breach> {
        let self_fence = self.self_fence;
        let held = self.leases.get_mut(lease)?;
        let ran_over = held.age(now).filter(|age| *age >= self_fence && held.passes > 0);
        held.passes = held.passes.saturating_sub(1);
        if held.passes == 0 {
            held.busy = None;
        }
        ran_over.map(|age| held.breach(lease, age))
    }

    /// What the watchdog asks: looks for leases that were not renewed in time. Returns those that are lost from now on
    /// because of it; nothing has to stop, the next pass is refused.
    ///
    /// # Errors
    /// The breach when a forward pass is running, or when the device keeps memory: a model may be loaded outside of a
    /// pass, and what was loaded stays there until the process ends, where the next holder's model is about to go.
    pub fn overdue(&mut self, now: Instant) -> Result<Vec<String>, Breach> {
        let mut lost = Vec::new();
        for (lease, held) in &mut self.leases {
            // Whoever is slow ends a pass now and then; whoever hangs never does, and holds the device for ever.
            let busy = held.busy.map(|since| now.saturating_duration_since(since));
            if let Some(age) = busy.filter(|age| *age >= self.longest_pass) {
                return Err(Breach { lease: lease.clone(), fence: held.fence, why: Why::Hung(age) });
            }
            // One that was never confirmed was never used.
            let Some(age) = held.age(now).filter(|age| *age >= self.self_fence) else { continue };
            if held.passes > 0 || (self.keeps_memory && held.lost.is_none()) {
                return Err(held.breach(lease, age));
            }
            if held.lost.is_none() {
                held.lost = Some(Lost::Overdue);
                lost.push(lease.clone());
            }
        }
        Ok(lost)
    }
}

impl Held {
    /// Time since the last renewal was asked for.
    fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.renewed?))
    }

    fn breach(&self, lease: &str, age: Duration) -> Breach {
        Breach { lease: lease.to_owned(), fence: self.fence, why: Why::Overdue(age) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: Duration = Duration::from_secs(12);
    const NOTHING: Result<Vec<String>, Breach> = Ok(Vec::new());

    fn held(start: Instant) -> HeldLeases {
        held_on(start, false)
    }

    fn held_on(start: Instant, keeps_memory: bool) -> HeldLeases {
        let mut leases = HeldLeases::new(FENCE, keeps_memory);
        leases.granted("a", 7);
        leases.renewed(&["a".to_owned()], start);
        leases
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_grant_is_not_usable_before_its_first_renewal() {
        let start = Instant::now();
        let mut leases = HeldLeases::new(FENCE, true);
        leases.granted("a", 7);
        assert_eq!(leases.standing("a"), Standing::Unconfirmed);
        assert_eq!(leases.enter("a", start), Err(Interrupted::LeaseLost));
        assert_eq!(leases.overdue(after(start, 60_000)), NOTHING, "it was never used");
        leases.renewed(&["a".to_owned()], start);
        assert_eq!(leases.standing("a"), Standing::Good);
        assert_eq!(leases.enter("a", start), Ok(()));
    }

    #[test]
    fn the_fence_counts_from_when_the_renewal_was_sent() {
        let start = Instant::now();
        let mut leases = held(start);
        assert_eq!(leases.enter("a", after(start, 11_999)), Ok(()));
        assert_eq!(leases.overdue(after(start, 11_999)), NOTHING);
        let late = after(start, 12_000);
        let expected = Breach { lease: "a".to_owned(), fence: 7, why: Why::Overdue(FENCE) };
        assert_eq!(leases.overdue(late), Err(expected.clone()));
        assert_eq!(leases.leave("a", late), Some(expected));
        assert_eq!(leases.enter("a", late), Err(Interrupted::LeaseLost));
    }

    #[test]
    fn a_lease_that_is_overdue_between_passes_is_lost_and_nothing_aborts() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.enter("a", start).expect("good");
        assert_eq!(leases.leave("a", start), None);
        assert_eq!(leases.overdue(after(start, 12_000)), Ok(vec!["a".to_owned()]));
        assert_eq!(leases.overdue(after(start, 60_000)), NOTHING, "told once");
        leases.renewed(&["a".to_owned()], after(start, 60_000));
        assert_eq!(leases.enter("a", after(start, 60_000)), Err(Interrupted::LeaseLost), "a late answer is too late");

        let mut leases = held(start);
        assert_eq!(leases.enter("a", after(start, 12_000)), Err(Interrupted::LeaseLost));
        assert_eq!(leases.standing("a"), Standing::Lost, "before the watchdog has looked");
        assert_eq!(leases.to_renew().count(), 0);
        assert!(leases.given_back("a"), "the coordinator may still keep the device for it");
    }

    #[test]
    fn a_device_that_keeps_memory_is_only_freed_by_the_end_of_the_process() {
        let start = Instant::now();
        let late = after(start, 12_000);
        let breach = Breach { lease: "a".to_owned(), fence: 7, why: Why::Overdue(FENCE) };
        assert_eq!(held_on(start, true).overdue(late), Err(breach));
        let mut taken = held_on(start, true);
        taken.lost(&["a".to_owned()]);
        assert_eq!(taken.overdue(late), NOTHING, "no pass was running when the coordinator took it");
        assert!(!taken.given_back("a"), "the coordinator does not know it");
    }

    #[test]
    fn an_old_answer_does_not_shorten_a_lease() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.renewed(&["a".to_owned()], after(start, 5_000));
        leases.renewed(&["a".to_owned()], after(start, 2_000));
        assert_eq!(leases.overdue(after(start, 16_000)), NOTHING);
    }

    #[test]
    fn a_lease_lost_between_passes_stops_the_next_one() {
        let start = Instant::now();
        let mut leases = held(start);
        assert_eq!(leases.lost(&["a".to_owned(), "unknown".to_owned()]), None);
        assert_eq!(leases.enter("a", start), Err(Interrupted::LeaseLost));
        assert_eq!(leases.overdue(after(start, 60_000)), NOTHING);
        assert_eq!(leases.to_renew().count(), 0);
    }

    #[test]
    fn a_pass_that_does_not_end_is_a_breach_and_many_short_ones_are_none() {
        let start = Instant::now();
        let mut leases = held(start).with_longest_pass(Duration::from_secs(5));
        for second in 0..10 {
            let now = after(start, second * 1_000);
            leases.enter("a", now).expect("good");
            assert_eq!(leases.overdue(after(start, second * 1_000 + 999)), NOTHING);
            assert_eq!(leases.leave("a", after(start, second * 1_000 + 999)), None);
        }
        leases.enter("a", after(start, 10_000)).expect("good");
        leases.renewed(&["a".to_owned()], after(start, 14_000));
        assert_eq!(leases.overdue(after(start, 14_999)), NOTHING);
        let hung = Breach { lease: "a".to_owned(), fence: 7, why: Why::Hung(Duration::from_secs(5)) };
        assert_eq!(leases.overdue(after(start, 15_000)), Err(hung));
    }

    #[test]
    fn a_lease_lost_during_a_pass_is_a_breach() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.enter("a", start).expect("good");
        let breach = leases.lost(&["a".to_owned()]).expect("in use");
        assert_eq!(breach.why, Why::LostInUse);
    }

    #[test]
    fn a_lease_given_back_is_forgotten() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.given_back("a");
        assert!(leases.is_empty());
        assert_eq!(leases.enter("a", start), Err(Interrupted::LeaseLost));
        assert_eq!(leases.overdue(after(start, 60_000)), NOTHING);
    }

    #[test]
    fn an_urgent_yield_stops_the_next_pass_and_a_polite_one_does_not() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.wanted("a", false);
        assert_eq!((leases.enter("a", start), leases.standing("a")), (Ok(()), Standing::Wanted));
        assert_eq!(leases.leave("a", start), None);
        leases.wanted("a", true);
        assert_eq!((leases.enter("a", start), leases.standing("a")), (Err(Interrupted::Yield), Standing::WantedNow));
    }

    #[test]
    fn the_same_grant_again_keeps_its_renewal() {
        let start = Instant::now();
        let mut leases = held(start);
        leases.granted("a", 7);
        assert_eq!(leases.standing("a"), Standing::Good);
    }
}
