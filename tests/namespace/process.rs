//! A process in mount and cgroup namespaces of its own, where a runtime would call the hook: the
//! root file system is a mount, /sys is there, the process is alone in a cgroup, and nothing has
//! pivoted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, Run};

/// Root, and cgroups as a host has them; anything else is a failure that says so.
const NEEDS: &str = "these tests need root, and a cgroup hierarchy on /sys/fs/cgroup";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// In the image: `/run`.
    pub(crate) at: String,
    /// The directory of the file system that it shows.
    pub(crate) root: String,
    /// Its flags, `rw,nosuid,nodev`, without relatime, which is every mount's.
    pub(crate) flags: String,
    pub(crate) kind: String,
    pub(crate) options: String,
    pub(crate) is_private: bool,
}

/// A container, as far as a hook can see.
pub(crate) struct Process {
    child: Child,
    rootfs: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Process {
    /// Start one for a bundle; `setup` is a shell script that runs in its mount namespace, in the
    /// root file system, after /sys was mounted (as a runtime mounts what a config asks for).
    pub(crate) fn start(bundle: &Bundle, setup: &str) -> Self {
        Self::start_with(bundle, "--mount --cgroup --propagation private", setup)
    }

    /// The same, with these arguments of unshare(1).
    pub(crate) fn start_with(bundle: &Bundle, unshare: &str, setup: &str) -> Self {
        let cgroups = hierarchies()
            .iter()
            .map(|top| top.join(&bundle.id))
            .collect();
        Self::start_in(bundle, cgroups, unshare, setup)
    }

    /// The same, in the root of each hierarchy, where runtimes leave what they do not join.
    pub(crate) fn start_in_root(bundle: &Bundle, unshare: &str) -> Self {
        Self::start_in(bundle, Vec::new(), unshare, "")
    }

    fn start_in(bundle: &Bundle, cgroups: Vec<PathBuf>, unshare: &str, setup: &str) -> Self {
        for cgroup in &cgroups {
            fs::create_dir(cgroup).expect(NEEDS);
        }
        let join: Vec<_> = cgroups
            .iter()
            .map(|cgroup| format!("echo $$ >{}/cgroup.procs", cgroup.display()))
            .collect();
        let join = if join.is_empty() {
            "true".to_owned()
        } else {
            join.join("; ")
        };
        let inside = format!(
            "set -e; mount --bind rootfs rootfs; cd rootfs
            [ ! -d sys ] || [ -L sys ] || mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
            {setup}
            cd /; echo ready; exec sleep 300"
        );
        let script = format!("set -e; {join}; exec unshare {unshare} -- sh -c \"$1\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh", &inside])
            .current_dir(&bundle.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout was asked for");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("its output");
        let process = Self {
            child,
            rootfs: bundle.path.join("rootfs"),
            cgroups,
        };
        assert_eq!(line, "ready\n", "{NEEDS}");
        process
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path in the image, as the container sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let rootfs = self.rootfs.strip_prefix("/").expect("absolute");
        Path::new(&format!("/proc/{}/root", self.pid()))
            .join(rootfs)
            .join(path)
    }

    /// The mounts below the root file system, in the order in which they were made.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let text =
            fs::read_to_string(format!("/proc/{}/mountinfo", self.pid())).expect("mountinfo");
        text.lines().filter_map(|line| self.mount(line)).collect()
    }

    fn mount(&self, line: &str) -> Option<Mount> {
        let (mount, file_system) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let at = fields[4]
            .strip_prefix(self.rootfs.to_str()?)
            .filter(|at| !at.is_empty())?;
        let mut of_type = file_system.splitn(3, ' ');
        let kind = of_type.next()?.to_owned();
        Some(Mount {
            at: at.to_owned(),
            root: fields[3].to_owned(),
            flags: fields[5].replace(",relatime", ""),
            kind,
            options: of_type.nth(1)?.to_owned(),
            is_private: fields.len() == 6,
        })
    }

    /// What the hook added: the mounts that were not there before, without /sys.
    #[track_caller]
    pub(crate) fn prepare(&self, bundle: &Bundle) -> Vec<Mount> {
        let before = self.mounts();
        bundle.prepare(self.pid()).assert_silent();
        self.mounts()
            .into_iter()
            .filter(|mount| !before.contains(mount))
            .collect()
    }

    /// The hook refuses, and the container has not one mount more.
    #[track_caller]
    pub(crate) fn assert_refused(&self, bundle: &Bundle, status: i32, says: &[&str]) -> Run {
        let before = self.mounts();
        let run = bundle.prepare(self.pid());
        run.assert_fails(status, says);
        assert_eq!(self.mounts(), before);
        run
    }

    /// The hook does nothing at all; what it says of it if it is asked.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, bundle: &Bundle) -> String {
        assert_eq!(self.prepare(bundle), []);
        bundle.prepare_verbosely(self.pid()).stderr
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in &self.cgroups {
            // cgroups of a process that has just died can be busy for a moment.
            for _ in 0..100 {
                if remove_tree(cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// Remove a cgroup and all below it.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Where this host has its hierarchies of systemd's.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let legacy = [top.join("systemd"), top.join("unified")];
    let is_cgroup = |path: &PathBuf| path.join("cgroup.procs").is_file();
    if top.join("cgroup.procs").is_file() {
        return vec![top.to_owned()];
    }
    legacy.into_iter().filter(is_cgroup).collect()
}

/// Whether a container of this host's gets name=systemd for systemd 252.
pub(crate) fn has_named_hierarchy() -> bool {
    hierarchies().iter().any(|top| top.ends_with("systemd"))
}

/// Whether this host has cgroup2.
pub(crate) fn has_cgroup2() -> bool {
    hierarchies().iter().any(|top| !top.ends_with("systemd"))
}

/// Run a test's shell script on the host.
#[track_caller]
pub(crate) fn shell(script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .status()
        .expect("sh");
    assert!(status.success(), "{script}");
}
