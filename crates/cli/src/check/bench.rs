//! Running commands: full output into a log, the last line to the person, counts to the tally.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe::Receiver,
    process::Command,
    task::JoinSet,
};
use warren_child::{AsyncChild, Limits, spawn_async};

use super::{
    capabilities::Capabilities,
    leftovers,
    live::{Live, clock},
    programs::Program,
    suites::Suite,
    tally::{Outcomes, Tally},
    tools::Tools,
    workspace::Workspace,
};
use crate::error::CliError;

/// Lines of a failing suite that are shown.
const TAIL: usize = 60;
/// What a process that has ended may still have in its pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What suites run on.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The sources.
    pub workspace: Workspace,
    /// Programs that only tests need.
    pub tools: Tools,
    /// Tests and cases that ran so far, by the last part of their name, and whether they passed.
    pub ran: BTreeMap<String, bool>,
    /// True when all suites run, so that a test that did not run is missing.
    pub complete: bool,
    /// True when suites take their full sizes.
    pub nightly: bool,
    /// The start script of the RabbitMQ that tests run on; without it, that of the system.
    pub broker: Option<PathBuf>,
    /// The test programs, once they are built.
    pub programs: Option<Vec<Program>>,
    /// What the capability suite found.
    pub capabilities: Option<Capabilities>,
    live: Live,
    log: Option<(PathBuf, File)>,
    tail: VecDeque<String>,
    deadline: Instant,
}

impl Bench {
    /// Makes the folder of logs.
    pub(crate) fn new(workspace: Workspace, complete: bool, nightly: bool) -> Result<Self, CliError> {
        let bench = Self {
            tools: Tools::new(),
            workspace,
            ran: BTreeMap::new(),
            complete,
            nightly,
            broker: None,
            programs: None,
            capabilities: None,
            live: Live::new(),
            log: None,
            tail: VecDeque::new(),
            deadline: Instant::now(),
        };
        let logs = bench.logs();
        fs::create_dir_all(&logs).map_err(CliError::file(format!("make folder {}", logs.display())))?;
        Ok(bench)
    }

