//! Looking at the container and its host: everything that a plan depends on, observed through
//! descriptors and not guessed from strings. Nothing is changed but the hook's own cgroup
//! namespace, since what the container reads of its cgroups can be read in there only.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::cgroup::{self, Hierarchy, Layout, Membership, Support};
use crate::container::Container;
use crate::decision::Policy;
use crate::error::Error;
use crate::hierarchy::Host;
use crate::host;
use crate::machine_id::MachineId;
use crate::oci::{Config, Given, State};
use crate::payload::Payload;
use crate::place;
use crate::plan::{Facts, LegacyTree, Spot};
use crate::rootfs::Rootfs;
use crate::sys::{self, FileType, OFlags, Resolve, Stat};
use crate::tree::Workpiece;

/// The directories in which systemd looks for a unit, the first that has it wins (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 8] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Observe; the hook is in the container's cgroup namespace afterwards.
///
/// # Errors
/// Something cannot be looked at, or there is no cgroup for this container.
pub(crate) fn observe(
    container: &mut Container,
    state: &State,
    bundle: &Path,
    config: &Config,
    payload: Payload,
    policy: Policy,
) -> Result<(Facts, Workpiece), Error> {
    let host_failed = |error: sys::Error| Error::failed("look at the host", error);
    let layout = host::layout().map_err(host_failed)?;
    let support = Support::of(payload.version, policy.cgroup);
    let hierarchy = Hierarchy::choose(layout, support);
    let (workpiece, membership) = membership(container, &state.id, config, hierarchy, layout)?;
    let tree = cgroup::tree(hierarchy, &membership, &state.id).map_err(Error::Cgroup)?;

    let root_is_read_only = is_read_only(container, config)?;
    if root_is_read_only && !has_own_var(&container.rootfs)? {
        log::warn!("/var is read-only: systemd-logind fails without a writable one (--tmpfs /var)");
    }
    let (run, on_run) = spot(container, bundle, config, "/run")?;
    let (etc, on_etc) = spot(container, bundle, config, "/etc")?;
    container.run = on_run.filter(|_| run.is_ours()).map(|(root, _)| root);
    container.etc_mount = on_etc.map(|(_, stat)| stat.mount);
    let machine = sys::total_memory();
    let selinux = host::is_selinux_enabled().map_err(host_failed)?;
    let facts = Facts {
        run,
        lock: spot(container, bundle, config, "/run/lock")?.0,
        tmp: spot(container, bundle, config, "/tmp")?.0,
        etc,
        image_mounts_tmp: has_unit(&container.rootfs, "tmp.mount")
            .map_err(|error: sys::Error| Error::failed("look for tmp.mount in the image", error))?,
        root_is_read_only,
        memory: config
            .memory_limit()
            .map_or(machine, |limit| limit.min(machine)),
        label: config.mount_label().filter(|_| selinux).map(str::to_owned),
        layout,
        hierarchy,
        tree,
        is_outside: container.is_outside(),
        delegate_to: container.root().filter(|_| container.is_outside()),
        legacy_tree: legacy_tree(container)?,
        may_mount: config.process.may_mount(),
        machine_id: MachineId::of_container(
            config.process.variable("container_uuid"),
            &state.id,
            host::machine_id().map_err(host_failed)?,
        ),
        keep_machine_id: policy.keep_machine_id,
    };
    Ok((facts, workpiece))
}

/// The process's place in the hierarchy: on the host, and as the container sees it.
fn membership(
    container: &Container,
    id: &str,
    config: &Config,
    hierarchy: Hierarchy,
    layout: Layout,
) -> Result<(Workpiece, Membership), Error> {
    let failed = |error: sys::Error| Error::failed("look at the container's cgroup", error);
    let host = Host::open(hierarchy, hierarchy.host_mount_point(layout)).map_err(failed)?;
    // A hierarchy that does not exist yet has all processes in its root when it does.
    let path = || -> Result<String, Error> {
        let path = container.cgroup(hierarchy.controller()).map_err(failed)?;
        Ok(path.unwrap_or_else(|| "/".to_owned()))
    };
    let at = path()?;
    let outside = at.starts_with("/..");
    let own = match host.mounted().filter(|_| !outside) {
        Some(root) => Some(open_cgroup(root, &at).map_err(failed)?),
        None => None,
    };
    let inode = own
        .as_ref()
        .map(sys::stat)
        .transpose()
        .map_err(failed)?
        .map(|stat| stat.inode);
    let is_own = match (&own, inode) {
        (Some(own), Some(inode)) if at != "/" && inode != 1 => {
            place::is_alone(own, container.pid).map_err(failed)?
        }
        _ => false,
    };
    let limited = hierarchy == Hierarchy::Unified
        && at != "/"
        && host
            .mounted()
            .map_or(Ok(true), has_controllers)
            .map_err(failed)?;
    let owned_by_others = match (&own, container.root()) {
        (Some(own), Some((root, _))) if is_own && hierarchy == Hierarchy::Unified => {
            limits_owner(own).map_err(failed)? != root
        }
        _ => false,
    };

    container.enter_cgroup_namespace().map_err(failed)?;
    let view = path()?;
    // In a hierarchy that the host has not mounted only the hook can have made a place.
    let is_made = own.is_none() && at == format!("/{}/{id}", cgroup::TOP);
    let ready = (own.is_some() || is_made)
        && is_ready(container, config, hierarchy, &view, inode).map_err(failed)?;
    let from_root = at == view;
    let membership = Membership {
        view,
        own: is_own,
        limited,
        owned_by_others,
        may_mount: config.process.may_mount(),
        from_root,
        ready,
    };
    Ok((Workpiece::new(host, own), membership))
}

