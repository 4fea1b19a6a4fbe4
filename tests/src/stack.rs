//! A private stack of the real parts, driven through the `warren` program.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use warren_local::{process::Identity, rabbitmq};

use crate::{
    command::{Output, Running},
    management::Management,
    memory::Peaks,
    processes,
    wait::until,
};

/// The longest that a command takes, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What to start. The default is one of each.
#[derive(Clone, Debug, Default)]
pub struct Wishes<'a> {
    /// More arguments for `warren up`.
    pub arguments: &'a [&'a str],
    /// Changes to the settings: TOML with a section for each service.
    pub settings: String,
    /// Variables for `warren up` alone.
    pub environment: &'a [(&'a str, &'a str)],
    /// Start without the weights of the usual models.
    pub without_models: bool,
}

/// One line of `warren ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// E.g. `transcription-2`.
    pub name: String,
    /// `None` while it is down.
    pub pid: Option<u32>,
    /// `starting`, `ready` or `restarting`.
    pub state: String,
    /// Starts after the first.
    pub restarts: u64,
    /// How it ended last, when it ended by itself.
    pub last_end: Option<String>,
    /// Address of `/health` and `/metrics`; `None` for parts that are no services of Warren.
    pub http: Option<String>,
}

impl Service {
    /// Sends its process a signal.
    ///
    /// # Panics
    /// When it has no process.
    pub fn signal(&self, signal: Signal) {
        let process = self.pid.and_then(Identity::of).unwrap_or_else(|| panic!("{} does not run: {self:?}", self.name));
        process.signal(signal);
    }
}

/// A stack in a temporary folder. Stopped when dropped, and also when this process is killed.
#[derive(Debug)]
pub struct Stack {
    /// Removed at the end; has a space in its name.
    folder: PathBuf,
    data: PathBuf,
    janitor: Child,
    stopped: bool,
}

impl Stack {
    /// One of each part, ready.
    ///
    /// # Panics
    /// When something is missing, saying how to get it, or does not become ready.
    pub fn start() -> Self {
        Self::with(&Wishes::default())
    }

    /// As wished, ready.
    ///
    /// # Panics
    /// As [`Stack::start`].
    pub fn with(wishes: &Wishes<'_>) -> Self {
        if !wishes.without_models {
            pull_models();
        }
        let folder = tempfile::Builder::new().prefix("warren test ").tempdir().expect("a temporary folder").keep();
        let data = folder.join("data folder");
        let janitor = janitor(&folder, &data);
        let stack = Self { folder, data, janitor, stopped: false };
        let mut arguments = vec!["up", "--detach"];
        arguments.extend(wishes.arguments);
        let settings = stack.folder.join("changes.toml");
        if !wishes.settings.is_empty() {
            fs::write(&settings, &wishes.settings).expect("a new file");
            arguments.extend(["--settings", settings.to_str().expect("temporary folders have plain names")]);
        }
        let mut up = stack.command(&arguments);
        up.envs(wishes.environment.iter().copied());
        Running::start(up, "").wait(PATIENCE).ok();
        if std::env::var_os(rabbitmq::SERVER).is_some() {
            println!("on RabbitMQ {}", stack.management().version());
        }
        stack
    }

