//! The cgroups that the hook makes itself: where the runtime gave none, and what becomes of them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde_json::json;

use crate::bundle::{Bundle, hook, run};
use crate::process::{Process, has_named_hierarchy, hierarchies};

const IN_THE_ROOT: &str = "--mount --cgroup --propagation private";

/// Where the places of a hierarchy are, by container.
fn tops() -> Vec<PathBuf> {
    hierarchies()
        .iter()
        .map(|top| top.join("oci-systemd-hook"))
        .collect()
}

/// The places that the container has.
fn places(bundle: &Bundle) -> Vec<PathBuf> {
    tops()
        .iter()
        .map(|top| top.join(&bundle.id))
        .filter(|place| place.exists())
        .collect()
}

/// The one that it has.
#[track_caller]
fn place(bundle: &Bundle) -> PathBuf {
    let mut places = places(bundle);
    assert_eq!(places.len(), 1, "{places:?}");
    places.remove(0)
}

/// The cgroups in one, as they are listed.
fn below(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).expect("a cgroup").flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// Make cgroups below one: their paths with `%g` for a number, and how many.
fn make_below(cgroup: &Path, paths: &str, count: u32) {
    let cgroup = cgroup.display();
    crate::process::shell(&format!(
        "cd {cgroup}; seq -f {paths} {count} | xargs mkdir -p"
    ));
}

fn poststop(id: &str) {
    let state = json!({ "id": id, "status": "stopped", "pid": 0 });
    run(hook(), state.to_string().as_bytes()).assert_silent();
}

/// A container that its runtime put into no cgroup, for systemd's hierarchy to be made or shared.
fn prepared(version: u32) -> (Bundle, Process) {
    let bundle = Bundle::with_systemd(version);
    let process = Process::start_in_root(&bundle, IN_THE_ROOT);
    process.prepare(&bundle);
    (bundle, process)
}

#[test]
#[ignore = "needs root: make test"]
fn makes_a_place_and_removes_it_at_poststop_however_often_that_comes() {
    // On a host without it, the place of a legacy systemd is in a hierarchy that is not mounted.
    let versions = if has_named_hierarchy() {
        &[229, 252, 262][..]
    } else {
        &[252, 262]
    };
    for version in versions {
        let (bundle, process) = prepared(*version);
        let place = place(&bundle);
        let members = fs::read_to_string(place.join("cgroup.procs")).expect("its processes");
        assert_eq!(members, format!("{}\n", process.pid()));
        // What systemd leaves behind when it is killed.
        fs::create_dir_all(place.join("system.slice/a.service/b")).expect("cgroups");

        // Too early: its process is there still.
        bundle.clean_up().assert_silent();
        assert!(place.exists());
        drop(process);
        bundle.clean_up().assert_silent();
        assert!(!place.exists(), "{}", place.display());
        bundle.clean_up().assert_silent();
    }
}

