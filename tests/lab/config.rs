//! The config.json that Docker writes for `docker run --network=none --env container=oci IMAGE`, seccomp profile
//! included, and the edits that tests make to it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::directory;

const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
                            NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";

/// The whole of it, but for the hooks and the seccomp profile.
fn docker_defaults(id: &str) -> Value {
    let hostname = &id[..12];
    let capabilities: Vec<_> = CAPABILITIES
        .split_whitespace()
        .map(|name| format!("CAP_{name}"))
        .collect();
    let namespaces =
        ["mount", "pid", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "root": { "path": "rootfs", "readonly": false },
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/sbin/init"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                format!("HOSTNAME={hostname}"),
                // Not Docker's, but podman's and that of the hook's CDI device: systemd up to 246 has only this.
                "container=oci",
            ],
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "mounts": [
            mount("proc", "/proc", "nosuid,noexec,nodev"),
            mount("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k"),
            mount("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("sysfs", "/sys", "nosuid,noexec,nodev,ro"),
            mount("cgroup", "/sys/fs/cgroup", "ro,nosuid,noexec,nodev"),
            mount("mqueue", "/dev/mqueue", "nosuid,noexec,nodev"),
            mount("tmpfs", "/dev/shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        ],
        "linux": {
            "cgroupsPath": format!("/lab-{id}"),
            "namespaces": namespaces,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware", "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mount(kind: &str, destination: &str, options: &str) -> Value {
    let options: Vec<_> = options.split(',').collect();
    json!({ "type": kind, "source": kind, "destination": destination, "options": options })
}

/// The same with the hook, of which `directory` has a copy.
pub(crate) fn docker_defaults_and_hook(id: &str, directory: &Path) -> Value {
    let mut config = docker_defaults(id);
    // crun throws it away otherwise
    config["annotations"] = json!({ "run.oci.hooks.stderr": directory.join("hook-said") });
    let program = directory.join("hook");
    config["hooks"] = json!({
        "createRuntime": [hook_entry(&program, "createRuntime")],
        "poststop": [hook_entry(&program, "poststop")],
    });
    config
}

/// One hook of the config, as the files in hooks.d and cdi register it.
fn hook_entry(path: &Path, stage: &str) -> Value {
    json!({
        "path": path, "args": ["oci-systemd-hook", stage],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "timeout": 30,
    })
}

/// `docker run --cgroupns=host`, the default on cgroup v1.
pub(crate) fn use_host_cgroup_namespace(config: &mut Value) {
    list(&mut config["linux"]["namespaces"]).retain(|namespace| namespace["type"] != "cgroup");
}

/// The annotation that makes the hook treat systemd as one of those that know only `name=systemd`.
pub(crate) fn hold_to_legacy(config: &mut Value) {
    config["annotations"]["oci-systemd-hook.cgroup"] = json!("legacy");
}

/// The first id that a user namespace of ours maps its root to.
pub(crate) const FIRST_ID: u32 = 100_000;

/// `dockerd --userns-remap`, or `podman run --userns=auto`: all ids from the namespace's own range.
pub(crate) fn use_user_namespace(config: &mut Value) {
    list(&mut config["linux"]["namespaces"]).push(json!({ "type": "user" }));
    for mappings in ["uidMappings", "gidMappings"] {
        config["linux"][mappings] =
            json!([{ "containerID": 0, "hostID": FIRST_ID, "size": 65_536 }]);
    }
}

/// The edits by their names, as tests print them: `own` (nothing), `host` cgroup namespace, `legacy`, `user`
/// namespace, `admin` (`CAP_SYS_ADMIN`).
pub(crate) fn edit_as(words: &str, config: &mut Value) {
    for word in words.split_whitespace() {
        match word {
            "own" | "root" => {}
            "host" => use_host_cgroup_namespace(config),
            "legacy" => hold_to_legacy(config),
            "user" => use_user_namespace(config),
            "admin" => add_capabilities(config, &["CAP_SYS_ADMIN"]),
            _ => panic!("no edit is called {word}"),
        }
    }
}

/// Drop one of the mounts.
pub(crate) fn remove_mount(config: &mut Value, destination: &str) {
    list(&mut config["mounts"]).retain(|mount| mount["destination"] != destination);
}

/// `docker run --cap-add`.
pub(crate) fn add_capabilities(config: &mut Value, capabilities: &[&str]) {
    for set in ["bounding", "effective", "permitted"] {
        list(&mut config["process"]["capabilities"][set])
            .extend(capabilities.iter().map(|name| json!(name)));
    }
}

pub(crate) fn list(value: &mut Value) -> &mut Vec<Value> {
    value.as_array_mut().expect("a list in config.json")
}

/// The engines' default seccomp profile as the runtimes take it, for a container with the capabilities of `config`.
/// The rules are those of containers-common's seccomp.json: a group of calls is left out when one of the excluded
/// capabilities is there, or one of the included is not, or the architecture is not among the included.
pub(crate) fn default_seccomp(config: &Value) -> Value {
    let profile = directory().join("runtimes/trixie/usr/share/containers/seccomp.json");
    let text = fs::read_to_string(&profile).unwrap_or_else(|error| {
        panic!(
            "cannot read {}: {error}: tests/lab/runtimes builds it",
            profile.display()
        );
    });
    let profile: Value = serde_json::from_str(&text).expect("the profile is JSON");
    let (machine, architecture) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        other => panic!("no seccomp architecture known for {other}"),
    };
    let held = &config["process"]["capabilities"]["bounding"];
    let syscalls: Vec<_> = items(&profile["syscalls"])
        .iter()
        .filter(|group| {
            let (includes, excludes) = (&group["includes"], &group["excludes"]);
            let arches = items(&includes["arches"]);
            !items(&excludes["caps"])
                .iter()
                .any(|cap| items(held).contains(cap))
                && items(&includes["caps"])
                    .iter()
                    .all(|cap| items(held).contains(cap))
                && (arches.is_empty() || arches.contains(&json!(machine)))
        })
        .map(|group| only(group, &["names", "action", "errnoRet", "args"]))
        .collect();
    let mut architectures = vec![json!(architecture)];
    for map in items(&profile["archMap"]) {
        if map["architecture"] == architecture {
            architectures.extend_from_slice(items(&map["subArchitectures"]));
        }
    }
    let mut seccomp = only(&profile, &["defaultAction", "defaultErrnoRet"]);
    seccomp["architectures"] = Value::Array(architectures);
    seccomp["syscalls"] = Value::Array(syscalls);
    seccomp
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The members of an object that are among `keys`.
fn only(value: &Value, keys: &[&str]) -> Value {
    let members = keys.iter().filter(|key| !value[**key].is_null());
    Value::Object(
        members
            .map(|key| ((*key).into(), value[*key].clone()))
            .collect(),
    )
}
