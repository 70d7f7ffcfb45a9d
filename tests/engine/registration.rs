//! The files themselves, without an engine; and that podman reads the expression in them as they are meant.

use std::fs;

use serde_json::{Value, json};

use crate::host::Host;
use crate::lab::text;

/// What a container's command may be, and whether the hook has to look at it.
const COMMANDS: &[(&str, bool)] = &[
    ("/sbin/init", true),
    ("/usr/sbin/init", true),
    ("/usr/local/sbin/init", true),
    ("/init", true),
    ("init", true),
    ("/lib/systemd/systemd", true),
    ("/usr/lib/systemd/systemd", true),
    ("systemd", true),
    ("/opt/app/init", true),
    ("/opt/initdb.sh", false),
    ("/sbin/initctl", false),
    ("/sbin/init.sh", false),
    ("/sbin/init/run", false),
    ("/usr/bin/tini", false),
    ("/sbin/docker-init", false),
    ("/run/podman-init", false),
    ("busybox-init", false),
    ("/usr/bin/systemd-run", false),
    ("/usr/lib/systemd/systemd-journald", false),
    ("notsystemd", false),
    ("/sbin/Init", false),
    ("sh", false),
];

fn read(name: &str) -> Value {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).expect("it is part of the sources");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("it is an object");
    object.keys().map(String::as_str).collect()
}

/// An engine ignores the keys it does not know, so a slip of the pen would go unnoticed.
#[test]
fn hooks_d_files_have_the_keys_of_schema_1_0_0_and_no_other() {
    for name in ["oci-systemd-hook", "oci-systemd-hook-always"] {
        let file = read(&format!("hooks.d/{name}.json"));
        assert_eq!(keys(&file), ["hook", "stages", "version", "when"]);
        assert_eq!(file["version"], "1.0.0");
        // podman 4.3 would run a hook of prestart and createRuntime twice, and so would newer ones.
        assert_eq!(file["stages"], json!(["createRuntime", "poststop"]));
        assert_eq!(keys(&file["hook"]), ["args", "env", "path", "timeout"]);
        // The state says which of the stages it is, and the annotation what is wanted.
        assert_eq!(file["hook"]["args"], json!(["oci-systemd-hook"]));
    }
}

#[test]
fn the_annotation_file_asks_for_the_one_word_that_forces() {
    assert_eq!(
        read("hooks.d/oci-systemd-hook-always.json")["when"],
        json!({ "annotations": { r"^oci-systemd-hook\.mode$": "^always$" } })
    );
}

/// An engine looks for a match anywhere in the command, unless the expression is anchored.
#[test]
fn the_expression_names_whole_commands() {
    let file = read("hooks.d/oci-systemd-hook.json");
    assert_eq!(keys(&file["when"]), ["commands"]);
    let [expression] = file["when"]["commands"].as_array().unwrap().as_slice() else {
        panic!("one expression is enough: {file}");
    };
    // The one form that this test understands: any folder or none, then one of these names.
    let names = expression.as_str().unwrap();
    let names = names
        .strip_prefix("^(.*/)?(")
        .and_then(|rest| rest.strip_suffix(")$"));
    let names: Vec<_> = names.expect("it has this form").split('|').collect();
    assert_eq!(names, ["init", "systemd"]);
    for (command, expected) in COMMANDS {
        let name = command.rsplit('/').next().unwrap();
        assert_eq!(names.contains(&name), *expected, "{command}");
    }
}

/// CDI 0.4.0, which is all that podman 4.3 takes: an environment variable and two hooks, so that one file fits every
/// host. Mounts would depend on the host's cgroups, and take the place of the user's.
#[test]
fn the_cdi_device_adds_a_variable_and_the_hook_and_nothing_else() {
    let file = read("cdi/oci-systemd-hook.json");
    assert_eq!(keys(&file), ["cdiVersion", "devices", "kind"]);
    assert_eq!(file["cdiVersion"], "0.4.0");
    assert_eq!(file["kind"], "oci-systemd-hook/init");
    let [device] = file["devices"].as_array().unwrap().as_slice() else {
        panic!("one device: {file}");
    };
    assert_eq!(keys(device), ["containerEdits", "name"]);
    assert_eq!(device["name"], "systemd");
    let edits = &device["containerEdits"];
    assert_eq!(keys(edits), ["env", "hooks"]);
    assert_eq!(edits["env"], json!(["container=oci"]));
    let hooks = edits["hooks"].as_array().unwrap();
    let stages: Vec<_> = hooks.iter().map(|hook| &hook["hookName"]).collect();
    assert_eq!(stages, ["createRuntime", "poststop"]);
    for hook in hooks {
        assert_eq!(keys(hook), ["args", "env", "hookName", "path", "timeout"]);
        assert_eq!(hook["args"], json!(["oci-systemd-hook", "--always"]));
    }
}

