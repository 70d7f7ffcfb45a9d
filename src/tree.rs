//! A container's cgroup tree in the making: first, with the host's hierarchies in sight, the place
//! that its systemd owns and the file system that shows it; then, in the container, the mounts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::{Hierarchy, Place, Tree, View};
use crate::place::{self, Removal};
use crate::proc;
use crate::process::{self, Namespace};
use crate::rootfs::Rootfs;
use crate::sys::mount::{self, Attributes, Context};
use crate::sys::{self, OFlags, Resolve};

/// A hierarchy of the host's, as the hook got hold of it.
pub(crate) struct Host {
    hierarchy: Hierarchy,
    root: Root,
    /// The runtime's cgroup namespace.
    namespace: OwnedFd,
}

/// The root of a hierarchy.
enum Root {
    /// In the host's own mount.
    Mounted(OwnedFd),
    /// The host has no mount of it: one that is made when it is needed, of which only the
    /// descriptor exists.
    Unmounted(Context),
}

impl Host {
    /// Get hold of a hierarchy, before the hook leaves the runtime's cgroup namespace.
    pub(crate) fn open(hierarchy: Hierarchy, mount_point: Option<&str>) -> sys::Result<Self> {
        let root = match mount_point {
            Some(path) => Root::Mounted(sys::open_host(path, OFlags::RDONLY | OFlags::DIRECTORY)?),
            None => Root::Unmounted(Context::open(kind(hierarchy))?),
        };
        let namespace = sys::open_host("/proc/self/ns/cgroup", OFlags::RDONLY)?;
        Ok(Self {
            hierarchy,
            root,
            namespace,
        })
    }

    /// The hierarchy's root directory, if the host has it mounted.
    pub(crate) fn mounted(&self) -> Option<&OwnedFd> {
        match &self.root {
            Root::Mounted(root) => Some(root),
            Root::Unmounted(_) => None,
        }
    }

    /// A mount of the hierarchy's root that belongs to nobody else.
    ///
    /// cgroup2 is never made from the initial cgroup namespace: that would strip the host's own
    /// mount options. A version 1 hierarchy that does not exist yet comes to be by this, and one
    /// that is about to go (its last cgroups die after their removal) says EBUSY for a while.
    fn mount_root(&self, context: &Context) -> sys::Result<OwnedFd> {
        if self.hierarchy == Hierarchy::Unified {
            let here = sys::open_host("/proc/self/ns/cgroup", OFlags::RDONLY)?;
            if sys::stat(&here)?.identity == sys::stat(&self.namespace)?.identity {
                process::leave_cgroup_namespace()?;
            }
            return context.mount(&[], attributes(false));
        }
        let mut mounted = context.mount(&NAMED, attributes(false));
        for _ in 0..RETRIES {
            match &mounted {
                Err(error) if error.is_busy() => std::thread::sleep(PAUSE),
                _ => break,
            }
            // A context that failed cannot be used again, and a new one has to be of this namespace.
            let here = sys::open_host("/proc/self/ns/cgroup", OFlags::RDONLY)?;
            process::enter(&self.namespace, Namespace::Cgroup)?;
            let context = Context::open(kind(self.hierarchy));
            process::enter(here, Namespace::Cgroup)?;
            mounted = context?.mount(&NAMED, attributes(false));
        }
        mounted
    }
}

/// How long a hierarchy may take to go: 20 ms apart, at most ten times.
const RETRIES: usize = 10;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// The options by which the version 1 hierarchy is known; xattr is what systemd gives it on a host.
const NAMED: [(&str, &str); 3] = [("none", ""), ("name", "systemd"), ("xattr", "")];

fn kind(hierarchy: Hierarchy) -> &'static str {
    match hierarchy {
        Hierarchy::Named => "cgroup",
        Hierarchy::Unified => "cgroup2",
    }
}

/// Of our cgroup mounts; noatime marks them as ours (see `facts`).
fn attributes(read_only: bool) -> Attributes {
    Attributes {
        read_only,
        noexec: true,
        noatime: true,
    }
}

