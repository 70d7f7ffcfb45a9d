//! A host to lose: the tests of this program run themselves again, in mount and pid namespaces where
//! /etc, /run, /var, /dev and the directory for temporary files are new, and everything else is
//! read-only. So links may lead to `/etc/machine-id` or `/proc/1/root`, as an attacker's do, and what
//! a hook does to the host is seen, and harms nobody.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bundle::{Bundle, hook};
use crate::process::{Process, hierarchies};

/// What is said to the program that runs inside: what distinguishes this host from another one.
const NAME: &str = "HOSTILE_HOST";

/// What no container may learn.
pub(crate) const SECRET: &str = "the host's own secret";

const MAKE: &str = r#"
    mount -t tmpfs -o mode=1777,size=12g,nr_inodes=4m scratch /mnt
    cp -- "$1" /mnt/tests; cp -- "$2" /mnt/hook; chmod 755 /mnt/tests /mnt/hook
    for place in etc run var dev; do mount -t tmpfs -o mode=755 "$place" "/$place"; done
    mkdir -p "$3"; mount --move /mnt "$3"; cd "$3"
    mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/full c 1 7
    mknod -m 666 /dev/urandom c 1 9; mknod -m 600 /dev/disk b 7 4242; ln -s /proc/self/fd /dev/fd
    mkdir -p /etc/cron.d /etc/systemd/system /run/lock /run/host /run/systemd/system /var/lib/dbus /var/spool/cron
    echo 00000000000000000000000000000bad >/etc/machine-id; cp /etc/machine-id /var/lib/dbus
    echo root:x:0:0:root:/root:/bin/sh >/etc/passwd; echo '* * * * * true' >/etc/cron.d/job
    mkdir -p volume/fs/cgroup/systemd volume/systemd empty
    for file in /etc/shadow /run/secret /var/spool/cron/root; do echo "$4" >$file; done
    echo precious | tee file volume/file >/dev/null; echo 0123456789abcdef0123456789abcdef >volume/machine-id
    for at in volume empty; do mount --bind $at $at; mount --make-shared $at; done
    mount -o remount,bind,ro /; mount -o remount,bind,ro /sys
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    "$3/tests" "$5" --exact --ignored --nocapture --test-threads=1; exit $?"#;

/// The host, from the inside.
pub(crate) struct Host {
    name: String,
    log: UnixDatagram,
    /// Somebody else's container, and a process of the host's.
    pub(crate) other: (Bundle, Process),
    pub(crate) daemon: Child,
}

/// Hosts, and containers on them.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Run a test on a host of its own. The test has this name, and the hook is this file.
pub(crate) fn on_its_own(test: &str, hook: &Path, body: impl FnOnce(&Host)) {
    if let Some(name) = std::env::var_os(NAME) {
        return body(&Host::new(name.to_string_lossy().into_owned()));
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = std::env::temp_dir();
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "--", "sh", "-ec", MAKE, "host"])
        .arg(std::env::current_exe().expect("this program"))
        .args([hook, &temporary])
        .args([SECRET, test])
        .env(NAME, format!("ohs-hostile-{}-{number}", std::process::id()))
        .env("HOOK_UNDER_TEST", temporary.join("hook"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "see above; {test} needs root");
}

/// The hook that is looked at.
pub(crate) fn hook_under_test() -> PathBuf {
    hook().get_program().into()
}

impl Host {
    fn new(name: String) -> Self {
        let log = UnixDatagram::bind("/dev/log").expect("the host's log");
        log.set_nonblocking(true).expect("a log that is polled");
        let mut other = Bundle::with_systemd(252);
        other.id = format!("{name}-other");
        // It lives longer than the containers of the cases.
        let inside =
            "mount -t tmpfs run run; echo kept >run/file; cd /; echo ready; exec sleep 1000000";
        let process = Process::start(&other, inside);
        other.write_config();
        let mut sleep = Command::new("sleep");
        let daemon = sleep
            .arg("1000000")
            .spawn()
            .expect("a process of the host's");
        Self {
            name,
            log,
            other: (other, process),
            daemon,
        }
    }