    /// A folder for files of the test, removed with the stack.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The stack's own folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// `warren --data … ARGUMENTS`, to its end.
    ///
    /// # Panics
    /// When it is not over after [`PATIENCE`].
    pub fn warren<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.warren_within(PATIENCE, arguments, "")
    }

    /// The same with a limit on its time and with a standard input.
    ///
    /// # Panics
    /// When it is not over within `limit`.
    pub fn warren_within<S: AsRef<OsStr>>(&self, limit: Duration, arguments: &[S], input: &str) -> Output {
        Running::start(self.command(arguments), input).wait(limit)
    }

    /// The same, running.
    pub fn begin<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        Running::start(self.command(arguments), "")
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = warren();
        command.arg("--data").arg(&self.data).args(arguments);
        command
    }

    /// What runs.
    ///
    /// # Panics
    /// When `warren ps` fails or its JSON is not as promised.
    pub fn ps(&self) -> Vec<Service> {
        let listed = self.warren(&["ps", "--json"]).ok().json();
        let services = listed.as_array().unwrap_or_else(|| panic!("ps: not an array: {listed}"));
        services.iter().map(service).collect()
    }

    /// One line of it.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn service(&self, name: &str) -> Service {
        let all = self.ps();
        all.iter().find(|service| service.name == name).unwrap_or_else(|| panic!("{name}: not in {all:?}")).clone()
    }

    /// Waits until everything is ready.
    ///
    /// # Panics
    /// When it is not within a minute.
    pub fn until_ready(&self) {
        until("every part ready", Duration::from_secs(60), || {
            self.ps().iter().all(|service| service.state == "ready").then_some(())
        });
    }

    /// Ends a service without a warning.
    pub fn kill(&self, name: &str) {
        self.service(name).signal(Signal::SIGKILL);
    }

    /// Addresses and logins.
    pub fn endpoints(&self) -> Value {
        self.warren(&["endpoints", "--json"]).ok().json()
    }

    /// RabbitMQ's management API.
    pub fn management(&self) -> Management {
        Management::new(&self.endpoints()["management"])
    }

    /// Takes in what its processes had in memory so far.
    pub fn measure(&self, peaks: &mut Peaks) {
        let names = self.ps().into_iter().filter_map(|service| Some((service.pid?, service.name))).collect();
        peaks.look(&self.processes(), &names);
    }

    /// The supervisor and everything below it; none when it does not run.
    fn processes(&self) -> Vec<Identity> {
        let supervisor = fs::read_to_string(self.data.join("run/supervisor.json")).unwrap_or_default();
        let supervisor = serde_json::from_str::<Value>(&supervisor).ok().and_then(|who| who["pid"].as_u64());
        supervisor.map(|pid| processes::family(pid as u32)).unwrap_or_default()
    }

    /// Dead letters, newest first.
    pub fn dead_letters(&self) -> Vec<Value> {
        self.warren(&["dlq", "list", "--json"]).ok().json_lines()
    }

    /// Jobs, newest first.
    pub fn jobs(&self) -> Vec<Value> {
        self.warren(&["jobs", "--json", "--limit", "500"]).ok().json_lines()
    }

    /// One job.
    ///
    /// # Panics
    /// When there is no such job.
    pub fn job(&self, id: &str) -> Value {
        let found = self.jobs().into_iter().find(|job| job["id"] == id);
        found.unwrap_or_else(|| panic!("{id}: not among the jobs"))
    }

    /// Is everything that was accepted accounted for, in the database, the broker and the storage?
    ///
    /// # Panics
    /// When not, with the differences.
    pub fn balances(&self) {
        let output = self.warren(&["verify"]);
        assert_eq!(output.code, 0, "the ledger does not balance:\n{}{}", output.stdout, output.stderr);
    }

    /// Stops it, once its ledger balances.
    ///
    /// # Panics
    /// When it does not balance, does not stop, or a process of it is left.
    pub fn stop(mut self) {
        self.balances();
        self.stop_now();
    }

    fn stop_now(&mut self) {
        self.stopped = true;
        let family = self.processes();
        let down = self.warren(&["down"]);
        let mut left: Vec<_> = family.into_iter().filter(|process| process.alive()).collect();
        left.extend(processes::that_mention(&self.folder).into_iter().filter(|found| found.pid != self.janitor.id()));
        let names: Vec<_> = left.iter().map(|process| processes::name(*process)).collect();
        left.iter().for_each(|process| process.kill());
        // Closes the janitor's input, and waits until the folder is gone.
        let _ = self.janitor.wait();
        down.ok();
        assert!(names.is_empty(), "`warren down` left processes behind:\n{}", names.join("\n"));
    }

    fn show_logs(&self) {
        let services = self.ps().into_iter().map(|service| service.name).filter(|name| name != "rabbitmq");
        let arguments: Vec<String> = ["logs", "-n", "25"].map(str::to_owned).into_iter().chain(services).collect();
        let logs = self.warren(&arguments);
        eprintln!("the ends of the logs:\n{}", logs.stdout);
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if thread::panicking() {
            // A second panic that left this function would end the process without a word.
            let _ = catch_unwind(AssertUnwindSafe(|| self.show_logs()));
            let _ = catch_unwind(AssertUnwindSafe(|| self.stop_now()));
        } else {
            self.stop_now();
        }
    }
}

/// Outlives this process: sees its end as the end of its own input, stops the stack and removes the folder.
fn janitor(folder: &Path, data: &Path) -> Child {
    let script = "while read -r line; do :; done
                  [ -e \"$2/stack.json\" ] && \"$1\" --data \"$2\" down
                  for i in 1 2 3; do rm -rf -- \"$3\" && exit; done";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program()).arg(data).arg(folder);
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("sh: {error}"))
}

/// The names of an object's fields, sorted.
pub fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> =
        object.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str)).collect();
    keys.sort_unstable();
    keys
}

fn service(line: &Value) -> Service {
    assert_eq!(keys(line), ["http", "last_end", "pid", "restarts", "service", "state"], "ps: {line}");
    Service {
        name: line["service"].as_str().unwrap_or_default().to_owned(),
        pid: line["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
        state: line["state"].as_str().unwrap_or_default().to_owned(),
        restarts: line["restarts"].as_u64().unwrap_or_default(),
        last_end: line["last_end"].as_str().map(str::to_owned),
        http: line["http"].as_str().map(str::to_owned),
    }
}

/// The `warren` program, without the settings that this user's environment may hold.
pub fn warren() -> Command {
    without_settings(Command::new(program()))
}

/// A service's own program, likewise.
pub fn service_alone(service: &str) -> Command {
    without_settings(Command::new(program().with_file_name(format!("warren-{service}"))))
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let plain = name.to_string_lossy();
        let kept = plain.starts_with("WARREN_MODELS__") || plain == rabbitmq::SERVER;
        if plain.starts_with("WARREN_") && !kept {
            command.env_remove(name);
        }
    }
    command
}

/// Built into the folder above the one of the test programs, and beside all others.
fn program() -> PathBuf {
    let me = std::env::current_exe().expect("Linux tells");
    let mine = me.parent().expect("a program is in a folder");
    // Test programs are in target/PROFILE/deps.
    let folder = if mine.ends_with("deps") { mine.parent().expect("of a profile") } else { mine };
    for name in ["warren", "warren-ingest", "warren-coordinator", "warren-transcription", "warren-batch-embedding"] {
        let path = folder.join(name);
        assert!(
            path.is_file(),
            "{} is missing; run `cargo build --workspace`, or all of it: ./warren test",
            path.display()
        );
    }
    folder.join("warren")
}

fn pull_models() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut command = warren();
        command.args(["models", "pull", "tiny.en", "base", "all-MiniLM-L6-v2"]);
        let output = Running::start(command, "").wait(Duration::from_secs(900));
        assert_eq!(
            output.code, 0,
            "the models cannot be fetched; fetch them where there is a network, with `warren models pull --all`\n{}",
            output.stderr
        );
    });
}
