//! Docker has no hooks.d; a container asks for the hook as for a device. `docker run` has no more options here than a
//! user needs, and Docker's own seccomp profile and capabilities.

use crate::host::{Host, IMAGES};
use crate::lab::text;

const DEVICE: &str = "--device=oci-systemd-hook/init=systemd";

fn boots_every_systemd(cgroups: &str) {
    let host = Host::with_docker(cgroups);
    for name in IMAGES {
        let container = host.start(&[DEVICE, &host.image(name)]);
        container.boot();
        container.assert_prepared();
        container.stop();
        container.remove();
        println!("docker, {cgroups}, {name}: running, stopped");
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_boots_every_systemd_on_a_v1_host() {
    boots_every_systemd("v1");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_boots_every_systemd_on_a_v2_host() {
    boots_every_systemd("v2");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_boots_every_systemd_on_a_hybrid_host() {
    boots_every_systemd("hybrid");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn without_the_device_docker_boots_nothing() {
    for cgroups in ["v2", "hybrid"] {
        let host = Host::with_docker(cgroups);
        for name in ["bookworm", "trixie"] {
            let container = host.start(&[&host.image(name)]);
            container.wait_for_its_end();
        }
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn a_volume_below_run_survives_in_docker() {
    let host = Host::with_docker("hybrid");
    let container = host.start(&[DEVICE, "--volume=/run/app", &host.image("trixie")]);
    container.boot();
    let mounts = container.exec(&["cat", "/proc/mounts"]);
    assert!(mounts.contains(" /run/app "), "{mounts}");
    container.exec(&["sh", "-c", "echo kept >/run/app/state"]);
    host.run(&["restart", "--time=30", &container.id]);
    container.boot();
    assert_eq!(container.exec(&["cat", "/run/app/state"]), "kept");
}

/// With a whole pod's or compose file's worth of containers given the device, some are no systemd's.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn a_device_without_need_does_no_harm() {
    let host = Host::with_docker("v2");
    let said = host.run_once(&[DEVICE, &host.image("trixie"), "echo", "hello"]);
    assert_eq!(said, "hello");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_passes_on_why_the_hook_refused() {
    let host = Host::with_docker("v2");
    let wrong = "--annotation=oci-systemd-hook.mode=sometimes";
    let output = host.output(&["run", DEVICE, wrong, &host.image("trixie")]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    for word in ["oci-systemd-hook: ", "oci-systemd-hook.mode", "always"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

/// What people add to a container of this kind; with a read-only root, logind wants a place to write to.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn docker_run_can_be_given_other_options_too() {
    for cgroups in ["v2", "hybrid"] {
        let host = Host::with_docker(cgroups);
        let image = host.image("trixie");
        for options in [
            &["--tty"][..],
            &["--read-only", "--tmpfs=/var"],
            &["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp"],
            &["--volume=/run"],
            &["--volume=/tmp"],
            &["--volume=/etc"],
            &["--cgroupns=host"],
            &["--cgroupns=private"],
            &["--security-opt=no-new-privileges"],
            &["--entrypoint=/usr/lib/systemd/systemd"],
        ] {
            println!("docker, {cgroups}: {options:?}");
            let container = host.start(&[&[DEVICE], options, &[&image]].concat());
            container.boot();
            container.stop();
            container.remove();
        }
    }
}
