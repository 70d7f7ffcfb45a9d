//! What only a machine of its own shows: other kernels, a host whose systemd holds cgroup v2 with `nsdelegate` and
//! every controller, podman with the cgroup manager that needs such a host. All of it runs inside such a machine,
//! which `tests/lab/vm` boots, on the lab that `tests/lab/images`, `runtimes` and `youki` have built before:
//!
//! ```sh
//! make test-vm                            # everything here, on each kernel
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/tests/lab/vm 6.12"
//! cargo test --test vm -- --ignored --test-threads=1 --nocapture
//! CELL="crun sid" cargo test --test vm -- --ignored --nocapture matrix     # the cells with these words
//! ```

// Each test binary uses its own part of this.
#[allow(unused_imports)]
#[path = "../lab/mod.rs"]
mod lab;

mod limits;
mod matrix;
mod podman;
mod selinux;

use std::path::Path;

/// The cgroups of this machine, as the views are called; and a word of caution, since some tests change it for good.
fn cgroups() -> &'static str {
    assert!(
        std::env::var_os("OCI_SYSTEMD_HOOK_MACHINE").is_some(),
        "this is no machine to throw away: make test-vm, or tests/lab/vm KERNEL in front of this command"
    );
    let has = |path| Path::new("/sys/fs/cgroup").join(path).exists();
    match (has("cgroup.controllers"), has("unified")) {
        (true, _) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
    }
}

/// What the kernel calls itself.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    release.trim().to_owned()
}
