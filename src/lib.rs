//! An OCI hook that lets an unmodified systemd boot in an unprivileged container.
//!
//! The story, in the order in which [`run()`] tells it:
//!
//! 1. [`oci`]: the container's state and the bundle's config.json, as far as they matter ([`json`]
//!    reads them).
//! 2. [`decision`]: is the container a candidate, and what do its annotations wish?
//! 3. [`container`]: its process, namespaces and root file system, each held by a descriptor.
//! 4. [`payload`]: is its program systemd, and which ([`elf`])?
//! 5. [`facts`]: what else a plan depends on, observed, of the [`host`] too; [`cgroup`] decides
//!    which tree it gets.
//! 6. [`plan`]: facts in, steps out.
//! 7. [`apply`]: the steps, done ([`keep`] saves what is covered, [`mod@run`] writes on the tmpfs,
//!    [`tree`] and [`place`] make the cgroup tree, [`seed`] writes the machine ID).
//!
//! At poststop only [`hierarchy`] has something to do: what [`place`] made is removed ([`removal`]).
//!
//! A container that is not systemd's leaves this way at the first step that can tell. Below it all
//! are [`sys`] and [`process`], the kernel's calls, [`proc`], its texts, and [`rootfs`], paths inside
//! the image.

mod apply;
mod cgroup;
mod cli;
mod container;
mod decision;
mod elf;
mod error;
mod facts;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hierarchy;
mod host;
mod json;
mod keep;
mod log;
mod machine_id;
mod oci;
mod payload;
mod place;
mod plan;
mod proc;
mod process;
mod removal;
mod rootfs;
mod run;
mod seed;
mod sys;
mod tree;

use std::borrow::Cow;
use std::io::{Read, Write};
use std::path::Path;

use ::log::{info, warn};

use cgroup::Hierarchy;
use cli::{Invocation, Stage};
use container::Container;
use decision::{Policy, Skip};
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
            // Nobody is left to tell when standard output is closed.
            let _ = std::io::stdout().write_all(text.as_bytes());
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
            Ok(payload) => info!("prepared for {payload}"),
            Err(skip) => info!("nothing to do: {skip}"),
        },
        Stage::Poststop => clean_up(&state.id)?,
    }
    Ok(())
}

/// Prepare a created container, unless there is a reason to leave it alone.
fn prepare(state: &State, always: bool) -> Result<Result<Payload, Skip>, Error> {
    if !state.bundle.is_absolute() {
        return Err(Error::BadState("its bundle is not an absolute path".into()));
    }
    let bundle = bundle(state);
    let config = Config::read(&bundle)?;
    let request = config.request(always);
    let candidate = match decision::candidate(&request) {
        Ok(candidate) => candidate,
        Err(skip) => return Ok(Err(skip)),
    };
    let root = config.root_path().ok_or(Error::NoRoot)?;
    let mut container = Container::open(state.pid, &bundle, root)?;
    let payload = match payload::identify(&container.rootfs, &candidate)
        .map_err(|error| Error::failed("look at the container's program", error))?
    {
        Ok(payload) => payload,
        Err(skip) => return Ok(Err(skip)),
    };
    let policy = Policy::read(config.annotations())?;
    log::connect();
    warn_of(payload, &config);

    if !process::is_root() {
        // A rootless runtime without a user namespace around it: its user has rights only in there.
        container
            .enter_user_namespace()
            .map_err(|error| Error::failed("enter the container's user namespace", error))?;
    }
    let (facts, mut workpiece) =
        facts::observe(&mut container, state, &bundle, &config, payload, policy)?;
    let steps = plan::plan(&facts)?;
    apply::apply(&mut container, &mut workpiece, &state.id, &steps)?;
    Ok(Ok(payload))
}

/// The container's bundle. With a user namespace, crun from 1.21 on may say that it is "/", the
/// directory that it is in itself (mended in 2026, containers/crun#2263); its process is in the bundle.
fn bundle(state: &State) -> Cow<'_, Path> {
    let told = &state.bundle;
    if told == Path::new("/")
        && !told.join("config.json").exists()
        && let Ok(bundle) = std::fs::read_link(format!("/proc/{}/cwd", state.pid))
    {
        return Cow::Owned(bundle);
    }
    Cow::Borrowed(told)
}

/// Remove the place that was made for a container, if one was. All else lies in its namespaces and
/// in its own cgroup, and went with them.
fn clean_up(id: &str) -> Result<(), Error> {
    let failed = |error| Error::failed("remove the container's cgroup", error);
    if !cgroup::is_name(id) {
        return Ok(());
    }
    let layout = host::layout().map_err(failed)?;
    let mut result = Ok(());
    for hierarchy in [Hierarchy::Named, Hierarchy::Unified] {
        let mount_point = hierarchy.host_mount_point(layout);
        match hierarchy::clean_up(hierarchy, mount_point, id) {
            Ok(removal) => info!("{hierarchy}: {removal:?}"),
            // Nor could it have made one.
            Err(error) if error.is_forbidden() => info!("{hierarchy}: left alone: {error}"),
            Err(error) => result = result.and(Err(failed(error))),
        }
    }
    result
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
