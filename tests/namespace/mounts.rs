//! What the container's mount table says afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::process::{Mount, Process, has_cgroup2, has_named_hierarchy};

/// What makes an image different.
type Make = fn(&Bundle);

fn destinations(mounts: &[Mount]) -> Vec<&str> {
    mounts.iter().map(|mount| mount.at.as_str()).collect()
}

#[track_caller]
fn find<'a>(mounts: &'a [Mount], at: &str) -> &'a Mount {
    mounts
        .iter()
        .rev()
        .find(|mount| mount.at == at)
        .unwrap_or_else(|| panic!("no {at} in {mounts:?}"))
}

#[test]
#[ignore = "needs root: make test"]
fn mounts_what_systemd_needs_and_nothing_else() {
    let bundle = Bundle::with_systemd(252);
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);

    let run = find(&made, "/run");
    assert_eq!(
        (run.kind.as_str(), run.flags.as_str()),
        ("tmpfs", "rw,nosuid,nodev")
    );
    assert!(
        run.options.contains("mode=755") && run.options.contains("nr_inodes=800000"),
        "{run:?}"
    );
    let lock = find(&made, "/run/lock");
    assert_eq!(
        (lock.kind.as_str(), lock.flags.as_str()),
        ("tmpfs", "rw,nosuid,nodev,noexec")
    );
    assert!(lock.options.contains("size=5120k"), "{lock:?}");
    assert!(made.iter().all(|mount| mount.is_private), "{made:?}");
    let others = destinations(&made)
        .into_iter()
        .filter(|at| !at.starts_with("/sys/fs/cgroup"));
    assert_eq!(others.collect::<Vec<_>>(), ["/run", "/run/lock"]);
    let manager = fs::read_to_string(process.path("run/host/container-manager")).expect("the name");
    assert_eq!(manager, "oci\n");
}

/// Without it, tmpfs refuses the option. The other half is in `tests/vm/selinux.rs`.
#[test]
#[ignore = "needs root: make test"]
fn takes_a_label_only_where_selinux_is_enabled() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    let has_label = find(&made, "/run").options.contains("context=");
    assert_eq!(has_label, Path::new("/sys/fs/selinux/enforce").exists());
}

#[test]
#[ignore = "needs root: make test"]
fn gives_a_legacy_systemd_its_own_cgroup_and_the_rest_read_only() {
    assert!(has_named_hierarchy() || has_cgroup2());
    if !has_named_hierarchy() {
        return gives_a_unified_systemd_a_leaf_and_its_limits_read_only();
    }
    let bundle = Bundle::with_systemd(252);
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    let top = find(&made, "/sys/fs/cgroup");
    assert_eq!(
        (top.kind.as_str(), top.flags.as_str()),
        ("tmpfs", "ro,nosuid,nodev,noexec")
    );
    let tree = find(&made, "/sys/fs/cgroup/systemd");
    assert_eq!(tree.kind, "cgroup");
    assert_eq!(tree.flags, "rw,nosuid,nodev,noexec,noatime");
    assert!(tree.options.contains("name=systemd"), "{tree:?}");
    assert!(tree.root.ends_with(&bundle.id), "{tree:?}");
}

#[test]
#[ignore = "needs root: make test"]
fn gives_a_unified_systemd_a_leaf_and_its_limits_read_only() {
    assert!(has_cgroup2(), "this host has no cgroup2");
    let bundle = Bundle::with_systemd(262);
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    let top = find(&made, "/sys/fs/cgroup");
    assert_eq!(
        (top.kind.as_str(), top.flags.as_str()),
        ("cgroup2", "ro,nosuid,nodev,noexec,noatime")
    );
    assert!(top.root.ends_with(&bundle.id), "{top:?}");
    let place = find(&made, "/sys/fs/cgroup/payload");
    assert_eq!(
        (place.kind.as_str(), place.flags.as_str()),
        ("cgroup2", "rw,nosuid,nodev,noexec,noatime")
    );
    assert!(
        place.root.ends_with(&format!("{}/payload", bundle.id)),
        "{place:?}"
    );
    let cgroup =
        fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).expect("its cgroups");
    let unified = cgroup
        .lines()
        .find(|line| line.starts_with("0::"))
        .expect("cgroup2");
    assert!(
        unified.ends_with(&format!("{}/payload", bundle.id)),
        "{unified}"
    );
}