/// Without an environment of its own a hook gets the container's from some runtimes; without a time limit it may hold
/// a container for ever.
#[test]
fn every_registration_calls_one_binary_in_the_same_way() {
    let mut hooks = read("cdi/oci-systemd-hook.json")["devices"][0]["containerEdits"]["hooks"]
        .as_array()
        .unwrap()
        .clone();
    for name in ["oci-systemd-hook", "oci-systemd-hook-always"] {
        hooks.push(read(&format!("hooks.d/{name}.json"))["hook"].clone());
    }
    for hook in &hooks {
        assert_eq!(hook["path"], "/usr/libexec/oci/hooks.d/oci-systemd-hook");
        assert_eq!(hook["env"], json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]));
        assert_eq!(hook["timeout"], 30);
    }
}

/// Where the README says they are is where the tests here have put them, and what the examples call.
#[test]
fn the_readme_and_the_examples_name_the_same_places() {
    let text = |name: &str| {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (readme, script) = (text("README.md"), text("tests/lab/install-here"));
    for folder in [
        "/usr/libexec/oci/hooks.d",
        "/usr/share/containers/oci/hooks.d",
        "/etc/cdi",
    ] {
        assert!(script.contains(folder), "tests/lab/install-here: {folder}");
    }
    for file in [
        "/usr/libexec/oci/hooks.d/oci-systemd-hook",
        "/usr/share/containers/oci/hooks.d/oci-systemd-hook.json",
        "/usr/share/containers/oci/hooks.d/oci-systemd-hook-always.json",
        "/etc/cdi/oci-systemd-hook.json",
        "oci-systemd-hook/init=systemd",
    ] {
        assert!(readme.contains(&format!("`{file}`")), "README.md: {file}");
    }
    let hooks = &read("examples/runc/config.json")["hooks"];
    assert_eq!(keys(hooks), ["createRuntime", "poststop"]);
    for stage in ["createRuntime", "poststop"] {
        assert_eq!(
            hooks[stage][0]["path"],
            "/usr/libexec/oci/hooks.d/oci-systemd-hook"
        );
    }
}

/// The engine's own word on the table: podman says in its debug log which files it found to match.
#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn podman_asks_the_hook_about_these_commands_only() {
    for root in ["host", "trixie"] {
        let host = Host::with_podman(root, "v2", "runc");
        let image = host.image("trixie");
        let annotation = "--annotation=oci-systemd-hook.mode=always";
        // Initialised only: the hooks run, but none of these programs, some of which would stay.
        let asks = |options: &[&str], command: &str, file: &str| {
            let create = ["create", "--systemd=false"];
            let id = host.run(&[&create[..], options, &[&image, command]].concat());
            let said = text(&host.output(&["--log-level=debug", "init", &id]));
            host.run(&["rm", "--force", &id]);
            assert!(said.contains("reading hooks from"), "{said}");
            said.contains(&format!("hook {file}.json matched"))
        };
        for (command, expected) in COMMANDS {
            let asked = asks(&[], command, "oci-systemd-hook");
            assert_eq!(asked, *expected, "{command}, podman of {root}");
        }
        assert!(asks(&[annotation], "sh", "oci-systemd-hook-always"));
        assert!(!asks(&[annotation], "sh", "oci-systemd-hook"));
        assert!(!asks(&[], "/sbin/init", "oci-systemd-hook-always"));
        let longer = "--annotation=not-oci-systemd-hook.mode=always";
        assert!(!asks(&[longer], "sh", "oci-systemd-hook-always"));
    }
}
