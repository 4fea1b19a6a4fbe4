//! What our own decoders cannot read, through an ffmpeg child.
//!
//! The child gets a nameless copy of the recording as its standard input, is told the format (so it never guesses,
//! and never follows a playlist to other files), may open nothing but files and pipes, sees an empty environment, and
//! is bounded in memory, processor time and idle time. It dies with this process.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;

use crate::{
    AudioError, Container, DecodeOptions, SAMPLE_RATE,
    decode::{Chunk, Format, Frames, Stop},
    pcm,
    source::{SharedSource, View},
};

/// Blocks that wait between the child and us; with them its pace is ours.
const WAITING_BLOCKS: usize = 4;
const BLOCK_BYTES: usize = 2 * SAMPLE_RATE as usize;
/// How often a child that says nothing is looked after.
const LOOK: Duration = Duration::from_millis(200);
/// How much of the child's last complaint is kept, in bytes.
const COMPLAINT: usize = 300;
/// SIGXCPU and SIGKILL, the same on every Linux.
const OUT_OF_CPU: i32 = 24;
const KILLED: i32 = 9;

pub(crate) struct Ffmpeg {
    child: warren_child::Child,
    blocks: Receiver<Vec<f32>>,
    readers: Vec<JoinHandle<()>>,
    complaint: Option<JoinHandle<String>>,
    options: DecodeOptions,
    container: Container,
    /// Samples that an earlier decoder has delivered already.
    skip: u64,
}

impl Ffmpeg {
    /// Copies everything from `start` on aside and starts the child; the first `skip` samples are left out.
    pub(crate) fn open(
        source: &SharedSource,
        start: u64,
        container: Container,
        skip: u64,
        options: &DecodeOptions,
    ) -> Result<Self, Stop> {
        let broken = |error: io::Error| Stop::Final(AudioError::FfmpegBroken(error.to_string()));
        // Looked for first: no point in copying gigabytes for a program that is not there.
        if !is_there(&options.ffmpeg) {
            return Err(missing(container, options));
        }
        let copy = spool(source.view(start), options)?;
        let mut child = warren_child::spawn(command(copy, container, options), bounds(options)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound { missing(container, options) } else { broken(error) }
        })?;
        let stdout = child.stdout.take().expect("standard output is piped");
        let stderr = child.stderr.take().expect("standard error is piped");
        let (sender, blocks) = sync_channel(WAITING_BLOCKS);
        let reader = thread::Builder::new().name("ffmpeg-audio".to_owned());
        let reader = reader.spawn(move || read_blocks(stdout, &sender)).map_err(broken)?;
        let listener = thread::Builder::new().name("ffmpeg-log".to_owned());
        let complaint = listener.spawn(move || last_line(stderr)).map_err(broken)?;
        Ok(Self {
            child,
            blocks,
            readers: vec![reader],
            complaint: Some(complaint),
            options: options.clone(),
            container,
            skip,
        })
    }

    /// The child closed its output: did it end well?
    fn ended(&mut self) -> Result<Option<Chunk>, Stop> {
        let status = self.child.wait().map_err(|error| Stop::Final(AudioError::FfmpegBroken(error.to_string())))?;
        let complaint = self.complaint.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(None);
        }
        match status.signal() {
            Some(OUT_OF_CPU) => {
                let allowed = self.options.limits.ffmpeg_cpu.as_secs();
                return Err(Stop::Final(AudioError::Damaged {
                    name: self.options.name.clone(),
                    format: self.container.to_string(),
                    reason: format!("ffmpeg needs more than the allowed {allowed} s of processor time"),
                }));
            }
            // Nobody here did that: the machine is short of memory, or somebody meddles.
            Some(KILLED) => return Err(Stop::Final(AudioError::FfmpegBroken("it was killed".to_owned()))),
            _ => {}
        }
        // Its allocations fail at the limit, those of the loader included.
        if ["Cannot allocate memory", "failed to map segment"].iter().any(|words| complaint.contains(words)) {
            let (name, limit_bytes) = (self.options.name.clone(), self.options.limits.ffmpeg_memory);
            return Err(Stop::Final(AudioError::FfmpegMemory { name, limit_bytes }));
        }
        if complaint.contains("does not contain any stream") {
            return Err(Stop::Empty);
        }
        let reason = if complaint.is_empty() { format!("ffmpeg ended with {status}") } else { complaint };
        Err(Stop::Damaged(format!("ffmpeg: {reason}")))
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        // Killing it closes its pipes, which ends the threads that read them.
        let _ = self.child.kill();
        while self.blocks.try_recv().is_ok() {}
        drop(std::mem::replace(&mut self.blocks, sync_channel(0).1));
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if let Some(complaint) = self.complaint.take() {
            let _ = complaint.join();
        }
    }
}

