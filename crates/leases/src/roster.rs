//! In which order coordinators are tried.

use std::collections::VecDeque;

/// The coordinators' addresses. A round tries each once, and each hint once.
#[derive(Debug)]
pub(crate) struct Roster {
    all: Vec<String>,
    round: VecDeque<String>,
    hints: Vec<String>,
}

impl Roster {
    pub(crate) fn new(all: Vec<String>) -> Self {
        Self { round: all.iter().cloned().collect(), all, hints: Vec::new() }
    }

    /// Whom to try next; `None` ends the round, and the next call begins another.
    pub(crate) fn next(&mut self) -> Option<String> {
        let next = self.round.pop_front();
        if next.is_none() {
            self.round = self.all.iter().cloned().collect();
            self.hints.clear();
        }
        next
    }

    /// `by` said that `leader` leads.
    pub(crate) fn hint(&mut self, by: &str, leader: String) {
        // Two that name each other must not keep the worker between them.
        if leader != by && !self.hints.contains(&leader) {
            self.round.retain(|address| *address != leader);
            self.hints.push(leader.clone());
            self.round.push_front(leader);
        }
    }

    /// The session with `address` ended after it had worked: a new round, with that one last.
    pub(crate) fn lost(&mut self, address: &str) {
        self.hints.clear();
        self.round = self.all.iter().filter(|other| *other != address).cloned().collect();
        self.round.push_back(address.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        Roster::new(["a", "b", "c"].map(str::to_owned).to_vec())
    }

    fn rest(roster: &mut Roster) -> String {
        std::iter::from_fn(|| roster.next()).collect()
    }

    #[test]
    fn a_round_tries_each_once() {
        let mut roster = roster();
        assert_eq!(rest(&mut roster), "abc");
        assert_eq!(rest(&mut roster), "abc");
    }

    #[test]
    fn a_hint_goes_first_and_is_followed_once() {
        let mut roster = roster();
        assert_eq!(roster.next().as_deref(), Some("a"));
        roster.hint("a", "c".to_owned());
        assert_eq!(roster.next().as_deref(), Some("c"));
        roster.hint("c", "c".to_owned());
        roster.hint("c", "a".to_owned());
        assert_eq!(roster.next().as_deref(), Some("a"));
        roster.hint("a", "c".to_owned());
        assert_eq!(rest(&mut roster), "b");
    }

    #[test]
    fn a_leader_that_went_away_is_tried_last() {
        let mut roster = roster();
        roster.lost("a");
        assert_eq!(rest(&mut roster), "bca");
    }

    #[test]
    fn a_hint_may_name_an_address_that_is_not_configured() {
        let mut roster = roster();
        roster.hint("a", "d".to_owned());
        assert_eq!(rest(&mut roster), "dabc");
    }
}
