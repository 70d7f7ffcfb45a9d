//! The rows of the machine ID's table, in a real root file system.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::process::{Process, shell};

pub(crate) const BAKED: &str = "0123456789abcdef0123456789abcdef";
const UUID: &str = "DEADBEEF-0000-4000-8000-00000000CAFE";
const OURS: &str = "deadbeef000040008000 00000000cafe";

pub(crate) fn ours() -> String {
    OURS.replace(' ', "") + "\n"
}

pub(crate) fn bundle() -> Bundle {
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["process"]["env"] = json!(["container=oci", format!("container_uuid={UUID}")]);
    bundle
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).expect("a machine ID")
}

#[test]
#[ignore = "needs root: make test"]
fn writes_an_id_over_none_and_over_a_baked_one() {
    for content in [
        None,
        Some(""),
        Some("uninitialized\n"),
        Some("nonsense"),
        Some(BAKED),
        Some("0123456789abcdef0123456789abcdef\n"),
    ] {
        let bundle = bundle();
        if let Some(content) = content {
            bundle.write("etc/machine-id", content.as_bytes());
        }
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        assert_eq!(read(bundle.image("etc/machine-id")), ours(), "{content:?}");
        let file = fs::metadata(bundle.image("etc/machine-id")).expect("the file");
        assert_eq!(
            (file.mode() & 0o7777, file.uid(), file.gid()),
            (0o444, 0, 0)
        );
        let names = fs::read_dir(bundle.image("etc")).expect("/etc").count();
        assert_eq!(names, 1, "something was left in /etc");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn keeps_a_baked_id_if_it_is_told_to() {
    let mut bundle = bundle();
    bundle.annotate("machine-id", "keep");
    bundle.write("etc/machine-id", BAKED.as_bytes());
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(read(bundle.image("etc/machine-id")), BAKED);
}

#[test]
#[ignore = "needs root: make test"]
fn derives_it_from_the_containers_id_the_same_at_every_start() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let bundle = Bundle::with_systemd(252);
        for _ in 0..2 {
            let process = Process::start(&bundle, "");
            process.prepare(&bundle);
            ids.push(read(bundle.image("etc/machine-id")));
        }
    }
    assert_eq!((&ids[0], &ids[2]), (&ids[1], &ids[3]));
    assert_ne!(ids[0], ids[2]);
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_mounts_of_the_users_alone() {
    let bundle = bundle();
    bundle.write("etc/machine-id", b"");
    let process = Process::start(
        &bundle,
        &format!("echo {BAKED} >../id; mount --bind ../id etc/machine-id"),
    );
    process.prepare(&bundle);
    assert_eq!(read(process.path("etc/machine-id")), format!("{BAKED}\n"));

    // A volume on /etc: its ID is the user's; one without gets ours.
    for (content, expected) in [
        (format!("{BAKED}\n"), format!("{BAKED}\n")),
        ("uninitialized\n".into(), ours()),
        (String::new(), ours()),
    ] {
        let bundle = crate::machine_id::bundle();
        let process = Process::start(
            &bundle,
            &format!(
                "mkdir ../etc; printf '{content}' >../etc/machine-id; mount --bind ../etc etc"
            ),
        );
        process.prepare(&bundle);
        assert_eq!(
            read(process.path("etc/machine-id")),
            expected,
            "{content:?}"
        );
    }
}

#[test]
#[ignore = "needs root: make test"]
fn never_writes_through_a_link_or_into_a_hard_link() {
    let host = read("/etc/machine-id");
    for target in [
        "/../../../../../../../etc/machine-id",
        "../../../../../../../../etc/machine-id",
        "/proc/1/root/etc/machine-id",
    ] {
        let bundle = bundle();
        symlink(target, bundle.image("etc/machine-id")).expect("a link");
        let process = Process::start(&bundle, "");
        let run = bundle.prepare(process.pid());
        // Inside the image these are loops or lead nowhere.
        run.assert_fails(71, &["/etc/machine-id"]);
        assert_eq!(read("/etc/machine-id"), host);
    }

    let bundle = bundle();
    fs::create_dir_all(bundle.image("data")).expect("a directory");
    symlink("/data/id", bundle.image("etc/machine-id")).expect("a link");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(read(bundle.image("data/id")), ours());

    let bundle = crate::machine_id::bundle();
    bundle.write("etc/machine-id", BAKED.as_bytes());
    fs::hard_link(bundle.image("etc/machine-id"), bundle.image("etc/other")).expect("a hard link");
    // What a killed hook or the image left there is not written into either.
    symlink("other", bundle.image("etc/.machine-id.oci-systemd-hook")).expect("a link");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(read(bundle.image("etc/machine-id")), ours());
    assert_eq!(read(bundle.image("etc/other")), BAKED);
}

#[test]
#[ignore = "needs root: make test"]
fn replaces_what_is_no_file_and_refuses_a_directory() {
    let bundle = bundle();
    shell(&format!(
        "mkfifo {}",
        bundle.image("etc/machine-id").display()
    ));
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(read(bundle.image("etc/machine-id")), ours());

    let bundle = crate::machine_id::bundle();
    fs::create_dir(bundle.image("etc/machine-id")).expect("a directory");
    let process = Process::start(&bundle, "");
    bundle
        .prepare(process.pid())
        .assert_fails(71, &["seed /etc/machine-id", "EISDIR"]);
}

#[test]
#[ignore = "needs root: make test"]
fn gives_dbus_the_same_one_where_it_has_a_file_of_its_own() {
    for (content, expected) in [(BAKED, ours()), ("", ours())] {
        let bundle = bundle();
        bundle.write("var/lib/dbus/machine-id", content.as_bytes());
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        assert_eq!(read(bundle.image("var/lib/dbus/machine-id")), expected);
    }
    let bundle = bundle();
    symlink("/etc/machine-id", bundle.image("var/lib/dbus/machine-id")).expect("a link");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert!(bundle.image("var/lib/dbus/machine-id").is_symlink());
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_a_read_only_etc_without_the_file() {
    let bundle = bundle();
    let process = Process::start(
        &bundle,
        "mount --bind etc etc; mount -o remount,bind,ro etc",
    );
    bundle.prepare(process.pid()).assert_fails(
        71,
        &[
            "seed /etc/machine-id",
            "EROFS",
            "openat /etc/machine-id",
            "an empty file",
        ],
    );
}
