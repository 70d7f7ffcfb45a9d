//! What the kernel says of a process in /proc, parsed. It knows nothing of containers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use procfs::process::{MountInfos, MountOptFields};
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

/// Whether a mount in the process's namespace is shared with others: what is mounted in it shows in
/// those too. It reads the whole table, so it is asked only where the runtime made no mount to go on:
/// of a user's own mounts on our places, of a directory on the way to the cgroup tree, and of what a
/// machine ID is bound over.
pub(crate) fn is_shared(process: &OwnedFd, mount: u64) -> sys::Result<bool> {
    let file = File::from(sys::open_at(process, "mountinfo", OFlags::RDONLY, 0)?);
    is_shared_in(BufReader::new(file.take(MOUNTS_LIMIT)), mount)
}

/// The same in the text of it.
pub(crate) fn is_shared_in(text: impl BufRead, mount: u64) -> sys::Result<bool> {
    let mounts = MountInfos::from_buf_read(text).map_err(|error| unreadable("mountinfo", error))?;
    Ok(mounts.into_iter().any(|found| {
        let is_shared = |field: &MountOptFields| matches!(field, MountOptFields::Shared(_));
        u64::try_from(found.mnt_id) == Ok(mount) && found.opt_fields.iter().any(is_shared)
    }))
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
