//! Which dead letters died of the same thing.

/// Twelve hex characters that are equal for letters of the same class and kind whose messages differ only in numbers,
/// ids, hex strings and paths. Stable across versions and machines: it is stored.
pub fn fingerprint(class: &str, kind: &str, message: &str) -> String {
    let text = format!("{class}\0{kind}\0{}", normalise(message));
    let hash = fnv1a(text.as_bytes());
    // Folding to 48 bits by xor, as the FNV authors advise for sizes that are no power of two.
    format!("{:012x}", (hash >> 48) ^ (hash & 0xffff_ffff_ffff))
}

/// The message with what varies replaced: `<uuid>`, `<path>`, `<hex>`, `<n>`.
pub fn normalise(message: &str) -> String {
    message.split_whitespace().map(normalise_word).collect::<Vec<_>>().join(" ")
}

/// FNV-1a, 64 bits.
///
/// Source: Fowler, Noll, Vo, Eastlake, "The FNV Non-Cryptographic Hash Algorithm", RFC 9923.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn normalise_word(word: &str) -> String {
    let is_edge = |c: char| "\"'`()[]{}<>,;:.!?=".contains(c);
    let core = word.trim_matches(is_edge);
    if is_path(core) {
        return word.replacen(core, "<path>", 1);
    }
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    let mut after_letter = false;
    while let Some(first) = rest.chars().next() {
        // `a` in `task_a1…` may open an id; `f` in `of` may not.
        let taken = if after_letter { None } else { id_at(rest) }.or_else(|| number_at(rest));
        if let Some((length, placeholder)) = taken {
            out.push_str(placeholder);
            rest = &rest[length..];
            after_letter = false;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            after_letter = first.is_alphanumeric();
        }
    }
    out
}

fn is_path(word: &str) -> bool {
    let drive = word.as_bytes().get(1..3).is_some_and(|at| at == b":\\" || at == b":/");
    let slashes = word.matches(['/', '\\']).count();
    slashes >= 2 || drive || (word.starts_with(['/', '~', '\\']) && word.len() > 1) || word.starts_with("./")
}

/// A UUID or a hex string at the start of `text`: its length in bytes and its placeholder.
fn id_at(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    let ends = |length: usize| !text[length..].starts_with(|c: char| c.is_alphanumeric());
    let is_uuid = bytes.len() >= 36
        && bytes[..36].iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if is_uuid && ends(36) {
        return Some((36, "<uuid>"));
    }
    let prefix = if text.starts_with("0x") { 2 } else { 0 };
    let digits = bytes[prefix..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let length = prefix + digits;
    // `deadbeef` may be a word; a digit makes it an id. Pure decimals are numbers.
    let looks_hex =
        bytes[..length].iter().any(u8::is_ascii_digit) && bytes[..length].iter().any(u8::is_ascii_alphabetic);
    let long_enough = digits >= if prefix > 0 { 1 } else { 8 };
    (looks_hex && long_enough && ends(length)).then_some((length, "<hex>"))
}

/// A decimal number at the start of `text`, groups and fraction included.
fn number_at(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    let mut length = 0;
    while length < bytes.len() {
        let digit = bytes[length].is_ascii_digit();
        let inside = b".,_".contains(&bytes[length]) && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
        if !digit && !inside {
            break;
        }
        length += 1;
    }
    Some((length, "<n>"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        // Vectors of RFC 9923.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_varies_is_replaced() {
        for (message, expected) in [
            ("object `media/0198-x/1` is 1,024 bytes", "object `<path>` is <n> bytes"),
            ("task_0198c0de-1111-7222-8333-444455556666 lost", "task_<uuid> lost"),
            ("cannot open '/var/lib/x.wav': not found", "cannot open '<path>': not found"),
            ("sha256 9f86d081884c7d65 differs, at 0x7f", "sha<n> <hex> differs, at <hex>"),
            ("needs 2.50 GiB of\n 1 GiB", "needs <n> GiB of <n> GiB"),
            ("see https://example.org/a?b=1", "see <path>"),
            ("text/plain and/or cafe decade", "text/plain and/or cafe decade"),
            ("", ""),
        ] {
            assert_eq!(normalise(message), expected);
        }
    }

    #[test]
    fn same_trouble_same_fingerprint() {
        let of = |class, message| fingerprint(class, "transcribe", message);
        assert_eq!(of("Internal", "window 3 of task 17 broke"), of("Internal", "window 12 of task 4 broke"));
        assert_ne!(of("Internal", "window 3 broke"), of("WorkerLost", "window 3 broke"));
        assert_ne!(of("Internal", "window 3 broke"), fingerprint("Internal", "embed", "window 3 broke"));
        assert_ne!(of("Internal", "window 3 broke"), of("Internal", "segment 3 broke"));
    }

    #[test]
    fn fingerprints_are_stored_so_they_never_change() {
        assert_eq!(fingerprint("WorkerLost", "transcribe", "lost 8 workers"), "ccc76fa30f6f");
    }

    proptest! {
        #[test]
        fn any_message_has_one(class in ".{0,20}", kind in ".{0,20}", message in "(?s).{0,200}") {
            let print = fingerprint(&class, &kind, &message);
            prop_assert_eq!(print.len(), 12);
            prop_assert!(print.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
