//! Engines that prepare for systemd themselves, by what they write into config.json: what they have done stays as it
//! is, and what they cannot do is done. podman, which can be had here, is in `tests/engine/own_systemd.rs`.

use serde_json::{Value, json};

use crate::lab::outside::{MANAGER, changes, changes_elsewhere, foreign_cgroups, look};
use crate::lab::{Container, View, edit_as, remove_mount};

/// What an engine makes of Docker's defaults, on a host with these cgroups.
type Edit = fn(&mut Value, &str);

const ENGINES: [(&str, Edit); 3] = [
    ("CRI-O", as_crio),
    ("nerdctl", as_nerdctl),
    ("Docker", as_docker),
];

/// CRI-O 1.36, for a command that ends in `/sbin/init` or is called systemd: `setupSystemdMounts` and
/// `setupCgroupNamespace` in `server/container_create.go` and `container_create_linux.go`.
fn as_crio(config: &mut Value, cgroups: &str) {
    set_variable(config, Some("container=crio"));
    for place in ["/run", "/run/lock", "/tmp", "/var/log/journal"] {
        let options = "rw,rprivate,noexec,nosuid,nodev,tmpcopyup";
        add_mount(config, "tmpfs", "tmpfs", place, options);
    }
    add_mount(
        config,
        "bind",
        "/etc/passwd",
        "/run/.containerenv",
        "rw,bind",
    );
    if cgroups == "v2" {
        remove_mount(config, "/sys/fs/cgroup");
        add_mount(config, "cgroup", "cgroup", "/sys/fs/cgroup", "private,rw");
    } else {
        edit_as("host", config);
        let systemd = "/sys/fs/cgroup/systemd";
        add_mount(config, "bind", systemd, systemd, "bind,nodev,noexec,nosuid");
        let masked = config["linux"]["maskedPaths"].as_array_mut();
        masked
            .unwrap()
            .push(json!(format!("{systemd}/release_agent")));
    }
}

/// `nerdctl run --systemd=always`, 2.1: `pkg/cmd/container/create.go`.
fn as_nerdctl(config: &mut Value, cgroups: &str) {
    set_variable(config, None);
    remove_mount(config, "/sys/fs/cgroup");
    add_mount(config, "cgroup", "cgroup", "/sys/fs/cgroup", "rw");
    for place in ["/run", "/run/lock", "/tmp", "/var/lib/journal"] {
        add_mount(config, "tmpfs", "tmpfs", place, "");
    }
    use_default_cgroup_namespace(config, cgroups);
}

/// `docker run --security-opt=writable-cgroups=true --tmpfs=/run:exec --tmpfs=/run/lock --tmpfs=/tmp`, 28.0: `withMounts`
/// in `daemon/oci_linux.go` takes the `ro` from the mounts of cgroups, and adds those of the user.
fn as_docker(config: &mut Value, cgroups: &str) {
    set_variable(config, None);
    remove_mount(config, "/sys/fs/cgroup");
    let options = "nosuid,noexec,nodev";
    add_mount(config, "cgroup", "cgroup", "/sys/fs/cgroup", options);
    let options = "nosuid,nodev,rprivate,exec";
    add_mount(config, "tmpfs", "tmpfs", "/run", options);
    for place in ["/run/lock", "/tmp"] {
        let options = "noexec,nosuid,nodev,rprivate";
        add_mount(config, "tmpfs", "tmpfs", place, options);
    }
    use_default_cgroup_namespace(config, cgroups);
}

/// That of Docker and nerdctl: the host's on version 1.
fn use_default_cgroup_namespace(config: &mut Value, cgroups: &str) {
    if cgroups != "v2" {
        edit_as("host", config);
    }
}

/// Which engine it is, by `container=`, or that it does not say so.
fn set_variable(config: &mut Value, variable: Option<&str>) {
    let environment = config["process"]["env"].as_array_mut().expect("a list");
    environment.retain(|entry| entry != "container=oci");
    environment.extend(variable.map(|variable| json!(variable)));
}

