//! The cgroups that the hook makes: a leaf below the container's own, or a place by the container's
//! id at the root of a hierarchy, which is removed at poststop (see [`crate::removal`]). All through
//! descriptors of the host's cgroup file systems.

use std::os::fd::OwnedFd;

use crate::cgroup::{Hierarchy, LEAF, TOP};
use crate::removal;
use crate::sys::{self, OFlags, attributes};

/// How often other hooks may take away the place that was just made.
const ATTEMPTS: usize = 100;
/// The processes of a cgroup, one a line.
const PROCS: &str = "cgroup.procs";
/// The files of a cgroup that go with its delegation, one a line (cgroups(7)).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";

/// Make the leaf below P and move the process there. P has no process then, so that its
/// controllers can be enabled for the leaf ("no internal processes", cgroups(7)).
pub(crate) fn make_leaf(own: &OwnedFd, pid: i32, enable_controllers: bool) -> sys::Result<OwnedFd> {
    make_directory(own, LEAF)?;
    let leaf = sys::open_directory_at(own, LEAF)?;
    join(&leaf, pid)?;
    if enable_controllers {
        match enable(own) {
            // Not the caller's to enable, or somebody else is in P too: the limits of P hold all the same.
            Err(error) if error.is_forbidden() || error.is_busy() => {
                log::warn!("systemd has no controllers: {error}");
            }
            enabled => enabled?,
        }
    }
    Ok(leaf)
}

/// Enable those controllers that P has and systemd accounts with.
fn enable(own: &OwnedFd) -> sys::Result<()> {
    let controllers = sys::open_at(own, "cgroup.controllers", OFlags::RDONLY, 0)?;
    let controllers = sys::read_up_to(controllers, 4096, "cgroup.controllers")?;
    let wanted = String::from_utf8_lossy(&controllers)
        .split_whitespace()
        .filter(|name| matches!(*name, "cpu" | "cpuset" | "io" | "memory" | "pids"))
        .flat_map(|name| ["+", name, " "])
        .collect::<String>();
    if wanted.is_empty() {
        return Ok(());
    }
    let control = sys::open_at(own, "cgroup.subtree_control", OFlags::WRONLY, 0)?;
    sys::write(control, wanted.as_bytes(), "cgroup.subtree_control")
}

/// Make the place of the container `id` and move the process there; then remove those of containers
/// that ended without a poststop.
pub(crate) fn make(
    root: &OwnedFd,
    hierarchy: Hierarchy,
    id: &str,
    pid: i32,
) -> sys::Result<OwnedFd> {
    let mut attempt = 1;
    let (top, place) = loop {
        match make_once(root, hierarchy, id, pid) {
            // Another hook removed what was empty still, between two of our calls.
            Err(error) if attempt < ATTEMPTS && error.is_gone() => attempt += 1,
            made => break made?,
        }
    };
    // Not before: the longer the way from one call to the next, the more comes in between.
    if let Err(error) = removal::sweep(&top, hierarchy, id) {
        log::info!("left: {TOP}: {error}");
    }
    Ok(place)
}

/// The cgroup of all places, and the new one.
fn make_once(
    root: &OwnedFd,
    hierarchy: Hierarchy,
    id: &str,
    pid: i32,
) -> sys::Result<(OwnedFd, OwnedFd)> {
    make_directory(root, TOP)?;
    let top = sys::open_directory_at(root, TOP)?;
    removal::make_room(&top, hierarchy, id)?;
    sys::make_directory_at(&top, id, 0o755)?;
    let place = sys::open_directory_at(&top, id)?;
    join(&place, pid)?;
    // Another hook, for a container of the same id, may have removed it and made its own.
    if !is_alone(&place, pid)? {
        return Err(sys::Error::busy("read", PROCS));
    }
    Ok((top, place))
}

/// Give a place to the container's root, which in a user namespace is not the host's: its
/// directory and, on cgroup2, the files that the kernel names; not its limits.
pub(crate) fn delegate(place: &OwnedFd, hierarchy: Hierarchy, root: (u32, u32)) -> sys::Result<()> {
    attributes::set_owner_at(place, ".", root)?;
    if hierarchy == Hierarchy::Named {
        return Ok(());
    }
    let files = sys::open_host(DELEGATE, OFlags::RDONLY)?;
    let files = sys::read_up_to(files, 4096, DELEGATE)?;
    for name in String::from_utf8_lossy(&files).lines() {
        // Some are there only where their controller is.
        match attributes::set_owner_at(place, name, root) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn make_directory(parent: &OwnedFd, name: &str) -> sys::Result<()> {
    match sys::make_directory_at(parent, name, 0o755) {
        Err(error) if !error.is_existing() => Err(error),
        _ => Ok(()),
    }
}

fn join(cgroup: &OwnedFd, pid: i32) -> sys::Result<()> {
    let procs = sys::open_at(cgroup, PROCS, OFlags::WRONLY, 0)?;
    sys::write(procs, pid.to_string().as_bytes(), PROCS)
}

/// Whether a cgroup holds this process and no other.
pub(crate) fn is_alone(cgroup: &OwnedFd, pid: i32) -> sys::Result<bool> {
    let procs = sys::open_at(cgroup, PROCS, OFlags::RDONLY, 0)?;
    Ok(sys::read_up_to(procs, 64, PROCS)? == format!("{pid}\n").as_bytes())
}
