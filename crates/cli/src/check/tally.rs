//! Counting what a suite did, from the lines that test programs print.

/// What a suite did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests or checks that ran.
    pub run: u32,
    /// Those of them that failed.
    pub failed: u32,
    /// Those that were ignored: a test that does not run is no test.
    pub skipped: u32,
    /// What to tell a person besides the output.
    pub trouble: Vec<String>,
}

impl Tally {
    /// One check that passed or not.
    pub(crate) fn one(passed: bool) -> Self {
        Self { run: 1, failed: u32::from(!passed), ..Self::default() }
    }

    /// True when everything ran and nothing failed.
    pub(crate) fn sound(&self) -> bool {
        self.failed == 0 && self.skipped == 0
    }

    /// Adds one failure that no test program counted.
    pub(crate) fn fail(&mut self, trouble: String) {
        self.failed += 1;
        self.trouble.push(trouble);
    }

    /// Adds the counts of `other`, without its trouble.
    pub(crate) fn add(&mut self, other: &Self) {
        self.run += other.run;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Takes in a line of output, if it is `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        let count = |word: &str| {
            let field = counts.split(';').map(str::trim).find_map(|field| field.strip_suffix(word));
            field.and_then(|number| number.trim().parse::<u32>().ok()).unwrap_or(0)
        };
        let failed = count("failed");
        self.run += count("passed") + failed;
        self.failed += failed;
        self.skipped += count("ignored");
    }
}

/// Name and success of a test, if `line` is `test NAME ... ok` or `… FAILED`.
pub(crate) fn outcome(line: &str) -> Option<(&str, bool)> {
    let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    // Doc tests and those that should panic have a remark after their name.
    let name = name.split(" - ").next().unwrap_or(name);
    match word.trim() {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_many_programs_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 5 tests",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "the test result: is not this. 9 passed; 9 failed",
        ] {
            tally.read(line);
        }
        assert_eq!((tally.run, tally.failed, tally.skipped), (10, 2, 1));
        assert!(!tally.sound());
    }

    #[test]
    fn outcomes_are_told_by_the_line() {
        assert_eq!(outcome("test state::a_job_ends_once ... ok"), Some(("state::a_job_ends_once", true)));
        assert_eq!(outcome("test b - should panic ... FAILED"), Some(("b", false)));
        assert_eq!(outcome("test c ... ignored"), None);
        assert_eq!(outcome("testing ... ok"), None);
    }
}
