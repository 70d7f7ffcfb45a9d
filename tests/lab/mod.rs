//! Containers on real runtimes: a view of this host's cgroups to start them in, the bundle, the life of one
//! container, and what it left behind. Knows nothing of the hook but where its binary is.

// Each test binary uses its own part of this.
#![allow(dead_code)]

mod accident;
mod bundle;
mod config;
mod console;
mod container;
mod inside;
pub(crate) mod outside;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use bundle::copy_hook;
pub(crate) use config::{
    FIRST_ID, add_capabilities, default_seccomp, docker_defaults_and_hook, edit_as, list,
    remove_mount, use_host_cgroup_namespace,
};
pub(crate) use container::Container;

/// Where `tests/lab/images` and `tests/lab/runtimes` keep what they build.
pub(crate) fn directory() -> PathBuf {
    std::env::var_os("OCI_SYSTEMD_HOOK_LAB")
        .map_or_else(|| "/var/tmp/oci-systemd-hook-lab".into(), PathBuf::from)
}

/// The image's tree; `tests/lab/images` builds it.
pub(crate) fn image(name: &str) -> PathBuf {
    let tree = directory().join("rootfs").join(name);
    assert!(
        tree.is_dir(),
        "there is no {}: tests/lab/images {name} builds it",
        tree.display()
    );
    tree
}

/// The version of an image's systemd, as the name of its own shared library has it.
pub(crate) fn image_version(name: &str) -> String {
    // Debian 11 still has it in /lib/systemd.
    let places = ["lib", "usr/lib"].map(|lib| image(name).join(lib));
    let places = places.iter().flat_map(|lib| {
        let below = fs::read_dir(lib).into_iter().flatten().flatten();
        below
            .map(|entry| entry.path().join("systemd"))
            .chain([lib.join("systemd")])
            .collect::<Vec<_>>()
    });
    let mut files = places.flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let version = files.find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let rest = name.strip_prefix("libsystemd-shared-")?;
        Some(rest.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    });
    version.unwrap_or_else(|| panic!("no systemd in the image {name}"))
}

/// The binary that the containers call: ours, or the one that `HOOK_UNDER_TEST` names.
pub(crate) fn hook() -> PathBuf {
    std::env::var_os("HOOK_UNDER_TEST").map_or_else(
        || env!("CARGO_BIN_EXE_oci-systemd-hook").into(),
        PathBuf::from,
    )
}

/// The hierarchies that the kernel has at the moment, mounted or not, by the names in /proc/self/cgroup.
pub(crate) fn hierarchies() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc is there");
    let names = text.lines().filter_map(|line| line.split(':').nth(1));
    names.map(str::to_owned).collect()
}

/// Those that are there and were not before, when they have had a minute to go: a hierarchy goes some time after its
/// last cgroup, and views of other tests have hierarchies of their own on a host with cgroup2 alone.
pub(crate) fn new_hierarchies(before: &[String]) -> Vec<String> {
    let started = Instant::now();
    loop {
        let mut new = hierarchies();
        new.retain(|name| !before.contains(name));
        if new.is_empty() || started.elapsed().as_secs() > 60 {
            return new;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A mount namespace with one view of the host's cgroups, which lives as long as this value. Its holder waits for
/// the end of its standard input, so that it also ends with a test that is killed.
pub(crate) struct View {
    holder: Child,
    _stdin: ChildStdin,
    pub(crate) cgroups: String,
}

impl View {
    /// `root` is `trixie` (whose runtimes `tests/lab/runtimes` brings) or `host`; `cgroups` is `hybrid`, `v1`, `v2`, `none`.
    pub(crate) fn open(root: &str, cgroups: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/in-view");
        let mut holder = Command::new(script)
            .args(["--root", root, cgroups, "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/lab/in-view can be run");
        let stdin = holder.stdin.take().expect("stdin was asked for");
        let stdout = holder.stdout.take().expect("stdout was asked for");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("in-view's output can be read");
        assert_eq!(line, "ready\n", "in-view {cgroups} failed, see above");
        Self {
            holder,
            _stdin: stdin,
            cgroups: cgroups.into(),
        }
    }

    /// A command in the view, killed when it takes longer than any of ours may.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .args(["--", "timeout", "--kill-after=5", "60", program])
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env_remove("RUST_BACKTRACE") // youki's last line is its error then
            .stdin(Stdio::null());
        command
    }

    /// Run a command in the view, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .expect("nsenter can be run");
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            text(&output)
        );
    }

    /// A path of the view, as this process reaches it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(
            path.strip_prefix("/")
                .expect("paths of a view are absolute"),
        )
    }

    /// The cgroups whose path contains `id`, in every hierarchy that this view or the host shows.
    pub(crate) fn cgroups_of(&self, id: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for top in [
            self.path(Path::new("/sys/fs/cgroup")),
            "/sys/fs/cgroup".into(),
        ] {
            collect_directories(&top, &mut found);
        }
        found.retain(|path| path.to_string_lossy().contains(id));
        found
    }

    /// The mounts of cgroup file systems, in the view and on the host, and all mounts that name `id`. Without the two
    /// flags that all mounts of cgroup2 share: runc and crun strip them from the host whenever some container, of another
    /// test maybe, uses the host's cgroup namespace.
    pub(crate) fn mounts_of(&self, id: &str) -> Vec<String> {
        let mut mounts = Vec::new();
        for table in [
            format!("/proc/{}/mounts", self.holder.id()),
            "/proc/self/mounts".into(),
        ] {
            let text = fs::read_to_string(&table).expect("mount tables can be read");
            let text = text
                .replace(",nsdelegate", "")
                .replace(",memory_recursiveprot", "");
            let lines = text
                .lines()
                .filter(|line| line.contains(" cgroup") || line.contains(id));
            mounts.extend(lines.map(|line| format!("{table}: {line}")));
        }
        mounts
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Depth first, the deepest before what holds them; cgroups come and go meanwhile.
fn collect_directories(top: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_directories(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

/// What a command said, on one line.
pub(crate) fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).trim().replace('\n', " | ")
}
