//! The cgroups that the hook makes: a leaf below the container's own, or a place by the container's
//! id at the root of a hierarchy, which is removed at poststop. All through descriptors of the
//! host's cgroup file systems; nothing that the hook did not make is ever removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::cgroup::{Hierarchy, LEAF, TOP};
use crate::sys::{self, FileType, OFlags, attributes};

/// How many cgroups are removed in a round, and how often: systemd's own trees have some hundred. Of all
/// containers that have ended without a poststop together, the next one removes a round's.
const MAX_CGROUPS: usize = 10_000;
const MAX_ROUNDS: usize = 100;
/// How often another hook's sweep may take away the place that was just made.
const ATTEMPTS: usize = 5;
/// The files of a cgroup that go with its delegation, one a line (cgroups(7)).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";

/// Make the leaf below P and move the process there. P has no process then, so that its
/// controllers can be enabled for the leaf ("no internal processes", cgroups(7)).
pub(crate) fn make_leaf(own: &OwnedFd, pid: i32, enable_controllers: bool) -> sys::Result<OwnedFd> {
    make_directory(own, LEAF)?;
    let leaf = open(own, LEAF)?;
    join(&leaf, pid)?;
    if enable_controllers {
        let enabled = enable(own);
        enabled.unwrap_or_else(|error| log::warn!("systemd has no controllers: {error}"));
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

/// Make the place of the container `id` and move the process there. Places of containers that
/// ended without a poststop are removed on the way.
pub(crate) fn make(
    root: &OwnedFd,
    hierarchy: Hierarchy,
    id: &str,
    pid: i32,
) -> sys::Result<OwnedFd> {
    let mut attempt = 1;
    loop {
        match make_once(root, hierarchy, id, pid) {
            // Another hook's sweep came between two of our calls.
            Err(error) if attempt < ATTEMPTS && (error.is_missing() || error.is_no_device()) => {
                attempt += 1;
            }
            made => return made,
        }
    }
}

fn make_once(root: &OwnedFd, hierarchy: Hierarchy, id: &str, pid: i32) -> sys::Result<OwnedFd> {
    make_directory(root, TOP)?;
    let top = open(root, TOP)?;
    let mut left = MAX_CGROUPS;
    for dead in children(&top, left)?
        .iter()
        .filter(|name| name.as_os_str() != id)
    {
        let removed = remove_once(&top, hierarchy, dead, &mut left);
        if let Err(error) = removed {
            log::info!("left: {TOP}/{}: {error}", dead.display());
        }
    }
    // Of an earlier container with this id, which has ended; or of one that lives, since ids are
    // unique to a runtime's state directory only.
    remove_dead(&top, hierarchy, OsStr::new(id))?;
    sys::make_directory_at(&top, id, 0o755)?;
    let place = open(&top, id)?;
    join(&place, pid)?;
    Ok(place)
}

/// What became of a container's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// There was none.
    Absent,
    /// Some process lives in it.
    Populated,
    /// It is gone, and others are there still.
    Removed,
    /// It was the last of all.
    Last,
}

/// Remove the place of the container `id`, if nothing lives in it, and what is above it if that
/// was the last.
pub(crate) fn remove(root: &OwnedFd, hierarchy: Hierarchy, id: &str) -> sys::Result<Removal> {
    let top = match open(root, TOP) {
        Err(error) if error.is_missing() => return Ok(Removal::Absent),
        top => top?,
    };
    let removal = remove_dead(&top, hierarchy, OsStr::new(id))?;
    match sys::remove_directory_at(root, TOP) {
        Ok(()) => Ok(Removal::Last),
        Err(error) if error.is_in_use() || error.is_missing() => Ok(removal),
        Err(error) => Err(error),
    }
}

/// Remove a tree of cgroups, unless a process is left in it.
fn remove_dead(top: &OwnedFd, hierarchy: Hierarchy, name: &OsStr) -> sys::Result<Removal> {
    let mut round = 1;
    loop {
        match remove_once(top, hierarchy, name, &mut { MAX_CGROUPS }) {
            // A container may have left more than a round takes. Another hook that sweeps here too
            // takes away what is about to be looked at, or hides its neighbours from the list: what
            // is left is looked at again.
            Err(error)
                if round < MAX_ROUNDS
                    && (error.is_in_use() || error.is_missing() || error.is_no_device()) =>
            {
                round += 1;
            }
            removal => return removal,
        }
    }
}

/// One round: what is below the place, and the place if that was all.
fn remove_once(
    top: &OwnedFd,
    hierarchy: Hierarchy,
    name: &OsStr,
    left: &mut usize,
) -> sys::Result<Removal> {
    let tree = match open(top, name) {
        Err(error) if error.is_missing() => return Ok(Removal::Absent),
        tree => tree?,
    };
    if is_populated(&tree, hierarchy, *left)? {
        return Ok(Removal::Populated);
    }
    walk(&tree, left, |parent, name| {
        match sys::remove_directory_at(parent, name) {
            Err(error) if !error.is_in_use() => Err(error),
            _ => Ok(()),
        }
    })?;
    match sys::remove_directory_at(top, name) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(Removal::Removed),
    }
}

