//! Whatever an image brings as its machine ID, each container has its own and keeps it.

use std::fs;

use crate::lab::{Container, View};

pub(crate) const BAKED: &str = "0123456789abcdef0123456789abcdef";

/// The states in which images come, as (name, content of /etc/machine-id).
const IMAGES: [(&str, Option<&str>); 4] = [
    ("missing", None),
    ("empty", Some("")),
    ("uninitialized", Some("uninitialized\n")),
    ("baked", Some(BAKED)),
];

fn from_image<'view>(view: &'view View, suite: &str, machine_id: Option<&str>) -> Container<'view> {
    let container = Container::new(view, "runc", suite);
    match machine_id {
        None => drop(fs::remove_file(container.path("/etc/machine-id"))),
        Some(content) => container.write("/etc/machine-id", 0o444, content),
    }
    if machine_id == Some(BAKED) {
        container.write("/var/lib/dbus/machine-id", 0o644, BAKED); // not a link: two files that may differ
    }
    container
}

/// The machine ID, in the file that the hook wrote.
fn machine_id_of(container: &Container) -> String {
    assert_eq!(
        container.shell("stat -c '%a %u:%g' /etc/machine-id"),
        "444 0:0"
    );
    agreed_machine_id_of(container)
}

/// The machine ID, about which the file, systemd, the journal and D-Bus are of one mind.
pub(crate) fn agreed_machine_id_of(container: &Container) -> String {
    let id = container.shell("cat /etc/machine-id");
    assert!(
        id.len() == 32
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        "{id}"
    );
    assert_eq!(container.shell("systemd-id128 machine-id"), id, "systemd");
    assert_eq!(container.shell("dbus-uuidgen --get"), id, "D-Bus");
    assert_eq!(
        container.shell("ls -d /run/log/journal/* /var/log/journal/* 2>/dev/null | sed 's,.*/,,'"),
        id,
        "journal"
    );
    let header =
        container.shell("journalctl --header | grep -i '^Machine ID' | sort -u | sed 's/.*: *//'");
    assert_eq!(header, id, "journalctl --header");
    assert_eq!(
        container.shell("journalctl --list-boots --no-pager | grep -c '^ *0 '"),
        "1",
        "journalctl --list-boots"
    );
    id
}

fn two_containers_differ(suite: &str) {
    let view = View::open("trixie", "v2");
    for (name, content) in IMAGES {
        let (one, other) = (
            from_image(&view, suite, content),
            from_image(&view, suite, content),
        );
        one.boot()
            .unwrap_or_else(|error| panic!("{suite}, {name}: {error}"));
        other
            .boot()
            .unwrap_or_else(|error| panic!("{suite}, {name}: {error}"));
        let (id, other_id) = (machine_id_of(&one), machine_id_of(&other));
        println!("{suite}, {name}: {id}, {other_id}");
        assert_ne!(id, other_id, "{suite}, {name}");
        assert!(
            ![&id, &other_id].contains(&&BAKED.to_owned()),
            "{suite}, {name}: the image's"
        );
        other.end().unwrap();

        one.end().unwrap();
        one.boot()
            .unwrap_or_else(|error| panic!("{suite}, {name}, again: {error}"));
        assert_eq!(machine_id_of(&one), id, "{suite}, {name}: after a restart");
        one.end().unwrap();
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn two_containers_of_one_image_differ_and_keep_their_machine_id_with_247() {
    two_containers_differ("bullseye");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn two_containers_of_one_image_differ_and_keep_their_machine_id_with_252() {
    two_containers_differ("bookworm");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn two_containers_of_one_image_differ_and_keep_their_machine_id_with_262() {
    two_containers_differ("sid");
}
