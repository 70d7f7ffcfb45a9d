//! Processes that are not the container's, that end, or that something else moves under the hook:
//! wrong pids, deaths at every step, and names that are exchanged while they are looked up.

use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::host::Host;

/// How often a case is tried in which the hook and something else run against each other.
const TRIES: u32 = 200;

/// What is exchanged with what, and the shell that makes both: all that the hook looks up.
const SWAPS: [(&str, &str, &str); 17] = [
    ("run", "elsewhere", "ln -s /etc elsewhere"),
    ("run", "elsewhere", "ln -s /data elsewhere"),
    (
        "run",
        "elsewhere",
        "mkdir elsewhere; ln -s /etc elsewhere/lock; ln -s /etc elsewhere/host",
    ),
    (
        "run/lock",
        "elsewhere",
        "mkdir -p run/lock; ln -s ../../../../../../etc elsewhere",
    ),
    (
        "run/host",
        "elsewhere",
        "mkdir run/host; ln -s /etc elsewhere",
    ),
    (
        "run/app",
        "elsewhere",
        "mkdir run/app; echo x >run/app/shadow; ln -s /etc elsewhere",
    ),
    (
        "run/app/shadow",
        "elsewhere",
        "mkdir run/app; echo x >run/app/shadow; ln -s /etc/shadow elsewhere",
    ),
    (
        "run/app/file",
        "elsewhere",
        "mkdir run/app; echo x >run/app/file; mkfifo elsewhere",
    ),
    ("tmp", "elsewhere", "ln -s /etc elsewhere"),
    ("etc", "elsewhere", "ln -s /proc/1/root/etc elsewhere"),
    (
        "etc",
        "elsewhere",
        "mkdir elsewhere; ln -s /data/machine-id elsewhere/machine-id",
    ),
    (
        "etc/machine-id",
        "elsewhere",
        "touch etc/machine-id; ln -s /../../../../etc/machine-id elsewhere",
    ),
    (
        "var/lib/dbus",
        "elsewhere",
        "echo x >var/lib/dbus/machine-id; ln -s /data elsewhere",
    ),
    (
        "usr/lib/systemd",
        "elsewhere",
        "mkdir elsewhere; ln -s /proc/self/exe elsewhere/systemd",
    ),
    ("sys", "elsewhere", "ln -s /data elsewhere"),
    // A mount goes where the directory goes that it is on.
    ("run", "data", ""),
    ("etc", "data", ""),
];

fn pids(host: &Host) -> Vec<(&'static str, u32)> {
    vec![
        ("the host's init", 1),
        ("a process of the host's", host.daemon.id()),
        ("who called the hook", std::process::id()),
        ("another container", host.other.1.pid()),
        ("nobody", 4_000_000),
    ]
}

pub(crate) fn cases(host: &Host, judge: &mut dyn FnMut(Case)) {
    for (what, pid) in pids(host) {
        for id in [None, Some(&host.other.0.id)] {
            let mut case = Case::new(format!("the pid of {what}, and {id:?}"), &[65]);
            case.state = json!({ "pid": pid });
            if let Some(id) = id {
                case.state["id"] = json!(id);
            }
            judge(case);
        }
    }
    let mut case = Case::new("the bundle of another container", &[65]);
    case.state = json!({ "bundle": host.other.0.path });
    judge(case);
    let mut case = Case::new("the root of another container", &[65]);
    case.config = json!({ "root": { "path": host.other.0.path.join("rootfs") } });
    judge(case);
    let mut case = Case::new("the hook's own pid", &[65]);
    case.caller =
        "pid=$$; exec 0<<-END\n$(sed \"s/\\\"pid\\\":[0-9]*/\\\"pid\\\":$pid/\")\nEND".into();
    judge(case);
    let mut case = Case::new("a process that nobody has waited for", &[65]);
    case.state = json!({ "pid": "zombie" });
    case.caller = "sh -c 'exit 0' & pid=$!; sleep 0.05
        exec 0<<-END\n$(sed \"s/\\\"zombie\\\"/$pid/\")\nEND"
        .into();
    judge(case);
    for root in [
        "/",
        "..",
        "../../..",
        "/proc/1/root",
        "/proc/self/root",
        "/etc",
        "/run",
        "/dev",
        "/proc",
        "/sys/fs/cgroup/systemd",
    ] {
        let mut case = Case::new(format!("a root at {root}"), &[0, 65, 71]);
        case.config = json!({ "root": { "path": root } });
        judge(case);
    }
    for try_number in 0..TRIES {
        let after = Duration::from_micros(u64::from(try_number) * 100);
        let mut case = Case::new(format!("dead after {after:?}"), &[0, 65, 71]);
        case.systemd = [252, 262][try_number as usize % 2];
        case.dies_after = Some(after);
        judge(case);
    }
}

pub(crate) fn races(_: &Host, judge: &mut dyn FnMut(Case)) {
    for (one, other, image) in SWAPS {
        for try_number in 0..TRIES / 4 {
            let mut case = Case::new(format!("{one} and {other}, {image}"), &[0, 65, 71]);
            case.systemd = [252, 262][try_number as usize % 2];
            case.image = image.into();
            case.swap = Some((one, other));
            case.mounts_anywhere_inside = true;
            judge(case);
        }
    }
}
