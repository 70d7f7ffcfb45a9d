//! What a file has besides its content, and its copy has to have: owner, mode, times and extended
//! attributes.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode};

use super::error::Named;
use super::{Result, Stat};

/// Change the owner of a name in a directory.
pub(crate) fn set_owner_at(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    owner: (u32, u32),
) -> Result<()> {
    let name = name.as_ref();
    let (uid, gid) = ids(owner);
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .named("fchownat", name)
}

/// Give a name in a directory, which may be a link, the owner and times of `like`. A refused owner
/// is told last.
pub(crate) fn imitate_at(dir: impl AsFd, name: &OsStr, like: &Stat) -> Result<()> {
    let owned = set_owner_at(&dir, name, like.owner);
    rustix::fs::utimensat(&dir, name, &like.times, AtFlags::SYMLINK_NOFOLLOW)
        .named("utimensat", name)?;
    owned
}

/// Give an open file or directory this mode.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).named("fchmod", "")
}

/// Give an open file or directory the owner, mode and times of `like`, in the order in which
/// none of them undoes another. A refused owner is told last.
pub(crate) fn imitate(fd: impl AsFd, like: &Stat) -> Result<()> {
    let (uid, gid) = ids(like.owner);
    let owned = rustix::fs::fchown(&fd, Some(uid), Some(gid)).named("fchown", "");
    set_mode(&fd, like.mode)?;
    rustix::fs::futimens(&fd, &like.times).named("utimensat", "")?;
    owned
}

fn ids((uid, gid): (u32, u32)) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    )
}

/// The kernel's own limit of the names, and of each value.
const LIMIT: usize = 65_536;

/// The names of a file's extended attributes.
pub(crate) fn extended_names(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = vec![0; LIMIT];
    let length = rustix::fs::flistxattr(&fd, &mut names[..]).named("flistxattr", "")?;
    Ok(names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// One extended attribute; `None` if it has gone since it was listed.
pub(crate) fn extended(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0; LIMIT];
    let length = match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
        Err(rustix::io::Errno::NODATA) => return Ok(None),
        length => length.named("fgetxattr", OsStr::from_bytes(name))?,
    };
    value.truncate(length);
    Ok(Some(value))
}

pub(crate) fn set_extended(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, rustix::fs::XattrFlags::empty())
        .named("fsetxattr", OsStr::from_bytes(name))
}
