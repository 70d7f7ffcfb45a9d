//! The mount calls of Linux 5.2, on descriptors: a mount is made detached, filled, and attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::error::Named;
use super::{Error, Result};

/// The attributes of a mount; all of ours are nosuid and nodev.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) read_only: bool,
    pub(crate) noexec: bool,
    pub(crate) noatime: bool,
}

/// Of the small ones that hold something for the container to read.
pub(crate) const READ_ONLY: Attributes = Attributes {
    read_only: true,
    noexec: true,
    noatime: false,
};

/// A file system that is going to be made. A cgroup file system shows the cgroup namespace that it
/// was opened in, whichever the process is in when it is made.
#[derive(Debug)]
pub(crate) struct Context {
    kind: &'static str,
    fd: OwnedFd,
}

impl Context {
    pub(crate) fn open(kind: &'static str) -> Result<Self> {
        let fd = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).named("fsopen", kind)?;
        Ok(Self { kind, fd })
    }

    /// Make it with these options, and a mount of it that is not attached anywhere yet. An option
    /// without a value is a flag.
    pub(crate) fn mount(
        &self,
        options: &[(&str, &str)],
        attributes: Attributes,
    ) -> Result<OwnedFd> {
        // The source is what mount(8) and findmnt(8) show; by itself it would be "none".
        for (key, value) in [("source", self.kind)].iter().chain(options) {
            if value.is_empty() {
                rustix::mount::fsconfig_set_flag(&self.fd, *key)
            } else {
                rustix::mount::fsconfig_set_string(&self.fd, *key, *value)
            }
            .map_err(|errno| self.refused("fsconfig", key, errno))?;
        }
        rustix::mount::fsconfig_create(&self.fd)
            .map_err(|errno| self.refused("fsconfig", self.kind, errno))?;
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, attributes.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, attributes.noexec);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOATIME, attributes.noatime);
        rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, flags)
            .map_err(|errno| self.refused("fsmount", self.kind, errno))
    }

    fn refused(&self, call: &'static str, object: &str, errno: rustix::io::Errno) -> Error {
        Error::new(call, object, errno.raw_os_error()).saying(last_message(self.fd.as_fd()))
    }
}

/// Open and mount in one.
pub(crate) fn create(
    kind: &'static str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd> {
    Context::open(kind)?.mount(options, attributes)
}

/// A tmpfs for a name or a line, writable for as long as it takes to put them there: it is to be
/// made [`READ_ONLY`] when it is attached.
pub(crate) fn create_small(label: Option<&str>) -> Result<OwnedFd> {
    let mut options = vec![("mode", "755"), ("size", "4k")];
    options.extend(label.map(|label| ("context", label)));
    let writable = Attributes {
        read_only: false,
        ..READ_ONLY
    };
    create("tmpfs", &options, writable)
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

/// Take away the mount whose root directory is `mount`; what is still open of it stays usable.
pub(crate) fn detach(mount: impl AsFd) -> Result<()> {
    rustix::process::fchdir(mount).named("fchdir", "")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).named("umount2", "")
}
