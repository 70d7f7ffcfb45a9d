//! The cgroups that the hook makes: a leaf below the container's own, or a place by the container's
//! id at the root of a hierarchy, which is removed at poststop. All through descriptors of the
//! host's cgroup file systems; nothing that the hook did not make is ever removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::cgroup::{Hierarchy, LEAF, TOP};
use crate::sys::{self, FileType, OFlags, attributes};

/// How many cgroups are removed for a container that has ended, and how many at a start for all
/// together that ended without a poststop: systemd's own trees have some hundred.
const MAX_CGROUPS: usize = 1_000_000;
const MAX_SWEPT: usize = 10_000;
/// How many cgroups of a place are asked for a process, where the kernel does not tell it at once.
const MAX_ASKED: usize = 10_000;
/// How many names of a cgroup's children are read at a time.
const MAX_NAMES: usize = 64;
/// How often a place is gone through, where another hook comes in between.
const MAX_ROUNDS: usize = 100;
/// How often a cgroup may be in use, and then for nothing that can be seen.
const MAX_MISSED: usize = 1000;
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
            Err(error) if attempt < ATTEMPTS && error.is_gone() => {
                attempt += 1;
            }
            made => return made,
        }
    }
}

fn make_once(root: &OwnedFd, hierarchy: Hierarchy, id: &str, pid: i32) -> sys::Result<OwnedFd> {
    make_directory(root, TOP)?;
    let top = open(root, TOP)?;
    let mut work = Work::of(MAX_SWEPT);
    for dead in children(&top, MAX_SWEPT)?
        .iter()
        .filter(|name| name.as_os_str() != id)
    {
        let removed = remove_dead(&top, hierarchy, dead, &mut work);
        if let Err(error) = removed {
            log::info!("left: {TOP}/{}: {error}", dead.display());
        }
    }
    // Of an earlier container with this id, which has ended; or of one that lives, since ids are
    // unique to a runtime's state directory only.
    remove_dead(&top, hierarchy, OsStr::new(id), &mut Work::of(MAX_CGROUPS))?;
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
    let removal = remove_dead(&top, hierarchy, OsStr::new(id), &mut Work::of(MAX_CGROUPS))?;
    match sys::remove_directory_at(root, TOP) {
        Ok(()) => Ok(Removal::Last),
        Err(error) if error.is_in_use() || error.is_missing() => Ok(removal),
        Err(error) => Err(error),
    }
}

/// How many cgroups may still be asked for a process, and removed.
struct Work {
    asked: usize,
    removed: usize,
}

impl Work {
    fn of(cgroups: usize) -> Work {
        Work {
            asked: cgroups,
            removed: cgroups,
        }
    }

    fn is_done(&self) -> bool {
        self.asked == 0 || self.removed == 0
    }
}

/// Remove a place and all below it, unless a process is left there.
fn remove_dead(
    top: &OwnedFd,
    hierarchy: Hierarchy,
    name: &OsStr,
    work: &mut Work,
) -> sys::Result<Removal> {
    let mut round = 0;
    loop {
        // Another hook may have removed it and made it anew.
        let tree = match open(top, name) {
            Err(error) if error.is_missing() => return Ok(Removal::Absent),
            tree => tree?,
        };
        match sys::remove_directory_at(top, name) {
            Err(error) if error.is_in_use() && round < MAX_ROUNDS && !work.is_done() => {
                round += 1;
            }
            Err(error) if !error.is_missing() => return Err(error),
            _ => return Ok(Removal::Removed),
        }
        match remove_below(&tree, hierarchy, work) {
            Ok(true) => return Ok(Removal::Populated),
            // Another hook that removes here too takes away what is about to be looked at, or hides
            // its neighbours from the list: what is left is looked at again.
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
}

/// Remove what is below a place, the deepest first, unless a process is left there: say whether one is.
/// However many they are, deep, and long their names, the removal holds a descriptor and a few names.
fn remove_below(tree: &OwnedFd, hierarchy: Hierarchy, work: &mut Work) -> sys::Result<bool> {
    if is_populated(tree, hierarchy, &mut work.asked)? {
        return Ok(true);
    }
    let mut here = open(tree, ".")?;
    let mut depth = 0_usize;
    let mut came_down = false;
    let mut missed = 0;
    while work.removed > 0 {
        let names = children(&here, MAX_NAMES)?;
        if names.is_empty() {
            if came_down {
                match is_populated(&here, hierarchy, &mut work.asked) {
                    Ok(true) => return Ok(true),
                    Err(error) if !error.is_gone() => return Err(error),
                    // Another hook took what it was in use for, or it; or a process that dies is
                    // not listed any more.
                    _ if missed < MAX_MISSED => missed += 1,
                    _ => return Ok(true),
                }
            }
            if depth == 0 {
                break;
            }
            here = open(&here, "..")?;
            depth -= 1;
            came_down = false;
            continue;
        }
        came_down = false;
        let Some(name) = remove_each(&here, names, &mut work.removed)? else {
            continue;
        };
        match open(&here, name) {
            Err(error) if error.is_missing() => work.removed = work.removed.saturating_sub(1),
            child => {
                here = child?;
                depth += 1;
                came_down = true;
            }
        }
    }
    Ok(false)
}

/// Remove cgroups up to the first that is in use, and say which that is.
fn remove_each(
    parent: &OwnedFd,
    names: Vec<OsString>,
    left: &mut usize,
) -> sys::Result<Option<OsString>> {
    for name in names {
        match sys::remove_directory_at(parent, &name) {
            Err(error) if error.is_in_use() => return Ok(Some(name)),
            Err(error) if !error.is_missing() => return Err(error),
            _ => *left = left.saturating_sub(1),
        }
    }
    Ok(None)
}

/// Whether a process lives in a cgroup or below it.
fn is_populated(tree: &OwnedFd, hierarchy: Hierarchy, asked: &mut usize) -> sys::Result<bool> {
    let read = |cgroup: &OwnedFd, file: &str| {
        sys::read_up_to(sys::open_at(cgroup, file, OFlags::RDONLY, 0)?, 4096, file)
    };
    if hierarchy == Hierarchy::Unified {
        let events = read(tree, "cgroup.events")?;
        return Ok(!events
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"populated 0"));
    }
    // Version 1 has no such file: each is asked, but not more than some. A container that hides its
    // processes behind these counts as dead, and loses empty cgroups of its own.
    let mut left = MAX_ASKED;
    let mut here = open(tree, ".")?;
    // The way down: on each level what is still to be asked.
    let mut way = Vec::new();
    loop {
        *asked = asked.saturating_sub(1);
        if !read(&here, "cgroup.procs")?.is_empty() {
            return Ok(true);
        }
        // Half of them at most, so that there are some for what is below.
        let names = children(&here, left.div_ceil(2))?;
        left -= names.len();
        way.push(names);
        let next = loop {
            let Some(names) = way.last_mut() else {
                return Ok(false);
            };
            if let Some(name) = names.pop() {
                break name;
            }
            way.pop();
            if !way.is_empty() {
                here = open(&here, "..")?;
            }
        };
        here = open(&here, next)?;
    }
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