impl Frames for Ffmpeg {
    fn format(&self) -> Format {
        Format { container: self.container, codec: None, sample_rate: None, channels: None, ffmpeg: true }
    }

    fn declared_seconds(&self) -> Option<f64> {
        None
    }

    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        let (waited, mut since) = (self.options.limits.ffmpeg_stall, Instant::now());
        loop {
            if self.options.stopped.load(Ordering::Relaxed) {
                return Err(stopped(&self.options));
            }
            match self.blocks.recv_timeout(LOOK.min(waited)) {
                Ok(block) => {
                    since = Instant::now();
                    let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(block.len());
                    self.skip -= skipped as u64;
                    if skipped < block.len() {
                        mono.extend_from_slice(&block[skipped..]);
                        return Ok(Some(Chunk { rate: SAMPLE_RATE, channels: 1, damaged: false }));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.ended(),
                Err(RecvTimeoutError::Timeout) if since.elapsed() < waited => {}
                Err(RecvTimeoutError::Timeout) => {
                    let name = self.options.name.clone();
                    return Err(Stop::Final(AudioError::FfmpegStalled { name, waited }));
                }
            }
        }
    }
}

fn stopped(options: &DecodeOptions) -> Stop {
    Stop::Final(AudioError::Stopped { name: options.name.clone() })
}

fn missing(container: Container, options: &DecodeOptions) -> Stop {
    Stop::Final(AudioError::FfmpegMissing {
        name: options.name.clone(),
        format: container.to_string(),
        program: options.ffmpeg.clone(),
    })
}

fn is_there(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn command(copy: File, container: Container, options: &DecodeOptions) -> Command {
    let mut command = Command::new(&options.ffmpeg);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-threads", "1"]);
    command.args(["-protocol_whitelist", "file,pipe", "-f", container.demuxer()]);
    // Through its own name in /proc, standard input is a file that can be sought, unlike `pipe:0`.
    command.args(["-i", "file:/proc/self/fd/0", "-map", "0:a:0?", "-vn", "-sn", "-dn"]);
    // A little more than the limit, so that the limit is seen to be passed.
    command.args(["-t", &format!("{}", options.limits.max_seconds.ceil() + 2.0)]);
    command.args(["-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"]);
    command.stdin(Stdio::from(copy)).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn bounds(options: &DecodeOptions) -> warren_child::Limits {
    warren_child::Limits {
        address_space_bytes: Some(options.limits.ffmpeg_memory),
        cpu_seconds: Some(options.limits.ffmpeg_cpu.as_secs().max(1)),
        // It writes to a pipe alone.
        file_bytes: Some(0),
    }
}

/// Copies the source to a file without a name, which vanishes with its last reader.
fn spool(mut view: View, options: &DecodeOptions) -> Result<File, Stop> {
    let (folder, keep_free_bytes) = (&*options.scratch, options.limits.keep_free);
    let scratch = |error| Stop::Final(AudioError::Scratch { folder: folder.to_owned(), error });
    // Asked first: a disk that fills up halfway is everybody's trouble.
    let disk = statvfs(folder).map_err(|error| scratch(error.into()))?;
    let (needed_bytes, free_bytes) = (view.len(), disk.blocks_available() * disk.fragment_size());
    if free_bytes < needed_bytes.saturating_add(keep_free_bytes) {
        let folder = folder.to_owned();
        return Err(Stop::Final(AudioError::NoRoom { folder, needed_bytes, keep_free_bytes, free_bytes }));
    }
    let mut copy = tempfile::tempfile_in(folder).map_err(scratch)?;
    let mut block = vec![0; 1 << 20];
    loop {
        if options.stopped.load(Ordering::Relaxed) {
            return Err(stopped(options));
        }
        // The caller looks for a failure of the source first, so what is said here is seen only by chance.
        let read = view.fill(&mut block).map_err(|error| Stop::Damaged(error.to_string()))?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut copy, &block[..read]).map_err(scratch)?;
    }
    copy.seek(SeekFrom::Start(0)).map_err(scratch)?;
    Ok(copy)
}

fn read_blocks(mut from: impl Read, to: &SyncSender<Vec<f32>>) {
    let mut bytes = vec![0; BLOCK_BYTES];
    loop {
        let mut filled = 0;
        while filled < bytes.len() {
            match from.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let Ok(block) = pcm::from_s16le(&bytes[..filled & !1]) else { return };
        if block.is_empty() || to.send(block).is_err() || filled < bytes.len() {
            return;
        }
    }
}

/// Reads to the end, keeping only the last line that says something.
fn last_line(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => {
                kept.extend_from_slice(&bytes[..read]);
                let surplus = kept.len().saturating_sub(2 * COMPLAINT);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    // The child knows the recording by this name only; it would puzzle a reader.
    line.replace("file:/proc/self/fd/0: ", "").chars().take(COMPLAINT).collect()
}
