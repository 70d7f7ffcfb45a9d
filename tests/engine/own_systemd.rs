//! podman prepares for systemd by itself, if it is not told otherwise (`--systemd=true`, or `always` whatever the
//! command): what it has done stays as it is. What it cannot do is done, and what it gives of the host is taken back.
//! Containers are looked at when they are initialised, that is, when the hooks have run and nothing of the image has.

use std::fs;
use std::path::Path;

use crate::host::{Container, Host};
use crate::lab::outside::{MANAGER, changes, changes_elsewhere, foreign_cgroups, look};

const ALWAYS: &[&str] = &[
    "--systemd=always",
    "--annotation=oci-systemd-hook.mode=always",
];

/// Whose podman, view, runtime, options, image and command; podman of Debian 12 starts nothing with crun on v2 here.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const DONE: [Row; 5] = [
    ("host", "v2", "runc", &["--systemd=true"], &["bookworm"]),
    ("host", "v2", "runc", &["--systemd=always"], &["sid"]),
    ("trixie", "v2", "crun", &["--systemd=true"], &["trixie"]),
    (
        "trixie",
        "v2",
        "crun",
        ALWAYS,
        &["sid", "sh", "-c", "exec /sbin/init"],
    ),
    ("trixie", "v2", "runc", &[], &["sid"]),
];

/// The container of a row, without the hook and with it.
fn initialised<'host>(host: &'host Host, row: &Row) -> [Container<'host>; 2] {
    let (_, _, _, options, command) = row;
    let image = host.image(command[0]);
    let arguments = [*options, &[&image], &command[1..]].concat();
    let empty = host.view.path(Path::new("/run/empty"));
    fs::create_dir(empty).expect("it is the view's own");
    [&["--hooks-dir=/run/empty"][..], &[]].map(|options| host.initialise(options, &arguments))
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn what_podman_has_done_on_a_v2_host_stays_as_it_is() {
    for row in &DONE {
        let host = Host::with_podman(row.0, row.1, row.2);
        let [alone, container] = initialised(&host, row);
        let [before, after] = [&alone, &container].map(|one| look(one.pid(), &one.id));
        assert_eq!(changes(&before, &after), MANAGER, "{row:?}");
        alone.remove();
        boots(&host, container);
    }
}

/// Where podman has no tree for this systemd, or one that is not the container's alone; and whether it is the host's
/// own hierarchy that can be written without the hook.
const NOT_DONE: [(Row, bool); 7] = [
    (
        ("host", "v1", "runc", &["--systemd=true"], &["bookworm"]),
        true,
    ),
    (
        ("host", "v1", "runc", &["--systemd=always"], &["sid"]),
        true,
    ),
    (
        ("trixie", "v1", "crun", &["--systemd=true"], &["trixie"]),
        true,
    ),
    (
        ("trixie", "v1", "crun", &["--systemd=true"], &["sid"]),
        true,
    ),
    (("trixie", "hybrid", "runc", &[], &["bookworm"]), true),
    (
        ("trixie", "v2", "crun", &["--cgroupns=host"], &["trixie"]),
        true,
    ),
    (
        (
            "trixie",
            "v2",
            "runc",
            &["--annotation=oci-systemd-hook.cgroup=legacy"],
            &["bookworm"],
        ),
        false,
    ),
];

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn what_podman_cannot_give_is_given_and_nothing_of_the_hosts() {
    for (row, gives_all) in &NOT_DONE {
        let host = Host::with_podman(row.0, row.1, row.2);
        let containers = initialised(&host, row);
        let [before, after] = containers.each_ref().map(|one| look(one.pid(), &one.id));
        assert_eq!(changes_elsewhere(&before, &after), MANAGER, "{row:?}");
        let [before, after] = containers
            .each_ref()
            .map(|one| foreign_cgroups(&host.view, one.pid(), &one.id));
        assert_eq!(!before.is_empty(), *gives_all, "{row:?}: {before:?}");
        assert!(after.is_empty(), "{row:?}: {after:?}");

        let [alone, container] = containers;
        if row.4 == ["sid"] {
            host.run(&["start", &alone.id]);
            alone.wait_for_its_end();
        }
        alone.remove();
        boots(&host, container);
    }
}

/// It does, and knows that it is podman's.
fn boots(host: &Host, container: Container) {
    host.run(&["start", &container.id]);
    container.boot();
    container.assert_prepared();
    let engine = container.exec(&["systemd-detect-virt", "--container"]);
    assert_eq!(engine, "podman");
    container.stop();
    container.remove();
}