    /// Where full output goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.workspace.target.join("check")
    }

    /// Starts the log and the clock of a suite.
    pub(crate) fn begin(&mut self, suite: &Suite) -> Result<(), CliError> {
        let path = self.log_of(suite);
        let file = File::create(&path).map_err(CliError::file(format!("write {}", path.display())))?;
        self.log = Some((path, file));
        self.tail.clear();
        self.deadline = Instant::now() + suite.limit(self.nightly);
        self.live.begin(&suite.name);
        Ok(())
    }

    fn log_of(&self, suite: &Suite) -> PathBuf {
        self.logs().join(format!("{}.log", suite.name))
    }

    /// Goes on with the log of a suite that others were begun after.
    fn resume(&mut self, suite: &Suite) -> Result<(), CliError> {
        let path = self.log_of(suite);
        let file = OpenOptions::new().append(true).open(&path);
        self.log = Some((path.clone(), file.map_err(CliError::file(format!("write {}", path.display())))?));
        self.tail.clear();
        Ok(())
    }

    /// Says how a suite ended; of one that failed, shows the end of its output.
    pub(crate) fn end(&mut self, suite: &Suite, tally: &Tally, took: Duration) {
        self.live.clear();
        let mark = if tally.sound() { "✓" } else { "✗" };
        let Tally { run, failed, skipped, .. } = tally;
        self.live.say(&format!(
            "{mark} {:14} {:>6}  {run} run, {failed} failed, {skipped} skipped",
            suite.name,
            clock(took)
        ));
        if tally.sound() {
            return;
        }
        for line in &self.tail {
            self.live.say(&format!("    {line}"));
        }
        for trouble in &tally.trouble {
            self.live.say(&format!("  {trouble}"));
        }
        if let Some((path, _)) = &self.log {
            self.live.say(&format!("  all of it: {}", path.display()));
        }
    }

    /// How many capabilities there are, at the very end.
    pub(crate) fn say_capabilities(&self) {
        if let Some(capabilities) = &self.capabilities {
            println!("{capabilities}");
        }
    }

    /// Writes a line as if a command had printed it.
    pub(crate) fn note(&mut self, line: &str) {
        if let Some((_, file)) = &mut self.log {
            // A full disk shows elsewhere.
            let _ = writeln!(file, "{line}");
        }
        self.keep(line);
    }

    /// Keeps the line for the case that the suite fails.
    fn keep(&mut self, line: &str) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    /// `cargo …` in the sources, with settings of this machine's user left out.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("cargo");
        command.args(arguments);
        command.env("CARGO_TARGET_DIR", &self.workspace.target);
        command.envs([("CARGO_TERM_COLOR", "never"), ("CARGO_TERM_PROGRESS_WHEN", "never")]);
        command
    }

    /// A program in the sources' folder.
    pub(crate) fn program(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.workspace.root);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let section =
                name.strip_prefix("WARREN_").is_some_and(|key| key.contains("__") && !key.starts_with("MODELS__"));
            if section || ["WARREN_CONFIG", "WARREN_SERVER", "WARREN_API_KEY"].contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// Runs a command that passes or fails as a whole.
    pub(crate) async fn whole(&mut self, command: Command) -> Result<Tally, CliError> {
        self.whole_with(command, |_| {}).await
    }

    /// The same, with each line of output.
    pub(crate) async fn whole_with(&mut self, command: Command, each: impl FnMut(&str)) -> Result<Tally, CliError> {
        let status = self.stream(command, each).await?;
        Ok(match status {
            Some(status) if status.success() => Tally::one(true),
            Some(status) => {
                self.note(&format!("it ended with {status}"));
                Tally::one(false)
            }
            None => self.late(),
        })
    }

    /// Runs a command that prints the results of tests.
    pub(crate) async fn tests(&mut self, command: Command) -> Result<Tally, CliError> {
        let mut results = Results::default();
        let status = self.stream(command, |line| results.read(line)).await?;
        Ok(self.judge(results, status))
    }

    /// Runs such commands, `at_once` of them side by side. What one prints stays together.
    pub(crate) async fn tests_side_by_side(
        &mut self,
        commands: Vec<Command>,
        at_once: usize,
    ) -> Result<Tally, CliError> {
        let (mut waiting, mut running) = (commands.into_iter(), JoinSet::new());
        let (mut all, mut children, mut done) = (Tally::default(), BTreeSet::new(), 0);
        let count = waiting.len();
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            while running.len() < at_once
                && let Some(command) = waiting.next()
            {
                let output = NamedTempFile::new().map_err(CliError::file("make a temporary file"))?;
                let program = Aside::start(command, output.into_temp_path())?;
                children.insert(program.child.id());
                running.spawn(program.finish(self.deadline));
            }
            tokio::select! {
                ended = running.join_next() => {
                    let Some(ended) = ended else { break };
                    let ended = ended.map_err(|error| CliError::Usage(error.to_string()))??;
                    children.remove(&ended.pid);
                    done += 1;
                    let mut results = Results::default();
                    for line in ended.output.lines() {
                        results.read(line);
                        self.note(line);
                    }
                    let tally = self.judge(results, ended.status);
                    all.add(&tally);
                    all.trouble.extend(tally.trouble);
                }
                _ = tick.tick() => {
                    self.live.show(&format!("{done} of {count} test programs done"));
                    leftovers::bury(&children);
                }
            }
        }
        Ok(all)
    }

    /// Runs the programs of suites, `at_once` of them side by side, each into the log of its suite. Returns what each came
    /// to and how long it took, as they ended.
    pub(crate) async fn suites_side_by_side(
        &mut self,
        suites: Vec<(Suite, Command)>,
        at_once: usize,
    ) -> Result<Vec<(Suite, Tally, Duration)>, CliError> {
        let (mut waiting, mut running, mut all) = (suites.into_iter(), JoinSet::new(), Vec::new());
        let mut lanes: BTreeMap<u32, (Suite, Instant)> = BTreeMap::new();
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            while lanes.len() < at_once
                && let Some((suite, command)) = waiting.next()
            {
                self.begin(&suite)?;
                let program = Aside::start(command, self.log_of(&suite))?;
                lanes.insert(program.child.id(), (suite, Instant::now()));
                running.spawn(program.finish(self.deadline));
            }
            tokio::select! {
                ended = running.join_next() => {
                    let Some(ended) = ended else { break };
                    let ended = ended.map_err(|error| CliError::Usage(error.to_string()))??;
                    let (suite, began) = lanes.remove(&ended.pid).expect("it was started here");
                    self.resume(&suite)?;
                    let mut results = Results::default();
                    for line in ended.output.lines() {
                        results.read(line);
                        self.keep(line);
                    }
                    let tally = self.judge(results, ended.status);
                    let took = began.elapsed();
                    self.end(&suite, &tally, took);
                    all.push((suite, tally, took));
                }
                _ = tick.tick() => {
                    let lane = |(suite, began): &(Suite, Instant)| format!("{} {}", suite.name, clock(began.elapsed()));
                    self.live.show_line(&lanes.values().map(lane).collect::<Vec<_>>().join(", "));
                    leftovers::bury(&lanes.keys().copied().collect());
                }
            }
        }
        Ok(all)
    }

    /// Counts what a test program did that ended so.
    fn judge(&mut self, results: Results, status: Option<ExitStatus>) -> Tally {
        let Results { mut tally, ran, .. } = results;
        let failed = ran.iter().filter(|(_, passed)| !passed);
        tally.trouble.extend(failed.map(|(name, _)| format!("failed: {name}")));
        self.ran.extend(ran);
        match status {
            None => tally.add(&self.late()),
            Some(status) if !status.success() && tally.failed == 0 => tally.fail(format!("it ended with {status}")),
            Some(_) => {}
        }
        tally
    }

    fn late(&mut self) -> Tally {
        self.note("ended by warren test: it took too long");
        Tally::one(false)
    }

    /// Runs a command to its end; `None` when it took too long and was killed.
    async fn stream(
        &mut self,
        mut command: Command,
        mut each: impl FnMut(&str),
    ) -> Result<Option<ExitStatus>, CliError> {
        let shown = format!("{:?}", command.as_std());
        self.note(&format!("$ {}", without_folder(&shown)));
        let pipes = || -> std::io::Result<_> {
            let (reader, writer) = std::io::pipe()?;
            command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
            // The command, and with it our ends of the pipe, goes here.
            Ok((Receiver::from_owned_fd(OwnedFd::from(reader))?, command))
        };
        let (reader, command) = pipes().map_err(CliError::file("open a pipe"))?;
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = spawn_async(command, Limits::NONE)
            .map_err(|error| CliError::Usage(format!("{program} cannot be started: {error}")))?;
        let mut lines = BufReader::new(reader).split(b'\n');
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let (mut status, mut last, mut ended) = (None, String::new(), None);
        loop {
            tokio::select! {
                line = lines.next_segment() => match line {
                    Ok(Some(line)) => {
                        let line = String::from_utf8_lossy(&line);
                        let line = line.trim_end();
                        each(line);
                        // What cargo says to programs is not for people.
                        if line.starts_with(r#"{"reason":"#) {
                            continue;
                        }
                        self.note(line);
                        if !line.trim().is_empty() {
                            last = line.trim().to_owned();
                        }
                    }
                    Ok(None) | Err(_) if status.is_some() => break,
                    Ok(None) | Err(_) => {
                        status = Some(child.wait().await.map_err(CliError::file(format!("wait for {program}")))?);
                        break;
                    }
                },
                done = child.wait(), if status.is_none() => {
                    status = Some(done.map_err(CliError::file(format!("wait for {program}")))?);
                    ended = Some(Instant::now());
                }
                _ = tick.tick() => {
                    self.live.show(&last);
                    leftovers::bury(&BTreeSet::from([child.id()]));
                    if ended.is_some_and(|ended: Instant| ended.elapsed() > LAST_WORDS) {
                        break;
                    }
                    if Instant::now() > self.deadline {
                        child.kill().await.map_err(CliError::file(format!("stop {program}")))?;
                        return Ok(None);
                    }
                }
            }
        }
        Ok(status)
    }
}

