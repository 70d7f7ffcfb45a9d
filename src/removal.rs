//! Removing the places of containers that have ended, with all that their systemds left in them. Nothing
//! that the hook did not make is removed, and nothing in which a process lives.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use crate::cgroup::{Hierarchy, TOP};
use crate::sys::{self, FileType, OFlags};

/// How many cgroups are looked at or removed for one container, and how deep they are looked for.
const MAX_CGROUPS: usize = 1_000_000;
/// How many are looked at or removed at a start, for all containers together that ended without a
/// poststop: systemd's own trees have some hundred.
const MAX_SWEPT: usize = 10_000;
/// How many cgroups of a place are asked for a process, where the kernel does not tell it at once.
const MAX_ASKED: usize = 10_000;
/// How many names of a cgroup's children are read at a time.
const MAX_NAMES: usize = 64;
/// How often a place is gone through, where another hook comes in between.
const MAX_ROUNDS: usize = 100;
/// How often a cgroup may be in use, and then for nothing that can be seen, with none removed meanwhile.
const MAX_MISSED: usize = 1000;

/// What became of a container's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// There was none.
    Absent,
    /// Some process lives in it, or may: not all could be asked.
    Populated,
    /// It is gone, and others are there still.
    Removed,
    /// It was the last of all.
    Last,
}

/// Remove the place of the container `id`, of which its runtime says that it has ended, and what is
/// above it if that was the last.
pub(crate) fn remove(root: &OwnedFd, hierarchy: Hierarchy, id: &str) -> sys::Result<Removal> {
    let top = match sys::open_directory_at(root, TOP) {
        Err(error) if error.is_missing() => return Ok(Removal::Absent),
        top => top?,
    };
    let mut remover = Remover {
        hierarchy,
        has_ended: true,
        left: MAX_CGROUPS,
    };
    let removal = remover.remove(&top, OsStr::new(id))?;
    match sys::remove_directory_at(root, TOP) {
        Ok(()) => Ok(Removal::Last),
        Err(error) if error.is_in_use() || error.is_missing() => Ok(removal),
        Err(error) => Err(error),
    }
}

/// Remove the place of an earlier container with this id. It may be one that lives, since ids are
/// unique to a runtime's state directory only.
pub(crate) fn make_room(top: &OwnedFd, hierarchy: Hierarchy, id: &str) -> sys::Result<()> {
    let mut remover = Remover {
        hierarchy,
        has_ended: false,
        left: MAX_CGROUPS,
    };
    remover.remove(top, OsStr::new(id)).map(drop)
}

/// Remove the places of containers that ended without a poststop; that of `id` is in use.
pub(crate) fn sweep(top: &OwnedFd, hierarchy: Hierarchy, id: &str) -> sys::Result<()> {
    let mut remover = Remover {
        hierarchy,
        has_ended: false,
        left: MAX_SWEPT,
    };
    for place in children(top, MAX_SWEPT)?.iter().filter(|name| *name != id) {
        if let Err(error) = remover.remove(top, place) {
            log::info!("left: {TOP}/{}: {error}", place.display());
        }
        if remover.left == 0 {
            break;
        }
    }
    Ok(())
}

/// What removes places of a hierarchy.
struct Remover {
    hierarchy: Hierarchy,
    /// Their containers are known to have ended: what is too much to be asked for a process has none.
    has_ended: bool,
    /// How many cgroups may still be looked at or removed.
    left: usize,
}

impl Remover {
    /// Remove a place and all below it, unless a process lives there.
    fn remove(&mut self, top: &OwnedFd, name: &OsStr) -> sys::Result<Removal> {
        let mut round = 0;
        loop {
            // Another hook may have removed it and made it anew.
            let place = match sys::open_directory_at(top, name) {
                Err(error) if error.is_missing() => return Ok(Removal::Absent),
                place => place?,
            };
            match sys::remove_directory_at(top, name) {
                Err(error) if error.is_in_use() && round < MAX_ROUNDS && self.left > 0 => {
                    round += 1;
                }
                Err(error) if !error.is_missing() => return Err(error),
                _ => return Ok(Removal::Removed),
            }
            // Not asked before: one that is being made has no process at first, and cgroups in it next.
            if self.remove_below(&place)? {
                return Ok(Removal::Populated);
            }
        }
    }