    /// A container's id, which no other test's has.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.name, COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The volume of somebody else's container, which the host and other containers have too.
    pub(crate) fn volume() -> PathBuf {
        std::env::temp_dir().join("volume")
    }

    /// A file of the host's, on the file system that images are on.
    pub(crate) fn file() -> PathBuf {
        std::env::temp_dir().join("file")
    }

    /// A volume in which nothing is.
    pub(crate) fn empty() -> PathBuf {
        std::env::temp_dir().join("empty")
    }

    /// What was said to the host's log since.
    pub(crate) fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut message = vec![0; 1 << 16];
        while let Ok(length) = self.log.recv(&mut message) {
            heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        heard
    }

    /// All that must be the same afterwards, a line for each: the files, the mounts, the processes
    /// and the cgroups of the host and of the other container. `own` are those of the container
    /// that a hook is run for: its pid and its id.
    pub(crate) fn look(&self, own: (u32, &str)) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        for place in ["/etc", "/run", "/var", "/dev"] {
            look_at_files(Path::new(place), &mut seen);
        }
        look_at_files(&Self::volume(), &mut seen);
        look_at_files(&Self::empty(), &mut seen);
        look_at_files(&Self::file(), &mut seen);
        look_at_files(&self.other.0.path, &mut seen);
        for pid in ["self".to_owned(), self.other.1.pid().to_string()] {
            let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            seen.extend(table.lines().map(|line| format!("mount of {pid}: {line}")));
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            seen.extend(
                groups
                    .lines()
                    .map(|line| format!("cgroup of {pid}: {line}")),
            );
        }
        for name in names(Path::new("/proc")) {
            if name.parse::<u32>().is_ok_and(|pid| pid != own.0) {
                seen.insert(format!("process {name}"));
            }
        }
        for top in hierarchies() {
            for top in [top.join("oci-systemd-hook"), top] {
                let ours = |name: &String| name.contains(&self.name) && *name != own.1;
                for name in names(&top).into_iter().filter(ours) {
                    look_at_cgroups(&top.join(name), &mut seen);
                }
            }
        }
        seen
    }

    /// Take away what was mounted on the host since, so that the next case finds it as it was.
    pub(crate) fn mend(before: &BTreeSet<String>) {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let is_new = |line: &&str| !before.contains(&format!("mount of self: {line}"));
        for line in table.lines().rev().filter(is_new) {
            let at = line.split(' ').nth(4).unwrap_or_default();
            let _ = Command::new("umount").args(["--lazy", at]).status();
        }
    }

    /// Whether a place in the hierarchies was left for this container.
    pub(crate) fn has_place(id: &str) -> bool {
        let is_there = |top: &PathBuf| top.join("oci-systemd-hook").join(id).exists();
        hierarchies().iter().any(is_there)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn describe(path: &Path) -> String {
    let Ok(found) = fs::symlink_metadata(path) else {
        return String::new();
    };
    format!(
        "{} {:o} {}:{} {}",
        path.display(),
        found.mode(),
        found.uid(),
        found.gid(),
        found.rdev()
    )
}

/// A file system's files, with what is in them and when that was changed.
fn look_at_files(path: &Path, seen: &mut BTreeSet<String>) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    let content = if found.is_file() && found.len() < 4096 {
        fs::read_to_string(path).unwrap_or_default()
    } else {
        String::new()
    };
    // Its names are not counted: an image may have one of them, and that is the hook's to remove.
    let (inode, size) = (found.ino(), found.size());
    let at = (found.mtime(), found.mtime_nsec());
    let file = describe(path);
    seen.insert(format!("file {file} {inode} {size} {at:?} {content:?}"));
    for below in names(path).into_iter().map(|name| path.join(name)) {
        // What is mounted there is a line of its own.
        if fs::symlink_metadata(&below).is_ok_and(|below| below.dev() == found.dev()) {
            look_at_files(&below, seen);
        }
    }
}

fn look_at_cgroups(path: &Path, seen: &mut BTreeSet<String>) {
    seen.insert(format!("cgroup {}", describe(path)));
    for name in names(path) {
        let below = path.join(name);
        if below.is_dir() {
            look_at_cgroups(&below, seen);
        } else {
            seen.insert(format!("cgroup {}", describe(&below)));
        }
    }
}
