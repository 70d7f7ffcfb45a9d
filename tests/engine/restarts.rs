//! What a container keeps when its engine starts it again, what one gets that is made from another's image, and that
//! the hook does its work once where two files in hooks.d ask for it.

use crate::host::{Container, Host};
use crate::lab::outside::{changes, look};

const DEVICE: &str = "--device=oci-systemd-hook/init=systemd";

/// In a volume below /run, in one of its own, and in the image.
const DATA: [&str; 4] = [
    "/run/app/state",
    "/data/state",
    "/etc/state",
    "/var/lib/state",
];

/// Each engine, with hosts of different cgroups and systemds of different hierarchies: whose engine, the view, the
/// runtime of podman, and the image.
const PODMANS: [(&str, &str, &str, &str); 2] = [
    ("host", "v1", "runc", "bookworm"),
    ("trixie", "v2", "crun", "sid"),
];
const DOCKERS: [(&str, &str); 2] = [("v2", "trixie"), ("v1", "sid")];

/// A container that has booted and has data.
fn with_data<'host>(host: &'host Host, option: &str, image: &str) -> Container<'host> {
    let image = host.image(image);
    let container = host.start(&[option, "--volume=/run/app", "--volume=/data", &image]);
    container.boot();
    for path in DATA {
        container.exec(&["sh", "-c", &format!("echo {path} >{path}")]);
    }
    container
}

/// Stopped and started again in good order, and after a crash.
fn keeps_all(host: &Host, option: &str, image: &str) {
    let container = with_data(host, option, image);
    let id = container.id.as_str();
    let machine_id = container.machine_id();
    for way in [
        &[&["restart", "--time=30", id][..]][..],
        &[&["kill", id], &["wait", id], &["start", id]],
    ] {
        for command in way {
            host.run(command);
        }
        container.boot();
        container.assert_prepared();
        assert_eq!(container.machine_id(), machine_id, "{way:?}");
        for path in DATA {
            assert_eq!(container.exec(&["cat", path]), path, "{way:?}");
        }
    }
    container.stop();
    container.remove();
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_keeps_machine_id_and_data_when_it_starts_a_container_again() {
    for (root, cgroups, runtime, image) in PODMANS {
        let host = Host::with_podman(root, cgroups, runtime);
        keeps_all(&host, "--systemd=false", image);
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_keeps_machine_id_and_data_when_it_starts_a_container_again() {
    for (cgroups, image) in DOCKERS {
        keeps_all(&Host::with_docker(cgroups), DEVICE, image);
    }
}

/// An image of a container that runs has the container's machine ID baked in.
fn commits_an_image(host: &Host, option: &str, image: &str) {
    let first = with_data(host, option, image);
    host.run(&["commit", &first.id, "committed"]);
    let baked = ["--entrypoint=cat", "committed", "/etc/machine-id"];
    assert_eq!(host.run_once(&baked), first.machine_id());

    let second = host.start(&[option, "committed"]);
    second.boot();
    second.assert_prepared();
    assert_ne!(second.machine_id(), first.machine_id());
    for tool in ["dbus-uuidgen --get", "systemd-id128 machine-id"] {
        let command: Vec<_> = tool.split(' ').collect();
        assert_eq!(second.exec(&command), second.machine_id(), "{tool}");
    }
    assert_eq!(second.exec(&["cat", "/var/lib/state"]), "/var/lib/state");
    // Neither has the first one another now.
    assert_eq!(first.machine_id(), first.id[..32]);
    for container in [first, second] {
        container.stop();
        container.remove();
    }
    host.run(&["rmi", "committed"]);
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn a_container_of_an_image_that_podman_committed_gets_a_machine_id_of_its_own() {
    for (root, cgroups, runtime, image) in PODMANS {
        let host = Host::with_podman(root, cgroups, runtime);
        commits_an_image(&host, "--systemd=false", image);
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn a_container_of_an_image_that_docker_committed_gets_a_machine_id_of_its_own() {
    commits_an_image(&Host::with_docker("v2"), DEVICE, "trixie");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn two_files_that_match_do_the_work_once() {
    for (root, cgroups, runtime, image) in PODMANS {
        let host = Host::with_podman(root, cgroups, runtime);
        let image = host.image(image);
        // The command matches the one file, and the annotation, if there is one, the other.
        let [once, twice] = ["auto", "always"].map(|mode| {
            let annotation = format!("--annotation=oci-systemd-hook.mode={mode}");
            let volume = "--volume=data:/run/app";
            host.initialise(&[], &["--systemd=false", &annotation, volume, &image])
        });
        let [before, after] = [&once, &twice].map(|one| look(one.pid(), &one.id));
        assert_eq!(changes(&before, &after), [""; 0], "podman of {root}");
        once.remove();
        host.run(&["start", &twice.id]);
        twice.boot();
        twice.assert_prepared();
        twice.stop();
        twice.remove();
        host.run(&["volume", "rm", "data"]);
    }
}
