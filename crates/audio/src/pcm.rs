//! Samples as they are stored: signed 16-bit little-endian, 16 kHz, one channel, no header.

/// A byte string that ends in the middle of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not a whole number of 16-bit samples")]
pub struct OddLength {
    /// The length found.
    pub bytes: usize,
}

/// Samples in −1…1 as 16-bit bytes; louder ones are clipped, and what is not a number becomes silence.
pub fn to_s16le(samples: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * 2);
    for sample in samples {
        // `as` maps NaN to 0 and clips, which is exactly what is wanted.
        bytes.extend_from_slice(&((sample * 32_768.0).round() as i16).to_le_bytes());
    }
    bytes
}

/// The samples of 16-bit bytes, in −1…1.
///
/// # Errors
/// [`OddLength`] when a byte is left over.
pub fn from_s16le(bytes: &[u8]) -> Result<Vec<f32>, OddLength> {
    if !bytes.len().is_multiple_of(2) {
        return Err(OddLength { bytes: bytes.len() });
    }
    Ok(bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_value_survives_the_round_trip() {
        let bytes: Vec<u8> = (i16::MIN..=i16::MAX).flat_map(i16::to_le_bytes).collect();
        let samples = from_s16le(&bytes).unwrap();
        assert_eq!(to_s16le(&samples), bytes);
    }

    #[test]
    fn what_does_not_fit_is_clipped_and_nan_is_silent() {
        let bytes = to_s16le(&[2.0, -2.0, f32::NAN, f32::INFINITY]);
        assert_eq!(from_s16le(&bytes).unwrap(), [32_767.0 / 32_768.0, -1.0, 0.0, 32_767.0 / 32_768.0]);
    }

    #[test]
    fn an_odd_length_is_refused() {
        assert_eq!(from_s16le(&[0, 0, 0]), Err(OddLength { bytes: 3 }));
    }
}