/// What a test program has printed, counted.
#[derive(Debug, Default)]
struct Results {
    tally: Tally,
    ran: Vec<(String, bool)>,
    outcomes: Outcomes,
}

impl Results {
    fn read(&mut self, line: &str) {
        self.tally.read(line);
        self.ran.extend(self.outcomes.read(line));
    }
}

/// A program that writes into a file, to be read when it has ended.
struct Aside<P> {
    child: AsyncChild,
    name: String,
    output: P,
}

/// One that has ended; without a status, it took too long and was killed.
struct Ended {
    pid: u32,
    status: Option<ExitStatus>,
    output: String,
}

impl<P: AsRef<Path>> Aside<P> {
    fn start(mut command: Command, output: P) -> Result<Self, CliError> {
        let name = without_folder(&format!("{:?}", command.as_std())).to_owned();
        let ends = || -> std::io::Result<_> {
            let end = OpenOptions::new().append(true).open(&output)?;
            Ok((end.try_clone()?, end))
        };
        let path = output.as_ref().display();
        let (one, other) = ends().map_err(CliError::file(format!("write {path}")))?;
        command.stdin(Stdio::null()).stdout(one).stderr(other);
        let child = spawn_async(command, Limits::NONE)
            .map_err(|error| CliError::Usage(format!("{name} cannot be started: {error}")))?;
        Ok(Self { child, name, output })
    }

    async fn finish(mut self, deadline: Instant) -> Result<Ended, CliError> {
        let pid = self.child.id();
        let status = match tokio::time::timeout_at(deadline.into(), self.child.wait()).await {
            Ok(status) => Some(status.map_err(CliError::file(format!("wait for {}", self.name)))?),
            Err(_) => {
                self.child.kill().await.map_err(CliError::file(format!("stop {}", self.name)))?;
                None
            }
        };
        let output = fs::read(&self.output).map_err(CliError::file("read what a test printed"))?;
        let output = format!("$ {}\n{}", self.name, String::from_utf8_lossy(&output));
        Ok(Ended { pid, status, output })
    }
}

/// A command without the `cd … &&` that its debug form begins with.
fn without_folder(shown: &str) -> &str {
    shown.rsplit_once(" && ").map_or(shown, |(_, rest)| rest)
}
