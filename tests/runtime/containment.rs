//! What root in a container can write of the host's cgroups: its own subtree, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Container, View, add_capabilities, edit_as, text};

/// Everything that root can try without a program of its own. It prints one line for each cgroup in which it got its
/// way, "DEVICE:INODE what", which names that directory wherever it is mounted.
const ATTACK: &str = r#"
name() { stat -c "%d:%i" "$1"; }
awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts | sort -u | while read -r mount; do
    mount -o remount,rw "$mount" 2>/dev/null && echo "$(name "$mount") remount"
    find "$mount" -xdev -type d | while read -r dir; do
        [ -d "$dir" ] || continue
        mkdir "$dir/evil" 2>/dev/null && { echo "$(name "$dir") mkdir"; rmdir "$dir/evil"; }
        find "$dir" -maxdepth 1 -type f -writable | while read -r file; do echo "$(name "$dir") ${file##*/}"; done
        sh -c 'echo $$ 2>/dev/null >"$0/cgroup.procs"' "$dir" 2>/dev/null && echo "$(name "$dir") cgroup.procs"
    done
done
for kind in cgroup2 "cgroup -o none,name=systemd" "cgroup -o none,name=evil" "cgroup -o memory"; do
    mkdir -p /root/mnt; mount -t $kind evil /root/mnt 2>/dev/null || continue
    echo "$(name /root/mnt) mount"
    mkdir /root/mnt/evil 2>/dev/null && { echo "$(name /root/mnt) mkdir"; rmdir /root/mnt/evil; }
    sh -c 'echo $$ 2>/dev/null >/root/mnt/cgroup.procs' 2>/dev/null && echo "$(name /root/mnt) cgroup.procs"
    umount /root/mnt
done
:
"#;

/// Device and inode of a cgroup directory, which are the same through every mount of its hierarchy.
fn name(directory: &Path) -> Option<String> {
    fs::metadata(directory)
        .ok()
        .map(|meta| format!("{}:{}", meta.dev(), meta.ino()))
}

fn names(directories: &[PathBuf]) -> BTreeSet<String> {
    directories
        .iter()
        .filter_map(|directory| name(directory))
        .collect()
}

/// The cgroups that the runtime made and whose limits hold the container: not the container's to change. Only
/// name=systemd has none.
fn limits_of(container: &Container) -> BTreeSet<String> {
    let own = format!("lab-{}", container.id);
    let has_limits = |path: &PathBuf| {
        path.ends_with(&own) && !path.to_string_lossy().contains("/cgroup/systemd/")
    };
    names(
        &container
            .cgroups()
            .into_iter()
            .filter(has_limits)
            .collect::<Vec<_>>(),
    )
}

