//! A host with SELinux, whose policy is enforced: all tmpfs of the hook's bear the container's label, and systemd boots
//! with what the policy lets a container do.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::lab::{Container, FIRST_ID, View, edit_as};
use crate::{cgroups, kernel};

/// As podman and Docker write them, with two categories of the container's own.
const PROCESS_LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";
const MOUNT_LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

fn with_labels(config: &mut Value) {
    config["process"]["selinuxLabel"] = json!(PROCESS_LABEL);
    config["linux"]["mountLabel"] = json!(MOUNT_LABEL);
}

/// Of the host's own root: in another, mount(8) finds no configuration of SELinux's, and drops the label.
fn open_view() -> View {
    let enforced = fs::read_to_string("/sys/fs/selinux/enforce").unwrap_or_default();
    assert_eq!(enforced, "1", "this machine needs tests/lab/vm --selinux");
    let view = View::open("host", cgroups());
    // systemd makes cgroups; and by itself, Debian's policy lets no container use a capability.
    for boolean in ["manage_cgroup", "use_host_all_caps", "use_userns_all_caps"] {
        view.run("setsebool", &[&format!("container_{boolean}"), "1"]);
    }
    view
}

/// The tmpfs on these places, and all others, bear the label, and these files are seen with it.
fn check_labels(container: &Container, places: &[&str], files: &[&str]) {
    let pid = container.pid();
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it is there");
    let mounts = table
        .lines()
        .filter_map(|line| line.split_once(" - tmpfs tmpfs "))
        .filter_map(|(mount, options)| Some((mount.split(' ').nth(4)?, options)));
    let mounts: Vec<_> = mounts.collect();
    for place in places {
        assert!(mounts.iter().any(|mount| mount.0 == *place), "{mounts:?}");
    }
    let context = format!("context=\"{MOUNT_LABEL}\"");
    for (place, options) in mounts {
        assert!(options.contains(&context), "{place}: {options}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    for file in files {
        let mut label = [0; 256];
        let length = rustix::fs::getxattr(root.join(file), "security.selinux", &mut label)
            .unwrap_or_else(|errno| panic!("{file}: {errno}"));
        let label = String::from_utf8_lossy(&label[..length]);
        assert_eq!(label.trim_end_matches('\0'), MOUNT_LABEL, "{file}");
    }
}

fn boot_with_labels(runtime: &str, image: &str, edits: &str) {
    let view = open_view();
    let container = Container::with(&view, runtime, image, |config| {
        edit_as(edits, config);
        with_labels(config);
    });
    container.write("/run/image/file", 0o644, "kept\n");
    if edits == "user" {
        for path in ["/run/image", "/run/image/file"] {
            chown(container.path(path), Some(FIRST_ID), Some(FIRST_ID)).expect("root may");
        }
    }
    container.create().unwrap();
    let places = ["/run", "/run/lock", "/tmp"];
    let files = [
        "run/image",
        "run/image/file",
        "run/host/container-manager",
        "etc/machine-id",
    ];
    check_labels(&container, &places, &files);

    container.start().unwrap();
    container.wait_until_running().unwrap();
    let read = "cat /run/image/file /run/host/container-manager && grep -c . /etc/machine-id";
    assert_eq!(container.shell(read), "kept\noci\n1");
    let label = fs::read_to_string(format!("/proc/{}/attr/current", container.pid()));
    let label = label.expect("it is there");
    assert_eq!(label.trim_end_matches('\0'), PROCESS_LABEL);
    container.end().unwrap();
    println!("{} {runtime} {image} {edits}: running", kernel());
}

#[test]
#[ignore = "needs a machine with SELinux: make test-vm"]
fn selinux_with_crun() {
    boot_with_labels("crun", "sid", "own");
    boot_with_labels("crun", "sid", "user");
}

#[test]
#[ignore = "needs a machine with SELinux: make test-vm"]
fn selinux_with_runc() {
    boot_with_labels("runc", "trixie", "own");
}

/// What few containers need: a hierarchy that is made for it, and an ID that is bound over the image's.
#[test]
#[ignore = "needs a machine with SELinux: make test-vm"]
fn selinux_with_a_read_only_root_and_version_1() {
    let view = open_view();
    let container = Container::with(&view, "crun", "bookworm", |config| {
        edit_as("legacy", config);
        with_labels(config);
        config["root"]["readonly"] = json!(true);
    });
    container.create().unwrap();
    let places = [
        "/run",
        "/run/lock",
        "/tmp",
        "/sys/fs/cgroup",
        "/etc/machine-id",
    ];
    check_labels(&container, &places, &["etc/machine-id", "sys/fs/cgroup"]);
}