    /// Remove what is below a place, the deepest first, unless a process lives there: say whether one
    /// does. However many they are, deep, and long their names, it holds a descriptor and a few names.
    fn remove_below(&mut self, place: &OwnedFd) -> sys::Result<bool> {
        if self.is_populated(place)? {
            return Ok(true);
        }
        let mut here = sys::open_directory_at(place, ".")?;
        let mut depth = 0;
        let mut came_down = false;
        let mut missed = 0;
        while self.left > 0 && depth < MAX_CGROUPS {
            let names = children(&here, MAX_NAMES)?;
            if names.is_empty() {
                if came_down {
                    // Nothing is seen in what was in use: another hook took that, or this cgroup too;
                    // or it is a process that dies, which is not listed any more.
                    if self.is_populated(&here)? || missed == MAX_MISSED {
                        return Ok(true);
                    }
                    missed += 1;
                }
                if depth == 0 {
                    break;
                }
                here = sys::open_directory_at(&here, "..")?;
                depth -= 1;
                came_down = false;
                continue;
            }
            let (removed, in_use) = self.remove_each(&here, names)?;
            if removed > 0 {
                missed = 0;
            }
            let child = in_use.map_or(Ok(None), |name| open_if_there(&here, &name))?;
            came_down = child.is_some();
            if let Some(child) = child {
                here = child;
                depth += 1;
            }
        }
        Ok(false)
    }

    /// Remove cgroups up to the first that is in use: how many are gone, and which that is.
    fn remove_each(
        &mut self,
        parent: &OwnedFd,
        names: Vec<OsString>,
    ) -> sys::Result<(usize, Option<OsString>)> {
        let mut removed = 0;
        for name in names {
            match sys::remove_directory_at(parent, &name) {
                Err(error) if error.is_in_use() => return Ok((removed, Some(name))),
                Err(error) if !error.is_missing() => return Err(error),
                _ => {
                    removed += 1;
                    self.spend();
                }
            }
        }
        Ok((removed, None))
    }

    /// Whether a process lives in a cgroup or below it.
    fn is_populated(&mut self, tree: &OwnedFd) -> sys::Result<bool> {
        match self.hierarchy {
            Hierarchy::Unified => {
                self.spend();
                let events = read(tree, "cgroup.events")?;
                let mut lines = events.split(|byte| *byte == b'\n');
                Ok(!events.is_empty() && !lines.any(|line| line == b"populated 0"))
            }
            Hierarchy::Named => self.has_process(tree),
        }
    }

    /// The same in version 1, which has no such file: each cgroup is asked, but not more than some, nor
    /// more than half of what may still be looked at, so that there is some for the next place.
    fn has_process(&mut self, tree: &OwnedFd) -> sys::Result<bool> {
        let mut left = MAX_ASKED.min(self.left / 2);
        let mut all = true;
        let mut here = sys::open_directory_at(tree, ".")?;
        // The way down: on each level what is still to be asked.
        let mut way = Vec::new();
        loop {
            self.spend();
            if !read(&here, "cgroup.procs")?.is_empty() {
                return Ok(true);
            }
            // Half of them at most, so that there are some for what is below.
            let most = left.div_ceil(2);
            let mut names = children(&here, most + 1)?;
            all &= names.len() <= most;
            names.truncate(most);
            left -= names.len();
            way.push(names);
            here = loop {
                let Some(names) = way.last_mut() else {
                    return Ok(!all && !self.has_ended);
                };
                let Some(name) = names.pop() else {
                    way.pop();
                    if !way.is_empty() {
                        here = sys::open_directory_at(&here, "..")?;
                    }
                    continue;
                };
                if let Some(child) = open_if_there(&here, &name)? {
                    break child;
                }
            };
        }
    }

    /// One more cgroup was looked at or removed.
    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

// Another hook may remove the same cgroups. What it has taken has no process and no children.

/// What a file of a cgroup says; nothing, if the cgroup is gone.
fn read(cgroup: &OwnedFd, file: &str) -> sys::Result<Vec<u8>> {
    let text = sys::open_at(cgroup, file, OFlags::RDONLY, 0)
        .and_then(|opened| sys::read_up_to(opened, 4096, file));
    match text {
        Err(error) if error.is_gone() => Ok(Vec::new()),
        text => text,
    }
}

/// The names of the cgroups in one, but not more than `limit`.
fn children(cgroup: &OwnedFd, limit: usize) -> sys::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in sys::entries(cgroup)? {
        match entry {
            Ok((name, FileType::Directory)) => names.push(name),
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
        if names.len() >= limit {
            break;
        }
    }
    Ok(names)
}

fn open_if_there(parent: &OwnedFd, name: &OsStr) -> sys::Result<Option<OwnedFd>> {
    match sys::open_directory_at(parent, name) {
        Err(error) if error.is_gone() => Ok(None),
        opened => opened.map(Some),
    }
}
