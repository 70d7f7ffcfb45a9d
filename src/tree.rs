//! A container's cgroup tree in the making: first, with the host's hierarchies in sight, the place
//! that its systemd owns and the file system that shows it; then, in the container, the mounts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::{Hierarchy, Place, Tree, View};
use crate::hierarchy::{self, Host, attributes};
use crate::place;
use crate::sys::mount;
use crate::sys::{self, OFlags, Resolve};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// What has been made of a tree so far.
pub(crate) struct Workpiece {
    host: Host,
    /// The container's cgroup, as the runtime left it.
    own: Option<OwnedFd>,
    /// A mount of the whole hierarchy, where the host has none.
    root: Option<OwnedFd>,
    /// The cgroup that systemd is going to own.
    place: Option<OwnedFd>,
    /// What the container is going to see at the hierarchy's mount point.
    outer: Option<Outer>,
}

/// The mount that goes on the hierarchy's mount point.
enum Outer {
    /// Made for it: all is right already.
    Fresh(OwnedFd),
    /// A clone of the host's mount or of a part of it, or a mount of the whole hierarchy: its
    /// attributes and propagation are still to be set.
    Rough(OwnedFd),
    /// The place, out of our mount of the whole hierarchy. It can only be taken out of it when
    /// that is attached: before Linux 6.15 nothing can be cloned from a detached mount.
    PlaceOf(OwnedFd),
}

impl Workpiece {
    pub(crate) fn new(host: Host, own: Option<OwnedFd>) -> Self {
        Self {
            host,
            own,
            root: None,
            place: None,
            outer: None,
        }
    }

    /// Move the process into the place that the tree is about.
    pub(crate) fn move_process(
        &mut self,
        tree: &Tree,
        pid: i32,
        id: &str,
        enable_controllers: bool,
    ) -> sys::Result<()> {
        self.place = Some(match tree.place {
            Place::Own => return Ok(()),
            Place::Leaf => place::make_leaf(self.own()?, pid, enable_controllers)?,
            Place::Made => {
                self.root = self.host.mount_root()?;
                place::make(self.root()?, tree.hierarchy, id, pid)?
            }
        });
        Ok(())
    }

    /// Give the place to the container's root.
    pub(crate) fn delegate(&self, hierarchy: Hierarchy, root: (u32, u32)) -> sys::Result<()> {
        place::delegate(self.place()?, hierarchy, root)
    }

    /// Open the file system that the container is going to see.
    pub(crate) fn open(&mut self, tree: &Tree, has_cgroup_namespace: bool) -> sys::Result<()> {
        self.outer = Some(match (tree.hierarchy, &tree.view) {
            (Hierarchy::Named, View::Root) => {
                Outer::Fresh(hierarchy::mount(tree.hierarchy, false)?)
            }
            // Nothing above the place is shown. What the container reads as the path to it is
            // made as cgroups in it, to have something to mount on.
            (Hierarchy::Named, View::Below(path) | View::Within(path)) => {
                make_path(self.place()?, path)?;
                match self.root.take() {
                    Some(root) => Outer::PlaceOf(root),
                    None => Outer::Rough(mount::duplicate(self.place()?)?),
                }
            }
            (Hierarchy::Unified, _) => match (self.root.take(), self.host.mounted()) {
                (Some(root), _) => Outer::Rough(root),
                (None, Some(host)) if !has_cgroup_namespace => {
                    Outer::Rough(mount::duplicate(host)?)
                }
                _ => Outer::Fresh(hierarchy::mount(tree.hierarchy, tree.is_read_only())?),
            },
        });
        Ok(())
    }

    /// Attach the tree in the container: as it is, or read-only with a second mount of the place,
    /// writable, in it. Over what the runtime mounted there, since crun makes that read-only
    /// after the hook.
    pub(crate) fn attach(&mut self, tree: &Tree, target: &OwnedFd) -> sys::Result<()> {
        let mount_point = tree.hierarchy.mount_point();
        let outer = self
            .outer
            .take()
            .ok_or_else(|| sys::Error::missing("move_mount", mount_point))?;
        let attach = |mount: &OwnedFd| mount::attach(mount, target, Path::new(mount_point));
        let (outer, is_fresh) = match outer {
            Outer::Fresh(outer) => (outer, true),
            Outer::Rough(outer) => (outer, false),
            Outer::PlaceOf(root) => {
                attach(&root)?;
                let path = tree.place_at().unwrap_or("/");
                let place = sys::open_below(&root, path, DIRECTORY, Resolve::Beneath)?;
                let place = mount::duplicate(place)?;
                mount::detach(&root)?;
                (place, false)
            }
        };
        let shown_at = match (tree.hierarchy, tree.place_at()) {
            (Hierarchy::Unified, Some(path)) => path,
            _ => ".",
        };
        let shown = sys::open_below(&outer, shown_at, DIRECTORY, Resolve::Beneath)?;
        self.check(&shown, mount_point)?;
        attach(&outer)?;
        if !is_fresh {
            // Attaching anything below it would otherwise be seen on the host.
            mount::make_private(&outer)?;
            mount::set_attributes(&outer, attributes(tree.is_read_only()))?;
        }
        let View::Below(path) = &tree.view else {
            return Ok(());
        };
        let place = sys::open_below(&outer, shown_at, DIRECTORY, Resolve::Beneath)?;
        let writable = mount::duplicate(place)?;
        let target = sys::open_below(&outer, path, DIRECTORY, Resolve::Beneath)?;
        mount::attach(&writable, target, Path::new(path))?;
        mount::make_private(&writable)?;
        mount::set_attributes(&writable, attributes(false))
    }

    /// That a mount shows the place, and not what somebody else is in.
    fn check(&self, shown: impl AsFd, mount_point: &str) -> sys::Result<()> {
        if sys::stat(shown)?.inode != sys::stat(self.place()?)?.inode {
            return Err(sys::Error::stale("statx", mount_point));
        }
        Ok(())
    }

    fn own(&self) -> sys::Result<&OwnedFd> {
        self.own
            .as_ref()
            .ok_or_else(|| sys::Error::missing("openat2", "/sys/fs/cgroup"))
    }

    fn root(&self) -> sys::Result<&OwnedFd> {
        let root = self.root.as_ref().or(self.host.mounted());
        root.ok_or_else(|| sys::Error::missing("openat2", "/sys/fs/cgroup"))
    }

    fn place(&self) -> sys::Result<&OwnedFd> {
        self.place.as_ref().map_or_else(|| self.own(), Ok)
    }
}

/// Make a path as cgroups inside a place.
fn make_path(place: &OwnedFd, path: &str) -> sys::Result<()> {
    let mut below = PathBuf::new();
    for part in Path::new(path).iter().skip(1) {
        below.push(part);
        match sys::make_directory_at(place, &below, 0o755) {
            Err(error) if !error.is_existing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
