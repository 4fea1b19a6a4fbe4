//! When a commit fails in a way that leaves its outcome open, rows and memory may disagree. Then the term ends, and the
//! next one starts from the rows.

use tokio_util::sync::CancellationToken;
use warren_store::{Committed, StoreError, Tx};

/// Shared by all that commits during one term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(CancellationToken);

impl Doubt {
    /// Commits, and raises the doubt when the outcome is unknown. The leader's next transaction begins when what this
    /// returns is dropped.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub(crate) async fn commit(&self, tx: Tx) -> Result<Committed, StoreError> {
        tx.commit_in_order().await.inspect_err(|error| self.judge(error))
    }

    /// Waits until there is doubt.
    pub(crate) async fn raised(&self) {
        self.0.cancelled().await;
    }

    /// Raised by a commit that failed so, unless the database itself said that nothing was changed.
    pub(crate) fn judge(&self, error: &StoreError) {
        if !matches!(error, StoreError::Busy { .. } | StoreError::TermLost | StoreError::Conflict { .. }) {
            self.0.cancel();
        }
    }
}
