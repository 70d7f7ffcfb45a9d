//! Doing what the plan says, step by step, with the descriptors that were opened on the way. The
//! first step that fails ends it; the runtime then takes the container down with all our mounts.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cgroup::{Hierarchy, LEAF, Layout, Place, Tree, View};
use crate::container::Container;
use crate::error::Error;
use crate::facts::Cgroups;
use crate::keep::{self, Failure};
use crate::plan::{PlaceObstacle, Step, Tmpfs};
use crate::rootfs::Rootfs;
use crate::seed::seed;
use crate::sys::mount::{self, Attributes};
use crate::sys::{self, OFlags, Resolve};

/// What systemd reads as the name of its container manager (Container Interface).
const MANAGER: &[u8] = b"oci\n";
const RUN_HOST: &str = "/run/host";

/// A cgroup file system that is going to be the container's.
struct OpenedTree {
    mount: OwnedFd,
    /// The mount is a clone of the host's: its attributes and propagation are the host's still.
    is_clone: bool,
    /// The ID of the cgroup that has to show at the path that the container reads.
    place: u64,
}

/// Apply the steps to the container, in order.
///
/// # Errors
/// [`Error::Failed`] with the sentence of the step that failed.
pub(crate) fn apply(
    container: &Container,
    cgroups: &Cgroups,
    layout: Layout,
    steps: &[Step],
) -> Result<(), Error> {
    let rootfs = &container.rootfs;
    let mut opened = None;
    for step in steps {
        log::debug!("{step}");
        match step {
            Step::MakeLeaf { enable_controllers } => {
                make_leaf(&cgroups.own, container.pid, *enable_controllers)
            }
            Step::OpenTree(tree) => {
                open_tree(container, cgroups, layout, tree).map(|tree| opened = Some(tree))
            }
            Step::EnterMountNamespace => container.enter_mount_namespace(),
            Step::MountTmpfs(tmpfs) => match mount_tmpfs(rootfs, tmpfs) {
                Err(Failure::TooMuch) => too_much(rootfs, tmpfs)?,
                Err(Failure::Call(error)) => Err(error),
                Ok(()) => Ok(()),
            },
            Step::NameManager => name_manager(rootfs),
            Step::MakeLegacyTree { label } => make_legacy_tree(rootfs, label.as_deref()),
            Step::AttachTree(tree) => match &opened {
                Some(opened) => attach_tree(rootfs, tree, opened),
                None => Ok(()),
            },
            Step::SeedMachineId { id, keep } => seed(rootfs, *id, *keep),
        }
        .map_err(|error| Error::failed(step, &error))?;
    }
    Ok(())
}

/// Make the leaf below P and move the process there. P has no process then, so that its
/// controllers can be enabled for the leaf ("no internal processes", cgroups(7)).
fn make_leaf(own: &OwnedFd, pid: i32, enable_controllers: bool) -> sys::Result<()> {
    match sys::make_directory_at(own, LEAF, 0o755) {
        Err(error) if !error.is_existing() => return Err(error),
        _ => {}
    }
    let flags = OFlags::WRONLY;
    let procs = sys::open_below(own, format!("{LEAF}/cgroup.procs"), flags, Resolve::Beneath)?;
    sys::write(procs, pid.to_string().as_bytes(), "cgroup.procs")?;
    if enable_controllers {
        let enabled = enable(own);
        enabled.unwrap_or_else(|error| log::warn!("systemd has no controllers: {error}"));
    }
    Ok(())
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

/// Open the mount that the container is going to see at the hierarchy's mount point, in the
/// container's cgroup namespace. A fresh cgroup2 from the initial one would strip the host's own
/// mount options and show the whole host, so a container without a namespace gets a clone.
fn open_tree(
    container: &Container,
    cgroups: &Cgroups,
    layout: Layout,
    tree: &Tree,
) -> sys::Result<OpenedTree> {
    let place = match tree.place {
        Place::Own => sys::stat(&cgroups.own)?,
        Place::Leaf => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            sys::stat(sys::open_below(
                &cgroups.own,
                LEAF,
                flags,
                Resolve::Beneath,
            )?)?
        }
    };
    let is_clone = match (tree.hierarchy, &tree.view) {
        // Nothing above the place is shown.
        (Hierarchy::Named, View::Below(_)) => true,
        (Hierarchy::Named, View::Root) => false,
        (Hierarchy::Unified, _) => !container.has_cgroup_namespace(),
    };
    let mount = match tree.hierarchy {
        Hierarchy::Named if is_clone => {
            make_path(&cgroups.own, tree)?;
            mount::duplicate(&cgroups.own)
        }
        Hierarchy::Unified if is_clone => mount::duplicate(&cgroups.host),
        Hierarchy::Named => {
            let options = [("none", ""), ("name", "systemd"), ("xattr", "")];
            mount::create("cgroup", &options, attributes(tree.view != View::Root))
        }
        Hierarchy::Unified => mount::create("cgroup2", &[], attributes(tree.view != View::Root)),
    }?;
    log::debug!(
        "on a {layout} host, a {} of {}",
        if is_clone { "clone" } else { "mount" },
        tree.hierarchy
    );
    Ok(OpenedTree {
        mount,
        is_clone,
        place: place.inode,
    })
}

