//! The cgroups that the hook makes: a leaf below the container's own, or a place by the container's
//! id at the root of a hierarchy, which is removed at poststop. All through descriptors of the
//! host's cgroup file systems; nothing that the hook did not make is ever removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::{Hierarchy, LEAF, TOP};
use crate::sys::{self, FileType, OFlags, Resolve, attributes};

/// How many cgroups are removed at a time, and how often: systemd's own trees have some hundred.
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
    for dead in children(&top)?.iter().filter(|name| name.as_os_str() != id) {
        let removed = remove_dead(&top, hierarchy, dead);
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
        match remove_once(top, hierarchy, name) {
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
fn remove_once(top: &OwnedFd, hierarchy: Hierarchy, name: &OsStr) -> sys::Result<Removal> {
    let tree = match open(top, name) {
        Err(error) if error.is_missing() => return Ok(Removal::Absent),
        tree => tree?,
    };
    let below = descendants(&tree)?;
    if is_populated(&tree, hierarchy, &below)? {
        return Ok(Removal::Populated);
    }
    for path in below.iter().rev() {
        match sys::remove_directory_at(&tree, path) {
            Err(error) if !error.is_in_use() => return Err(error),
            _ => {}
        }
    }
    match sys::remove_directory_at(top, name) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(Removal::Removed),
    }
}

/// Version 1 has no `cgroup.events` to say so.
fn is_populated(tree: &OwnedFd, hierarchy: Hierarchy, below: &[PathBuf]) -> sys::Result<bool> {
    let read = |file: &Path| {
        let opened = sys::open_below(tree, file, OFlags::RDONLY, Resolve::Beneath)?;
        sys::read_up_to(opened, 4096, &file.display().to_string())
    };
    if hierarchy == Hierarchy::Unified {
        let events = read(Path::new("cgroup.events"))?;
        return Ok(!events
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"populated 0"));
    }
    for cgroup in std::iter::once(&PathBuf::new()).chain(below) {
        if !read(&cgroup.join("cgroup.procs"))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Cgroups below one, each after its parent; not more than a round takes.
fn descendants(tree: &OwnedFd) -> sys::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::new()];
    while let Some(path) = next.pop()
        && found.len() < MAX_CGROUPS
    {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = sys::open_below(tree, &path, flags, Resolve::Beneath)?;
        for name in children(&directory)? {
            found.push(path.join(&name));
            next.push(path.join(name));
        }
    }
    Ok(found)
}

fn children(cgroup: &OwnedFd) -> sys::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in sys::entries(cgroup)?.take(2 * MAX_CGROUPS) {
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
