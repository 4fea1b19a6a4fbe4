//! A model hub on loopback that counts requests and breaks off when told to, and a small model to serve.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use sha2::{Digest as _, Sha256};
use warren_models::{Cache, Catalogue, Model, ModelsSettings};

pub(crate) const CONFIG: &str = r#"{"d_model": 4, "num_mel_bins": 2, "vocab_size": 7}"#;
pub(crate) const TOKENIZER: &str = r#"{"model": {}}"#;

/// What happens to the next request for the weights.
pub(crate) enum Next {
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// So many bytes are sent, then the signal, then nothing more.
    Stall(usize, mpsc::Sender<()>),
    /// This status, without a body.
    Status(u16),
    /// The whole file, although a range was asked for.
    IgnoreRange,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) next: VecDeque<Next>,
    /// Path and first byte of each request.
    pub(crate) seen: Vec<(String, u64)>,
}

pub(crate) struct Hub {
    pub(crate) url: String,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) weights: Vec<u8>,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let script = Arc::new(Mutex::new(Script::default()));
        let weights = weights();
        let (shared, body) = (Arc::clone(&script), weights.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, body) = (Arc::clone(&shared), body.clone());
                thread::spawn(move || {
                    // A client that goes away is what some of the tests are about.
                    let _ = answer(&stream, &shared, &body);
                });
            }
        });
        Self { url, script, weights }
    }

    pub(crate) fn then(&self, next: Next) {
        self.script.lock().expect("no test thread panicked").next.push_back(next);
    }

    pub(crate) fn seen(&self, file: &str) -> Vec<u64> {
        let script = self.script.lock().expect("no test thread panicked");
        script.seen.iter().filter(|(path, _)| path.ends_with(file)).map(|(_, first)| *first).collect()
    }

    pub(crate) fn model(&self) -> Model {
        self.model_with_sha256(&hex(&Sha256::digest(&self.weights)))
    }

    pub(crate) fn model_with_sha256(&self, sha256: &str) -> Model {
        let text = format!(
            r#"
            [[model]]
            name = "small-one"
            family = "whisper"
            licence = "MIT"
            disk_bytes = 1_000_000
            memory_bytes = 1
            languages = "english"
            [[model.source]]
            kind = "hub"
            format = "huggingface"
            repository = "people/small-one"
            revision = "0123456789abcdef0123456789abcdef01234567"
            files = [
                {{ path = "model.safetensors", size = {size}, sha256 = "{sha256}" }},
                {{ path = "config.json" }},
                {{ path = "tokenizer.json" }},
            ]
            "#,
            size = self.weights.len(),
        );
        Catalogue::parse(&text).expect("a sound catalogue").get("small-one").expect("its model").clone()
    }

    pub(crate) fn cache(&self, dir: &Path) -> Cache {
        Cache::with(&ModelsSettings { cache: dir.to_owned(), local: None, hub: self.url.clone() })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn weights() -> Vec<u8> {
    let data: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    let mut header = format!(r#"{{"weight":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, data.len());
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

fn answer(mut stream: &TcpStream, script: &Mutex<Script>, weights: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().transpose()?.unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    let mut first = 0_usize;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            first = range.trim_end_matches('-').parse().expect("an open range");
        }
        if line.is_empty() {
            break;
        }
    }
    let is_weights = path.ends_with("model.safetensors");
    let next = {
        let mut script = script.lock().expect("no test thread panicked");
        script.seen.push((path.clone(), first as u64));
        if is_weights { script.next.pop_front() } else { None }
    };
    let body = match path.rsplit('/').next() {
        Some("model.safetensors") => weights,
        Some("config.json") => CONFIG.as_bytes(),
        Some("tokenizer.json") => TOKENIZER.as_bytes(),
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    };
    if let Some(Next::Status(status)) = next {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if matches!(next, Some(Next::IgnoreRange)) {
        first = 0;
    }
    let part = &body[first..];
    if first > 0 {
        write!(stream, "HTTP/1.1 206 Partial\r\nContent-Range: bytes {first}-{}/{}\r\n", body.len() - 1, body.len())?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
    match next {
        Some(Next::Cut(bytes)) => stream.write_all(&part[..bytes]),
        Some(Next::Stall(bytes, signal)) => {
            stream.write_all(&part[..bytes])?;
            signal.send(()).expect("the test waits");
            // Held open until the client goes away.
            let _ = std::io::Read::read(&mut stream, &mut [0]);
            Ok(())
        }
        _ => stream.write_all(part),
    }
}