#[test]
#[ignore = "needs root: make test"]
fn sweeps_away_what_a_poststop_that_never_came_has_left_and_nothing_else() {
    let (left, process) = prepared(252);
    let place = place(&left);
    let (alive, living) = prepared(252);
    let others = place
        .parent()
        .expect("a parent")
        .parent()
        .expect("a root")
        .join("ohs-test-other");
    fs::create_dir_all(others.join("empty")).expect("a cgroup of somebody else's");
    fs::create_dir_all(place.join("deep/er")).expect("cgroups");
    drop(process);
    assert!(place.exists());

    let (next, process) = prepared(252);
    assert!(!place.exists(), "{}", place.display());
    assert_eq!(places(&alive).len(), 1);
    assert!(others.join("empty").exists());
    for bundle in [&next, &alive] {
        bundle.clean_up().assert_silent();
    }
    assert_eq!(places(&alive).len(), 1, "its process lives");
    drop((process, living));
    for bundle in [&next, &alive] {
        bundle.clean_up().assert_silent();
        assert_eq!(places(bundle), [] as [PathBuf; 0]);
    }
    for cgroup in [others.join("empty"), others] {
        fs::remove_dir(cgroup).expect("it was left alone");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn removes_the_place_of_no_other_container() {
    let (bundle, process) = prepared(252);
    for id in [
        bundle.id.to_uppercase(),
        bundle.id[..bundle.id.len() - 1].to_owned(),
        format!("{}x", bundle.id),
        format!("../oci-systemd-hook/{}", bundle.id),
        "..".to_owned(),
        ".".to_owned(),
        "/".to_owned(),
        "x".repeat(300),
    ] {
        poststop(&id);
        assert_eq!(places(&bundle).len(), 1, "{id}");
    }
    drop(process);
    bundle.clean_up().assert_silent();
}

#[test]
#[ignore = "needs root: make test"]
fn gives_no_container_the_place_of_one_that_lives() {
    let (first, process) = prepared(252);
    let mut second = Bundle::with_systemd(252);
    let other = Process::start_in_root(&second, IN_THE_ROOT);
    second.id.clone_from(&first.id);
    let before = other.mounts();
    second
        .prepare(other.pid())
        .assert_fails(71, &["cgroup of its own", "EEXIST"]);
    assert_eq!(other.mounts(), before);
    drop((process, other));

    // One that has ended makes room.
    let third = Process::start_in_root(&second, IN_THE_ROOT);
    second.prepare(third.pid()).assert_silent();
    drop(third);
    second.clean_up().assert_silent();
    assert_eq!(places(&second), [] as [PathBuf; 0]);
}

#[test]
#[ignore = "needs root: make test"]
fn removes_any_number_of_cgroups_that_a_container_left() {
    let (bundle, process) = prepared(252);
    let place = place(&bundle);
    make_below(&place, "a/b/%g", 10_500);
    drop(process);
    bundle.clean_up().assert_silent();
    assert!(!place.exists());
}

/// Deeper than a path can be long.
#[test]
#[ignore = "needs root: make test"]
fn removes_cgroups_of_any_depth() {
    for version in [252, 262] {
        let (bundle, process) = prepared(version);
        let place = place(&bundle);
        let name = "n".repeat(250);
        let mut last = OwnedFd::from(File::open(&place).expect("the place"));
        for _ in 0..20 {
            mkdirat(&last, "beside", Mode::RWXU).expect("a cgroup");
            mkdirat(&last, &name, Mode::RWXU).expect("a cgroup");
            last = openat(&last, &name, OFlags::DIRECTORY, Mode::empty()).expect("it");
        }
        drop((process, last));
        bundle.clean_up().assert_silent();
        assert!(!place.exists());
    }
}

/// Not on cgroup2, where the kernel takes minutes to make them.
#[test]
#[ignore = "needs root: make test"]
fn removes_a_chain_of_more_cgroups_than_it_holds_names() {
    let (bundle, process) = prepared(252);
    let place = place(&bundle);
    let mut last = OwnedFd::from(File::open(&place).expect("the place"));
    for _ in 0..10_500 {
        mkdirat(&last, "d", Mode::RWXU).expect("a cgroup");
        last = openat(&last, "d", OFlags::DIRECTORY, Mode::empty()).expect("it");
    }
    drop((process, last));
    bundle.clean_up().assert_silent();
    assert!(!place.exists());
}

#[test]
#[ignore = "needs root: make test"]
fn removes_a_place_that_others_remove_at_the_same_time() {
    for (version, paths) in [(252, "%g"), (252, "%g/x/y"), (262, "%g"), (262, "%g/x/y")] {
        let (bundle, process) = prepared(version);
        let place = place(&bundle);
        make_below(&place, paths, 3000);
        drop(process);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| bundle.clean_up().assert_silent());
            }
        });
        assert!(!place.exists());
    }
}

#[test]
#[ignore = "needs root: make test"]
fn takes_no_cgroup_of_a_living_container_however_many_it_has() {
    let (bundle, process) = prepared(252);
    let place = place(&bundle);
    make_below(&place, "%g", 10_500);
    let before = below(&place);
    let last = before.last().expect("cgroups");
    fs::write(last.join("cgroup.procs"), process.pid().to_string()).expect("its process moves");

    let (next, other) = prepared(252);
    assert_eq!(below(&place).len(), before.len());
    let mut same = Bundle::with_systemd(252);
    let third = Process::start_in_root(&same, IN_THE_ROOT);
    same.id.clone_from(&bundle.id);
    same.prepare(third.pid())
        .assert_fails(71, &["cgroup of its own", "EEXIST"]);
    assert_eq!(below(&place).len(), before.len());
    drop((process, other, third));
    for bundle in [bundle, next] {
        bundle.clean_up().assert_silent();
        assert_eq!(places(&bundle), [] as [PathBuf; 0]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn sweeps_away_a_part_at_each_start_of_what_is_very_much() {
    let (left, process) = prepared(262);
    let place = place(&left);
    make_below(&place, "%g", 35_000);
    drop(process);
    let mut starts = 0;
    while place.exists() {
        assert!(starts < 10, "{} are there still", below(&place).len());
        let (next, process) = prepared(262);
        starts += 1;
        drop(process);
        next.clean_up().assert_silent();
    }
    // Tests that run at the same time take some of it too.
    assert!(starts > 1);
}

#[test]
#[ignore = "needs root: make test"]
fn makes_a_place_while_others_are_made_and_removed() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let (bundle, process) = prepared(252);
                    assert_eq!(places(&bundle).len(), 1);
                    drop(process);
                    bundle.clean_up().assert_silent();
                    assert_eq!(places(&bundle), [] as [PathBuf; 0]);
                }
            });
        }
    });
}

