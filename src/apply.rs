//! Doing what the plan says, step by step, with the descriptors that were opened on the way. The
//! first step that fails ends it; the runtime then takes the container down with all our mounts.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::container::Container;
use crate::error::Error;
use crate::keep::{self, Failure};
use crate::plan::{PlaceObstacle, Step, Tmpfs};
use crate::rootfs;
use crate::run;
use crate::seed::seed;
use crate::sys::mount::{self, Attributes};
use crate::sys::{self, OFlags, Resolve};
use crate::tree::Workpiece;

const TOP: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Apply the steps to the container, in order.
///
/// # Errors
/// [`Error::Failed`] with the sentence of the step that failed.
pub(crate) fn apply(
    container: &mut Container,
    workpiece: &mut Workpiece,
    id: &str,
    steps: &[Step],
) -> Result<(), Error> {
    for step in steps {
        log::debug!("{step}");
        match step {
            Step::MoveProcess {
                tree,
                enable_controllers,
            } => workpiece.move_process(tree, container.pid, id, *enable_controllers),
            Step::Delegate { hierarchy, root } => workpiece.delegate(*hierarchy, *root),
            Step::OpenTree(tree) => workpiece.open(tree, container.has_cgroup_namespace()),
            Step::EnterNamespaces => container.enter(),
            Step::MountTmpfs(tmpfs) => match mount_tmpfs(container, tmpfs) {
                Err(Failure::TooMuch) => too_much(container, tmpfs)?,
                Err(Failure::Call(error)) => Err(error),
                Ok(mount) if tmpfs.destination == "/run" => {
                    container.run = Some(mount);
                    Ok(())
                }
                Ok(_) => Ok(()),
            },
            Step::NameManager => container.run.as_ref().map_or(Ok(()), run::name_manager),
            Step::MakeLegacyTree { label } => {
                let target = isolated(container, TOP, step)?;
                attach_empty(&target, TOP, Some("systemd"), label.as_deref())
            }
            Step::CoverUnified { label, is_made } => {
                let target = unified_to_cover(container, *is_made, step)?;
                target.map_or(Ok(()), |target| {
                    attach_empty(&target, UNIFIED, None, label.as_deref())
                })
            }
            Step::AttachTree(tree) => {
                let target = isolated(container, tree.hierarchy.mount_point(), step)?;
                workpiece.attach(tree, &target)
            }
            Step::SeedMachineId(wish) => seed(container, wish),
        }
        .map_err(|error| Error::failed(step, error))?;
    }
    Ok(())
}

/// The directory at a path, where what is mounted on it shows nowhere else: a mount (the runtime's may
/// be a clone of the host's) is made private.
fn isolated(container: &Container, path: &'static str, step: &Step) -> Result<OwnedFd, Error> {
    let failed = |error: sys::Error| Error::failed(step, error);
    let target = container.rootfs.open_directory(path).map_err(failed)?;
    let stat = sys::stat(&target).map_err(failed)?;
    if stat.is_mount {
        mount::make_private(&target).map_err(failed)?;
    } else if container.is_shared(stat.mount).map_err(failed)? {
        return Err(Error::Place(path, PlaceObstacle::Shared));
    }
    Ok(target)
}

/// Where systemd would mount cgroup2; `None` where something is mounted, which is left as it is, or
/// nothing can be.
fn unified_to_cover(
    container: &Container,
    is_made: bool,
    step: &Step,
) -> Result<Option<OwnedFd>, Error> {
    let failed = |error: sys::Error| Error::failed(step, error);
    if !is_made && container.rootfs.find(UNIFIED).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let target = match container.rootfs.make_directory(UNIFIED) {
        // Then systemd cannot make it either.
        Err(error) if error.is_read_only() => return Ok(None),
        target => target.map_err(failed)?,
    };
    let stat = sys::stat(&target).map_err(failed)?;
    if stat.is_mount {
        return Ok(None);
    }
    if container.is_shared(stat.mount).map_err(failed)? {
        return Err(Error::Place(UNIFIED, PlaceObstacle::Shared));
    }
    Ok(Some(target))
}

/// Attach a read-only tmpfs with nothing in it but perhaps a directory.
fn attach_empty(
    target: &OwnedFd,
    path: &str,
    directory: Option<&str>,
    label: Option<&str>,
) -> sys::Result<()> {
    let mount = mount::create_small(label)?;
    if let Some(name) = directory {
        sys::make_directory_at(&mount, name, 0o755)?;
    }
    mount::attach(&mount, target, Path::new(path))?;
    mount::set_attributes(&mount, mount::READ_ONLY)
}

/// Detached, filled, and attached last; then the user's mounts are moved, the originals: crun makes
/// them read-only later through its own descriptors, and would not reach a clone.
fn mount_tmpfs(container: &Container, tmpfs: &Tmpfs) -> Result<OwnedFd, Failure> {
    let target = match (
        &container.run,
        Path::new(tmpfs.destination).strip_prefix("/run"),
    ) {
        (Some(run), Ok(name)) => rootfs::make_directory_at(run, name)?,
        _ => make_unshared(container, tmpfs.destination)?,
    };
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
    Ok(mount)
}

/// A directory of the image to mount on. Who shares the image may have moved a mount to its name since
/// it was looked at: what is mounted there must not show on the host.
fn make_unshared(container: &Container, path: &str) -> sys::Result<OwnedFd> {
    let target = container.rootfs.make_directory(path)?;
    let (image, here) = (sys::stat(container.rootfs.root())?, sys::stat(&target)?);
    if here.mount != image.mount && container.is_shared(here.mount)? {
        return Err(sys::Error::busy("openat", path));
    }
    Ok(target)
}

/// All or nothing: what is too much to copy stays where it is. /tmp then does without a tmpfs, and
/// systemd without its own, which it could not mount; nothing can do without the others.
fn too_much(container: &Container, tmpfs: &Tmpfs) -> Result<sys::Result<()>, Error> {
    if tmpfs.destination != "/tmp" {
        return Err(Error::Place(tmpfs.destination, PlaceObstacle::TooMuch));
    }
    log::warn!("/tmp stays as it is: {}", PlaceObstacle::TooMuch);
    let Some(run) = &container.run else {
        log::warn!("tmp.mount is going to fail: it cannot be masked in the user's own /run");
        return Ok(Ok(()));
    };
    Ok(run::mask(run, "tmp.mount"))
}
