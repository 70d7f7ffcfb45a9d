//! The machine ID where the user has mounted something: on its file, on /etc, on /run. What he gave is
//! his; the container gets an ID all the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bundle::Bundle;
use crate::machine_id::{BAKED, bundle, ours, read};
use crate::process::Process;

const ID: &str = "etc/machine-id";
const COMMIT: &str = "run/systemd/system/systemd-machine-id-commit.service";

/// A file of the user's with this content on the image's, read-only or not.
fn mounted(content: &str, flags: &str) -> (Bundle, Process) {
    let bundle = bundle();
    bundle.write(ID, b"");
    bundle.write("var/lib/dbus/machine-id", b"");
    fs::write(bundle.path.join("id"), content).expect("a file of the user's");
    let setup = format!("mount --bind ../id {ID}; mount -o remount,bind,{flags} {ID}");
    let process = Process::start(&bundle, &setup);
    (bundle, process)
}

#[test]
#[ignore = "needs root: make test"]
fn takes_the_id_of_a_file_that_the_user_mounted() {
    for flags in ["rw", "ro"] {
        let given = format!("{BAKED}\n");
        let (bundle, process) = mounted(&given, flags);
        let made = process.prepare(&bundle);
        assert!(!made.iter().any(|mount| mount.at[1..] == *ID), "{made:?}");
        for file in [ID, "var/lib/dbus/machine-id"] {
            assert_eq!(read(process.path(file)), given, "{file}");
        }
        // systemd would fail to take the mount away.
        let mask = fs::read_link(process.path(COMMIT));
        assert_eq!(mask.expect("a mask"), Path::new("/dev/null"));
    }
}

#[test]
#[ignore = "needs root: make test"]
fn covers_a_file_without_an_id_that_the_user_mounted() {
    for (content, flags) in [("", "rw"), ("", "ro"), ("uninitialized\n", "rw")] {
        let (bundle, process) = mounted(content, flags);
        process.prepare(&bundle);
        assert_eq!(read(process.path(ID)), ours());
        assert_eq!(read(bundle.path.join("id")), content);
        assert!(process.path(COMMIT).is_symlink());
        process.assert_untouched(&bundle);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_what_the_images_link_leads_to_and_the_user_mounted() {
    let bundle = bundle();
    bundle.write("etc/hosts", b"");
    symlink("hosts", bundle.image(ID)).expect("a link");
    fs::write(bundle.path.join("hosts"), "127.0.0.1 localhost\n").expect("a file of the user's");
    let process = Process::start(&bundle, "mount --bind ../hosts etc/hosts");
    process.prepare(&bundle);
    assert_eq!(read(process.path("etc/hosts")), "127.0.0.1 localhost\n");
    let mounts = process.mounts();
    let on_hosts = mounts.iter().filter(|mount| mount.at == "/etc/hosts");
    assert_eq!(on_hosts.count(), 1, "{mounts:?}");
}

/// A tmpfs of the user's with this on it, bound on a place of the image's, as Kubernetes mounts an
/// `emptyDir` in memory. What the tmpfs has in the end.
fn with_tmpfs_of_the_users(place: &str, content: &str) -> (Bundle, Process, Vec<PathBuf>) {
    let mut bundle = bundle();
    bundle.write(ID, BAKED.as_bytes());
    bundle.config["mounts"] =
        json!([{ "destination": format!("/{place}"), "type": "bind", "options": ["rbind"] }]);
    let setup = format!(
        "mkdir ../memory; mount -t tmpfs memory ../memory; cd ../memory; {content}
        cd ../rootfs; mount --bind ../memory {place}"
    );
    let process = Process::start(&bundle, &setup);
    process.prepare(&bundle);
    let mut found: Vec<_> = fs::read_dir(process.path("../memory"))
        .expect("the tmpfs")
        .flatten()
        .map(|entry| entry.file_name().into())
        .collect();
    found.sort();
    (bundle, process, found)
}

#[test]
#[ignore = "needs root: make test"]
fn writes_nothing_but_a_mount_point_into_a_tmpfs_of_the_users_on_run() {
    let (_bundle, _process, found) = with_tmpfs_of_the_users("run", "echo mine >file");
    assert_eq!(found, ["file", "lock"].map(Path::new));
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_the_id_in_a_tmpfs_of_the_users_on_etc() {
    let given = "0123456789abcdef0123456789abcdee";
    let (_bundle, process, found) =
        with_tmpfs_of_the_users("etc", &format!("echo {given} >machine-id"));
    assert_eq!(read(process.path(ID)), format!("{given}\n"));
    assert_eq!(found, [Path::new("machine-id")]);

    let (_bundle, process, found) = with_tmpfs_of_the_users("etc", "");
    assert_eq!(read(process.path(ID)), ours());
    assert_eq!(found, [Path::new("machine-id")]);
}
