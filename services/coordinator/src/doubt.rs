//! When a commit fails in a way that leaves its outcome open, rows and memory may disagree. Then the term ends, and the
//! next one starts from the rows.

use tokio_util::sync::CancellationToken;
use warren_store::{StoreError, Tx};

/// Shared by all that commits during one term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(CancellationToken);

impl Doubt {
    /// Commits, and raises the doubt when the outcome is unknown.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub(crate) async fn commit(&self, tx: Tx) -> Result<(), StoreError> {
        let outcome = tx.commit().await;
        self.judge(&outcome);
        outcome
    }

    /// Waits until there is doubt.
    pub(crate) async fn raised(&self) {
        self.0.cancelled().await;
    }

    pub(crate) fn judge(&self, outcome: &Result<(), StoreError>) {
        match outcome {
            // The database itself said that nothing was changed.
            Ok(()) | Err(StoreError::Busy { .. } | StoreError::TermLost | StoreError::Conflict { .. }) => {}
            Err(_) => self.0.cancel(),
        }
    }
}
