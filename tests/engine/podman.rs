//! podman calls the hook by what it reads in hooks.d. Its own preparation for systemd is off (`--systemd=false`), or
//! the hook's would not be seen; one test has it on, as a user will.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::host::{Host, IMAGES};

const DEVICE: &str = "--device=oci-systemd-hook/init=systemd";

/// What each podman can start here: crun takes no hybrid host, and that of Debian 12 no cgroup v2 without
/// `CAP_SYS_RESOURCE`.
fn runtimes_for(root: &str, cgroups: &str) -> &'static [&'static str] {
    match (root, cgroups) {
        (_, "hybrid") | ("host", "v2") => &["runc"],
        _ => &["runc", "crun"],
    }
}

/// Both podmans, each with a runtime and a view of its own.
const HOSTS: &[(&str, &str, &str)] = &[("host", "v1", "runc"), ("trixie", "v2", "crun")];

fn boots_every_systemd(root: &str, cgroups: &str) {
    for runtime in runtimes_for(root, cgroups) {
        let host = Host::with_podman(root, cgroups, runtime);
        for name in IMAGES {
            let container = host.start(&["--systemd=false", &host.image(name)]);
            container.boot();
            container.assert_prepared();
            container.stop();
            container.remove();
            println!("podman of {root}, {runtime}, {cgroups}, {name}: running, stopped");
        }
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_this_host_boots_every_systemd_on_a_v1_host() {
    boots_every_systemd("host", "v1");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_this_host_boots_every_systemd_on_a_v2_host() {
    boots_every_systemd("host", "v2");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_this_host_boots_every_systemd_on_a_hybrid_host() {
    boots_every_systemd("host", "hybrid");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_debian_13_boots_every_systemd_on_a_v1_host() {
    boots_every_systemd("trixie", "v1");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_debian_13_boots_every_systemd_on_a_v2_host() {
    boots_every_systemd("trixie", "v2");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_of_debian_13_boots_every_systemd_on_a_hybrid_host() {
    boots_every_systemd("trixie", "hybrid");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn without_the_hook_podman_boots_nothing() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        fs::create_dir(host.view.path(Path::new("/run/empty"))).unwrap();
        host.run(&[
            "--hooks-dir=/run/empty",
            "run",
            "--detach",
            "--name=unprepared",
            "--systemd=false",
            &host.image("trixie"),
        ]);
        host.container("unprepared").wait_for_its_end();
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn what_podman_prepares_itself_still_boots() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        let container = host.start(&[&host.image("trixie")]);
        container.boot();
        container.assert_prepared();
        if *cgroups == "v1" {
            // podman alone shows all of the host's hierarchy there, writable.
            let refused = container.try_exec(&["mkdir", "/sys/fs/cgroup/systemd/mine"]);
            assert!(
                !refused.status.success(),
                "the host's cgroups can be written"
            );
        }
        container.stop();
        container.remove();
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn mounts_below_run_survive() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        let shared = host.view.path(Path::new("/run/shared"));
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("greeting"), "hello\n").unwrap();
        host.output(&["secret", "rm", "password"]);
        host.run(&["secret", "create", "password", "/run/shared/greeting"]);

        let container = host.start(&[
            "--systemd=false",
            "--secret=password",
            "--volume=data:/run/app",
            "--volume=/run/shared:/run/config:ro",
            &host.image("trixie"),
        ]);
        container.boot();
        assert_eq!(container.exec(&["cat", "/run/secrets/password"]), "hello");
        assert_eq!(container.exec(&["cat", "/run/config/greeting"]), "hello");
        container.exec(&["test", "-e", "/run/.containerenv"]);
        container.exec(&["sh", "-c", "echo kept >/run/app/state"]);
        let refused = container.try_exec(&["touch", "/run/config/mine"]);
        assert!(!refused.status.success(), "a read-only volume was written");
        container.stop();
        container.remove();

        let volume = [
            "--volume=data:/data",
            &host.image("trixie"),
            "cat",
            "/data/state",
        ];
        assert_eq!(host.run_once(&volume), "kept");
        host.run(&["volume", "rm", "data"]);
        host.run(&["secret", "rm", "password"]);
    }
}

/// A program called init that is no systemd, as s6-overlay's, and one that podman does not even ask the hook about.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn what_is_not_systemd_is_untouched() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        let init = host.view.path(Path::new("/run/init"));
        fs::write(&init, "#!/bin/sh\nexec cat /proc/mounts\n").unwrap();
        host.view.run("chmod", &["755", "/run/init"]);
        fs::create_dir(host.view.path(Path::new("/run/empty"))).unwrap();

        let image = host.image("trixie");
        for command in ["cat /proc/mounts", "/init", "/opt/app/init"] {
            let tail = [
                "--volume=/run/init:/init",
                "--volume=/run/init:/opt/app/init",
                &image,
            ];
            let tail = [&tail[..], &command.split(' ').collect::<Vec<_>>()].concat();
            let run = |head: &[&str]| {
                let mounts = host.run(&[head, &tail].concat());
                // The image's layers are named anew for each container, and podman mounts in no fixed order.
                let mounts = mounts.lines().filter(|line| !line.contains(" / overlay "));
                mounts.map(str::to_owned).collect::<BTreeSet<_>>()
            };
            let without = run(&["--hooks-dir=/run/empty", "run", "--rm", "--systemd=false"]);
            let with = run(&["run", "--rm", "--systemd=false"]);
            assert!(without.len() > 5, "{without:?}");
            assert_eq!(with, without, "{command}");
        }
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn the_annotation_says_that_a_script_ends_in_systemd() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        let always = [
            "--systemd=false",
            "--annotation=oci-systemd-hook.mode=always",
        ];
        let image = host.image("trixie");
        let script = [image.as_str(), "sh", "-c", "exec /sbin/init"];
        let container = host.start(&[&always[..], &script].concat());
        container.boot();
        container.assert_prepared();
        container.stop();
        container.remove();

        let unasked = host.start(&[&always[..1], &script].concat());
        unasked.wait_for_its_end();
    }
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn the_annotation_keeps_the_hook_away() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        let never = "--annotation=oci-systemd-hook.mode=never";
        let container = host.start(&["--systemd=false", never, &host.image("trixie")]);
        container.wait_for_its_end();
    }
}

/// Only with runc: crun throws away what a hook says.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_passes_on_why_the_hook_refused() {
    for root in ["host", "trixie"] {
        let host = Host::with_podman(root, "v2", "runc");
        let wrong = "--annotation=oci-systemd-hook.mode=sometimes";
        let output = host.output(&["run", "--systemd=false", wrong, &host.image("trixie")]);
        let said = crate::lab::text(&output);
        assert!(!output.status.success(), "{said}");
        for word in ["oci-systemd-hook: ", "oci-systemd-hook.mode", "always"] {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}

/// The file that is for Docker, for those who want podman to be asked, too.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_takes_the_cdi_device() {
    for (root, cgroups, runtime) in HOSTS {
        let host = Host::with_podman(root, cgroups, runtime);
        host.view
            .run("rm", &["-r", "/usr/share/containers/oci/hooks.d"]);
        let container = host.start(&["--systemd=false", DEVICE, &host.image("trixie")]);
        container.boot();
        container.assert_prepared();
        let environment = container.exec(&["cat", "/proc/1/environ"]);
        assert!(environment.contains("container=oci\0"), "{environment:?}");
        container.stop();
        container.remove();
    }
}
