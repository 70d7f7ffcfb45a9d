//! The hook's own process: its signals, its namespaces, and the names of errors. It knows no files.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use crate::sys::{Error, Result};

/// The errno's name, `ENOENT`.
pub(crate) fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

/// The errno in words, `No such file or directory`.
pub(crate) fn errno_text(errno: i32) -> &'static str {
    Errno::from_raw(errno).desc()
}

/// Undo what runtimes leave behind in a hook: crun blocks all signals, so that not even the
/// timeout's SIGTERM would arrive; a umask would bite into every mode. Non-dumpable, so that
/// nobody in the container can look into the hook (CVE-2016-9962, CVE-2019-5736). Only SIGXFSZ stays
/// blocked: under the container's own limit of file sizes, which crun gives the hook, a write fails
/// then instead of ending it without a word.
pub(crate) fn settle() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    // None of the three can fail with these arguments.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None);
    let _ = set_dumpable(false);
    umask(Mode::empty());
}

/// Whether the hook is root, be it of a user namespace only. A rootless runtime that has none of its
/// own runs its hooks as its user.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A namespace that setns(2) enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Cgroup,
    Mount,
    User,
}

/// Enter a namespace by its descriptor. In a user namespace the hook becomes its root.
pub(crate) fn enter(namespace: impl AsFd, kind: Namespace) -> Result<()> {
    let (flag, name) = match kind {
        Namespace::Cgroup => (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
        Namespace::Mount => (CloneFlags::CLONE_NEWNS, "mnt"),
        Namespace::User => (CloneFlags::CLONE_NEWUSER, "user"),
    };
    setns(namespace, flag).map_err(|errno| Error::new("setns", name, errno as i32))?;
    if kind == Namespace::User {
        become_root()?;
    }
    Ok(())
}

fn become_root() -> Result<()> {
    let failed = |call| move |errno| Error::new(call, "0", errno as i32);
    // Denied in rootless user namespaces; the groups that stay are the caller's own.
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(failed("setgroups")(errno)),
    }
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(group, group, group).map_err(failed("setresgid"))?;
    setresuid(user, user, user).map_err(failed("setresuid"))
}

/// Begin a cgroup namespace of the hook's own, so that it is not in the initial one any more.
pub(crate) fn leave_cgroup_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(|errno| Error::new("unshare", "cgroup", errno as i32))
}
