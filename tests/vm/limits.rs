//! What an engine sets (`--memory`, `--pids-limit`, `--cpus`) holds against root in the container: with `nsdelegate`,
//! and after another container has stripped it from the host, which runc and crun do for whoever asks them to use the
//! host's cgroup namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Container, View, edit_as};
use crate::{cgroups, kernel};

/// The files that hold a limit, as the runtime writes them, and what it is told to write.
const LIMITS: [(&str, &str); 3] = [
    ("memory.max", "268435456"),
    ("pids.max", "300"),
    ("cpu.max", "150000 100000"),
];

fn with_limits(config: &mut Value) {
    let resources = &mut config["linux"]["resources"];
    resources["memory"] = json!({ "limit": 268_435_456 });
    resources["pids"] = json!({ "limit": 300 });
    resources["cpu"] = json!({ "quota": 150_000, "period": 100_000 });
}

/// Raise whatever is in reach: one line for each file of a cgroup, "PATH: written" or the errno.
const ATTACK: &str = r#"
for how in bind,rw rw; do mount -o remount,$how /sys/fs/cgroup 2>&1 && echo "remount: written"; done
mkdir -p /root/mnt; mount -t cgroup2 evil /root/mnt 2>&1 && echo "mount: written"
find /sys/fs/cgroup /root/mnt -type f | perl -ne 'chomp; print "$_: ", sysopen(F, $_, 1) && syswrite(F, "max") ? "written" : $!, "\n"'
"#;

/// What is set in a cgroup of the container's that is not its own to write, before and after.
fn limits_of(container: &Container) -> BTreeMap<String, String> {
    let own = format!("lab-{}", container.id);
    let outer = container
        .cgroups()
        .into_iter()
        .find(|path| path.ends_with(&own))
        .expect("the runtime made a cgroup");
    let files = fs::read_dir(outer).expect("it is there").flatten();
    files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let is_set = [
                ".max", ".high", ".low", ".min", ".weight", ".group", ".cpus", ".mems",
            ]
            .iter()
            .any(|end| name.ends_with(end));
            is_set.then_some(())?;
            Some((
                name,
                fs::read_to_string(file.path()).ok()?.trim().to_owned(),
            ))
        })
        .collect()
}

/// Attack them from inside, with what root of an ordinary container has.
fn attack(container: &Container, name: &str) {
    let before = limits_of(container);
    for (file, value) in LIMITS {
        assert_eq!(before[file], value, "{name}: {file}");
    }
    let said = container.shell(&format!("{ATTACK}:"));
    let is_limit = |line: &str| {
        LIMITS
            .iter()
            .any(|(file, _)| line.contains(&format!("{file}: ")) && !line.contains("/payload/"))
    };
    println!("{} {name}:", kernel());
    for line in said.lines() {
        if is_limit(line) || line.starts_with("mount: ") {
            println!("    {line}");
        }
    }
    let count = |errno| said.lines().filter(|line| line.ends_with(errno)).count();
    let (written, refused) = (count(": written"), count(": Read-only file system"));
    println!("    {written} files written, {refused} refused as read-only");
    assert!(written > 0, "{name}: not even its own can be written");
    assert!(
        refused > 0,
        "{name}: no file of the outer cgroup is in sight"
    );
    assert_eq!(limits_of(container), before, "{name}: raised from inside");
}

/// The options of the host's own mount, which all mounts of cgroup2 share.
fn host_options() -> String {
    let mounts = fs::read_to_string("/proc/1/mounts").expect("/proc is mounted");
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 "));
    mount
        .and_then(|line| line.split(' ').nth(3))
        .expect("the host has cgroup2")
        .to_owned()
}

/// A container without systemd and without the hook, in the host's cgroup namespace.
fn strip_delegation(view: &View, runtime: &str) {
    let stripper = Container::with(view, runtime, "bookworm", |config| {
        edit_as("host", config);
        config["hooks"] = json!({});
        config["process"]["args"] = json!(["sleep", "1000"]);
    });
    stripper.create().unwrap();
    stripper.start().unwrap();
    stripper.kill("KILL");
    stripper.wait_stopped(Duration::from_secs(10)).unwrap();
    stripper.delete().unwrap();
}

fn limits_hold(runtime: &str, image: &str) {
    assert_eq!(cgroups(), "v2", "controllers are elsewhere on this machine");
    let name = |when: &str| format!("{runtime} {image}, {when}");
    let delegated = host_options();
    assert!(delegated.contains("nsdelegate"), "{delegated}");

    let view = View::open("trixie", "v2");
    let container = Container::with(&view, runtime, image, with_limits);
    container.boot().unwrap();
    assert_eq!(host_options(), delegated, "the hook changed the host");
    attack(&container, &name("with nsdelegate"));

    strip_delegation(&view, runtime);
    println!(
        "    the host's cgroup2: {delegated}, after a container in its namespace: {}",
        host_options()
    );
    attack(&container, &name("while it was stripped"));
    container.wait_until_running().unwrap();
    container.end().unwrap();

    let stripped = host_options();
    let container = Container::with(&view, runtime, image, with_limits);
    container.boot().unwrap();
    attack(&container, &name("after it was stripped"));
    container.end().unwrap();
    assert_eq!(host_options(), stripped, "the hook changed the host");

    let restored = Command::new("nsenter")
        .args([
            "--target=1",
            "--mount",
            "--cgroup",
            "--",
            "mount",
            "-o",
            &format!("remount,{delegated}"),
        ])
        .arg(Path::new("/sys/fs/cgroup"))
        .status();
    assert!(restored.is_ok_and(|status| status.success()));
    assert_eq!(host_options(), delegated);
}

#[test]
#[ignore = "needs a machine: make test-vm"]
fn limits_hold_with_runc() {
    limits_hold("runc", "sid");
}

#[test]
#[ignore = "needs a machine: make test-vm"]
fn limits_hold_with_crun() {
    limits_hold("crun", "bookworm");
}