fn attack_from_within(runtime: &str, cgroups: &str, image: &str, edits: &str) {
    let what = format!("{runtime} {cgroups} {image} {edits}");
    let view = View::open("trixie", cgroups);
    let edit = |config: &mut serde_json::Value| edit_as(edits, config);
    let victim = Container::with(&view, runtime, image, edit);
    let attacker = Container::with(&view, runtime, image, edit);
    victim
        .boot()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    attacker
        .boot()
        .unwrap_or_else(|error| panic!("{what}: {error}"));

    let limits = limits_of(&attacker);
    let mut own = names(&attacker.cgroups());
    let successes = attacker.shell(ATTACK);
    own.extend(names(&attacker.cgroups())); // units come and go
    assert!(
        successes.contains("mkdir"),
        "{what}: it cannot even write its own: {successes}"
    );
    let named = |line: &&str| line.split(' ').next().unwrap_or_default().to_owned();
    // With CAP_SYS_ADMIN in a user namespace it may mount what its cgroup namespace shows, and see, but not write.
    let is_allowed_mount = |line: &&str| edits.contains("admin") && line.ends_with(" mount");
    let outside: Vec<_> = successes
        .lines()
        .filter(|line| !own.contains(&named(line)) && !is_allowed_mount(line))
        .collect();
    assert!(
        outside.is_empty(),
        "{what}: written outside of its own cgroups: {outside:?}"
    );
    // In a user namespace it has the whole of its cgroup but for the files that hold limits.
    let delegate = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    let is_delegated = |line: &&str| {
        let what = line.split(' ').nth(1).unwrap_or_default();
        edits.contains("user")
            && (["mkdir", "mount", "remount"].contains(&what)
                || delegate.lines().any(|name| name == what))
    };
    let at_limits: Vec<_> = successes
        .lines()
        .filter(|line| limits.contains(&named(line)) && !is_delegated(line))
        .collect();
    assert!(
        at_limits.is_empty(),
        "{what}: written where its limits are: {at_limits:?}"
    );

    // Who gives a container the host's cgroup namespace shows it the names in cgroup2, with a hook or without.
    // Where the hook made a place at the hierarchy's root, the names of its siblings are in sight, too.
    let made = edits.contains("legacy") || cgroups == "none" || image == "sid" && cgroups == "v1";
    if !made && (!edits.contains("host") || cgroups == "v1") {
        let sight = attacker.shell(&format!(
            "find /sys/fs/cgroup -name '*{}*' 2>/dev/null || true",
            victim.id
        ));
        assert_eq!(sight, "", "{what}: the other container is in sight");
    }
    for container in [&victim, &attacker] {
        container
            .wait_until_running()
            .unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
        container
            .end()
            .unwrap_or_else(|error| panic!("{what}, at the end: {error}"));
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_outside_can_be_written_on_v1() {
    for namespace in ["own", "host"] {
        attack_from_within("runc", "v1", "bookworm", namespace);
        attack_from_within("crun", "v1", "trixie", namespace);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_outside_can_be_written_on_hybrid() {
    for namespace in ["own", "host"] {
        attack_from_within("runc", "hybrid", "bookworm", namespace);
        attack_from_within("runc", "hybrid", "sid", namespace);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_outside_can_be_written_on_v2() {
    for namespace in ["own", "host"] {
        attack_from_within("runc", "v2", "bookworm", namespace);
        attack_from_within("crun", "v2", "sid", namespace);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_outside_can_be_written_from_a_place_of_the_hooks() {
    for namespace in ["own", "host"] {
        attack_from_within("crun", "v1", "sid", namespace);
        attack_from_within("runc", "v2", "bookworm", &format!("{namespace} legacy"));
        attack_from_within("crun", "none", "bookworm", namespace);
        attack_from_within("crun", "none", "sid", namespace);
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_outside_can_be_written_from_a_user_namespace() {
    attack_from_within("runc", "v2", "sid", "user");
    attack_from_within("crun", "v1", "bookworm", "user");
    attack_from_within("runc", "v1", "sid", "user admin");
    attack_from_within("crun", "v2", "bookworm", "user admin");
    attack_from_within("runc", "v2", "bookworm", "user admin legacy");
}

/// A runc in a container that was given what a runc needs.
fn run_a_container_inside(cgroups: &str) {
    let view = View::open("trixie", cgroups);
    let container = Container::with(&view, "runc", "trixie", |config| {
        add_capabilities(config, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        // On v1 a runtime has to write every controller, and those are the runtime's mounts, not the hook's.
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/sys/fs/cgroup" && cgroups != "v2" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    });
    container.boot().unwrap();
    let inner = format!("inner-{}", &container.id[..12]);
    container.shell(
        r#"mkdir -p /root/inner/rootfs/bin && cd /root/inner && cp /bin/busybox rootfs/bin && runc spec &&
            sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"busybox", "sleep", "1000"/' config.json"#,
    );
    // As a unit, so that on v2 the inner container's cgroup is beside it, in what systemd has delegated.
    container.shell(&format!(
        "systemd-run --quiet --unit=inner --property=Delegate=yes runc run --bundle /root/inner {inner}"
    ));
    let asked = Instant::now();
    while !container
        .exec(&["runc", "exec", &inner, "busybox", "true"])
        .status
        .success()
    {
        let said =
            text(&container.exec(&["journalctl", "--no-pager", "--output=cat", "--unit=inner"]));
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{cgroups}: no inner container: {said}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }

    let made = view.cgroups_of(&inner);
    assert!(
        !made.is_empty(),
        "{cgroups}: the inner container has no cgroup"
    );
    let within: BTreeSet<_> = container.cgroups().into_iter().collect();
    let outside: Vec<_> = made.iter().filter(|path| !within.contains(*path)).collect();
    assert!(
        outside.is_empty(),
        "{cgroups}: cgroups of the inner container outside: {outside:?}"
    );
    // systemd, too, mounts what it can when it may. What this process is in as well was not of its making.
    let cgroups_of =
        |process: &str| fs::read_to_string(format!("/proc/{process}/cgroup")).expect("it runs");
    let (joined, inherited) = (cgroups_of(&container.pid().to_string()), cgroups_of("self"));
    let is_outside = |line: &&str| {
        !line.ends_with(":/")
            && !line.contains(&container.id)
            && !inherited.lines().any(|own| own == *line)
    };
    let joined: Vec<_> = joined.lines().filter(is_outside).collect();
    assert!(
        joined.is_empty(),
        "{cgroups}: systemd is in cgroups outside of its container: {joined:?}"
    );

    container.shell(&format!("runc delete --force {inner}"));
    container.end().unwrap();
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn a_runtime_inside_uses_only_the_cgroups_of_its_container_on_v1() {
    run_a_container_inside("v1");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn a_runtime_inside_uses_only_the_cgroups_of_its_container_on_hybrid() {
    run_a_container_inside("hybrid");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn a_runtime_inside_uses_only_the_cgroups_of_its_container_on_v2() {
    run_a_container_inside("v2");
}
