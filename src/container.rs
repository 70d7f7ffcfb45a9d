//! The container that the state names: its process, its namespaces and its root file system, each
//! held by a descriptor. Opening is the check that it is a container at all, and not the host.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, Refusal};
use crate::proc::{self, Mounted};
use crate::process::{self, Namespace};
use crate::rootfs::Rootfs;
use crate::sys::{self, OFlags, Resolve};

/// A container between "created" and "its program runs".
pub(crate) struct Container {
    pub(crate) pid: i32,
    pub(crate) rootfs: Rootfs,
    /// The root of the tmpfs on /run, where that is the container's own and as soon as it is there.
    /// What is written on it goes here: who shares the image may move another mount to its name.
    pub(crate) run: Option<OwnedFd>,
    /// The mount on /etc that was looked at, if there is one.
    pub(crate) etc_mount: Option<u64>,
    proc: OwnedFd,
    mount_namespace: OwnedFd,
    /// `None` when the container is in the runtime's cgroup namespace.
    cgroup_namespace: Option<OwnedFd>,
    /// `None` when the container is in the hook's user namespace.
    user_namespace: Option<UserNamespace>,
}

/// A user namespace that is the container's own.
struct UserNamespace {
    /// `None` when the hook has entered it.
    to_enter: Option<OwnedFd>,
    /// Its root's user and group, as the hook sees them.
    root: (u32, u32),
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
                Error::failed("open the container's process", error)
            }
        };
        let proc = proc::open(&pid.to_string()).map_err(gone)?;
        let other = |name| other_namespace(&proc, name).map_err(gone);
        let Some(mount_namespace) = other("mnt")? else {
            return Err(Error::Refused(Refusal::OwnMountNamespace(pid)));
        };
        // Not readable from a rootless runtime's user namespace; there it cannot be entered either.
        match sys::open_host("/proc/1/ns/mnt", OFlags::RDONLY) {
            Err(error) if error.is_forbidden() || error.is_missing() => {}
            hosts => {
                let hosts = hosts.map_err(|error| Error::failed("look at the host", error))?;
                if is_same(&hosts, &mount_namespace).map_err(gone)? {
                    return Err(Error::Refused(Refusal::HostMountNamespace(pid)));
                }
            }
        }
        let user_namespace = match other("user")? {
            None => None,
            Some(namespace) => {
                let root = proc::root(&proc).map_err(gone)?;
                let root = root.ok_or(Error::Refused(Refusal::NoRoot))?;
                Some(UserNamespace {
                    to_enter: Some(namespace),
                    root,
                })
            }
        };
        let cgroup_namespace = other("cgroup")?;
        let rootfs = open_rootfs(&proc, &bundle.join(root))?;
        Ok(Self {
            pid,
            rootfs,
            run: None,
            etc_mount: None,
            proc,
            mount_namespace,
            cgroup_namespace,
            user_namespace,
        })
    }

    /// The container's root, as the hook sees it, where the container has a user namespace of its
    /// own.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        self.user_namespace.as_ref().map(|namespace| namespace.root)
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

    /// Whether the hook is still outside of the container's own user namespace, and so has the
    /// rights of its runtime.
    pub(crate) fn is_outside(&self) -> bool {
        self.user_namespace
            .as_ref()
            .is_none_or(|user| user.to_enter.is_some())
    }

    /// Enter the container's user namespace, if it has its own, and become its root.
    pub(crate) fn enter_user_namespace(&mut self) -> sys::Result<()> {
        let Some(user) = &mut self.user_namespace else {
            return Ok(());
        };
        if let Some(namespace) = user.to_enter.take() {
            process::enter(namespace, Namespace::User)?;
            user.root = (0, 0);
        }
        Ok(())
    }

    /// Enter the user and mount namespaces. Descriptors opened before stay what they are.
    pub(crate) fn enter(&mut self) -> sys::Result<()> {
        self.enter_user_namespace()?;
        process::enter(&self.mount_namespace, Namespace::Mount)
    }

    /// What the table of the container's mounts says of one, see [`proc::mount`].
    pub(crate) fn mount(&self, mount: u64) -> sys::Result<Mounted> {
        proc::mount(&self.proc, mount)
    }

    /// Whether what is mounted in a mount shows elsewhere too.
    pub(crate) fn is_shared(&self, mount: u64) -> sys::Result<bool> {
        Ok(self.mount(mount)?.is_shared)
    }

    /// The process's cgroup, see [`proc::cgroup`].
    pub(crate) fn cgroup(&self, controller: &str) -> sys::Result<Option<String>> {
        proc::cgroup(&self.proc, controller)
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
    let failed = |error: sys::Error| Error::failed("open the container's root file system", error);
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