/// Whether a process lives in a cgroup or below it.
fn is_populated(tree: &OwnedFd, hierarchy: Hierarchy, mut left: usize) -> sys::Result<bool> {
    let read = |cgroup: &OwnedFd, file: &str| {
        sys::read_up_to(sys::open_at(cgroup, file, OFlags::RDONLY, 0)?, 4096, file)
    };
    if hierarchy == Hierarchy::Unified {
        let events = read(tree, "cgroup.events")?;
        return Ok(!events
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"populated 0"));
    }
    // Version 1 has no such file: each is asked.
    let mut is_populated = !read(tree, "cgroup.procs")?.is_empty();
    walk(tree, &mut left, |parent, name| {
        is_populated = is_populated || !read(&open(parent, name)?, "cgroup.procs")?.is_empty();
        Ok(())
    })?;
    Ok(is_populated)
}

/// Visit the cgroups below one, each by its name in its parent and after those below itself; not more
/// than are `left`. However deep they are and long their names, it holds one descriptor and the names
/// that it has still to go to.
fn walk(
    tree: &OwnedFd,
    left: &mut usize,
    mut visit: impl FnMut(&OwnedFd, &OsStr) -> sys::Result<()>,
) -> sys::Result<()> {
    let mut list = |cgroup: &OwnedFd| -> sys::Result<Vec<OsString>> {
        // Half of them at most, so that there are some for what is below.
        let names = children(cgroup, left.div_ceil(2))?;
        *left -= names.len();
        Ok(names)
    };
    let mut here = open(tree, ".")?;
    // The way down: on each level what is still to be visited, of which the last is gone into.
    let mut way = vec![list(&here)?];
    while let Some(names) = way.last_mut() {
        if let Some(name) = names.last() {
            here = open(&here, name)?;
            way.push(list(&here)?);
            continue;
        }
        way.pop();
        if let Some(name) = way.last_mut().and_then(Vec::pop) {
            here = open(&here, "..")?;
            visit(&here, &name)?;
        }
    }
    Ok(())
}

/// The names of the cgroups in one, but not more than `limit`.
fn children(cgroup: &OwnedFd, limit: usize) -> sys::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in sys::entries(cgroup)? {
        if names.len() >= limit {
            break;
        }
        let (name, kind) = entry?;
        if kind == FileType::Directory {
            names.push(name);
        }
    }
    Ok(names)
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

fn open(parent: impl AsFd, name: impl AsRef<Path>) -> sys::Result<OwnedFd> {
    sys::open_at(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        0,
    )
}

fn join(cgroup: &OwnedFd, pid: i32) -> sys::Result<()> {
    let procs = sys::open_at(cgroup, "cgroup.procs", OFlags::WRONLY, 0)?;
    sys::write(procs, pid.to_string().as_bytes(), "cgroup.procs")
}
