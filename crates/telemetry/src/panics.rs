//! A panic anywhere becomes a log line with a backtrace and counts in `warren_panics_total`.

use std::{backtrace::Backtrace, panic, sync::Once};

pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        panic::set_hook(Box::new(|info| {
            crate::metrics::PANICS.one(&[]);
            let location = info.location().map_or_else(String::new, ToString::to_string);
            let backtrace = Backtrace::force_capture();
            tracing::error!(
                panic.location = location,
                panic.backtrace = %backtrace,
                thread = std::thread::current().name().unwrap_or("unnamed"),
                "panic: {}",
                info.payload_as_str().unwrap_or("no message"),
            );
        }));
    });
}
