//! The hook's command line. It is parsed at every start of a container, so by hand.

use crate::error::Error;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Be a hook.
    Hook {
        /// What is started does not matter (`--always`).
        always: bool,
        /// `None` where the state's status has to tell.
        stage: Option<Stage>,
    },
    /// Print this on standard output.
    Print(&'static str),
}

/// The stages that the hook is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// createRuntime, or prestart, which means the same.
    CreateRuntime,
    /// poststop.
    Poststop,
}

const VERSION: &str = concat!("oci-systemd-hook ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
Usage: oci-systemd-hook [--always] [createRuntime|prestart|poststop]
       oci-systemd-hook --help | --version

An OCI hook that lets an unmodified systemd boot in an unprivileged container.
It is run by the OCI runtime, with the container's state on standard input.

  --always    prepare the container whatever its command is, if its image has
              a systemd (for registrations that are opt-in already)

Without a stage, a state that says \"stopped\" means poststop.
What it does to which container: oci-systemd-hook(8)
";

/// Read the arguments that follow the program's name.
///
/// # Errors
/// [`Error::Usage`] for a word that is none of the hook's, and for the stages that come too late.
pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Invocation, Error> {
    let (mut always, mut stage) = (false, None);
    for arg in args {
        stage = Some(match arg.as_str() {
            "--always" => {
                always = true;
                continue;
            }
            "--help" | "-h" => return Ok(Invocation::Print(HELP)),
            "--version" | "-V" => return Ok(Invocation::Print(VERSION)),
            "createRuntime" | "prestart" => Stage::CreateRuntime,
            "poststop" => Stage::Poststop,
            // In both, the state's pid is 1 or missing, and /proc/1 is the host's init.
            "createContainer" | "startContainer" | "poststart" => {
                return Err(Error::Usage(format!(
                    "cannot run at {arg}: register it at createRuntime and poststop"
                )));
            }
            _ => {
                return Err(Error::Usage(format!(
                    "cannot understand the argument {arg:?}"
                )));
            }
        });
    }
    Ok(Invocation::Hook { always, stage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stages_and_always_in_any_order() {
        use Stage::{CreateRuntime, Poststop};
        for (line, always, stage) in [
            ("", false, None),
            ("createRuntime", false, Some(CreateRuntime)),
            ("prestart", false, Some(CreateRuntime)),
            ("poststop", false, Some(Poststop)),
            ("--always", true, None),
            ("--always poststop", true, Some(Poststop)),
            ("createRuntime --always", true, Some(CreateRuntime)),
        ] {
            let parsed = parse(line.split_whitespace().map(str::to_owned)).expect(line);
            assert_eq!(parsed, Invocation::Hook { always, stage }, "{line}");
        }
    }

    #[test]
    fn refuses_the_stages_that_see_the_host_as_process_1() {
        for word in [
            "createContainer",
            "startContainer",
            "poststart",
            "create",
            "-x",
            "",
        ] {
            assert!(
                matches!(parse([word.to_owned()].into_iter()), Err(Error::Usage(_))),
                "{word}"
            );
        }
    }
}
