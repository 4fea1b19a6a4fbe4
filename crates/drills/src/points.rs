//! Ending at a named point.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use nix::sys::signal::{Signal, raise};

/// What a process counts.
#[derive(Debug, Default)]
struct Passages(Mutex<BTreeMap<&'static str, u32>>);

static ORDERS: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(crate::FOLDER).map(PathBuf::from));
static PASSAGES: LazyLock<Passages> = LazyLock::new(Passages::default);

pub(crate) fn passing(point: &'static str) {
    if ORDERS.as_deref().is_some_and(|folder| PASSAGES.ends_here(folder, point)) {
        eprintln!("ordered to end at `{point}`");
        kill();
    }
}

/// The kernel ends the process: no destructor runs, no buffer is written.
pub(crate) fn kill() {
    let _ = raise(Signal::SIGKILL);
}

pub(crate) fn held(device: &str) -> u64 {
    let order = ORDERS.as_deref().map(|folder| folder.join(format!("held-{device}")));
    order.and_then(|order| fs::read_to_string(order).ok()?.trim().parse().ok()).unwrap_or(0)
}

impl Passages {
    /// Counts a passage; true when the process has to end at it.
    fn ends_here(&self, folder: &Path, point: &'static str) -> bool {
        let order = folder.join(point);
        let mut passages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(text) = fs::read_to_string(&order) else {
            passages.remove(point);
            return false;
        };
        let passage = passages.entry(point).or_default();
        *passage += 1;
        // Of several processes that are here at once, one takes the order.
        *passage >= text.trim().parse().unwrap_or(1) && fs::rename(&order, folder.join(format!("{point}.done"))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_carried_out_once_at_its_passage() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (Passages::default(), Passages::default());
        assert!(!one.ends_here(folder.path(), "shop.sold"), "no order");
        fs::write(folder.path().join("shop.sold"), "2\n").expect("written");
        assert!(!one.ends_here(folder.path(), "shop.sold"), "passages before the order do not count");
        assert!(!one.ends_here(folder.path(), "shop.open"), "another point");
        assert!(!other.ends_here(folder.path(), "shop.sold"), "another process");
        assert!(one.ends_here(folder.path(), "shop.sold"));
        assert!(folder.path().join("shop.sold.done").exists());
        assert!(!other.ends_here(folder.path(), "shop.sold"), "the order is taken");
    }
}