fn open_cgroup(root: &OwnedFd, path: &str) -> sys::Result<OwnedFd> {
    sys::open_below(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Resolve::Beneath,
    )
}

/// Whether the hierarchy has controllers, and so can limit what is in it.
fn has_controllers(root: &OwnedFd) -> sys::Result<bool> {
    let file = sys::open_at(root, "cgroup.controllers", OFlags::RDONLY, 0)?;
    let controllers = sys::read_up_to(file, 4096, "cgroup.controllers")?;
    Ok(!controllers.trim_ascii().is_empty())
}

/// The owner of a cgroup's limits: of a file that every cgroup2 but the root has, and that is not
/// delegated with it.
fn limits_owner(cgroup: &OwnedFd) -> sys::Result<u32> {
    let limit = sys::open_at(cgroup, "cgroup.max.depth", OFlags::PATH, 0)?;
    Ok(sys::stat(limit)?.owner.0)
}

/// Whether the container has its own cgroup, writable, where its systemd looks for it. Without an
/// inode to know it by, the mount has to be one of ours.
fn is_ready(
    container: &Container,
    config: &Config,
    hierarchy: Hierarchy,
    view: &str,
    inode: Option<u64>,
) -> sys::Result<bool> {
    let place = format!("{}{view}", hierarchy.mount_point());
    let Some((place, stat)) = container.rootfs.find(&place)? else {
        return Ok(false);
    };
    let mount = sys::file_system(&place)?;
    let kind = match hierarchy {
        Hierarchy::Named => mount.is_cgroup(),
        Hierarchy::Unified => mount.is_cgroup2(),
    };
    // crun makes what the config mounts read-only after the hook. Our own mounts are noatime, as
    // no runtime's are, so that a second run of the hook knows them.
    let top = Path::new("/sys/fs/cgroup");
    let mut mounts = config.mounts();
    let stays =
        mount.is_noatime() || !mounts.any(|mount| mount.read_only && mount.destination == top);
    let is_shown = match inode {
        Some(inode) => stat.inode == inode && (stat.is_mount || mount.is_noatime()),
        None => mount.is_noatime(),
    };
    Ok(kind && is_shown && !mount.is_read_only() && stays)
}

/// What is at a place that a tmpfs may go on; and if that is a mount, its root.
#[allow(clippy::type_complexity)]
fn spot(
    container: &Container,
    bundle: &Path,
    config: &Config,
    path: &'static str,
) -> Result<(Spot, Option<(OwnedFd, Stat)>), Error> {
    let failed = |error: sys::Error| Error::failed(format!("look at {path} in the image"), error);
    let Some((found, stat)) = container.rootfs.find_entry(path).map_err(failed)? else {
        return Ok((Spot::Missing, None));
    };
    Ok(match stat.kind {
        FileType::Symlink => (Spot::Link, None),
        FileType::Directory if stat.is_mount => {
            let mount = sys::file_system(&found).map_err(failed)?;
            if mount.is_noexec() && path == "/run" {
                log::warn!("the user's own /run is noexec: programs in it cannot be run");
            }
            let mounted = container.mount(stat.mount).map_err(failed)?;
            let is_hosts = host::has_device(&mounted.device).map_err(failed)?;
            let leads_here = |mount: &Given<'_>| leads_to(&container.rootfs, mount, stat.mount);
            let is_bind = || any(config.mounts().filter(|mount| mount.is_bind), leads_here);
            let read_only = || any(config.mounts().filter(|mount| mount.read_only), leads_here);
            let is_writable = || is_given_writable(bundle, config, &stat);
            let spot = Spot::Mount {
                is_ours: mount.is_tmpfs() && !is_hosts && !is_bind().map_err(failed)?,
                read_only: mount.is_read_only()
                    || read_only().map_err(failed)?
                    || is_hosts && !is_writable().map_err(failed)?,
                shared: mounted.is_shared,
            };
            (spot, Some((found, stat)))
        }
        FileType::Directory => (Spot::Directory, None),
        _ => (Spot::NotADirectory, None),
    })
}

