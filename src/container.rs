//! The container that the state names: its process, its namespaces and its root file system, each
//! held by a descriptor. Opening is the check that it is a container at all, and not the host.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use procfs::FromBufRead;
use procfs::ProcessCGroups;

use crate::error::{Error, Refusal};
use crate::process::{self, Namespace};
use crate::rootfs::Rootfs;
use crate::sys::{self, OFlags, Resolve};

/// A container between "created" and "its program runs".
pub(crate) struct Container {
    pub(crate) pid: i32,
    pub(crate) rootfs: Rootfs,
    /// `/proc/PID`: stays this process's, whatever becomes of the number.
    proc: OwnedFd,
    mount_namespace: OwnedFd,
    /// `None` when the container is in the runtime's cgroup namespace.
    cgroup_namespace: Option<OwnedFd>,
}

impl Container {
    /// Open the container of a process and a `root.path` (absolute, or relative to the bundle).
    ///
    /// # Errors
    /// [`Error::Refused`] unless the process is alive, in a mount namespace that is neither ours
    /// nor the host's, and the root file system is a mount of its own in there.
    pub(crate) fn open(pid: i32, bundle: &Path, root: &Path) -> Result<Self, Error> {
        if pid <= 1 {
            return Err(Error::Refused(Refusal::Pid(pid)));
        }
        let gone = |error: sys::Error| {
            if error.is_missing() || error.is_no_process() {
                Error::Refused(Refusal::Gone(pid))
            } else {
                Error::failed("open the container's process", &error)
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let proc = sys::open_host(&format!("/proc/{pid}"), flags).map_err(gone)?;
        let other = |name| other_namespace(&proc, name).map_err(gone);
        let Some(mount_namespace) = other("mnt")? else {
            return Err(Error::Refused(Refusal::OwnMountNamespace(pid)));
        };
        // Not readable from a rootless runtime's user namespace; there it cannot be entered either.
        if let Ok(hosts) = sys::open_host("/proc/1/ns/mnt", OFlags::RDONLY)
            && is_same(&hosts, &mount_namespace).map_err(gone)?
        {
            return Err(Error::Refused(Refusal::HostMountNamespace(pid)));
        }
        if other("user")?.is_some() {
            return Err(Error::Refused(Refusal::UserNamespace));
        }
        let cgroup_namespace = other("cgroup")?;
        let rootfs = open_rootfs(&proc, &bundle.join(root))?;
        Ok(Self {
            pid,
            rootfs,
            proc,
            mount_namespace,
            cgroup_namespace,
        })
    }

    /// Whether the container has a cgroup namespace of its own.
    pub(crate) fn has_cgroup_namespace(&self) -> bool {
        self.cgroup_namespace.is_some()
    }

    /// Enter the container's cgroup namespace, so that cgroup file systems and `/proc/PID/cgroup`
    /// begin at its root from here on.
    pub(crate) fn enter_cgroup_namespace(&self) -> sys::Result<()> {
        self.cgroup_namespace
            .as_ref()
            .map_or(Ok(()), |fd| process::enter(fd, Namespace::Cgroup))
    }

    /// Enter the container's mount namespace. Descriptors opened before stay what they are.
    pub(crate) fn enter_mount_namespace(&self) -> sys::Result<()> {
        process::enter(&self.mount_namespace, Namespace::Mount)
    }

    /// The process's cgroup in the hierarchy whose line names `controller` (`""` is cgroup2), as
    /// the cgroup namespace that the hook is in sees it. `None` when it is in none.
    pub(crate) fn cgroup(&self, controller: &str) -> sys::Result<Option<String>> {
        let failed = |error: &std::io::Error| sys::Error::of_io("read", "/proc/PID/cgroup", error);
        let file = File::from(sys::open_at(&self.proc, "cgroup", OFlags::RDONLY, 0)?);
        let groups = ProcessCGroups::from_buf_read(BufReader::new(file.take(64 << 10)))
            .map_err(|error| failed(&std::io::Error::other(error.to_string())))?;
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
}

/// A namespace of the process, unless it is the hook's own too (or the kernel has no such kind).
fn other_namespace(proc: &OwnedFd, name: &str) -> sys::Result<Option<OwnedFd>> {
    let ours = match sys::open_host(&format!("/proc/self/ns/{name}"), OFlags::RDONLY) {
        Err(error) if error.is_missing() => return Ok(None),
        ours => ours?,
    };
    let theirs = sys::open_at(proc, format!("ns/{name}"), OFlags::RDONLY, 0)?;
    Ok((!is_same(&ours, &theirs)?).then_some(theirs))
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> sys::Result<bool> {
    Ok(sys::stat(one)?.identity == sys::stat(other)?.identity)
}

/// Find the root file system at the place where the runtime's namespace has it: it has not pivoted
/// yet, and in the container's namespace a mount lies there, on the directory that the host sees.
fn open_rootfs(proc: &OwnedFd, path: &Path) -> Result<Rootfs, Error> {
    let failed = |error: sys::Error| Error::failed("open the container's root file system", &error);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let top = sys::open_at(proc, "root", flags, 0).map_err(failed)?;
    let root = match sys::open_below(&top, path, flags, Resolve::InRoot) {
        Err(error) if error.is_missing() => {
            return Err(Error::Refused(Refusal::NoRootfs(path.to_owned())));
        }
        opened => opened.map_err(failed)?,
    };
    let stat = sys::stat(&root).map_err(failed)?;
    if !stat.is_mount || stat.identity == sys::stat(&top).map_err(failed)?.identity {
        return Err(Error::Refused(Refusal::NotARootfs(path.to_owned())));
    }
    Ok(Rootfs::new(root))
}
