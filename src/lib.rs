//! An OCI hook that lets an unmodified systemd boot in an unprivileged container.
//!
//! The story, in the order in which [`run`] tells it:
//!
//! 1. [`oci`]: the container's state and the bundle's config.json, as far as they matter.
//! 2. [`decision`]: is the container a candidate, and what do its annotations wish?
//! 3. [`container`]: its process, namespaces and root file system, each held by a descriptor.
//! 4. [`payload`]: is its program systemd, and which ([`elf`])?
//! 5. [`facts`]: what else a plan depends on, observed; [`cgroup`] decides which tree it gets.
//! 6. [`plan`]: facts in, steps out.
//! 7. [`apply`]: the steps, done ([`keep`] saves what is covered, [`seed`] writes the machine ID).
//!
//! A container that is not systemd's leaves this way at the first step that can tell. Below it all
//! are [`sys`] and [`process`], the kernel's calls, and [`rootfs`], paths inside the image.

mod apply;
mod cgroup;
mod cli;
mod container;
mod decision;
mod elf;
mod error;
mod facts;
mod keep;
mod log;
mod machine_id;
mod oci;
mod payload;
mod plan;
mod process;
mod rootfs;
mod seed;
mod sys;

use std::io::Read;

use ::log::{info, warn};

use cli::{Invocation, Stage};
use container::Container;
use decision::{Policy, Request, Skip};
use error::Error;
use oci::{Config, State};
use payload::Payload;

pub use crate::log::{init as init_log, report};

/// Why the program ends with a status that is not 0.
#[derive(Debug)]
pub struct Failure {
    /// The one line for standard error and the host's log.
    pub line: String,
    /// As sysexits(3) numbers the classes of failures.
    pub exit_status: u8,
}

/// Do what the arguments (without the program's name) ask for.
///
/// # Errors
/// The container must not start; the line says why.
pub fn run(arguments: impl Iterator<Item = String>, input: impl Read) -> Result<(), Failure> {
    let mut id = None;
    run_for(arguments, input, &mut id).map_err(|error| Failure {
        line: error.line(id.as_deref()),
        exit_status: error.exit_status(),
    })
}

/// The same; `id` is the container's as soon as it is known.
fn run_for(
    arguments: impl Iterator<Item = String>,
    input: impl Read,
    id: &mut Option<String>,
) -> Result<(), Error> {
    let (always, when) = match cli::parse(arguments)? {
        Invocation::Print(text) => {
            print!("{text}");
            return Ok(());
        }
        Invocation::Hook {
            always,
            stage: when,
        } => (always, when),
    };
    process::settle();
    let state = State::read(input)?;
    log::about(&state.id);
    *id = Some(state.id.clone());
    let told = match state.status.as_str() {
        "stopped" => Stage::Poststop,
        _ => Stage::CreateRuntime,
    };
    match when.unwrap_or(told) {
        Stage::CreateRuntime => match prepare(&state, always)? {
            Ok(payload) => info!("prepared for systemd {}", payload.version.unwrap_or(0)),
            Err(skip) => info!("nothing to do: {skip}"),
        },
        // All that was made lies in the container's namespaces and its own cgroup, and goes with them.
        Stage::Poststop => info!("nothing to do: the container has stopped"),
    }
    Ok(())
}

/// Prepare a created container, unless there is a reason to leave it alone.
fn prepare(state: &State, always: bool) -> Result<Result<Payload, Skip>, Error> {
    if !state.bundle.is_absolute() {
        return Err(Error::BadState("its bundle is not an absolute path".into()));
    }
    let config = Config::read(&state.bundle)?;
    let request = Request {
        args: &config.process.args,
        env: &config.process.env,
        cwd: &config.process.cwd,
        annotations: &config.annotations,
        always,
    };
    let candidate = match decision::candidate(&request) {
        Ok(candidate) => candidate,
        Err(skip) => return Ok(Err(skip)),
    };
    let root = config.root_path().ok_or(Error::NoRoot)?;
    let container = Container::open(state.pid, &state.bundle, root)?;
    let payload = match payload::identify(&container.rootfs, &candidate)
        .map_err(|error| Error::failed("look at the container's program", &error))?
    {
        Ok(payload) => payload,
        Err(skip) => return Ok(Err(skip)),
    };
    let policy = Policy::read(&config.annotations)?;
    log::connect();
    warn_of(payload, &config);

    let (facts, cgroups) = facts::observe(&container, state, &config, payload, policy)?;
    let steps = plan::plan(&facts)?;
    apply::apply(&container, &cgroups, facts.layout, &steps)?;
    Ok(Ok(payload))
}

/// What the hook cannot do for this systemd, and the user can.
fn warn_of(payload: Payload, config: &Config) {
    match payload.version {
        None => warn!("cannot tell the version of systemd: taking it for 230 to 255"),
        Some(version @ ..247) if config.process.variable("container").is_none() => warn!(
            "systemd {version} does not know that it is in a container, and will freeze at its end: \
             set container=oci in its environment"
        ),
        Some(_) => {}
    }
}
