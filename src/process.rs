//! The hook's own process: its signals, its namespaces, and the names of errors. It knows no files.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};

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
/// nobody in the container can look into the hook (CVE-2016-9962, CVE-2019-5736).
pub(crate) fn settle() {
    // None of the three can fail with these arguments.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let _ = set_dumpable(false);
    umask(Mode::empty());
}

/// A namespace that setns(2) enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Cgroup,
    Mount,
}

/// Enter a namespace by its descriptor.
pub(crate) fn enter(namespace: impl AsFd, kind: Namespace) -> crate::sys::Result<()> {
    let (flag, name) = match kind {
        Namespace::Cgroup => (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
        Namespace::Mount => (CloneFlags::CLONE_NEWNS, "mnt"),
    };
    setns(namespace, flag).map_err(|errno| crate::sys::Error::new("setns", name, errno as i32))
}
