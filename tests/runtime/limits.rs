//! Root in a container against what holds it: the limits of its cgroup, its place in the tree, the mounts that show
//! it. `cgroup.max.depth` and `cgroup.max.descendants` are limits that every cgroup2 has, with controllers or without.
//! Each attempt and its errno are printed: `cargo test --test runtime -- --ignored --nocapture limits`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{Container, View, edit_as, text};

const LIMITS: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

/// One line for each attempt: "what: done", or why not. The place is the writable mount. Whatever mount can be made is
/// tried as well.
const ATTEMPTS: &str = r#"#!/bin/bash
try() {
    what=$1; shift
    if said=$("$@" 2>&1 | grep -v dmesg; exit "${PIPESTATUS[0]}"); then said=done; fi
    echo "$what: ${said##*: }"
}
put() { perl -e 'sysopen(my $f, $ARGV[0], 1) or die "open: $!\n"; defined syswrite($f, $ARGV[1]) or die "write: $!\n"' "$@"; }
raise() {
    for file in cgroup.max.depth cgroup.max.descendants; do
        [ ! -e "$1/$file" ] || try "raise $2/$file" put "$1/$file" max
    done
    try "join $2" put "$1/cgroup.procs" $$
    try "make a cgroup in $2" mkdir "$1/evil" && rmdir "$1/evil" 2>/dev/null
}
place=$(awk '$3 ~ /^cgroup/ && $4 ~ /^rw/ && $2 ~ /^.sys.fs.cgroup/ { print $2 }' /proc/mounts | tail -n 1)
echo "place: $place"
above=$place
while above=${above%/*}; [ "$above" != /sys/fs ]; do
    [ ! -e "$above/cgroup.procs" ] || raise "$above" "$above"
done
[ ! -e "$place/../cgroup.procs" ] || raise "$place/.." 'place/..'
[ ! -e /proc/1/root/sys/fs/cgroup/cgroup.procs ] || raise /proc/1/root/sys/fs/cgroup '/proc/1/root/sys/fs/cgroup'
try "chmod /sys/fs/cgroup" chmod 777 /sys/fs/cgroup/cgroup.procs
mkdir -p /root/mnt
try "remount /sys/fs/cgroup writable" mount -o remount,bind,rw /sys/fs/cgroup
try "remount the hierarchy writable" mount -o remount,rw /sys/fs/cgroup
try "bind /sys/fs/cgroup" mount --bind /sys/fs/cgroup /root/mnt
umount --lazy /root/mnt 2>/dev/null
for kind in cgroup2 "cgroup -o none,name=systemd" "cgroup -o none,name=evil"; do
    try "mount $kind" mount -t $kind evil /root/mnt
    [ ! -e /root/mnt/cgroup.procs ] || { raise /root/mnt "new $kind"; umount --lazy /root/mnt; }
done
# after a remount or an unmount that was allowed
[ ! -e /sys/fs/cgroup/cgroup.procs ] || raise /sys/fs/cgroup "/sys/fs/cgroup, again"
try "a user namespace" unshare --user --map-root-user --mount --cgroup \
    sh -c 'cd /sys/fs/cgroup && mount -o remount,bind,rw . && cd . && ls cgroup.max.depth && echo max >cgroup.max.depth'
try "a cgroup namespace" unshare --cgroup true
try "the cgroup namespace of PID 1" nsenter --cgroup=/proc/1/ns/cgroup true
[ "$place" = /sys/fs/cgroup ] || try "unmount what is above" umount --lazy /sys/fs/cgroup
:
"#;

/// The limits are set from outside, between create and start, as an engine sets others, and tried from inside.
fn hold(runtime: &str, cgroups: &str, image: &str, edits: &str) {
    let name = format!("{runtime} {cgroups} {image} {edits}");
    let view = View::open("trixie", cgroups);
    let container = Container::with(&view, runtime, image, |config| edit_as(edits, config));
    container
        .create()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let limits = set_limits(&container);
    container.start().unwrap();
    container
        .wait_until_running()
        .unwrap_or_else(|error| panic!("{name}: {error}"));

    // As a service, below the place of its systemd; as a file, since systemd-run replaces variables.
    container.write("/root/attempts", 0o755, ATTEMPTS);
    let attempts = text(&container.exec(&[
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "--property=RuntimeMaxSec=20",
        "/root/attempts",
    ]));
    println!("{name}:");
    for line in attempts.split(" | ") {
        println!("    {line}");
    }
    assert!(
        attempts.contains("unmount what is above")
            || attempts.contains("the cgroup namespace of PID 1"),
        "{name}: it was not tried to the end: {attempts}"
    );

    for (file, limit) in &limits {
        let now = fs::read_to_string(file).expect("the cgroup is there");
        assert_eq!(now.trim(), limit, "{name}: {} was changed", file.display());
    }
    let outside = processes_outside(&container);
    assert_eq!(outside, [""; 0], "{name}: processes outside of its cgroups");
    let ended = if edits.contains("admin") {
        // It may have unmounted what its systemd needs.
        container.kill("KILL");
        container
            .wait_stopped(Duration::from_secs(10))
            .and_then(|_| container.delete())
            .and_then(|()| container.is_gone())
    } else {
        container.end().map(drop)
    };
    ended.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// On each cgroup2 directory that the runtime made, and on those above it and above a place of the hook's.
fn set_limits(container: &Container) -> Vec<(PathBuf, String)> {
    let own = format!("lab-{}", container.id);
    let mut limits = Vec::new();
    for cgroup in container.cgroups() {
        let limited = if cgroup.ends_with(&own) {
            cgroup
        } else if cgroup.ends_with(&container.id) {
            cgroup.parent().expect("it lies in a hierarchy").to_owned()
        } else {
            continue;
        };
        for name in LIMITS {
            let file = limited.join(name);
            if file.exists() {
                fs::write(&file, "1000").expect("root sets limits");
                limits.push((file, "1000".to_owned()));
            }
        }
    }
    limits
}

/// Those of its pid namespace that are, in some hierarchy where PID 1 is in a cgroup of the container's, in another.
fn processes_outside(container: &Container) -> Vec<String> {
    let first = PathBuf::from(format!("/proc/{}", container.pid()));
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let cgroups = |process: &Path| fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let hierarchies: Vec<String> = cgroups(&first)
        .lines()
        .filter(|line| line.contains(&container.id))
        .filter_map(|line| {
            line.rsplit_once(':')
                .map(|(hierarchy, _)| hierarchy.to_owned() + ":")
        })
        .collect();
    assert!(!hierarchies.is_empty(), "PID 1 is in no cgroup of its own");
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes
        .map(|process| process.path())
        .filter(|process| namespace(process).is_some_and(|own| Some(own) == namespace(&first)))
        .flat_map(|process| {
            cgroups(&process)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| {
            !line.contains(&container.id) && hierarchies.iter().any(|own| line.starts_with(own))
        })
        .collect()
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn limits_hold_where_the_runtime_made_the_cgroup() {
    for edits in ["own", "host"] {
        hold("runc", "v2", "sid", edits);
        hold("crun", "v2", "bookworm", edits);
        hold("runc", "hybrid", "sid", edits);
        hold("runc", "v1", "bookworm", edits);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn limits_hold_where_the_hook_made_the_place() {
    for edits in ["own", "host"] {
        hold("crun", "v1", "sid", edits);
        hold("runc", "v1", "sid", edits);
        hold("runc", "v2", "bookworm", &format!("{edits} legacy"));
        hold("crun", "none", "bookworm", edits);
        hold("crun", "none", "sid", edits);
        hold("youki", "v1", "sid", edits);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn limits_hold_in_user_namespaces() {
    for edits in ["user", "user admin"] {
        hold("runc", "v2", "sid", edits);
        hold("crun", "v2", "bookworm", edits);
        hold("crun", "v1", "sid", edits);
        hold("runc", "hybrid", "bookworm", edits);
        hold("runc", "v2", "bookworm", &format!("{edits} legacy"));
        hold("crun", "none", "sid", edits);
    }
}
