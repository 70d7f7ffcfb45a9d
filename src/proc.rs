//! What the kernel says of a process in /proc, parsed. It knows nothing of containers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use procfs::process::{MountInfo, MountOptFields};
use procfs::{FromBufRead, ProcError, ProcessCGroups};

use crate::sys::{self, OFlags};

/// These files have a line for each hierarchy or range; 64 KiB are some hundred of them.
const LIMIT: u64 = 64 << 10;
/// A line has about 150 bytes, and a namespace 100 000 mounts at most (`fs.mount-max`).
const MOUNTS_LIMIT: u64 = 32 << 20;

/// Open `/proc/NAME`, the directory of a process; it stays this process's, whatever becomes of
/// the number.
pub(crate) fn open(name: &str) -> sys::Result<OwnedFd> {
    sys::open_host(&format!("/proc/{name}"), OFlags::PATH | OFlags::DIRECTORY)
}

/// The process's cgroup in the hierarchy whose line names `controller` (`""` is cgroup2), as the
/// cgroup namespace that the hook is in sees it. `None` when there is no such hierarchy.
pub(crate) fn cgroup(process: &OwnedFd, controller: &str) -> sys::Result<Option<String>> {
    cgroup_in(read(process, "cgroup")?, controller)
}

/// The same in the text of it.
pub(crate) fn cgroup_in(text: impl BufRead, controller: &str) -> sys::Result<Option<String>> {
    let groups =
        ProcessCGroups::from_buf_read(text).map_err(|error| unreadable("cgroup", error))?;
    Ok(groups.into_iter().find_map(|group| {
        let found = match controller {
            "" => group.hierarchy == 0,
            name => group
                .controllers
                .iter()
                .any(|controller| controller == name),
        };
        found.then_some(group.pathname)
    }))
}

/// What the table says of a mount.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// What is mounted in it shows in other namespaces too.
    pub(crate) is_shared: bool,
    /// Its file system, `MAJOR:MINOR`; what statx(2) says of a file is another number on btrfs.
    pub(crate) device: String,
}

/// A mount in the process's namespace. It reads the table up to there, so it is asked only where the
/// runtime made no mount to go on: of mounts on our places that are there already, of a directory on
/// the way to the cgroup tree, and of what a machine ID is bound over.
pub(crate) fn mount(process: &OwnedFd, mount: u64) -> sys::Result<Mounted> {
    let found = mount_in(mountinfo(process)?, mount)?;
    found.ok_or_else(|| sys::Error::busy("read", "mountinfo"))
}

/// The same in the text of it.
pub(crate) fn mount_in(text: impl BufRead, mount: u64) -> sys::Result<Option<Mounted>> {
    let is_it = |found: &MountInfo| u64::try_from(found.mnt_id) == Ok(mount);
    let is_shared = |field: &MountOptFields| matches!(field, MountOptFields::Shared(_));
    Ok(find(text, is_it)?.map(|found| Mounted {
        is_shared: found.opt_fields.iter().any(is_shared),
        device: found.majmin,
    }))
}

/// Whether the process's namespace has a mount of a file system, seen or covered.
pub(crate) fn has_device(process: &OwnedFd, device: &str) -> sys::Result<bool> {
    let found = find(mountinfo(process)?, |found| found.majmin == device)?;
    Ok(found.is_some())
}

fn mountinfo(process: &OwnedFd) -> sys::Result<impl BufRead> {
    let file = File::from(sys::open_at(process, "mountinfo", OFlags::RDONLY, 0)?);
    Ok(BufReader::new(file.take(MOUNTS_LIMIT)))
}

/// The first mount that is such a one, line by line: a table may have megabytes.
fn find(text: impl BufRead, is_it: impl Fn(&MountInfo) -> bool) -> sys::Result<Option<MountInfo>> {
    for line in text.lines() {
        let line = line.map_err(|error| sys::Error::of_io("read", "mountinfo", &error))?;
        let found = MountInfo::from_line(&line).map_err(|error| unreadable("mountinfo", error))?;
        if is_it(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The user and the group, as the hook sees them, that are root in the process's user namespace.
pub(crate) fn root(process: &OwnedFd) -> sys::Result<Option<(u32, u32)>> {
    let mapped = |name| -> sys::Result<Option<u32>> {
        let mut text = String::new();
        read(process, name)?
            .read_to_string(&mut text)
            .map_err(|error| sys::Error::of_io("read", name, &error))?;
        Ok(text.lines().find_map(of_zero))
    };
    Ok(mapped("uid_map")?.zip(mapped("gid_map")?))
}

/// The outer ID of 0 in a line `INSIDE OUTSIDE LENGTH` (`user_namespaces(7)`).
pub(crate) fn of_zero(line: &str) -> Option<u32> {
    let mut numbers = line.split_whitespace().map(str::parse::<u32>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(0), Ok(outside)) => Some(outside),
        _ => None,
    }
}

/// What the system said, or else that the text is not what it should be.
fn unreadable(name: &str, error: ProcError) -> sys::Error {
    match error {
        ProcError::Io(error, _) => sys::Error::of_io("read", name, &error),
        other => sys::Error::of_io("read", name, &io::Error::other(other.to_string())),
    }
}

fn read(process: &OwnedFd, name: &str) -> sys::Result<BufReader<io::Take<File>>> {
    let file = File::from(sys::open_at(process, name, OFlags::RDONLY, 0)?);
    Ok(BufReader::new(file.take(LIMIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_who_is_root_of_a_user_namespace() {
        for (line, root) in [
            ("         0     100000      65536", Some(100_000)),
            ("0 0 4294967295", Some(0)),
            ("1 100001 65535", None),
            ("", None),
            ("x y z", None),
        ] {
            assert_eq!(of_zero(line), root, "{line}");
        }
    }
}