fn add_mount(config: &mut Value, kind: &str, source: &str, destination: &str, options: &str) {
    let options: Vec<_> = options
        .split(',')
        .filter(|option| !option.is_empty())
        .collect();
    config["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({
            "type": kind, "source": source, "destination": destination, "options": options,
        }));
}

/// A container of an engine's, created and not started, without the hook and with it.
fn created<'view>(
    view: &'view View,
    runtime: &str,
    image: &str,
    engine: Edit,
    edits: &str,
) -> [Container<'view>; 2] {
    [false, true].map(|hook| {
        let container = Container::with(view, runtime, image, |config| {
            engine(config, &view.cgroups);
            edit_as(edits, config);
            if !hook {
                config["hooks"] = json!({});
            }
        });
        container.create().unwrap();
        container
    })
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn what_an_engine_has_done_on_a_v2_host_stays_as_it_is() {
    let view = View::open("trixie", "v2");
    for (engine, edit) in ENGINES {
        for (runtime, image) in [("runc", "bookworm"), ("crun", "trixie"), ("runc", "sid")] {
            let what = format!("{engine}, {runtime}, {image}");
            let containers = created(&view, runtime, image, edit, "");
            let [before, after] = containers.each_ref().map(|one| look(one.pid(), &one.id));
            assert_eq!(changes(&before, &after), MANAGER, "{what}");
            let [_, container] = containers;
            container.start().unwrap();
            container
                .wait_until_running()
                .and_then(|()| container.end())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

/// Where the engine has no tree for this systemd, one without the path that it looks for, or one that is not the
/// container's alone: engine, its edit, view, runtime, image, other edits, and whether the host's own hierarchy can be
/// written without the hook.
const NOT_DONE: [(&str, Edit, &str, &str, &str, &str, bool); 9] = [
    ("CRI-O", as_crio, "v1", "runc", "sid", "", true),
    ("CRI-O", as_crio, "v1", "crun", "trixie", "", true),
    ("CRI-O", as_crio, "hybrid", "runc", "bookworm", "", true),
    ("CRI-O", as_crio, "v2", "crun", "bookworm", "legacy", false),
    ("nerdctl", as_nerdctl, "v1", "crun", "sid", "", false),
    ("nerdctl", as_nerdctl, "v1", "runc", "bookworm", "", false),
    (
        "nerdctl", as_nerdctl, "v2", "runc", "bookworm", "legacy", false,
    ),
    ("Docker", as_docker, "v1", "runc", "trixie", "", false),
    (
        "Docker", as_docker, "v2", "crun", "bookworm", "legacy", false,
    ),
];

/// That PID 1 finds the cgroup it is in where it looks for it, in the hierarchy that it uses.
const HAS_ITS_PATH: &str = r#"
    top=/sys/fs/cgroup line=0::
    [ ! -d $top/systemd ] || { top=$top/systemd line=[0-9]*:name=systemd:; }
    test -e "$top$(sed -n "s,^$line,,p" /proc/1/cgroup)/cgroup.procs"
"#;

#[test]
#[ignore = "needs root and the lab: make test"]
fn what_an_engine_cannot_give_is_given_and_nothing_of_the_hosts() {
    for (engine, edit, cgroups, runtime, image, edits, gives_all) in NOT_DONE {
        let what = format!("{engine}, {cgroups}, {runtime}, {image} {edits}");
        let view = View::open("trixie", cgroups);
        let containers = created(&view, runtime, image, edit, edits);
        let [before, after] = containers.each_ref().map(|one| look(one.pid(), &one.id));
        assert_eq!(changes_elsewhere(&before, &after), MANAGER, "{what}");
        let [before, after] = containers
            .each_ref()
            .map(|one| foreign_cgroups(&view, one.pid(), &one.id));
        assert_eq!(!before.is_empty(), gives_all, "{what}: {before:?}");
        assert!(after.is_empty(), "{what}: {after:?}");

        let [alone, container] = containers;
        if image == "sid" {
            alone.start().unwrap();
            let error = alone.wait_until_running().expect_err("it has no cgroup2");
            assert!(error.starts_with("exited: "), "{what}: {error}");
        }
        container.start().unwrap();
        container
            .wait_until_running()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        container.shell(HAS_ITS_PATH);
        container
            .end()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}
