//! podman as its users have it: systemd makes the cgroups, every controller is there, and the limits are real. The
//! hook is installed in the machine, as a package would do it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::lab::{directory, hook, image, text};
use crate::{cgroups, kernel};

/// A command that must succeed, and what it wrote.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_to_run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        text(&output)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn try_to_run(program: &str, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["--kill-after=5", "90", program])
        .args(arguments)
        .output()
        .expect("timeout can be run")
}

fn install_the_hook() {
    let _ = cgroups();
    let binary = hook().display().to_string();
    run(
        "install",
        &[
            "-D",
            "-m755",
            &binary,
            "/usr/libexec/oci/hooks.d/oci-systemd-hook",
        ],
    );
    let registrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d");
    for file in fs::read_dir(registrations)
        .expect("hooks.d is there")
        .flatten()
    {
        let file = file.path().display().to_string();
        run(
            "install",
            &[
                "-D",
                "-m644",
                "-t",
                "/usr/share/containers/oci/hooks.d",
                &file,
            ],
        );
    }
    // podman keeps its layers on a file system that can be one of an overlay, which the machine's root is not.
    if !run(
        "findmnt",
        &[
            "--target=/var/lib/containers",
            "--noheadings",
            "--output=FSTYPE",
        ],
    )
    .contains("tmpfs")
    {
        run("mount", &["-t", "tmpfs", "tmpfs", "/var/lib/containers"]);
    }
}

/// An image's tree that can be written, and that goes away with the machine.
fn root_of(name: &str, container: &str) -> String {
    let place = directory().join("boot").join(container);
    for part in ["upper", "work", "root"] {
        fs::create_dir_all(place.join(part)).expect("the lab's directory can be written");
    }
    let place = place.display();
    let layers = format!(
        "lowerdir={},upperdir={place}/upper,workdir={place}/work",
        image(name).display()
    );
    let root = format!("{place}/root");
    run("mount", &["-t", "overlay", "-o", &layers, "overlay", &root]);
    root
}

fn wait_until_running(container: &str) {
    let started = Instant::now();
    loop {
        let said = text(&try_to_run(
            "podman",
            &["exec", container, "systemctl", "is-system-running"],
        ));
        if said == "running" {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(90) && said != "degraded",
            "{container}: {said}: {}",
            text(&try_to_run(
                "podman",
                &[
                    "exec",
                    container,
                    "systemctl",
                    "--failed",
                    "--no-pager",
                    "--plain"
                ]
            ))
        );
        sleep(Duration::from_millis(500));
    }
}

/// The limits as the host has them, of the cgroup that podman asked for: systemd's, in it, sets some of its own.
fn limits_of(container: &str) -> [String; 2] {
    let pid = run("podman", &["inspect", "--format={{.State.Pid}}", container]);
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = Path::new("/sys/fs/cgroup").join(own.expect("it is in cgroup2"));
    let is_podmans = |path: &&Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("libpod-"))
    };
    let scope = own.ancestors().find(is_podmans);
    let scope = scope.unwrap_or_else(|| panic!("{container} is in {}", own.display()));
    ["memory.max", "pids.max"].map(|file| {
        let limit = fs::read_to_string(scope.join(file)).expect("the host has every controller");
        limit.trim().to_owned()
    })
}

fn life_with_limits(runtime: &str, name: &str, more: &[&str]) {
    install_the_hook();
    let container = format!("{runtime}-{name}");
    let root = root_of(name, &container);
    let mut arguments = vec![
        "--runtime",
        runtime,
        "run",
        "--detach",
        "--name",
        &container,
    ];
    arguments.extend([
        "--network=none",
        "--stop-signal=SIGRTMIN+3",
        "--memory=256m",
        "--pids-limit=300",
    ]);
    arguments.extend(more);
    arguments.extend(["--rootfs", &root, "/sbin/init"]);
    run("podman", &arguments);
    wait_until_running(&container);
    let limits = ["268435456".to_owned(), "300".to_owned()];
    assert_eq!(limits_of(&container), limits, "{container}");

    let raise = "for file in $(find /sys/fs/cgroup -name memory.max -o -name pids.max); do echo max >$file; done 2>&1 | sort | uniq -c | head -n 3; :";
    println!(
        "{} {container} {}: {}",
        kernel(),
        more.join(" "),
        run("podman", &["exec", &container, "sh", "-c", raise])
    );
    assert_eq!(
        limits_of(&container),
        limits,
        "{container}: raised from inside"
    );

    let stats = run(
        "podman",
        &[
            "stats",
            "--no-stream",
            "--format={{.MemUsage}} {{.PIDs}}",
            &container,
        ],
    );
    println!("    stats: {stats}");
    assert!(stats.contains("/ 268.4MB"), "{container}: {stats}");
    let processes: u32 = stats
        .rsplit(' ')
        .next()
        .and_then(|last| last.parse().ok())
        .expect("a number of processes");
    assert!(processes > 3, "{container}: {stats}");

    let top = run("podman", &["top", &container, "args"]);
    assert!(
        top.contains("init") && top.contains("systemd-journald"),
        "{container}: {top}"
    );

    run("podman", &["pause", &container]);
    assert_eq!(
        run(
            "podman",
            &["inspect", "--format={{.State.Status}}", &container]
        ),
        "paused"
    );
    run("podman", &["unpause", &container]);
    wait_until_running(&container);

    run("podman", &["restart", "--time=40", &container]);
    wait_until_running(&container);
    assert_eq!(
        limits_of(&container),
        limits,
        "{container}: after the restart"
    );
    println!("    exec, top, pause, unpause and restart work");

    run("podman", &["stop", "--time=40", &container]);
    let code = run(
        "podman",
        &["inspect", "--format={{.State.ExitCode}}", &container],
    );
    run("podman", &["rm", &container]);
    assert_eq!(code, "0", "{container}: killed, not stopped");
}

#[test]
#[ignore = "needs a machine: make test-vm"]
fn podman_and_its_limits_with_crun() {
    life_with_limits("crun", "trixie", &["--systemd=false"]);
}

#[test]
#[ignore = "needs a machine: make test-vm"]
fn podman_and_its_limits_with_runc() {
    life_with_limits("runc", "bookworm", &["--systemd=false"]);
}

/// podman's own preparation and ours, one after the other.
#[test]
#[ignore = "needs a machine: make test-vm"]
fn podman_and_its_limits_with_its_own_preparation() {
    life_with_limits("crun", "sid", &["--systemd=true"]);
}
