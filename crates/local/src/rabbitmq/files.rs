//! A node's programs, configuration files and environment.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use super::{PACKAGE, RabbitSpec, SERVER};
use crate::{LocalError, random_hex};

/// The server script proper. The one in `/usr/sbin` is a wrapper that insists on the package's own user.
///
/// # Errors
/// When it is not where it should be.
pub fn server_script() -> Result<PathBuf, LocalError> {
    let given = std::env::var_os(SERVER).map(PathBuf::from);
    let found = |script: PathBuf| script.exists().then_some(script);
    match given {
        Some(script) => {
            let what = format!("{SERVER} names {}", script.display());
            found(script).ok_or_else(|| LocalError::io(what)(std::io::ErrorKind::NotFound.into()))
        }
        None => found(PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server"))
            .ok_or(LocalError::Missing { program: PACKAGE, package: PACKAGE }),
    }
}

/// Erlang's port mapper: `/usr/lib/erlang/erts-VERSION/bin/epmd`, or `epmd` on the path.
pub(super) fn epmd() -> Result<PathBuf, LocalError> {
    let erlang = fs::read_dir("/usr/lib/erlang").into_iter().flatten().flatten();
    let bundled = erlang
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("erts-"))
        .map(|entry| entry.path().join("bin/epmd"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|dir| dir.join("epmd")).collect::<Vec<_>>();
    bundled
        .chain(on_path)
        .find(|path| path.exists())
        .ok_or(LocalError::Missing { program: "epmd", package: "erlang-base" })
}

/// Makes the folders and writes the files; the cookie is kept once made.
pub(super) fn write(dir: &Path, spec: &RabbitSpec) -> Result<(), LocalError> {
    for folder in ["", "home", "mnesia", "log", "schema"] {
        let folder = dir.join(folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(LocalError::io(format!("make folder {}", folder.display())))?;
    }
    let cookie = dir.join("home/.erlang.cookie");
    if !cookie.exists() {
        write_file(&cookie, &random_hex(32), 0o400)?;
    }
    write_file(&dir.join("enabled_plugins"), "[rabbitmq_management,rabbitmq_prometheus].\n", 0o600)?;
    write_file(&dir.join("env.conf"), "", 0o600)?;
    write_file(&dir.join("rabbitmq.conf"), &configuration(spec), 0o600)
}

fn configuration(spec: &RabbitSpec) -> String {
    let RabbitSpec { amqp_port, management_port, prometheus_port, user, password, .. } = spec;
    format!(
        "# Written by warren at every start; changes here are lost.\n\
         listeners.tcp.1 = 127.0.0.1:{amqp_port}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management_port}\n\
         prometheus.tcp.ip = 127.0.0.1\n\
         prometheus.tcp.port = {prometheus_port}\n\
         \n\
         # The log goes to standard output, which whoever started the node keeps.\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = info\n\
         log.console.use_colors = off\n\
         \n\
         # Quorum queues share one log. A full one is taken apart while they wait, up to a second for the 512 MB that\n\
         # are usual.\n\
         raft.wal_max_size_bytes = 64000000\n\
         \n\
         # Used when the folder is new.\n\
         default_user = {user}\n\
         default_pass = {password}\n\
         \n\
         # Publishers are stopped below this much free disk or above this much memory.\n\
         disk_free_limit.absolute = 200MB\n\
         vm_memory_high_watermark.absolute = 512MB\n\
         \n\
         # Milliseconds a delivery may stay unacknowledged: two hours, beyond any task.\n\
         consumer_timeout = 7200000\n"
    )
}

fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), LocalError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(LocalError::io(format!("write {}", path.display())))
}

/// Everything the scripts and the Erlang machine read from the environment, and nothing of a system-wide node.
pub(super) fn environment(command: &mut Command, dir: &Path, spec: &RabbitSpec) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["RABBITMQ_", "ERL_", "NOTIFY_SOCKET"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    // The node's name is fixed, whatever its ports: mnesia's files are bound to it, and its port mapper is private.
    command
        .env("HOME", dir.join("home"))
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_NODENAME", "warren@localhost")
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_SCHEMA_DIR", dir.join("schema"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("config"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("env.conf"))
        .env("RABBITMQ_PID_FILE", dir.join("rabbitmq.pid"))
        .env("RABBITMQ_DIST_PORT", spec.dist_port.to_string())
        .env("ERL_EPMD_PORT", spec.epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            format!("-start_epmd false -kernel inet_dist_use_interface {{127,0,0,1}} {}", spec.erl_args),
        );
}
