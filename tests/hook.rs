//! The protocol: what the built binary says and returns for a state on standard input. Needs no
//! privilege: nothing here has a container behind it.

mod bundle;

use std::fs;
use std::process::{Child, Command, Stdio};

use bundle::{Bundle, Run, hook, run};
use serde_json::json;

fn run_with(args: &[&str], input: &[u8]) -> Run {
    let mut command = hook();
    command.args(args);
    run(command, input)
}

/// A process that is alive, and in our own mount namespace.
struct Process(Child);

impl Process {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(
            command
                .arg("60")
                .stdin(Stdio::null())
                .spawn()
                .expect("sleep"),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prints_help_and_version_for_people() {
    let help = run_with(&["--help"], b"");
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("createRuntime"));
    let version = run_with(&["--version"], b"");
    assert_eq!(
        version.stdout,
        format!("oci-systemd-hook {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn refuses_stages_at_which_process_1_is_the_hosts() {
    for stage in ["createContainer", "startContainer", "poststart"] {
        run_with(&[stage], b"{}").assert_fails(64, &[stage, "createRuntime"]);
    }
    run_with(&["--alway"], b"{}").assert_fails(64, &["--alway", "--help"]);
}

#[test]
fn refuses_what_is_not_a_state() {
    let large = format!(r#"{{"id":"{}"}}"#, "x".repeat(10 << 20));
    for input in [
        &b""[..],
        b"\0",
        b"{",
        b"[]",
        b"null",
        br#"{"id": "box", "pid": "#,
        b"\xff\xfe{}",
        br#"{"id": 5}"#,
        br#"{"id": "box", "pid": "5"}"#,
        br#"{"id": "box", "pid": 99999999999}"#,
        br#"{"id": "box", "bundle": ["/"]}"#,
        br#"{"pid": 5}"#,
        large.as_bytes(),
    ] {
        run(hook(), input).assert_fails(65, &["cannot read the container's state: "]);
    }
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    run(
        hook(),
        &[br#"{"id":"box","x":"#, &nested[..], b"}"].concat(),
    )
    .assert_fails(65, &["state"]);
}

#[test]
fn refuses_a_bundle_that_cannot_be_read() {
    let bundle = Bundle::new();
    let state = |path: &str| json!({ "id": "box", "pid": 5, "bundle": path }).to_string();
    let says = [
        "/nonexistent/config.json: open: ENOENT: ",
        "bundle has to be",
    ];
    run(hook(), state("/nonexistent").as_bytes()).assert_fails(66, &says);
    run(hook(), state("").as_bytes()).assert_fails(65, &["bundle"]);
    run(hook(), state("bundle").as_bytes()).assert_fails(65, &["bundle"]);
    fs::create_dir(bundle.path.join("config.json")).expect("a directory");
    run(hook(), bundle.state(5).to_string().as_bytes()).assert_fails(66, &["read: EISDIR: "]);
}

#[test]
fn refuses_a_config_that_is_not_one() {
    let bundle = Bundle::new();
    let config = bundle.path.join("config.json");
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(17 << 20));
    for text in [
        &b""[..],
        b"{",
        b"[]",
        b"\xff\xfe",
        br#"{"process": 5"#,
        large.as_bytes(),
    ] {
        fs::write(&config, text).expect("config.json");
        let refused = run(hook(), bundle.state(5).to_string().as_bytes());
        refused.assert_fails(65, &["config.json: "]);
    }
}

#[test]
fn leaves_what_has_the_wrong_type_to_the_runtime() {
    let bundle = Bundle::new();
    for text in [
        r#"{"process": 5}"#,
        r#"{"process": {"args": "/sbin/init"}}"#,
        r#"{"annotations": ["a"]}"#,
        r#"{"linux": {"resources": {"memory": "1G"}}}"#,
    ] {
        fs::write(bundle.path.join("config.json"), text).expect("config.json");
        run(hook(), bundle.state(5).to_string().as_bytes()).assert_silent();
    }
}

#[test]
fn passes_over_what_newer_runtimes_add() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["/bin/sh"]);
    bundle.config["process"]["capabilities"] = json!({ "bounding": ["CAP_OF_TOMORROW"] });
    bundle.config["process"]["scheduler"] = json!({ "policy": "SCHED_NEW" });
    bundle.config["linux"] = json!({
        "namespaces": [{ "type": "new" }], "seccomp": { "defaultAction": "SCMP_ACT_NEW" },
        "personality": { "domain": "NEW" }, "mountLabel": null, "resources": null,
    });
    bundle.config["novelty"] = json!([{ "deep": [[[]]] }]);
    bundle.prepare(5).assert_silent();
}

#[test]
fn leaves_containers_alone_that_are_not_for_systemd() {
    let mut bundle = Bundle::new();
    // Nothing below the bundle is there, and no process: it is not even looked at.
    for args in [
        json!([]),
        json!(["/bin/sh"]),
        json!(["tini", "--", "/sbin/init"]),
        json!(["/opt/initdb"]),
        json!([""]),
    ] {
        bundle.config["process"]["args"] = args;
        bundle.prepare(0).assert_silent();
    }
    bundle.config["process"]["args"] = json!(["/sbin/init"]);
    bundle.annotate("mode", "never");
    bundle.prepare(0).assert_silent();
    bundle.annotate("mode", "always");
    bundle.config["process"]["env"] = json!(["oci-systemd-hook=disabled"]);
    bundle.prepare(0).assert_silent();
}

#[test]
fn does_not_judge_the_annotations_of_other_containers() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["/bin/sh"]);
    bundle.annotate("mode", "sometimes");
    bundle.annotate("cgroup", "v3");
    bundle.prepare(0).assert_silent();
}

