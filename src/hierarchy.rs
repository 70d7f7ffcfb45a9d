//! Getting hold of the host's hierarchies: in its own mounts, or, where it has none, in one that is
//! made for it; and leaving them as they were. It does not know what a container sees of them.

use std::os::fd::OwnedFd;

use crate::cgroup::Hierarchy;
use crate::proc;
use crate::process::{self, Namespace};
use crate::removal::{self, Removal};
use crate::sys::mount::{Attributes, Context};
use crate::sys::{self, OFlags};

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

    /// A mount of the hierarchy's root of our own, where the host has none.
    ///
    /// cgroup2 is never made from the initial cgroup namespace: that would strip the host's own
    /// mount options. A version 1 hierarchy that does not exist yet comes to be by this, and one
    /// that is about to go (its last cgroups die after their removal) says EBUSY for a while.
    pub(crate) fn mount_root(&self) -> sys::Result<Option<OwnedFd>> {
        let Root::Unmounted(context) = &self.root else {
            return Ok(None);
        };
        if self.hierarchy == Hierarchy::Unified {
            let here = sys::open_host("/proc/self/ns/cgroup", OFlags::RDONLY)?;
            if sys::stat(&here)?.identity == sys::stat(&self.namespace)?.identity {
                process::leave_cgroup_namespace()?;
            }
        }
        let mut mounted = context.mount(options(self.hierarchy), attributes(false));
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
            mounted = context?.mount(options(self.hierarchy), attributes(false));
        }
        mounted.map(Some)
    }
}

/// A mount of the hierarchy as the cgroup namespace has it that the hook is in.
pub(crate) fn mount(hierarchy: Hierarchy, read_only: bool) -> sys::Result<OwnedFd> {
    Context::open(kind(hierarchy))?.mount(options(hierarchy), attributes(read_only))
}

/// How long a hierarchy, or a container's last process, may take to go: 20 ms apart, at most ten times.
const RETRIES: usize = 10;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn kind(hierarchy: Hierarchy) -> &'static str {
    match hierarchy {
        Hierarchy::Named => "cgroup",
        Hierarchy::Unified => "cgroup2",
    }
}

/// The options by which the version 1 hierarchy is known; xattr is what systemd gives it on a host.
fn options(hierarchy: Hierarchy) -> &'static [(&'static str, &'static str)] {
    match hierarchy {
        Hierarchy::Named => &[("none", ""), ("name", "systemd"), ("xattr", "")],
        Hierarchy::Unified => &[],
    }
}

/// Of our cgroup mounts; noatime marks them as ours (see `facts`).
pub(crate) fn attributes(read_only: bool) -> Attributes {
    Attributes {
        read_only,
        noexec: true,
        noatime: true,
    }
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
    // Let go of before the end of the hierarchy: it lasts as long as somebody holds it.
    let removal = {
        let host = Host::open(hierarchy, mount_point)?;
        let made = host.mount_root()?;
        let root = made.as_ref().or(host.mounted());
        let remove = || {
            root.map_or(Ok(Removal::Absent), |root| {
                removal::remove(root, hierarchy, id)
            })
        };
        let mut removal = remove()?;
        for _ in 0..RETRIES {
            if removal != Removal::Populated {
                break;
            }
            std::thread::sleep(PAUSE);
            removal = remove()?;
        }
        removal
    };
    if removal == Removal::Last && hierarchy == Hierarchy::Named && mount_point.is_none() {
        end()?;
    }
    Ok(removal)
}

/// End the version 1 hierarchy: cgroups die some time after their removal, and it goes with the
/// last mount of it after that (EBUSY: it is going).
fn end() -> sys::Result<()> {
    for _ in 0..RETRIES {
        if !exists(Hierarchy::Named)? {
            break;
        }
        std::thread::sleep(PAUSE);
        match mount(Hierarchy::Named, false) {
            Err(error) if !error.is_busy() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the kernel has the hierarchy, mounted or not; cgroup2 it always has.
fn exists(hierarchy: Hierarchy) -> sys::Result<bool> {
    Ok(proc::cgroup(&proc::open("self")?, hierarchy.controller())?.is_some())
}
