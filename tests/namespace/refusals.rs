//! Images and configs that lead elsewhere: one line, and neither the container nor the host is
//! changed.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::Bundle;
use crate::process::Process;

#[test]
#[ignore = "needs root: make test"]
fn refuses_places_that_are_links_or_files() {
    for (place, target) in [
        ("run", "/etc"),
        ("run", "../../../../../../../../etc"),
        ("run", "/proc/self/root/etc"),
        ("run", "run"),
        ("run", "/nonexistent"),
        ("run/lock", "/etc"),
        ("run/lock", "../var"),
    ] {
        let bundle = Bundle::with_systemd(252);
        let path = bundle.image(place);
        let _ = fs::remove_dir(&path);
        symlink(target, &path).expect("a link");
        let process = Process::start(&bundle, "");
        process.assert_refused(&bundle, 65, &[&format!("/{place}"), "a link", "directory"]);
    }
    for place in ["run", "run/lock", "tmp"] {
        let bundle = Bundle::with_systemd(252);
        bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
        let _ = fs::remove_dir(bundle.image(place));
        bundle.write(place, b"a file");
        let process = Process::start(&bundle, "");
        process.assert_refused(&bundle, 65, &[&format!("/{place}"), "not a directory"]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_a_run_that_is_or_becomes_read_only() {
    let bundle = Bundle::with_systemd(252);
    let process = Process::start(&bundle, "mount -t tmpfs -o ro run run");
    process.assert_refused(&bundle, 65, &["/run", "read-only"]);

    for destination in ["/run", "/run/", "//run", "/var/run"] {
        let mut bundle = Bundle::with_systemd(252);
        bundle.config["mounts"] =
            json!([{ "destination": destination, "type": "tmpfs", "options": ["nosuid", "ro"] }]);
        let process = Process::start(&bundle, "mount -t tmpfs run run");
        process.assert_refused(&bundle, 65, &["/run", "read-only", "without ro"]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_a_root_that_is_not_the_containers() {
    for (path, says) in [
        ("..", "not the mount of a root file system"),
        ("../../../../../..", "not the mount of a root file system"),
        ("/", "not the mount of a root file system"),
        ("/etc", "not the mount of a root file system"),
        ("rootfs/etc", "not the mount of a root file system"),
        ("nonexistent", "youki"),
    ] {
        let mut bundle = Bundle::with_systemd(252);
        bundle.config["root"]["path"] = json!(path);
        let process = Process::start(&bundle, "");
        process.assert_refused(&bundle, 65, &[says]);
    }
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["root"] = json!(null);
    let process = Process::start(&bundle, "");
    process.assert_refused(&bundle, 65, &["root.path"]);
}

#[test]
#[ignore = "needs root: make test"]
fn names_the_step_the_call_and_the_file_when_the_kernel_refuses() {
    let bundle = Bundle::with_systemd(252);
    fs::remove_dir(bundle.image("sys")).expect("removed");
    let process = Process::start(&bundle, "");
    let run = bundle.prepare(process.pid());
    run.assert_fails(
        71,
        &[
            "cannot mount ",
            "/sys/fs/cgroup",
            "openat2",
            "ENOENT: No such file or directory",
        ],
    );
}