impl Tree {
    /// Of the mount on the hierarchy's mount point.
    fn attributes(&self) -> Attributes {
        attributes(matches!(self.view, View::Below(_)))
    }
}

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
    /// A clone of the host's mount, or of a part of it: its attributes and propagation are too.
    Clone(OwnedFd),
    /// Our mount of the whole hierarchy.
    Whole(OwnedFd),
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
                if let Root::Unmounted(context) = &self.host.root {
                    self.root = Some(self.host.mount_root(context)?);
                }
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
                Outer::Fresh(mount::create("cgroup", &NAMED, attributes(false))?)
            }
            // Nothing above the place is shown. What the container reads as the path to it is
            // made as cgroups in it, to have something to mount on.
            (Hierarchy::Named, View::Below(path) | View::Within(path)) => {
                make_path(self.place()?, path)?;
                match self.root.take() {
                    Some(root) => Outer::PlaceOf(root),
                    None => Outer::Clone(mount::duplicate(self.place()?)?),
                }
            }
            (Hierarchy::Unified, _) => match (self.root.take(), self.host.mounted()) {
                (Some(root), _) => Outer::Whole(root),
                (None, Some(host)) if !has_cgroup_namespace => {
                    Outer::Clone(mount::duplicate(host)?)
                }
                _ => Outer::Fresh(mount::create("cgroup2", &[], tree.attributes())?),
            },
        });
        Ok(())
    }

    /// Attach the tree in the container: as it is, or read-only with a second mount of the place,
    /// writable, in it. Over what the runtime mounted there, since crun makes that read-only
    /// after the hook.
    pub(crate) fn attach(&mut self, tree: &Tree, rootfs: &Rootfs) -> sys::Result<()> {
        let mount_point = tree.hierarchy.mount_point();
        let target = match tree.hierarchy {
            Hierarchy::Named => rootfs.make_directory(mount_point)?,
            Hierarchy::Unified => rootfs.open_directory(mount_point)?,
        };
        let outer = self
            .outer
            .take()
            .ok_or_else(|| sys::Error::missing("move_mount", mount_point))?;
        let attach = |mount: &OwnedFd| mount::attach(mount, &target, Path::new(mount_point));
        let (outer, is_fresh) = match outer {
            Outer::Fresh(outer) => (outer, true),
            Outer::Clone(outer) | Outer::Whole(outer) => (outer, false),
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
            mount::set_attributes(&outer, tree.attributes())?;
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
            return Err(sys::Error::missing("statx", mount_point));
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

/// Remove what was made for a container in a hierarchy, and the hierarchy if that was made too.
/// Its last processes may be on their way out still.
pub(crate) fn clean_up(
    hierarchy: Hierarchy,
    mount_point: Option<&str>,
    id: &str,
) -> sys::Result<Removal> {
    // Looking into a hierarchy that does not exist would make it.
    if mount_point.is_none() && !exists(hierarchy)? {
        return Ok(Removal::Absent);
    }
    let host = Host::open(hierarchy, mount_point)?;
    let removal = {
        let made;
        let root = match &host.root {
            Root::Mounted(root) => root,
            Root::Unmounted(context) => {
                made = host.mount_root(context)?;
                &made
            }
        };
        let mut removal = place::remove(root, hierarchy, id)?;
        for _ in 0..RETRIES {
            if removal != Removal::Populated {
                break;
            }
            std::thread::sleep(PAUSE);
            removal = place::remove(root, hierarchy, id)?;
        }
        removal
    };
    if removal == Removal::Last && hierarchy == Hierarchy::Named && host.mounted().is_none() {
        end_hierarchy(&host)?;
    }
    Ok(removal)
}

/// Cgroups die some time after their removal, and a version 1 hierarchy goes with the last mount
/// of it after that.
fn end_hierarchy(host: &Host) -> sys::Result<()> {
    for _ in 0..RETRIES {
        if !exists(host.hierarchy)? {
            break;
        }
        std::thread::sleep(PAUSE);
        drop(host.mount_root(&Context::open(kind(host.hierarchy))?)?);
    }
    Ok(())
}

/// Whether the kernel has the hierarchy, mounted or not; cgroup2 it always has.
fn exists(hierarchy: Hierarchy) -> sys::Result<bool> {
    Ok(proc::cgroup(&proc::open("self")?, hierarchy.controller())?.is_some())
}