/// Make the path that the container reads as cgroups inside its own, to have something to mount on.
fn make_path(own: &OwnedFd, tree: &Tree) -> sys::Result<()> {
    let mut path = std::path::PathBuf::new();
    for part in Path::new(tree.writable_at().unwrap_or("/")).iter().skip(1) {
        path.push(part);
        match sys::make_directory_at(own, &path, 0o755) {
            Err(error) if !error.is_existing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Of our cgroup mounts; noatime marks them as ours (see `facts`).
fn attributes(read_only: bool) -> Attributes {
    Attributes {
        read_only,
        noexec: true,
        noatime: true,
    }
}

/// Attach the tree: as it is, or read-only with a second mount of the place, writable, in it.
/// Over what the runtime mounted there, since crun makes that read-only after the hook.
fn attach_tree(rootfs: &Rootfs, tree: &Tree, opened: &OpenedTree) -> sys::Result<()> {
    let mount_point = tree.hierarchy.mount_point();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = match tree.hierarchy {
        Hierarchy::Named => rootfs.make_directory(mount_point)?,
        Hierarchy::Unified => rootfs.open_directory(mount_point)?,
    };
    let place = match (&tree.view, tree.hierarchy) {
        (View::Below(path), Hierarchy::Unified) => path,
        _ => ".",
    };
    let shown = sys::stat(sys::open_below(
        &opened.mount,
        place,
        flags,
        Resolve::Beneath,
    )?)?;
    if shown.inode != opened.place {
        return Err(sys::Error::missing("statx", mount_point));
    }
    mount::attach(&opened.mount, target, Path::new(mount_point))?;
    if opened.is_clone {
        // Attaching anything below it would otherwise be seen on the host.
        mount::make_private(&opened.mount)?;
        mount::set_attributes(&opened.mount, attributes(tree.view != View::Root))?;
    }
    let View::Below(path) = &tree.view else {
        return Ok(());
    };
    // Only now: before Linux 6.15 nothing can be cloned from a detached mount.
    let place = sys::open_below(&opened.mount, place, flags, Resolve::Beneath)?;
    let writable = mount::duplicate(place)?;
    let target = sys::open_below(&opened.mount, path, flags, Resolve::Beneath)?;
    mount::attach(&writable, target, Path::new(path))?;
    mount::make_private(&writable)?;
    mount::set_attributes(&writable, attributes(false))
}

/// The tmpfs on /sys/fs/cgroup of a container whose config mounts none.
fn make_legacy_tree(rootfs: &Rootfs, label: Option<&str>) -> sys::Result<()> {
    let top = "/sys/fs/cgroup";
    let target = rootfs.open_directory(top)?;
    let mut options = vec![("mode", "755"), ("size", "4k")];
    options.extend(label.map(|label| ("context", label)));
    let attributes = |read_only| Attributes {
        read_only,
        noexec: true,
        noatime: false,
    };
    let mount = mount::create("tmpfs", &options, attributes(false))?;
    sys::make_directory_at(&mount, "systemd", 0o755)?;
    mount::attach(&mount, target, Path::new(top))?;
    mount::set_attributes(&mount, attributes(true))
}

/// Detached, filled, and attached last; then the user's mounts are moved, the originals: crun makes
/// them read-only later through its own descriptors, and would not reach a clone.
fn mount_tmpfs(rootfs: &Rootfs, tmpfs: &Tmpfs) -> Result<(), Failure> {
    let target = rootfs.make_directory(tmpfs.destination)?;
    let options = tmpfs.options();
    let options: Vec<_> = options
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let attributes = Attributes {
        read_only: false,
        noexec: tmpfs.noexec,
        noatime: false,
    };
    let mount = mount::create("tmpfs", &options, attributes)?;
    let held = keep::copy_up(&target, &mount)?;
    mount::attach(&mount, target, Path::new(tmpfs.destination))?;
    for held in held {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let point = sys::open_below(&mount, &held.path, flags, Resolve::Beneath)?;
        mount::attach(held.mount, point, &held.path)?;
    }
    Ok(())
}

/// All or nothing: what is too much to copy stays where it is. /tmp then does without a tmpfs, and
/// systemd without its own, which it could not mount; nothing can do without /run.
fn too_much(rootfs: &Rootfs, tmpfs: &Tmpfs) -> Result<sys::Result<()>, Error> {
    if tmpfs.destination != "/tmp" {
        return Err(Error::Place(tmpfs.destination, PlaceObstacle::TooMuch));
    }
    log::warn!("/tmp stays as it is: {}", PlaceObstacle::TooMuch);
    Ok(mask_tmp(rootfs))
}

fn mask_tmp(rootfs: &Rootfs) -> sys::Result<()> {
    rootfs.make_directory("/run/systemd")?;
    let units = rootfs.make_directory("/run/systemd/system")?;
    match sys::make_link_at(Path::new("/dev/null"), units, "tmp.mount") {
        Err(error) if !error.is_existing() => Err(error),
        _ => Ok(()),
    }
}

fn name_manager(rootfs: &Rootfs) -> sys::Result<()> {
    let directory = rootfs.make_directory(RUN_HOST)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match sys::open_at(directory, "container-manager", flags, 0o444) {
        // Another run of the hook, or a name that the image chose.
        Err(error) if error.is_existing() => Ok(()),
        file => sys::write(file?, MANAGER, "/run/host/container-manager"),
    }
}
