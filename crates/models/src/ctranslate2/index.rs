//! What is where in a `model.bin`, read without its tensors.
//!
//! Layout, all little-endian: version u32; name of the model kind; revision u32; number of variables u32; per variable
//! its name, rank u8, that many dimensions u32, element type u8, bytes u32, the bytes; number of aliases u32; per alias
//! two names. A name is its length u16 with the closing zero, then the letters and the zero.
//! Source: github.com/OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`, `_serialize`.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use super::ConvertError;

/// Versions differ in aliases only, which Whisper needs none of.
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=6;
const KIND: &str = "WhisperSpec";
/// More than any Whisper has; a hostile count must not make us allocate.
const MAX_VARIABLES: u32 = 10_000;
const MAX_NAME: u16 = 256;
const MAX_RANK: u8 = 4;

/// The variables of a file by name.
pub(super) struct Index {
    pub(super) variables: BTreeMap<String, Variable>,
}

/// One variable: what it is and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) kind: Kind,
    /// Empty for a single number.
    pub(super) shape: Vec<u64>,
    /// First byte in the file.
    pub(super) first: u64,
    /// The value, when it is a single whole number.
    pub(super) number: Option<i64>,
}

/// Element types, numbered as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::F32, Self::I8, Self::I16, Self::I32, Self::F16, Self::Bf16].get(usize::from(number)).copied()
    }

    fn bytes(self) -> u64 {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }
}

impl Index {
    /// Reads the index of a file of `size` bytes.
    pub(super) fn read(from: impl Read + Seek, size: u64) -> Result<Self, ConvertError> {
        let mut cursor = Cursor { from, at: 0, size };
        let version = cursor.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(ConvertError::Unsupported(format!("is of version {version}, and 5 and 6 are known")));
        }
        let kind = cursor.name()?;
        if kind != KIND {
            return Err(ConvertError::Unsupported(format!("holds a {kind}, not a {KIND}")));
        }
        let _revision = cursor.u32()?;
        let count = cursor.u32()?;
        if count > MAX_VARIABLES {
            return Err(cursor.damaged(format!("{count} variables are too many")));
        }
        let mut variables = BTreeMap::new();
        for _ in 0..count {
            let name = cursor.name()?;
            let variable = cursor.variable(&name)?;
            if variables.insert(name.clone(), variable).is_some() {
                return Err(cursor.damaged(format!("a second {name}")));
            }
        }
        Ok(Self { variables })
    }
}

/// Reads forward and knows where it is; nothing is read or allocated beyond the file's end.
struct Cursor<R> {
    from: R,
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Cursor<R> {
    fn damaged(&self, what: String) -> ConvertError {
        ConvertError::Damaged { what, at: self.at }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ConvertError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ConvertError> {
        let end = self.at + bytes.len() as u64;
        if end > self.size {
            return Err(self.damaged("the file is cut".to_owned()));
        }
        self.from.read_exact(bytes)?;
        self.at = end;
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, ConvertError> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, ConvertError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn name(&mut self) -> Result<String, ConvertError> {
        let length = u16::from_le_bytes(self.take()?);
        if length == 0 || length > MAX_NAME {
            return Err(self.damaged(format!("a name of {length} bytes")));
        }
        let mut bytes = vec![0; usize::from(length)];
        self.fill(&mut bytes)?;
        let closed = bytes.pop() == Some(0);
        match String::from_utf8(bytes) {
            Ok(name) if closed => Ok(name),
            _ => Err(self.damaged("a name that is no text".to_owned())),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Variable, ConvertError> {
        let rank = self.u8()?;
        if rank > MAX_RANK {
            return Err(self.damaged(format!("{name} has {rank} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(u64::from(self.u32()?));
        }
        let kind = self.u8()?;
        let kind = Kind::from_number(kind)
            .ok_or_else(|| self.damaged(format!("{name} has the unknown element type {kind}")))?;
        let bytes = u64::from(self.u32()?);
        let expected = shape.iter().try_fold(kind.bytes(), |bytes, dim| bytes.checked_mul(*dim));
        if expected != Some(bytes) {
            return Err(self.damaged(format!("{name} has {bytes} bytes, which its shape {shape:?} contradicts")));
        }
        let first = self.at;
        if bytes > self.size - first {
            return Err(self.damaged(format!("{name} is cut")));
        }
        let number = if shape.is_empty() { self.number(kind)? } else { None };
        self.at = first + bytes;
        self.from.seek(SeekFrom::Start(self.at))?;
        Ok(Variable { kind, shape, first, number })
    }

    fn number(&mut self, kind: Kind) -> Result<Option<i64>, ConvertError> {
        Ok(match kind {
            Kind::I8 => Some(i64::from(i8::from_le_bytes(self.take()?))),
            Kind::I16 => Some(i64::from(i16::from_le_bytes(self.take()?))),
            Kind::I32 => Some(i64::from(i32::from_le_bytes(self.take()?))),
            Kind::F32 | Kind::F16 | Kind::Bf16 => None,
        })
    }
}
