//! An unmodified image boots without any privilege, and sees what it should.

use serde_json::json;

use crate::lab::{Container, View, edit_as, image};

#[test]
#[ignore = "needs root and the lab: make test"]
fn without_the_hook_no_systemd_boots() {
    for cgroups in ["v1", "v2"] {
        let view = View::open("trixie", cgroups);
        for image in ["bullseye", "bookworm", "trixie", "sid"] {
            let container = Container::with(&view, "runc", image, |config| {
                config["hooks"] = json!({});
                config["process"]["terminal"] = json!(true);
            });
            let outcome = container.boot();
            println!("no hook, {cgroups}, {image}: {outcome:?}");
            assert!(
                outcome.is_err(),
                "{image} boots on {cgroups} without a hook: what is tested here?"
            );
        }
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn run_is_a_tmpfs_that_allows_programs() {
    let view = View::open("trixie", "hybrid");
    let container = Container::new(&view, "runc", "bookworm");
    container.boot().unwrap();
    let run = container.shell("grep ' /run ' /proc/mounts");
    assert!(
        run.contains(" tmpfs ") && run.contains("nosuid,nodev") && !run.contains("noexec"),
        "{run}"
    );
    let said = container.shell(
        "printf '#!/bin/sh\\necho works\\n' >/run/program; chmod +x /run/program; /run/program",
    );
    assert_eq!(said, "works");
    container.end().unwrap();
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn a_read_only_cgroup_mount_is_enough_and_stays_read_only() {
    for cgroups in ["v1", "v2"] {
        let view = View::open("trixie", cgroups);
        let container = Container::new(&view, "crun", "trixie");
        container.boot().unwrap();
        let mounts = container.shell("grep ' /sys/fs/cgroup' /proc/mounts");
        let writable: Vec<_> = mounts
            .lines()
            .filter(|line| {
                line.split(' ')
                    .nth(3)
                    .is_some_and(|options| options.starts_with("rw"))
            })
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        // runtimes leave the tmpfs of cgroup v1 writable, whatever the config says
        let systemd: Vec<_> = writable
            .into_iter()
            .filter(|place| *place != "/sys/fs/cgroup")
            .collect();
        assert_eq!(
            systemd.len(),
            1,
            "writable on {cgroups}: {systemd:?}\n{mounts}"
        );
        container.end().unwrap();
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn systemd_runs_with_the_defaults_of_docker_and_no_privilege() {
    let view = View::open("trixie", "v2");
    for image in ["bullseye", "bookworm", "trixie", "sid"] {
        let container = Container::new(&view, "runc", image);
        container.boot().unwrap();
        let status = container.shell("cat /proc/1/status");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim_start_matches(':').trim().to_owned())
        };
        // CHOWN … AUDIT_WRITE: the fourteen of `docker run`.
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(
                field(set).as_deref(),
                Some("00000000a80425fb"),
                "{image}: {set}"
            );
        }
        assert_eq!(
            field("Seccomp").as_deref(),
            Some("2"),
            "{image}: a filter is on"
        );
        assert_eq!(
            container.shell("unshare --mount true 2>/dev/null || echo refused"),
            "refused",
            "{image}"
        );
        assert_eq!(
            container.shell("cat /proc/kcore /proc/timer_list | wc -c"),
            "0",
            "{image}: masked"
        );
        assert_eq!(
            container.shell("echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused"),
            "refused",
            "{image}"
        );
        assert_eq!(
            container.shell("mkdir /sys/kernel/x 2>/dev/null || echo refused"),
            "refused",
            "{image}"
        );
        assert!(
            container
                .shell("grep ' /sys ' /proc/mounts")
                .contains(" ro,"),
            "{image}: /sys"
        );
        assert_eq!(
            container.shell("systemctl is-system-running"),
            "running",
            "{image}"
        );
        container.end().unwrap();
    }
}

/// podman's `--rootfs PATH:idmap`, Kubernetes' user namespaces: the files belong to root on the disk, and to the
/// container's root in its mount of them. The host's root may look at them, and make nothing (EOVERFLOW).
#[test]
#[ignore = "needs root and the lab: make test"]
fn a_root_file_system_may_be_idmapped() {
    for (runtime, cgroups) in [("runc", "v2"), ("crun", "v1")] {
        let view = View::open("trixie", cgroups);
        let container =
            Container::with(&view, runtime, "bookworm", |config| edit_as("user", config));
        // Not of an overlay: that can be made of idmapped mounts, and not be one.
        let [tree, rootfs] =
            ["tree", "rootfs"].map(|name| container.beside(name).display().to_string());
        view.run(
            "cp",
            &["--archive", &image("bookworm").display().to_string(), &tree],
        );
        view.run(
            "mount",
            &[
                "--bind",
                "-o",
                "X-mount.idmap=b:0:100000:65536",
                &tree,
                &rootfs,
            ],
        );
        container
            .boot()
            .unwrap_or_else(|error| panic!("{runtime} {cgroups}: {error}"));
        let owners = container.shell("stat -c %u /run /run/lock /etc/machine-id | sort -u");
        assert_eq!(owners.trim(), "0", "{runtime} {cgroups}");
        let on_disk = std::fs::metadata(container.beside("tree/etc/machine-id")).expect("an ID");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&on_disk), 0);
        container.stop().unwrap();
        container.delete().unwrap();
        view.run("umount", &[&rootfs]);
        container.is_gone().unwrap();
    }
}
