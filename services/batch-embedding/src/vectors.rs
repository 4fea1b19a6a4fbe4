//! Vectors as bytes: inside the report while they are few, else as an object.

use bytes::Bytes;
use warren_fault::{Code, Fault};

/// Most bytes that travel inside a report.
pub(crate) const MAX_INLINE: usize = 32 * 1024;

/// Little-endian f32, row after row; and the length of a row.
///
/// # Errors
/// `Internal` when the rows differ in length, or a number is not finite.
pub(crate) fn to_bytes(vectors: &[Vec<f32>], texts: usize) -> Result<(Bytes, u32), Fault> {
    let wrong = |what: &str| Fault::retryable(Code::Internal, format!("the model gave {what}"));
    let width = vectors.first().map_or(0, Vec::len);
    if vectors.len() != texts || width == 0 {
        return Err(wrong(&format!("{} vectors for {texts} texts", vectors.len())));
    }
    if vectors.iter().any(|vector| vector.len() != width) {
        return Err(wrong("vectors of different lengths"));
    }
    if !vectors.iter().flatten().all(|value| value.is_finite()) {
        return Err(wrong("a vector with a number that is not finite"));
    }
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    Ok((Bytes::from(bytes), u32::try_from(width).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_each_other() {
        let (bytes, width) = to_bytes(&[vec![1.0, -2.0], vec![0.5, 0.0]], 2).expect("two rows");
        assert_eq!(width, 2);
        assert_eq!(&bytes[..8], [1.0_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
        assert_eq!(bytes.len(), 16);
    }

    #[test]
    fn what_is_no_vector_never_leaves() {
        for wrong in [vec![], vec![vec![1.0]], vec![vec![1.0], vec![1.0, 2.0]], vec![vec![f32::NAN], vec![1.0]]] {
            assert!(to_bytes(&wrong, 2).is_err(), "{wrong:?}");
        }
    }
}
