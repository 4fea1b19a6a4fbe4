//! Cases that run one after the other against one stack, each told on its own.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// The cases of a suite. One that fails does not keep the others from running.
#[derive(Debug, Default)]
pub struct Cases {
    run: usize,
    failed: Vec<String>,
}

impl Cases {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one case, which fails by panicking. True if it did not.
    ///
    /// Its outcome is one line with its name, `--- NAME: ok, 1.2 s`, which `warren test` finds behind whatever a
    /// program that shares this output has left on that line.
    pub fn case(&mut self, name: &str, body: impl FnOnce()) -> bool {
        println!("--- {name}");
        let start = Instant::now();
        self.run += 1;
        let outcome = catch_unwind(AssertUnwindSafe(body));
        let seconds = start.elapsed().as_secs_f64();
        match &outcome {
            Ok(()) => println!("--- {name}: ok, {seconds:.1} s"),
            Err(panic) => {
                println!("--- {name}: FAILED after {seconds:.1} s");
                self.failed.push(format!("{name}: {}", message(&**panic)));
            }
        }
        outcome.is_ok()
    }

    /// Tells the outcome of all.
    ///
    /// # Panics
    /// When a case failed.
    pub fn finish(self) {
        println!("{} cases, {} failed", self.run, self.failed.len());
        assert!(
            self.failed.is_empty(),
            "{} of {} cases failed:\n{}",
            self.failed.len(),
            self.run,
            self.failed.join("\n")
        );
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases_run_and_failures_are_named() {
        let mut cases = Cases::new();
        let mut ran = 0;
        assert!(!cases.case("one", || panic!("it {}", "broke")));
        assert!(cases.case("two", || ran += 1));
        let told = catch_unwind(AssertUnwindSafe(|| cases.finish())).unwrap_err();
        assert_eq!(ran, 1);
        assert!(message(&*told).contains("one: it broke"));
    }
}
