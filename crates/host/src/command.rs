//! The command line of a service: little more than where its settings are.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command, value_parser};
use serde::{Serialize, de::DeserializeOwned};
use warren_settings::Validate;

use crate::{ServiceSettings, masked};

/// What the caller of the binary wants.
#[derive(Debug)]
pub(crate) enum Asked<S> {
    Run(Box<S>),
    /// Help, version or settings: print and exit 0.
    Print(String),
}

const SETTINGS_HELP: &str = "\
Settings: compiled-in defaults, then the file, then the environment. A variable names a key with two underscores \
between section and field, e.g. WARREN_HTTP__BIND=127.0.0.1:9000. --print-settings shows every key.

Exit codes: 0 drained, 64 bad settings, 1 failed.";

fn command<S: ServiceSettings>(service: &'static str) -> Command {
    let binary = format!("warren-{service}");
    Command::new(service)
        .bin_name(binary.clone())
        .display_name(binary)
        .version(env!("CARGO_PKG_VERSION"))
        .about(S::ABOUT)
        .after_help(SETTINGS_HELP)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .env("WARREN_CONFIG")
                .value_parser(value_parser!(PathBuf))
                .help("Settings file, TOML"),
        )
        .arg(
            Arg::new("print-settings")
                .long("print-settings")
                .action(ArgAction::SetTrue)
                .help("Print the settings in effect as TOML, secrets masked, and exit"),
        )
}

/// Parses `args` and reads the settings they name.
///
/// # Errors
/// What to print on stderr before exiting with 64.
pub(crate) fn read<S>(service: &'static str, args: impl IntoIterator<Item = OsString>) -> Result<Asked<S>, String>
where
    S: ServiceSettings + Validate + Default + Serialize + DeserializeOwned,
{
    let matches = match command::<S>(service).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => return Err(error.render().to_string()),
        Err(help) => return Ok(Asked::Print(help.render().to_string())),
    };
    let file = matches.get_one::<PathBuf>("config");
    let settings = warren_settings::load::<S>(file.map(PathBuf::as_path))
        .map_err(|error| format!("warren-{service}: settings: {error}\n"))?;
    if matches.get_flag("print-settings") {
        let text = masked::toml(&settings).map_err(|error| format!("warren-{service}: settings: {error}\n"))?;
        return Ok(Asked::Print(text));
    }
    Ok(Asked::Run(Box::new(settings)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use warren_telemetry::TelemetrySettings;

    use super::*;
    use crate::{DrainSettings, HttpSettings};

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        http: HttpSettings,
        telemetry: TelemetrySettings,
        drain: DrainSettings,
    }

    impl Validate for Sample {
        fn validate(&self) -> Result<(), String> {
            Ok(())
        }
    }

    impl ServiceSettings for Sample {
        const ABOUT: &'static str = "A sample.";

        fn http(&self) -> &HttpSettings {
            &self.http
        }

        fn telemetry(&self) -> &TelemetrySettings {
            &self.telemetry
        }

        fn drain(&self) -> &DrainSettings {
            &self.drain
        }
    }

    fn asked(args: &[&str]) -> Result<Asked<Sample>, String> {
        read("sample", std::iter::once("warren-sample").chain(args.iter().copied()).map(OsString::from))
    }

    #[test]
    fn help_tells_how_to_set_things() {
        let Ok(Asked::Print(help)) = asked(&["--help"]) else { panic!("help is printed") };
        for word in ["A sample.", "--config", "WARREN_HTTP__BIND", "64"] {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
    }

    #[test]
    fn printed_settings_can_be_read_again() {
        let Ok(Asked::Print(text)) = asked(&["--print-settings"]) else { panic!("settings are printed") };
        let read: Sample = toml::from_str(&text).expect("TOML");
        assert_eq!(read.drain, DrainSettings::default());
    }

    #[test]
    fn wrong_usage_and_missing_files_are_errors() {
        assert!(asked(&["--loud"]).expect_err("unknown flag").contains("--loud"));
        let error = asked(&["--config", "no/such.toml"]).expect_err("no file");
        assert!(error.contains("no/such.toml"), "{error}");
    }
}
