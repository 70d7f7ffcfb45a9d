//! Runtimes that an ordinary user runs, who has a cgroup that was delegated to him, or has none: with the container's
//! own user namespace (as `runc --rootless`), or inside one that is there already (as rootless podman does).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::lab::{View, copy_hook, default_seccomp, docker_defaults_and_hook, image, text};

/// As root: a user with ids of his own, his cgroup, and a directory. Nothing of it outlives the view but the cgroup.
const PREPARE: &str = r"
set -e
id=$1 delegated=$2
mkdir -p /run/etc; chmod 755 /run/etc
for file in passwd subuid subgid; do [ ! -e /etc/$file ] || cp /etc/$file /run/etc; done
echo 'tester:x:1000:1000::/tmp:/bin/sh' >>/run/etc/passwd
for file in subuid subgid; do touch /etc/$file; echo tester:100000:65536 >/run/etc/$file; done
for file in passwd subuid subgid; do mount --bind /run/etc/$file /etc/$file; done
cgroup=/sys/fs/cgroup/lab-$id
mkdir $cgroup $cgroup/mine
if [ $delegated = delegated ]; then
    for dir in $cgroup $cgroup/mine; do
        chown 1000:1000 $dir $dir/cgroup.procs $dir/cgroup.threads $dir/cgroup.subtree_control
    done
fi
mkdir -p /tmp/box/rootfs /tmp/box/xdg
chown -R 1000:1000 /tmp/box
";

/// As the user, whose shell is in a cgroup of his own.
const ENTER: &str = r#"
echo $$ >/sys/fs/cgroup/lab-$1/mine/cgroup.procs
export HOME=/tmp/box XDG_RUNTIME_DIR=/tmp/box/xdg
cd /tmp/box
exec setpriv --reuid=1000 --regid=1000 --clear-groups "${@:2}"
"#;

/// As whoever: a container's whole life.
const LIVE: &str = r#"
runtime="$1 --root /tmp/box/state" id=$2
[ "$1" != crun ] || runtime+=" --cgroup-manager=cgroupfs"
cd /tmp/box
$runtime create --bundle . "$id" </dev/null >out 2>&1 || { cat hook-said out 2>/dev/null; exit 1; }
$runtime start "$id"
for _ in $(seq 300); do
    status=$($runtime exec "$id" systemctl is-system-running 2>/dev/null)
    case $status in running | degraded) break ;; esac
    sleep 0.1
done
echo "$status"
$runtime exec "$id" sh -c 'systemctl --failed --plain --no-legend; echo 5 >/sys/fs/cgroup/cgroup.max.depth' 2>&1
$runtime kill "$id" 37
for _ in $(seq 100); do $runtime state "$id" | grep -q '"running"' || break; sleep 0.1; done
$runtime state "$id" | grep -o '"stopped"'
$runtime delete "$id" && echo deleted
"#;

/// As the user: the same with podman, which makes the user namespace itself. It has no systemd to ask for a cgroup.
const LIVE_IN_PODMAN: &str = r#"
unset CONTAINERS_CONF
mkdir hooks
for stage in createRuntime poststop; do
    cat >hooks/$stage.json <<-JSON
	{"version": "1.0.0", "hook": {"path": "/tmp/box/hook", "args": ["oci-systemd-hook", "$stage"]},
	 "when": {"commands": ["/init$"]}, "stages": ["$stage"]}
	JSON
done
podman() {
    command podman --runtime="$runtime" --cgroup-manager=cgroupfs --events-backend=file --storage-driver=vfs \
        --hooks-dir=/tmp/box/hooks "$@"
}
runtime=$1
podman import --quiet --change 'CMD ["/sbin/init"]' "$3" box >/dev/null 2>&1 || { echo 'not imported'; exit 1; }
podman run --detach --name box --systemd=false --network=none --ulimit=host --pids-limit=0 \
    --cgroup-parent="/lab-$2" --stop-signal=37 box >out 2>&1 || { cat out; exit 1; }
for _ in $(seq 300); do
    status=$(podman exec box systemctl is-system-running 2>/dev/null)
    case $status in running | degraded) break ;; esac
    sleep 0.1
done
echo "$status"
podman exec box sh -c 'echo 5 >/sys/fs/cgroup/cgroup.max.depth' 2>&1
SECONDS=0
podman stop --time 20 box >/dev/null && [ $SECONDS -lt 10 ] && echo '"stopped"'
podman rm box >/dev/null && echo deleted
"#;

/// The user namespace that a rootless engine makes around its runtime.
const AROUND: [&str; 5] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--map-auto",
    "--mount",
];

struct User<'view> {
    view: &'view View,
    id: String,
}

impl<'view> User<'view> {
    fn new(view: &'view View, delegated: bool) -> Self {
        let id =
            fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs");
        let id = id.trim().replace('-', "");
        let delegated = if delegated { "delegated" } else { "none" };
        view.run("bash", &["-c", PREPARE, "prepare", &id, delegated]);
        let user = Self { view, id };
        let archive = image("bookworm").with_extension("tar");
        let archive = archive.to_str().expect("the lab's path is text");
        let mut unpack = AROUND.to_vec();
        unpack.extend(["tar", "-C", "rootfs", "--exclude=./dev/*", "-xpf", archive]);
        let (unpacked, said) = user.run(&unpack);
        assert!(unpacked, "{said}");
        user
    }

