//! Looking at the host that the runtime runs on: what is the same for all of its containers.

use crate::cgroup::Layout;
use crate::machine_id::MachineId;
use crate::proc;
use crate::sys::{self, OFlags};

/// What is mounted on /sys/fs/cgroup in the runtime's mount namespace.
pub(crate) fn layout() -> sys::Result<Layout> {
    let file_system = |path| match sys::open_host(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.is_missing() => Ok(None),
        opened => sys::file_system(opened?).map(Some),
    };
    let is = |path, kind: fn(&sys::FileSystem) -> bool| {
        Ok(file_system(path)?.is_some_and(|found| kind(&found)))
    };
    Ok(if is("/sys/fs/cgroup", sys::FileSystem::is_cgroup2)? {
        Layout::Unified
    } else if !is("/sys/fs/cgroup/systemd", sys::FileSystem::is_cgroup)? {
        Layout::Absent
    } else if is("/sys/fs/cgroup/unified", sys::FileSystem::is_cgroup2)? {
        Layout::Hybrid
    } else {
        Layout::Legacy
    })
}

/// Whether a file system (`MAJOR:MINOR`) is mounted on the host, as far as the runtime sees it. Of what
/// was made for a container only, it sees none.
pub(crate) fn has_device(device: &str) -> sys::Result<bool> {
    proc::has_device(&proc::open("self")?, device)
}

/// Whether the kernel wants labels.
pub(crate) fn is_selinux_enabled() -> sys::Result<bool> {
    match sys::open_host("/sys/fs/selinux", OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.is_missing() => Ok(false),
        opened => Ok(sys::file_system(opened?)?.is_selinux()),
    }
}

/// The host's own machine ID; a host that has none does without.
///
/// # Errors
/// It cannot be read this time: the container would get another ID than the last time.
pub(crate) fn machine_id() -> sys::Result<Option<MachineId>> {
    let path = "/etc/machine-id";
    let file = match sys::open_host(path, OFlags::RDONLY) {
        Err(error) if error.is_no_path() || error.is_forbidden() => return Ok(None),
        file => file?,
    };
    match sys::read_up_to(file, 64, path) {
        Err(error) if error.is_directory() => Ok(None),
        text => Ok(MachineId::parse(&text?)),
    }
}