#[test]
#[ignore = "needs root: make test"]
fn gives_no_place_to_two_that_start_at_once_with_one_id() {
    let mut all_prepared = 0;
    for _ in 0..100 {
        let mut bundles: Vec<_> = (0..4).map(|_| Bundle::with_systemd(252)).collect();
        let id = bundles[0].id.clone();
        let processes: Vec<_> = bundles
            .iter_mut()
            .map(|bundle| {
                let process = Process::start_in_root(bundle, IN_THE_ROOT);
                bundle.id.clone_from(&id);
                process
            })
            .collect();
        let prepared = std::thread::scope(|scope| {
            let pairs = bundles.iter().zip(&processes);
            let threads: Vec<_> = pairs
                .map(|(bundle, process)| scope.spawn(|| bundle.prepare(process.pid())))
                .collect();
            let runs = threads
                .into_iter()
                .map(|thread| thread.join().expect("a run"));
            let (prepared, refused): (Vec<_>, Vec<_>) = runs.partition(|run| run.status == 0);
            for run in refused {
                run.assert_fails(71, &["cgroup of its own"]);
            }
            prepared.len()
        });
        assert!(prepared <= 1, "{prepared} have one place");
        all_prepared += prepared;
        drop(processes);
        bundles[0].clean_up().assert_silent();
    }
    // None, where two have come to one place at the same moment, which is rare.
    assert!(all_prepared > 90, "{all_prepared} of 100");
}

/// The poststop of a container may still be at work when the next of its id starts.
#[test]
#[ignore = "needs root: make test"]
fn makes_a_place_while_that_of_its_id_is_removed() {
    for (version, count) in [(252, 300), (262, 300), (262, 30_000)] {
        let (left, process) = prepared(version);
        make_below(&place(&left), "%g/x/y", count);
        drop(process);
        let mut bundle = Bundle::with_systemd(version);
        bundle.id.clone_from(&left.id);
        let process = Process::start_in_root(&bundle, IN_THE_ROOT);
        std::thread::scope(|scope| {
            scope.spawn(|| poststop(&left.id));
            bundle.prepare(process.pid()).assert_silent();
        });
        let members = fs::read_to_string(place(&bundle).join("cgroup.procs")).expect("a place");
        assert_eq!(members, format!("{}\n", process.pid()));
        drop(process);
        bundle.clean_up().assert_silent();
        assert_eq!(places(&bundle), [] as [PathBuf; 0]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_a_place_for_an_id_that_is_no_name() {
    for id in ["..", "a/b", ".hidden", "a b", "\n"] {
        let mut bundle = Bundle::with_systemd(252);
        let process = Process::start_in_root(&bundle, IN_THE_ROOT);
        let before = process.mounts();
        let name = std::mem::replace(&mut bundle.id, id.to_owned());
        bundle
            .prepare(process.pid())
            .assert_fails(65, &["id", "letters"]);
        assert_eq!(process.mounts(), before);
        bundle.id = name;
    }
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_a_process_that_shares_the_cgroup_that_its_namespace_begins_at() {
    let bundle = Bundle::with_systemd(252);
    let process = Process::start(&bundle, "sleep 300 & echo $! >../other");
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if fs::read_to_string(unified).is_ok_and(|controllers| !controllers.trim().is_empty()) {
        process.assert_refused(&bundle, 65, &["no cgroup of its own", "cgroupsPath"]);
    } else {
        // It leaves the cgroup that the container's namespace begins at, so that its path would
        // lead out of it: that is refused too.
        process.assert_refused(&bundle, 65, &["outside of its cgroup namespace"]);
    }
    let other = fs::read_to_string(bundle.path.join("other")).expect("its number");
    crate::process::shell(&format!("kill {other}"));
}

#[test]
#[ignore = "needs root: make test"]
fn gives_the_root_of_a_user_namespace_its_place() {
    for version in [252, 262] {
        let bundle = Bundle::with_systemd(version);
        let unshare = "--user --map-root-user --mount --net --cgroup --propagation private";
        let process = Process::start_with(&bundle, unshare, "");
        let made = process.prepare(&bundle);
        for at in ["/run", "/run/lock"] {
            assert!(made.iter().any(|mount| mount.at == at), "{at} in {made:?}");
        }
        assert!(
            made.iter().any(|mount| mount.kind.starts_with("cgroup")),
            "{made:?}"
        );
        process.assert_untouched(&bundle);
    }
}
