//! What a stand-in does with the texts of a task.

use std::{
    process::abort,
    sync::{Mutex, PoisonError},
};

use warren_drills::{Order, StandIn};
use warren_inference::{Gate, InferenceError, pass};

/// What [`Order::Fill`] has taken.
static FILLED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Spends the model's time behind the gate, obeys the orders among the texts in every slice, but takes memory only in the
/// last, when it has been seen at work, and makes the vectors. As many texts count as worked on at once as the gate allows.
///
/// # Errors
/// [`InferenceError::Interrupted`] from the gate; [`InferenceError::OutOfMemory`] when a text orders it.
pub(crate) fn embed(model: StandIn, texts: &[String], gate: &dyn Gate) -> Result<Vec<Vec<f32>>, InferenceError> {
    let orders: Vec<Order> = texts.iter().filter_map(|text| StandIn::order(text)).collect();
    let mut slices = model.slices().peekable();
    while let Some(slice) = slices.next() {
        let last = slices.peek().is_none();
        pass(gate, "embed", || {
            model.spend(slice);
            let mut now = orders.iter().filter(|order| last || !matches!(order, Order::Fill(_)));
            now.try_for_each(|order| obey(order, texts.len().min(gate.rows())))
        })?;
    }
    Ok(texts.iter().map(|text| model.vector(text)).collect())
}

fn obey(order: &Order, texts: usize) -> Result<(), InferenceError> {
    match order {
        Order::Panic => panic!("a text ordered it"),
        Order::Abort => abort(),
        Order::Kill => {
            warren_drills::kill();
            Ok(())
        }
        Order::Hang => loop {
            std::thread::park();
        },
        Order::Memory(most) if texts > *most => {
            Err(InferenceError::OutOfMemory(format!("{texts} texts at once, there is room for {most}")))
        }
        Order::MemoryOnce(file) if !file.exists() => {
            let told = std::fs::write(file, "").map_or_else(|error| error.to_string(), |()| "this once".to_owned());
            Err(InferenceError::OutOfMemory(told))
        }
        Order::Fill(megabytes) => {
            // Written to, or the system would only promise it.
            FILLED.lock().unwrap_or_else(PoisonError::into_inner).push(vec![1; megabytes << 20]);
            Ok(())
        }
        Order::Memory(_) | Order::MemoryOnce(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use warren_inference::{Interrupted, Ungated};

    use super::*;

    struct Shut;

    struct Narrow(usize);

    impl Gate for Narrow {
        fn enter(&self, _: &'static str) -> Result<(), Interrupted> {
            Ok(())
        }

        fn rows(&self) -> usize {
            self.0
        }

        fn leave(&self, _: &'static str) {}
    }

    impl Gate for Shut {
        fn enter(&self, _: &'static str) -> Result<(), Interrupted> {
            Err(Interrupted::Cancelled)
        }

        fn leave(&self, _: &'static str) {}
    }

    /// `None` where stand-ins cannot be had: in a build of this package alone.
    fn idle() -> Option<StandIn> {
        let model = StandIn::named("drill-0");
        assert_eq!(model.is_some(), warren_drills::ARMED);
        model
    }

    #[test]
    fn texts_have_their_vectors_in_order_and_only_behind_the_gate() {
        let Some(model) = idle() else { return };
        let texts = ["a".to_owned(), "b".to_owned()];
        let vectors = embed(model, &texts, &Ungated).expect("open");
        assert_eq!(vectors, texts.each_ref().map(|text| model.vector(text)));
        let refused = embed(model, &texts, &Shut);
        assert!(matches!(refused, Err(InferenceError::Interrupted(Interrupted::Cancelled))));
    }

    #[test]
    fn memory_is_short_for_too_many_texts_at_once() {
        let Some(model) = idle() else { return };
        let texts = ["drill:memory 1".to_owned(), "b".to_owned()];
        assert!(matches!(embed(model, &texts, &Ungated), Err(InferenceError::OutOfMemory(_))));
        assert!(embed(model, &texts[..1], &Ungated).is_ok());
        assert!(embed(model, &texts, &Narrow(1)).is_ok());
    }
}
