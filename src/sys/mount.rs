//! The mount calls of Linux 5.2, on descriptors: a mount is made detached, filled, and attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};

use super::{Error, Named, Result};

/// The attributes of a mount; all of ours are nosuid and nodev.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) read_only: bool,
    pub(crate) noexec: bool,
    pub(crate) noatime: bool,
}

/// A file system made from its name and options, not attached anywhere yet (fsopen, fsmount).
/// An option without a value is a flag.
pub(crate) fn create(
    kind: &'static str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).named("fsopen", kind)?;
    let fail = |call, object: &str, errno: rustix::io::Errno| Error {
        said: last_message(context.as_fd()),
        ..Error::new(call, object, errno.raw_os_error())
    };
    // The source is what mount(8) and findmnt(8) show; by itself it would be "none".
    for (key, value) in [("source", kind)].iter().chain(options) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)
        }
        .map_err(|errno| fail("fsconfig", key, errno))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(|errno| fail("fsconfig", kind, errno))?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, attributes.read_only);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, attributes.noexec);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOATIME, attributes.noatime);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
        .map_err(|errno| fail("fsmount", kind, errno))
}

/// What the file system wrote into its context, `e tmpfs: Bad value for 'size'`, without the `e`.
fn last_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut text = [0; 256];
    let length = rustix::io::read(context, &mut text).ok()?;
    let text = String::from_utf8_lossy(text.get(2..length)?)
        .trim()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

/// A second, detached mount of the directory or file behind a descriptor.
pub(crate) fn duplicate(of: impl AsFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(of, c"", flags).named("open_tree", "")
}

/// Attach a detached mount, or move an attached one, onto the file behind `target`.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd, object: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags).named("move_mount", object)
}

/// Make the mount whose root directory is `mount` private. It has to be attached.
///
/// `mount_setattr(2)` would take the descriptor; no crate wraps it, so the way is through the
/// working directory, which nothing else in this program depends on.
pub(crate) fn make_private(mount: impl AsFd) -> Result<()> {
    rustix::process::fchdir(mount).named("fchdir", "")?;
    rustix::mount::mount_change(c".", MountPropagationFlags::PRIVATE).named("mount", "private")
}

/// Set the attributes of the attached mount whose root directory is `mount`.
pub(crate) fn set_attributes(mount: impl AsFd, attributes: Attributes) -> Result<()> {
    rustix::process::fchdir(mount).named("fchdir", "")?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, attributes.read_only);
    flags.set(MountFlags::NOEXEC, attributes.noexec);
    flags.set(MountFlags::NOATIME, attributes.noatime);
    rustix::mount::mount_remount(c".", flags, c"").named("mount", "remount,bind")
}
