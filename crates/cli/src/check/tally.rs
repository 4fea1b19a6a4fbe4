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

/// Which tests and cases passed, from the lines that test programs print.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// A test whose line was begun: with one thread, its output comes before its outcome.
    test: Option<String>,
}

impl Outcomes {
    /// Name and success of the test or case that `line` ends, if it does. A test's modules are left out.
    pub(crate) fn read(&mut self, line: &str) -> Option<(String, bool)> {
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            // Those that should panic have a remark after their name.
            let name = name.split(" - ").next().unwrap_or(name);
            self.test = Some(name.rsplit("::").next().unwrap_or(name).to_owned());
            return self.end_test(rest);
        }
        case_ended(line).or_else(|| self.end_test(line))
    }

    fn end_test(&mut self, word: &str) -> Option<(String, bool)> {
        match word.trim() {
            "ok" => Some((self.test.take()?, true)),
            "FAILED" => Some((self.test.take()?, false)),
            _ => None,
        }
    }
}

/// Name and success of a case of an end-to-end suite. Other programs write into the same output, and may have left half
/// a line before it.
fn case_ended(line: &str) -> Option<(String, bool)> {
    let (_, case) = line.split_once("--- ")?;
    let told = |word, passed| case.rsplit_once(word).map(|(name, _)| (name.to_owned(), passed));
    told(": ok, ", true).or_else(|| told(": FAILED after ", false))
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
    fn outcomes_of_tests_and_cases_are_told() {
        let mut outcomes = Outcomes::default();
        let told: Vec<_> = [
            "test state::a_job_ends_once ... ok",
            "test b - should panic ... FAILED",
            "test c ... ignored, needs a card",
            "test clips::d ... --- an empty file",
            "--- an empty file: ok, 1.2 s",
            "--- a truncated file",
            "half a line of another program --- a truncated file: FAILED after 0.4 s",
            "ok",
            "ok",
            "testing ... ok",
        ]
        .into_iter()
        .filter_map(|line| outcomes.read(line))
        .collect();
        let told: Vec<_> = told.iter().map(|(name, passed)| (name.as_str(), *passed)).collect();
        let expected = [
            ("a_job_ends_once", true),
            ("b", false),
            ("an empty file", true),
            ("a truncated file", false),
            ("d", true),
        ];
        assert_eq!(told, expected);
    }
}
