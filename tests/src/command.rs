//! Running a program with a limit on its time.

use std::{
    io::{Read, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

/// What a program that ended has left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; negative: the signal that ended it.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Diagnostics.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    line: String,
}

impl Output {
    /// The same, if it succeeded.
    ///
    /// # Panics
    /// When the exit code is not 0.
    pub fn ok(self) -> Self {
        self.expect_code(0)
    }

    /// The same, if it ended with this code.
    ///
    /// # Panics
    /// When it ended with another.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "`{}` ended with {}\n{}\n{}", self.line, self.code, self.stdout, self.stderr);
        self
    }

    /// Its only line of results as JSON.
    ///
    /// # Panics
    /// When there are more lines, or none, or no JSON.
    pub fn json(&self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "`{}` printed {} lines\n{}", self.line, lines.len(), self.stdout);
        lines.remove(0)
    }

    /// Its results, one JSON value a line.
    ///
    /// # Panics
    /// When a line is no JSON.
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("`{}`: not JSON: {error}: {line}", self.line))
        };
        self.stdout.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }
}

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    started: Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts `command` with `input` as its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command, input: &str) -> Self {
        let line = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_owned();
            // A program that does not read its input must not block the test.
            thread::spawn(move || stdin.write_all(input.as_bytes()));
        }
        Self { child, line, started: Instant::now(), stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it is not over within `limit`; it is killed then.
    pub fn wait(mut self, limit: Duration) -> Output {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let (stdout, stderr) = self.printed();
                    panic!("`{}` was not over after {} s\n{stdout}\n{stderr}", self.line, limit.as_secs());
                }
                Err(error) => panic!("`{}`: {error}", self.line),
            }
        };
        let took = self.started.elapsed();
        let (stdout, stderr) = self.printed();
        Output { code: code(status), stdout, stderr, took, line: self.line.clone() }
    }

    fn printed(&mut self) -> (String, String) {
        let text =
            |reader: Option<JoinHandle<String>>| reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        (text(self.stdout.take()), text(self.stderr.take()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// When it cannot be started or is not over within `limit`.
pub fn run(command: Command, limit: Duration) -> Output {
    Running::start(command, "").wait(limit)
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}
