//! Generated names and passwords.

use std::fmt::Write as _;

/// `bytes` random bytes as lower-case hexadecimal: safe in URLs, configuration files and file names.
pub fn random_hex(bytes: usize) -> String {
    (0..bytes).fold(String::with_capacity(bytes * 2), |mut text, _| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:02x}", rand::random::<u8>());
        text
    })
}
