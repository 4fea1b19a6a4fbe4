//! The safetensors format: eight bytes with the header's length, a JSON header, the tensors' bytes.
//!
//! Written here rather than through the `safetensors` crate so that a conversion copies from file to file and never
//! holds a model in memory. Source: github.com/huggingface/safetensors, README, section "Format".

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Limit of the format itself.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
}

/// Element types that Whisper weights come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

impl Tensor {
    /// `None` when the product does not fit 64 bits.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.bytes(), |bytes, dim| bytes.checked_mul(*dim))
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Writes the header of a file whose tensors follow in the order of `tensors`, without gaps.
pub(crate) fn write_header(to: &mut impl io::Write, tensors: &[Tensor]) -> io::Result<()> {
    let mut entries = BTreeMap::new();
    let mut at = 0_u64;
    for tensor in tensors {
        let end = tensor.bytes().and_then(|bytes| at.checked_add(bytes));
        let end = end.ok_or_else(|| io::Error::other(format!("{} is too large", tensor.name)))?;
        let entry =
            Entry { dtype: tensor.dtype.name().to_owned(), shape: tensor.shape.clone(), data_offsets: (at, end) };
        entries.insert(tensor.name.as_str(), entry);
        at = end;
    }
    let mut header = serde_json::to_vec(&entries)?;
    // Readers map the file and want the data aligned.
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)
}

/// Names of the tensors of a file, after checking that its header describes exactly the bytes that are there.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| "is shorter than eight bytes".to_owned())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length.saturating_add(8) > size {
        return Err("its header is longer than the file or the format allow".to_owned());
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(|error| error.to_string())?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|error| format!("its header is not JSON: {error}"))?;
    let mut entries = Vec::new();
    for (name, value) in header {
        if name != "__metadata__" {
            let entry: Entry = serde_json::from_value(value).map_err(|error| format!("tensor {name}: {error}"))?;
            entries.push((name, entry));
        }
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut at = 0;
    for (name, entry) in &entries {
        if entry.data_offsets.0 != at || entry.data_offsets.1 < at {
            return Err(format!("tensor {name} overlaps another or leaves a gap"));
        }
        at = entry.data_offsets.1;
    }
    if at != size - 8 - length {
        return Err(format!("its header describes {at} bytes, and {} are there", size - 8 - length));
    }
    Ok(entries.into_iter().map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn sample() -> Vec<u8> {
        let tensor =
            |name: &str, shape: &[u64]| Tensor { name: name.to_owned(), dtype: Dtype::F16, shape: shape.to_vec() };
        let mut bytes = Vec::new();
        write_header(&mut bytes, &[tensor("b", &[2, 3]), tensor("a", &[4])]).expect("written");
        bytes.extend_from_slice(&[1; 20]);
        bytes
    }

    #[test]
    fn what_is_written_is_read_by_the_reference_reader() {
        let bytes = sample();
        let read = ::safetensors::SafeTensors::deserialize(&bytes).expect("reference reader");
        assert_eq!(read.tensor("b").expect("b").shape(), [2, 3]);
        assert_eq!(read.tensor("a").expect("a").data().len(), 8);
        assert_eq!(names(file(&bytes).path()).expect("own reader"), ["b", "a"]);
    }

    #[test]
    fn a_cut_file_is_refused_at_every_length() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(names(file(&bytes[..length]).path()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_header_that_claims_the_whole_address_space_is_refused() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(names(file(&bytes).path()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = names(file(&bytes).path());
        }

        #[test]
        fn no_flipped_byte_makes_the_reader_panic(at in 0_usize..180, value in any::<u8>()) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = names(file(&bytes).path());
        }
    }
}
