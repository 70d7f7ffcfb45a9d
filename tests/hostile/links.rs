//! Links at every place that a hook touches, and at the directories on the way to it.

use serde_json::json;

use crate::case::Case;
use crate::host::Host;

/// Whatever the hook makes of it, but a bug: it is right where nothing is harmed.
const ANY: &[i32] = &[0, 65, 71, 77];

/// A link that the kernel calls ENAMETOOLONG, and no loop and not missing.
const TOO_LONG: &str = "a component of 300 bytes";

/// Where the links are, what should be there, and how the hook may end for any of the targets.
const PLACES: [(&str, &str, &[i32]); 30] = [
    ("run", "directory", &[65]),
    ("run/lock", "directory", &[65]),
    ("run/host", "directory", &[0]),
    ("run/host/container-manager", "file", &[0]),
    ("run/systemd", "directory", &[0]),
    ("run/systemd/system", "directory", &[0]),
    ("tmp", "directory", &[0]),
    ("etc", "directory", ANY),
    ("etc/machine-id", "file", ANY),
    ("etc/.machine-id.oci-systemd-hook", "file", &[0]),
    ("etc/systemd", "directory", &[0]),
    ("etc/systemd/system", "directory", &[0]),
    ("etc/systemd/system/tmp.mount", "file", &[0]),
    ("usr/lib/systemd/system", "directory", &[0]),
    ("usr/lib/systemd/system/tmp.mount", "file", &[0]),
    ("var", "directory", &[0]),
    ("var/run", "directory", &[0]),
    ("var/lib", "directory", &[0]),
    ("var/lib/dbus", "directory", &[0]),
    ("var/lib/dbus/machine-id", "file", &[0]),
    ("sys", "directory", ANY),
    ("sbin", "directory", &[0]),
    ("usr/sbin/init", "file", &[0]),
    ("usr/lib", "directory", &[0]),
    ("usr/lib/systemd", "directory", &[0]),
    ("usr/lib/systemd/systemd", "file", &[0]),
    ("sys/fs", "directory", ANY),
    ("sys/fs/cgroup", "directory", ANY),
    ("sys/fs/cgroup/systemd", "directory", ANY),
    ("sys/fs/cgroup/unified", "directory", ANY),
];

/// Where the links lead to: what, the name, and whether a directory or a file is there.
fn targets(host: &Host) -> Vec<(&'static str, String, &'static str)> {
    let other = host.other.1.pid();
    let up = "../".repeat(12);
    let rest = "./".repeat(2040);
    let temporary = std::env::temp_dir();
    let temporary = temporary.display();
    let targets = [
        ("the host's /etc", "/etc", "directory"),
        ("the host's machine ID", "/etc/machine-id", "file"),
        ("a new file in cron.d", "/etc/cron.d/new", "file"),
        ("a file of the host's /run", "/run/secret", "file"),
        ("the host's /var/lib/dbus", "/var/lib/dbus", "directory"),
        ("/etc, upwards", &format!("{up}etc"), "directory"),
        (
            "the machine ID, upwards",
            &format!("{up}etc/machine-id"),
            "file",
        ),
        (
            "the volume, by the host's path",
            &format!("{temporary}/volume"),
            "directory",
        ),
        (
            "the volume's file",
            &format!("{temporary}/volume/machine-id"),
            "file",
        ),
        ("the volume, by the container's path", "/data", "directory"),
        (
            "its file, by the container's path",
            "/data/machine-id",
            "file",
        ),
        ("a new file in the volume", "/data/new", "file"),
        ("its own root", "/", "directory"),
        ("above its root", "..", "directory"),
        ("its own directory", ".", "directory"),
        ("nowhere", "/nonexistent/below", ""),
        ("nowhere, beside it", "nonexistent", ""),
        ("the hook's root", "/proc/self/root/etc", "directory"),
        (
            "its thread's root",
            "/proc/thread-self/root/etc/machine-id",
            "file",
        ),
        ("init's root", "/proc/1/root/etc/machine-id", "file"),
        ("init's directory", "/proc/1/cwd/volume", "directory"),
        (
            "another container's root",
            &format!("/proc/{other}/root/etc"),
            "directory",
        ),
        ("the hook's directory", "/proc/self/cwd/etc", "directory"),
        ("the hook's program", "/proc/self/exe", "file"),
        ("the hook's memory", "/proc/self/mem", "file"),
        ("the hook's namespace", "/proc/self/ns/mnt", "file"),
        ("/dev/null", "/dev/null", "file"),
        ("/dev/zero", "/dev/zero", "file"),
        ("/dev/full", "/dev/full", "file"),
        ("a disk", "/dev/disk", "file"),
        (
            "the kernel's settings",
            "/proc/sys/kernel/core_pattern",
            "file",
        ),
        ("the host's cgroups", "/sys/fs/cgroup/systemd", "directory"),
        (
            "a name of 4095 bytes",
            &format!("{rest}../etc/machine-id")[..4095],
            "",
        ),
        (
            "/etc, by a name of 4 KiB",
            &format!("/{rest}etc"),
            "directory",
        ),
        (TOO_LONG, &format!("/{}", "n".repeat(300)), ""),
        ("a name in colours", "/etc/\u{1b}[31m\nred\u{202e}", "file"),
        ("40 links", "/l1", "directory"),
        ("42 links", "/l41", "file"),
        ("a link to itself", "/round", ""),
        ("two that go round", "/one", ""),
        ("the hook's input", "/proc/self/fd/0", "file"),
        ("a descriptor of the hook's", "/proc/self/fd/3", "directory"),
        (
            "another descriptor of the hook's",
            "/proc/self/fd/7",
            "directory",
        ),
    ];
    targets
        .map(|(what, name, kind)| (what, name.to_owned(), kind))
        .into()
}

/// Links that other links lead to: 39 that end in /etc, 41 that do, and circles.
fn chains() -> Vec<(String, String)> {
    let mut chains: Vec<(String, String)> = (1..39)
        .chain(41..81)
        .map(|number| (format!("l{number}"), format!("/l{}", number + 1)))
        .collect();
    for (at, target) in [
        ("l39", "/etc"),
        ("l81", "/etc/machine-id"),
        ("round", "round"),
        ("one", "two"),
        ("two", "one"),
    ] {
        chains.push((at.to_owned(), target.to_owned()));
    }
    chains
}

pub(crate) fn cases(host: &Host, judge: &mut dyn FnMut(Case)) {
    let targets = targets(host);
    for (place, kind, statuses) in PLACES {
        let fitting = targets
            .iter()
            .filter(|(_, _, other)| [kind, ""].contains(other));
        for (index, (what, target, _)) in fitting.enumerate() {
            // The kernel says so of it, whatever the place.
            let statuses = if *what == TOO_LONG { ANY } else { statuses };
            let mut case = Case::new(format!("{place} -> {what} ({target:.60})"), statuses);
            case.systemd = [252, 262][index % 2];
            case.links = chains();
            case.links.push((place.to_owned(), target.to_owned()));
            if !["sbin", "usr/sbin/init", "usr/lib/systemd/systemd"].contains(&place) {
                case.config = json!({ "process": { "args": ["/opt/systemd"] } });
            }
            if place.starts_with("sys/") {
                // What the runtime mounted is away: the image's own directory is seen.
                case.inside = "! mountpoint -q sys || umount sys".into();
            }
            case.mounts_anywhere_inside = place.starts_with("sys");
            judge(case);
        }
    }
}