#[test]
#[ignore = "needs root: make test"]
fn shows_nothing_of_the_host_to_a_container_in_the_hosts_cgroup_namespace() {
    let top = if has_named_hierarchy() {
        "/sys/fs/cgroup/systemd"
    } else {
        "/sys/fs/cgroup"
    };
    let bundle = Bundle::with_systemd(252);
    let process = Process::start_with(&bundle, "--mount --propagation private", "");
    let made = process.prepare(&bundle);
    let outer = find(&made, top);
    assert!(
        outer.flags.starts_with("ro,") && outer.is_private,
        "{outer:?}"
    );
    let writable: Vec<_> = made
        .iter()
        .filter(|mount| mount.kind.starts_with("cgroup") && mount.flags.starts_with("rw"))
        .collect();
    let [place] = writable[..] else {
        panic!("not one writable place: {writable:?}")
    };
    assert!(
        place.at.starts_with(&format!("{top}/{}", bundle.id)) && place.is_private,
        "{place:?}"
    );
    if has_named_hierarchy() {
        assert!(outer.root.ends_with(&bundle.id), "{outer:?}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn changes_nothing_the_second_time() {
    for version in [252, 262]
        .into_iter()
        .filter(|version| has_cgroup2() || *version == 252)
    {
        for unshare in [
            "--mount --cgroup --propagation private",
            "--mount --propagation private",
        ] {
            let bundle = Bundle::with_systemd(version);
            let process = Process::start_with(&bundle, unshare, "");
            assert_ne!(process.prepare(&bundle), []);
            let id = fs::read(process.path("etc/machine-id")).expect("an ID");
            process.assert_untouched(&bundle);
            assert_eq!(fs::read(process.path("etc/machine-id")).expect("an ID"), id);
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn mounts_tmp_only_where_the_image_would() {
    let unit = "usr/lib/systemd/system/tmp.mount";
    let bundle = Bundle::with_systemd(252);
    bundle.write(unit, b"[Mount]\n");
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    let tmp = find(&made, "/tmp");
    assert_eq!(
        (tmp.kind.as_str(), tmp.flags.as_str()),
        ("tmpfs", "rw,nosuid,nodev")
    );

    let masks: [(&str, Make); 4] = [
        ("an empty unit", |bundle| {
            bundle.write("etc/systemd/system/tmp.mount", b"");
        }),
        ("a link to /dev/null", |bundle| {
            fs::create_dir_all(bundle.image("etc/systemd/system")).expect("a directory");
            symlink("/dev/null", bundle.image("etc/systemd/system/tmp.mount")).expect("a link");
        }),
        ("a link to itself", |bundle| {
            fs::create_dir_all(bundle.image("etc/systemd/system")).expect("a directory");
            symlink("tmp.mount", bundle.image("etc/systemd/system/tmp.mount")).expect("a link");
        }),
        ("a /tmp that is a link", |bundle| {
            fs::remove_dir(bundle.image("tmp")).expect("removed");
            symlink("var", bundle.image("tmp")).expect("a link");
        }),
    ];
    for (what, mask) in masks {
        let bundle = Bundle::with_systemd(252);
        bundle.write(unit, b"[Mount]\n");
        mask(&bundle);
        let process = Process::start(&bundle, "mkdir dev; mount --bind /dev dev");
        assert!(
            !destinations(&process.prepare(&bundle)).contains(&"/tmp"),
            "{what}"
        );
    }
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_places_alone_that_are_mounts() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
    let setup = "mount -t tmpfs run run; mkdir run/lock; mount -t tmpfs lock run/lock; mount -t tmpfs tmp tmp";
    let process = Process::start(&bundle, setup);
    let made = process.prepare(&bundle);
    assert!(
        made.iter().all(|mount| mount.at.starts_with("/sys")),
        "{made:?}"
    );
    // A tmpfs of the user's is filled as ours would be.
    assert!(process.path("run/host/container-manager").is_file());
}

#[test]
#[ignore = "needs root: make test"]
fn writes_only_mount_points_into_a_volume_on_run() {
    let mut bundle = Bundle::with_systemd(252);
    fs::create_dir(bundle.path.join("volume")).expect("a volume");
    bundle.give("volume", "/run", &["rbind"]);
    let process = Process::start(&bundle, "mount --bind ../volume run");
    let made = process.prepare(&bundle);
    assert!(destinations(&made).contains(&"/run/lock") && !destinations(&made).contains(&"/run"));
    let inside: Vec<_> = fs::read_dir(bundle.path.join("volume"))
        .expect("it")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(inside, ["lock"]);
    assert_eq!(
        fs::read_dir(bundle.path.join("volume/lock"))
            .expect("it")
            .count(),
        0
    );
}

#[test]
#[ignore = "needs root: make test"]
fn moves_the_users_mounts_onto_its_own() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("run/app/of-the-image", b"hidden by the mount");
    let process = Process::start(
        &bundle,
        "mkdir -p ../data/nested ../lock; echo kept >../data/file; echo secret >../secret
        mkdir -p run/app run/a/b/c run/lock; touch run/secret
        mount --bind ../data run/app; mount -o remount,bind,ro run/app
        mount -t tmpfs -o ro nested run/app/nested
        mount --bind ../secret run/secret
        mount -t tmpfs deep run/a/b/c; echo deep >run/a/b/c/file
        mount --bind ../lock run/lock; echo locked >run/lock/file",
    );
    let flags = |mounts: &[Mount]| {
        let mut flags: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.at.starts_with("/run/"))
            .map(|mount| (mount.at.clone(), mount.root.clone(), mount.flags.clone()))
            .collect();
        flags.sort();
        flags
    };
    let before = flags(&process.mounts());
    assert!(destinations(&process.prepare(&bundle)).contains(&"/run"));
    assert_eq!(flags(&process.mounts()), before);
    for (path, content) in [
        ("run/app/file", "kept\n"),
        ("run/secret", "secret\n"),
        ("run/a/b/c/file", "deep\n"),
        ("run/lock/file", "locked\n"),
    ] {
        assert_eq!(fs::read_to_string(process.path(path)).expect(path), content);
    }
    assert!(process.path("run/app/nested").is_dir());
    assert!(fs::write(process.path("run/app/new"), "").is_err());
    process.assert_untouched(&bundle);
}

#[test]
#[ignore = "needs root: make test"]
fn mounts_tmp_on_a_read_only_root() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["root"]["readonly"] = json!(true);
    let process = Process::start(&bundle, "");
    assert!(destinations(&process.prepare(&bundle)).contains(&"/tmp"));

    let bundle = Bundle::with_systemd(252);
    for path in ["run/lock", "etc"] {
        fs::create_dir_all(bundle.image(path)).expect("a directory");
    }
    bundle.write("etc/machine-id", b"");
    let process = Process::start(&bundle, "mount -o remount,bind,ro .");
    let made = process.prepare(&bundle);
    for at in ["/run", "/run/lock", "/tmp", "/etc/machine-id"] {
        find(&made, at);
    }
    assert_eq!(
        fs::read(bundle.image("etc/machine-id")).expect("the file"),
        b""
    );
    assert_eq!(
        fs::read(process.path("etc/machine-id"))
            .expect("the ID")
            .len(),
        33
    );
    process.assert_untouched(&bundle);
}

#[test]
#[ignore = "needs root: make test"]
fn sizes_run_by_the_limit_of_the_container() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["linux"]["resources"]["memory"]["limit"] = json!(1_u64 << 30);
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    assert!(
        find(&made, "/run").options.contains("size=209716k"),
        "{made:?}"
    );
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_nothing_on_the_host() {
    let table = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let cgroups = |text: &str| {
        text.lines()
            .filter(|line| line.contains(" - cgroup"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = table();
    let bundle = Bundle::with_systemd(262 - 10 * u32::from(!has_cgroup2()));
    let process = Process::start_with(&bundle, "--mount --propagation private", "");
    process.prepare(&bundle);
    let after = table();
    assert!(!after.contains(&bundle.id), "{after}");
    // The flags of cgroup2 are the superblock's, and so everybody's.
    assert_eq!(cgroups(&after), cgroups(&before));
}
