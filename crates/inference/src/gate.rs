//! The question asked before every forward pass.

use crate::InferenceError;

/// Stands in front of the device. Asked before every forward pass (one encoder pass, one decoder step, one batch of
/// texts) and told when the pass has ended.
///
/// `enter` may block, for instance until a lease is renewed. An error stops the work at that point and comes back as
/// [`InferenceError::Interrupted`]; then `leave` is not called for the refused pass.
pub trait Gate: Sync {
    /// Asks to run one forward pass. `step` is its kind: `encode`, `detect`, `decode` or `embed`.
    ///
    /// # Errors
    /// [`Interrupted`] when the pass must not run.
    fn enter(&self, step: &'static str) -> Result<(), Interrupted>;

    /// Asked between the layers of a long pass whether its result is still wanted. The pass goes on to `leave` either way.
    ///
    /// # Errors
    /// [`Interrupted`] when the rest of the pass would be for nobody.
    fn wanted(&self) -> Result<(), Interrupted> {
        Ok(())
    }

    /// Most inputs, texts or windows, that one pass may have: the device has no room for more.
    fn rows(&self) -> usize {
        usize::MAX
    }

    /// The forward pass that `enter` let in has ended, well or not.
    fn leave(&self, step: &'static str);
}

/// Why the gate stays shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// The job was cancelled, or the worker is stopping at once.
    #[error("the work was cancelled")]
    Cancelled,
    /// The lease on the device ended before the work did.
    #[error("the lease on the device was lost; the task runs again later")]
    LeaseLost,
    /// Other work goes first; this task comes back.
    #[error("the device was handed to other work; the task runs again later")]
    Yield,
}

/// A gate that is always open, for tests and for tools that own the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ungated;

impl Gate for Ungated {
    fn enter(&self, _step: &'static str) -> Result<(), Interrupted> {
        Ok(())
    }

    fn leave(&self, _step: &'static str) {}
}

/// Runs one forward pass behind the gate. The gate is told of its end even if the pass panics.
///
/// # Errors
/// [`InferenceError::Interrupted`] when the gate stays shut, and what `forward` fails with.
pub fn pass<T>(
    gate: &dyn Gate,
    step: &'static str,
    forward: impl FnOnce() -> Result<T, InferenceError>,
) -> Result<T, InferenceError> {
    struct Leaving<'a>(&'a dyn Gate, &'static str);
    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            self.0.leave(self.1);
        }
    }

    gate.enter(step)?;
    let _leaving = Leaving(gate, step);
    forward()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Recorder(Mutex<Vec<&'static str>>, Option<Interrupted>);

    impl Gate for Recorder {
        fn enter(&self, _: &'static str) -> Result<(), Interrupted> {
            self.0.lock().unwrap().push("enter");
            self.1.map_or(Ok(()), Err)
        }

        fn leave(&self, _: &'static str) {
            self.0.lock().unwrap().push("leave");
        }
    }

    #[test]
    fn a_failed_pass_still_leaves() {
        let gate = Recorder(Mutex::default(), None);
        let failed = pass::<()>(&gate, "decode", || Err(InferenceError::Internal("test".into())));
        assert!(failed.is_err());
        assert_eq!(*gate.0.lock().unwrap(), ["enter", "leave"]);
    }

    #[test]
    fn a_refused_pass_does_not_run() {
        let gate = Recorder(Mutex::default(), Some(Interrupted::Cancelled));
        let refused = pass::<()>(&gate, "decode", || unreachable!("the gate is shut"));
        assert!(matches!(refused, Err(InferenceError::Interrupted(Interrupted::Cancelled))));
        assert_eq!(*gate.0.lock().unwrap(), ["enter"]);
    }
}
