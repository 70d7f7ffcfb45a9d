//! The README's commands for podman and Docker, run as they stand there.

use crate::host::Host;
use crate::lab::text;

/// The README's shell block that begins with these words.
fn block(begin: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```sh\n").skip(1);
    let block = blocks
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.starts_with(begin));
    block.unwrap_or_else(|| panic!("README.md has no block that begins with {begin:?}"))
}

fn runs_as_it_stands(host: &Host, program: &str) {
    let image = host.image("sshd");
    host.run(&["tag", &image, "systemd-sshd"]);
    let block = block(&format!("{program} run -d --name box"));
    // Bounded: "until … is-system-running" would go on for ever.
    let output = host
        .view
        .command("timeout")
        .args(["90", "bash", "-euo", "pipefail", "-c", block])
        .output()
        .expect("nsenter can be run");
    assert!(output.status.success(), "{block}: {}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().any(|line| line == "running"), "{said}");
    host.run(&["rm", "--force", "box"]);
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn the_readmes_commands_for_podman_run_as_they_stand() {
    runs_as_it_stands(&Host::with_podman("trixie", "v2", "crun"), "podman");
}

#[test]
#[ignore = "needs root, podman or dockerd, and the lab: make test"]
fn the_readmes_commands_for_docker_run_as_they_stand() {
    runs_as_it_stands(&Host::with_docker("v2"), "docker");
}