#[test]
fn says_why_it_does_nothing_if_it_is_asked() {
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["/usr/bin/tini"]);
    let run = bundle.prepare_verbosely(0);
    assert_eq!(run.status, 0);
    let expected = "nothing to do: /usr/bin/tini is called neither init nor systemd\n";
    assert!(run.stderr.ends_with(expected), "{}", run.stderr);
}

#[test]
fn refuses_a_process_that_is_no_containers() {
    let bundle = Bundle::with_systemd(252);
    bundle
        .prepare(0)
        .assert_fails(65, &["pid 0", "createRuntime"]);
    bundle.prepare(1).assert_fails(65, &["pid 1"]);
    let negative = json!({ "id": "box", "pid": -5, "bundle": bundle.path }).to_string();
    run(hook(), negative.as_bytes()).assert_fails(65, &["pid -5"]);
    // Beyond what Linux numbers processes with.
    bundle
        .prepare(4_194_305)
        .assert_fails(65, &["process 4194305 is gone"]);
    let process = Process::new();
    bundle
        .prepare(process.0.id())
        .assert_fails(65, &["no mount namespace of its own", &bundle.id[..12]]);
}

#[test]
fn takes_poststop_from_the_stage_or_from_the_status() {
    for (args, state) in [
        (&[][..], json!({ "id": "box", "status": "stopped" })),
        (
            &[],
            json!({ "id": "box", "status": "stopped", "pid": 0, "bundle": "/nonexistent" }),
        ),
        (
            &["poststop"],
            json!({ "id": "box", "status": "running", "pid": 1 }),
        ),
        (
            &["--always", "poststop"],
            json!({ "id": "box", "status": "stopped", "pid": 4_194_305 }),
        ),
    ] {
        run_with(args, state.to_string().as_bytes()).assert_silent();
    }
    run_with(&["poststop"], b"nonsense").assert_fails(65, &["state"]);
}

#[test]
fn lets_no_text_of_a_container_break_the_line() {
    let mut bundle = Bundle::new();
    bundle.id = "a\nb\u{1b}[31mc\u{202e}".into();
    bundle
        .prepare(0)
        .assert_fails(65, &[r"a\nb\u{1b}[31mc", "pid 0"]);
    bundle.id = "x".repeat(1 << 19);
    bundle
        .prepare(0)
        .assert_fails(65, &["oci-systemd-hook: xxxxxxxxxxxx: "]);
}

/// The release build, which is what is installed: nothing loads anything into it.
#[test]
#[ignore = "needs the static build: make test"]
fn has_no_runtime_loader() {
    let file = fs::read(hook().get_program()).expect("the binary");
    assert!(file.starts_with(b"\x7fELF\x02"), "a 64-bit ELF file");
    let at = |offset: usize, width: usize| {
        file[offset..offset + width]
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (at(32, 8), at(54, 2), at(56, 2));
    let kinds: Vec<usize> = (0..count)
        .map(|index| at(table + index * size, 4))
        .collect();
    assert!(
        kinds.contains(&1) && !kinds.contains(&3),
        "PT_INTERP among {kinds:?}"
    );
}

/// A static program has no loader that the environment could tell what to load.
#[test]
#[ignore = "needs the static build: make test"]
fn is_not_changed_by_its_environment() {
    let bundle = Bundle::new();
    bundle.write_config();
    let mut command = hook();
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "container",
        "container_uuid",
        "PATH",
        "HOME",
        "RUST_BACKTRACE",
    ] {
        command.env(name, "/nonexistent/1");
    }
    let state = bundle.state(0).to_string();
    run(command, state.as_bytes()).assert_fails(65, &["pid 0"]);
}
