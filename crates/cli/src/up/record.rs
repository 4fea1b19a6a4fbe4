//! What is done to a stack from here is written into its audit, like what its coordinator does.

use std::path::Path;

use serde_json::Value;
use warren_clock::Clock;
use warren_store::{Store, StoreSettings};

use super::{UpError, folder::Folder, settings, stack::Stack};

/// Whoever owns the folder of a stack.
const ACTOR: &str = "local";

/// Records a deed in the database of the stack in `data`, whether or not the stack runs.
///
/// # Errors
/// [`UpError::NoStack`]; [`UpError::NotReady`] when the database cannot be written.
pub(crate) async fn record(data: &Path, verb: &str, subject: &str, detail: &Value) -> Result<(), UpError> {
    let folder = Folder::of_stack(data)?;
    let stack = Stack::load(&folder)?.ok_or_else(|| UpError::NoStack(folder.root().to_owned()))?;
    let failed = |error| UpError::NotReady(format!("the audit could not be written: {error}"));
    let settings = StoreSettings::at(settings::store_url(&folder, &stack));
    let store = Store::open(&settings, Clock::system()).await.map_err(failed)?;
    let detail = detail.to_string();
    store.write(async |tx| tx.audit(ACTOR, verb, subject, &detail).await).await.map_err(failed)?;
    store.close().await.map_err(failed)
}
