//! The script `warren`, which looks at the machine before it hands over: it must find the command as clap does.

use std::process::Command;

use clap::{ArgAction, CommandFactory as _};

use crate::Arguments;

const SCRIPT: &str = include_str!("../../../warren");

/// What the script takes for the command.
fn command_of(arguments: &[&str]) -> String {
    let start = SCRIPT.find("\ncommands=").unwrap();
    let end = start + SCRIPT[start..].find("\n}\n").unwrap() + 3;
    let program = format!("set -euo pipefail\n{}\ncommand_of \"$@\"", &SCRIPT[start..end]);
    let output = Command::new("bash").args(["-c", &program, "warren"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_is_found_past_every_option_that_may_stand_before_it() {
    let mut options = vec![Vec::new()];
    for option in Arguments::command().get_arguments().filter(|argument| argument.is_global_set()) {
        let long = format!("--{}", option.get_long().unwrap());
        if matches!(option.get_action(), ArgAction::Set) {
            // A value may look like a command.
            options.push(vec![long.clone(), "down".to_owned()]);
            options.push(vec![format!("{long}=down")]);
        } else {
            options.push(vec![long]);
        }
    }
    assert!(options.len() >= 8, "{options:?}");
    for before in &options {
        let mut arguments: Vec<&str> = before.iter().map(String::as_str).collect();
        arguments.extend(["up", "--detach", "test"]);
        assert_eq!(command_of(&arguments), "up", "{arguments:?}");
    }
}

#[test]
fn commands_may_be_shortened_as_far_as_they_are_understood() {
    let command = Arguments::command();
    for name in command.get_subcommands().filter(|command| !command.is_hide_set()).map(clap::Command::get_name) {
        assert_eq!(command_of(&[name]), name);
    }
    assert_eq!(command_of(&["de", "--keep"]), "demo");
    assert_eq!(command_of(&["te", "unit"]), "test");
    assert_eq!(command_of(&["d"]), "d", "ambiguous: clap says so");
    assert_eq!(command_of(&["no-such-command"]), "no-such-command");
}

#[test]
fn help_needs_nothing_of_the_machine() {
    for arguments in [&[][..], &["--help"], &["up", "--help"], &["--json"], &["--version"], &["--data"]] {
        assert_eq!(command_of(arguments), "", "{arguments:?}");
    }
}
