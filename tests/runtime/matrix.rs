//! Every runtime, cgroup view, cgroup namespace and systemd, one line for each. A cell that fails does not hide
//! the others. The environment variable CELL chooses cells: all its words have to be in a cell's name.

use std::time::Duration;

use crate::lab::{Container, View, use_host_cgroup_namespace};

const IMAGES: [&str; 4] = ["bullseye", "bookworm", "trixie", "sid"];

#[test]
#[ignore = "needs root and the lab: make test"]
fn matrix_of_runc_on_hybrid() {
    check_cells("runc", "hybrid");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn matrix_of_runc_on_v1() {
    check_cells("runc", "v1");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn matrix_of_runc_on_v2() {
    check_cells("runc", "v2");
}

// crun refuses hybrid hosts by itself.
#[test]
#[ignore = "needs root and the lab: make test"]
fn matrix_of_crun_on_v1() {
    check_cells("crun", "v1");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn matrix_of_crun_on_v2() {
    check_cells("crun", "v2");
}

fn check_cells(runtime: &str, cgroups: &str) {
    let chosen = std::env::var("CELL").unwrap_or_default();
    let mut failed = Vec::new();
    for namespace in ["own", "host"] {
        for image in IMAGES {
            let cell = [runtime, cgroups, namespace, image];
            if !chosen.split_whitespace().all(|word| cell.contains(&word)) {
                continue;
            }
            let outcome = try_cell(runtime, cgroups, namespace, image);
            let expected = if (cgroups, image) == ("v1", "sid") {
                is_refusal(&outcome)
            } else {
                outcome.is_ok()
            };
            let (Ok(line) | Err(line)) = outcome;
            println!(
                "{} {}: {line}{}",
                cell[..3].join(" "),
                image,
                if expected { "" } else { " <-- FAILED" }
            );
            if !expected {
                failed.push(cell.join(" "));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "not as it should be: {}",
        failed.join(", ")
    );
}

/// What happened, as an error unless all was well.
fn try_cell(runtime: &str, cgroups: &str, namespace: &str, image: &str) -> Result<String, String> {
    let view = View::open("trixie", cgroups);
    let container = Container::with(&view, runtime, image, |config| {
        if namespace == "host" {
            use_host_cgroup_namespace(config);
        }
    });
    let booted = container.boot()?;
    let version = container.shell("systemctl --version | sed 's/^systemd \\([0-9]*\\).*/\\1/;q'");
    let stopped = container.end()?;
    Ok(format!(
        "systemd {version} running {}, stopped {}",
        seconds(booted),
        seconds(stopped)
    ))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// A pair that is not built yet ends in the hook's own line.
fn is_refusal(outcome: &Result<String, String>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|said| said.starts_with("not created: ") && said.contains("oci-systemd-hook: "))
}