fn any<'a>(
    mut mounts: impl Iterator<Item = Given<'a>>,
    is_it: impl Fn(&Given<'a>) -> sys::Result<bool>,
) -> sys::Result<bool> {
    mounts.try_fold(false, |found, mount| Ok(found || is_it(&mount)?))
}

/// Whether the destination of the config's mount leads to a mount, however it is spelled. What the
/// image's links were when the runtime mounted it may be covered by now.
fn leads_to(rootfs: &Rootfs, given: &Given<'_>, mount: u64) -> sys::Result<bool> {
    let found = rootfs.find(&given.destination.to_string_lossy())?;
    Ok(found.is_some_and(|(_, stat)| stat.mount == mount))
}

/// Whether the config gives this directory of the host's, and nowhere read-only: where it is mounted in
/// the end is the image's word, what it shows is not.
fn is_given_writable(bundle: &Path, config: &Config, root: &Stat) -> sys::Result<bool> {
    let mut is_given = false;
    for mount in config.mounts().filter(|mount| mount.is_bind) {
        let source = bundle.join(mount.source);
        let is_it = match sys::open_host(&source.to_string_lossy(), OFlags::PATH) {
            Err(error) if error.is_no_path() || error.is_forbidden() => false,
            source => sys::stat(source?)?.identity == root.identity,
        };
        if is_it && mount.read_only {
            return Ok(false);
        }
        is_given |= is_it;
    }
    Ok(is_given)
}

/// Whether systemd finds a unit of this name that is not masked.
fn has_unit(rootfs: &Rootfs, unit: &str) -> sys::Result<bool> {
    for directory in UNIT_DIRECTORIES {
        let path = format!("{directory}/{unit}");
        if rootfs.find_entry(&path)?.is_some() {
            // Where its links lead to: a mask leads to /dev/null, or nowhere.
            let is_unit = |stat: &sys::Stat| stat.kind == FileType::RegularFile && stat.size > 0;
            return Ok(rootfs.find(&path)?.is_some_and(|(_, stat)| is_unit(&stat)));
        }
    }
    Ok(false)
}

/// Whether the root file system is read-only, or becomes so after the hook.
fn is_read_only(container: &Container, config: &Config) -> Result<bool, Error> {
    let mount = sys::file_system(container.rootfs.root())
        .map_err(|error: sys::Error| Error::failed("look at the root file system", error))?;
    Ok(config.root_becomes_read_only() || mount.is_read_only())
}

/// Whether the user mounted something where services keep their state, or above.
fn has_own_var(rootfs: &Rootfs) -> Result<bool, Error> {
    let failed = |error: sys::Error| Error::failed("look at /var in the image", error);
    let root = sys::stat(rootfs.root()).map_err(failed)?.mount;
    for path in ["/var/lib/systemd", "/var/lib", "/var"] {
        if let Some((_, stat)) = rootfs.find(path).map_err(failed)? {
            return Ok(stat.mount != root);
        }
    }
    Ok(false)
}

/// The tree of a version 1 container: a tmpfs with `systemd` in it.
fn legacy_tree(container: &Container) -> Result<LegacyTree, Error> {
    let failed =
        |error: sys::Error| Error::failed("look at /sys/fs/cgroup in the container", error);
    let rootfs = &container.rootfs;
    let Some((top, stat)) = rootfs.find("/sys/fs/cgroup").map_err(failed)? else {
        return Ok(LegacyTree::Absent);
    };
    if !sys::file_system(top).map_err(failed)?.is_tmpfs() {
        return Ok(LegacyTree::Absent);
    }
    let systemd = rootfs
        .find_entry("/sys/fs/cgroup/systemd")
        .map_err(failed)?;
    if systemd.is_none_or(|(_, stat)| stat.kind != FileType::Directory) {
        return Ok(LegacyTree::Absent);
    }
    let mounted = container.mount(stat.mount).map_err(failed)?;
    let is_hosts = host::has_device(&mounted.device).map_err(failed)?;
    Ok(if is_hosts {
        LegacyTree::Hosts
    } else {
        LegacyTree::Made
    })
}
