//! A short form of the matrix: each cell is booted, stopped and deleted on this kernel, one line for each.

use std::env;

use crate::lab::{Container, View, edit_as, image_version};
use crate::{cgroups, kernel};

/// The cgroups of the machine, the runtime, the image, and the edits of its config.json. A machine takes its own.
/// No youki: with controllers enabled below the container's cgroup its `exec` ends in EBUSY, where runc and crun follow
/// PID 1; and on a hybrid host of systemd's making it fails at its own mounts, before it calls a hook.
const CELLS: &[(&str, &str, &str, &str)] = &[
    ("v2", "runc", "bullseye", "own"),
    ("v2", "runc", "bookworm", "own"),
    ("v2", "runc", "trixie", "own"),
    ("v2", "runc", "sid", "own"),
    ("v2", "crun", "bullseye", "own"),
    ("v2", "crun", "bookworm", "own"),
    ("v2", "crun", "trixie", "own"),
    ("v2", "crun", "sid", "own"),
    ("v2", "runc", "sid", "host"),
    ("v2", "crun", "bookworm", "host"),
    // A hierarchy that is made for it, and user namespaces.
    ("v2", "runc", "bookworm", "own legacy"),
    ("v2", "crun", "sid", "user"),
    ("hybrid", "runc", "bookworm", "own"),
    ("hybrid", "runc", "sid", "own"),
    ("hybrid", "runc", "trixie", "host"),
    ("v1", "runc", "bullseye", "own"),
    ("v1", "runc", "sid", "host"),
    ("v1", "crun", "trixie", "own"),
    ("v1", "crun", "sid", "own"),
];

#[test]
#[ignore = "needs a machine: make test-vm"]
fn matrix_of_this_machine() {
    let chosen = env::var("CELL").unwrap_or_default();
    let mut failed = Vec::new();
    for (_, runtime, image, edits) in CELLS.iter().filter(|cell| cell.0 == cgroups()) {
        let name = [runtime, cgroups(), image, edits].join(" ");
        if !chosen
            .split_whitespace()
            .all(|word| name.split(' ').any(|own| own == word))
        {
            continue;
        }
        let outcome = attempt(runtime, image, edits);
        let (Ok(line) | Err(line)) = &outcome;
        println!("{} {name}: {line}", kernel());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "not running: {}", failed.join(", "));
}

fn attempt(runtime: &str, image: &str, edits: &str) -> Result<String, String> {
    let view = View::open("trixie", cgroups());
    let container = Container::with(&view, runtime, image, |config| edit_as(edits, config));
    let booted = container.boot()?;
    let stopped = container.stop()?;
    container.delete()?;
    container.is_gone()?;
    Ok(format!(
        "systemd {} running {:.0}s, stopped {:.0}s",
        image_version(image),
        booted.as_secs_f64(),
        stopped.as_secs_f64()
    ))
}
