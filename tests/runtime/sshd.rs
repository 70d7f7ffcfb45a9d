//! The example of examples/systemd-sshd, as its build.sh makes it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{Container, View, text};

#[test]
#[ignore = "needs root and the lab: make test"]
fn the_sshd_example_answers_a_login_with_a_working_user_manager() {
    for cgroups in ["hybrid", "v2"] {
        let view = View::open("trixie", cgroups);
        let container = Container::new(&view, "runc", "sshd");
        let key = container.beside("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "ssh-keygen failed: tests/lab/needs installs it"
        );
        let public = fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote a key");
        container.write("/root/.ssh/authorized_keys", 0o600, &public);
        let host_keys = container.path("/etc/ssh");
        let baked = fs::read_dir(host_keys)
            .expect("the image has sshd")
            .flatten();
        let baked: Vec<_> = baked
            .filter(|file| file.file_name().to_string_lossy().starts_with("ssh_host_"))
            .collect();
        assert!(
            baked.is_empty(),
            "host keys are baked into the image: {baked:?}"
        );
        container.boot().unwrap();

        let login = |command: &str| {
            Command::new("nsenter")
                .arg(format!("--net=/proc/{}/ns/net", container.pid()))
                .args([
                    "--",
                    "timeout",
                    "30",
                    "ssh",
                    "-F",
                    "none",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "ConnectTimeout=5",
                ])
                .args([
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-o",
                    "LogLevel=ERROR",
                ])
                .arg("-i")
                .arg(&key)
                .args(["root@127.0.0.1", command])
                .output()
                .expect("nsenter can be run")
        };
        let asked = Instant::now();
        let mut answer = login("systemctl --user is-system-running --wait");
        // `running` does not wait for the key generation of a socket-activated sshd
        while answer.status.code() == Some(255) && asked.elapsed() < Duration::from_secs(20) {
            answer = login("systemctl --user is-system-running --wait");
        }
        assert_eq!(text(&answer), "running", "{cgroups}");
        assert_eq!(
            text(&login("systemctl is-system-running")),
            "running",
            "{cgroups}"
        );
        let unit = login("systemd-run --user --quiet --wait --pipe echo works");
        assert_eq!(text(&unit), "works", "{cgroups}");
        // Elsewhere systemd waits for a user manager until its time is over, hook or not: in a container nobody tells
        // it on cgroup v1 that a cgroup is empty, and it has to have seen each process end.
        if cgroups == "v2" {
            container.end().unwrap();
        }
    }
}