    fn run(&self, command: &[&str]) -> (bool, String) {
        let mut enter = self.view.command("bash");
        enter.args(["-c", ENTER, "enter", &self.id]).args(command);
        let output = enter.output().expect("nsenter can be run");
        (output.status.success(), text(&output))
    }

    /// A container over the image, and all that was said in its life.
    fn live(&self, runtime: &str, inside: bool, delegated: bool) -> String {
        let seen_from_here = self.view.path(Path::new("/tmp/box"));
        copy_hook(&seen_from_here);
        let mut config = docker_defaults_and_hook(&self.id, Path::new("/tmp/box"));
        config["linux"]["cgroupsPath"] = json!(format!("/lab-{}/box", self.id));
        config["linux"]["resources"] = json!(null);
        if !delegated {
            config["linux"]["cgroupsPath"] = json!(null);
        }
        if !inside {
            let namespaces = config["linux"]["namespaces"].as_array_mut();
            namespaces.expect("a list").push(json!({ "type": "user" }));
            for mappings in ["uidMappings", "gidMappings"] {
                config["linux"][mappings] = json!([
                    { "containerID": 0, "hostID": 1000, "size": 1 },
                    { "containerID": 1, "hostID": 100_000, "size": 65_535 },
                ]);
            }
        }
        config["linux"]["seccomp"] = default_seccomp(&config);
        let text = serde_json::to_vec(&config).expect("config.json can be written as text");
        fs::write(seen_from_here.join("config.json"), text).expect("root can write it");
        let mut command = if inside { AROUND.to_vec() } else { Vec::new() };
        command.extend(["bash", "-c", LIVE, "live", runtime, &self.id]);
        self.run(&command).1
    }

    fn live_in_podman(&self, runtime: &str) -> String {
        copy_hook(&self.view.path(Path::new("/tmp/box")));
        let archive = image("bookworm").with_extension("tar");
        let archive = archive.to_str().expect("the lab's path is text");
        let live = [
            "bash",
            "-c",
            LIVE_IN_PODMAN,
            "live",
            runtime,
            &self.id,
            archive,
        ];
        self.run(&live).1
    }

    fn cgroup(&self) -> PathBuf {
        self.view
            .path(Path::new("/sys/fs/cgroup"))
            .join(format!("lab-{}", self.id))
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        let cgroups = self.view.cgroups_of(&self.id);
        // podman leaves a process that holds its user namespace.
        for cgroup in &cgroups {
            let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            let _ = Command::new("kill")
                .arg("-9")
                .args(processes.lines())
                .output();
        }
        for _ in 0..50 {
            let left = cgroups
                .iter()
                .filter(|cgroup| fs::remove_dir(cgroup).is_err() && cgroup.exists());
            if left.count() == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rootless_runtimes_boot_systemd_in_a_delegated_cgroup() {
    for (runtime, inside) in [("runc", false), ("runc", true), ("crun", true)] {
        let view = View::open("trixie", "v2");
        let user = User::new(&view, true);
        let said = user.live(runtime, inside, true);
        println!("{runtime}, inside a user namespace: {inside}: {said}");
        assert!(said.starts_with("running | "), "{runtime} {inside}: {said}");
        assert!(
            said.contains("cgroup.max.depth: Permission denied")
                || said.contains("cgroup.max.depth: Read-only file system"),
            "{runtime} {inside}: {said}"
        );
        assert!(
            said.ends_with("\"stopped\" | deleted"),
            "{runtime} {inside}: {said}"
        );
        assert!(!user.cgroup().join("box").exists(), "{runtime} {inside}");
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rootless_podman_boots_systemd_in_a_delegated_cgroup() {
    for runtime in ["crun", "runc"] {
        let view = View::open("trixie", "v2");
        let user = User::new(&view, true);
        let said = user.live_in_podman(runtime);
        println!("podman, {runtime}: {said}");
        assert!(said.starts_with("running | "), "{runtime}: {said}");
        assert!(said.contains("Read-only file system"), "{runtime}: {said}");
        assert!(said.ends_with("\"stopped\" | deleted"), "{runtime}: {said}");
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rootless_without_a_delegated_cgroup_is_told_what_to_delegate() {
    for (runtime, inside) in [("runc", false), ("runc", true)] {
        let view = View::open("trixie", "v2");
        let said = User::new(&view, false).live(runtime, inside, false);
        println!("{runtime}, inside a user namespace: {inside}: {said}");
        assert!(
            said.contains("oci-systemd-hook: ") && said.contains("delegate"),
            "{runtime} {inside}: {said}"
        );
    }
}

/// Its process is not dumpable, so that the user who runs it may not look into its namespaces.
#[test]
#[ignore = "needs root and the lab: make test"]
fn rootless_crun_needs_a_user_namespace_around_it() {
    let view = View::open("trixie", "v2");
    let said = User::new(&view, true).live("crun", false, true);
    println!("crun: {said}");
    assert!(
        said.contains("oci-systemd-hook: ") && said.contains("EACCES"),
        "{said}"
    );
}
