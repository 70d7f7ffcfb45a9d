//! How a container ends, and what it says on its terminal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Container, View, edit_as, text};

const PROOF: &str =
    "[Service]\nExecStart=sleep infinity\nExecStop=/bin/sh -c 'echo orderly >/var/stopped'\n";

/// A container with a service that leaves a trace when it is stopped as it should be.
fn with_proof<'view>(view: &'view View, runtime: &str, image: &str) -> Container<'view> {
    let container = Container::new(view, runtime, image);
    let units = "/etc/systemd/system";
    container.write(&format!("{units}/proof.service"), 0o644, PROOF);
    let wanted = container.path(&format!("{units}/multi-user.target.wants/proof.service"));
    symlink("../proof.service", wanted).expect("the rootfs can be written");
    container
}

fn was_stopped_orderly(container: &Container) -> bool {
    fs::read_to_string(container.path("/var/stopped")).is_ok_and(|text| text == "orderly\n")
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn sigterm_only_reexecutes_systemd_and_signal_37_ends_it_orderly() {
    for (cgroups, image) in [
        ("hybrid", "bullseye"),
        ("v1", "bookworm"),
        ("v2", "trixie"),
        ("v2", "sid"),
    ] {
        let view = View::open("trixie", cgroups);
        let container = with_proof(&view, "runc", image);
        container.boot().unwrap();
        let identity = "cut -d' ' -f22 /proc/1/stat
            systemctl show --property=MainPID,ActiveState,ActiveEnterTimestampMonotonic proof";
        let before = container.shell(identity);
        assert!(before.contains("ActiveState=active"), "{image}: {before}");

        container.kill("TERM");
        let asked = Instant::now();
        while !text(&container.exec(&["journalctl", "--no-pager", "_PID=1"]))
            .contains("Reexecuting")
        {
            assert!(
                asked.elapsed() < Duration::from_secs(15),
                "{image}: SIGTERM did not re-execute systemd"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        container.wait_until_running().unwrap();
        assert_eq!(
            container.shell(identity),
            before,
            "{image}: PID 1 or its service is another one"
        );
        assert!(
            !was_stopped_orderly(&container),
            "{image}: SIGTERM stopped the service"
        );

        let took = container.end().unwrap();
        println!(
            "{cgroups} {image}: SIGTERM re-executed, 37 stopped in {:.1}s",
            took.as_secs_f64()
        );
        assert!(
            was_stopped_orderly(&container),
            "{image}: its service was not stopped"
        );
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn reboot_halt_and_poweroff_end_the_container_and_nothing_else() {
    let view = View::open("trixie", "hybrid");
    let neighbour = Container::new(&view, "runc", "bookworm");
    neighbour.boot().unwrap();
    for command in ["reboot", "halt", "poweroff"] {
        let container = with_proof(&view, "runc", "bookworm");
        container.boot().unwrap();
        container.exec(&["systemctl", command]);
        container
            .wait_stopped(Duration::from_secs(10))
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(
            was_stopped_orderly(&container),
            "{command}: its service was not stopped"
        );
        container.delete().unwrap();
        assert_eq!(container.leftovers(), [""; 0], "{command}");
    }
    assert_eq!(neighbour.shell("systemctl is-system-running"), "running");
    neighbour.end().unwrap();
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn the_boot_log_is_on_the_terminal_and_tty0_is_refused() {
    for (runtime, cgroups, image) in [("runc", "hybrid", "bookworm"), ("crun", "v2", "trixie")] {
        let view = View::open("trixie", cgroups);
        let container = Container::with(&view, runtime, image, |config| {
            config["process"]["terminal"] = json!(true);
        });
        container.boot().unwrap();
        let console = container.console_text();
        for line in ["Welcome to Debian GNU/Linux", "Reached target"] {
            assert!(
                console.contains(line),
                "{runtime}: no {line:?} in {console:?}"
            );
        }
        assert_eq!(container.shell("test -e /dev/tty0 || echo none"), "none");
        let refused = container.exec(&["sh", "-c", "mknod /root/tty0 c 4 0 && : >/root/tty0"]);
        assert!(
            text(&refused).contains("not permitted"),
            "{runtime}: {refused:?}"
        );
        container.end().unwrap();
        assert!(
            container.console_text().contains("Stopped target"),
            "{runtime}: {}",
            container.console_text()
        );
    }
}

/// Every way of giving systemd a tree: runtime, view, image, edits.
const WAYS: [(&str, &str, &str, &str); 10] = [
    ("runc", "v2", "trixie", "own"),
    ("crun", "v2", "sid", "host"),
    ("runc", "v2", "bookworm", "own legacy"),
    ("runc", "hybrid", "sid", "own"),
    ("runc", "v1", "bookworm", "host"),
    ("runc", "v1", "sid", "own"),
    ("crun", "v1", "bookworm", "own"),
    ("crun", "none", "sid", "own"),
    ("runc", "v2", "sid", "user"),
    ("crun", "v2", "bookworm", "user"),
];

#[test]
#[ignore = "needs root and the lab: make test"]
fn exec_after_boot_lands_in_the_cgroups_of_its_container() {
    for (runtime, cgroups, image, edits) in WAYS {
        let what = format!("{runtime} {cgroups} {image} {edits}");
        let view = View::open("trixie", cgroups);
        let container = Container::with(&view, runtime, image, |config| edit_as(edits, config));
        container
            .boot()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let its = container.during_exec(&["sleep", "1000"], |pid| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs")
        });
        let first =
            fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("it runs");
        println!(
            "{what}: {}",
            its.replace('\n', " ").replace(&container.id, "ID")
        );
        let own = format!("lab-{}", container.id);
        for line in its.lines() {
            // Where the runtime has put PID 1 into a cgroup of the container's, it has to put this one, too.
            let hierarchy = line.rsplit_once(':').map_or("", |(hierarchy, _)| hierarchy);
            let is_held = first
                .lines()
                .any(|line| line.starts_with(&format!("{hierarchy}:")) && line.contains(&own));
            assert!(
                line.contains(&own) || !is_held,
                "{what}: {line} of\n{first}"
            );
        }
        container
            .wait_until_running()
            .and_then(|()| container.end().map(drop))
            .unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn pause_and_resume_work_after_boot() {
    for (runtime, cgroups, image, edits) in WAYS {
        let what = format!("{runtime} {cgroups} {image} {edits}");
        let view = View::open("trixie", cgroups);
        let container = Container::with(&view, runtime, image, |config| edit_as(edits, config));
        container
            .boot()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        container.shell(
            "systemd-run --quiet --unit=clock sh -c 'while date +%s%N >/run/clock; do sleep 0.05; done'",
        );
        if cgroups == "none" {
            let refused = container
                .pause()
                .expect_err("crun has no cgroup to freeze there");
            println!("{what}: {refused}");
        } else {
            let file = PathBuf::from(format!("/proc/{}/root/run/clock", container.pid()));
            let clock = || fs::read_to_string(&file).unwrap_or_default();
            while clock().is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
            container
                .pause()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let paused = clock();
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(clock(), paused, "{what}: its service runs on");
            container
                .resume()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let asked = Instant::now();
            while clock() == paused {
                assert!(
                    asked.elapsed() < Duration::from_secs(5),
                    "{what}: not resumed"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            println!("{what}: paused and resumed");
        }
        container
            .wait_until_running()
            .and_then(|()| container.end().map(drop))
            .unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
    }
}

/// As where two files in hooks.d match: also where the place is in a hierarchy that the host has not mounted.
#[test]
#[ignore = "needs root and the lab: make test"]
fn a_hook_that_is_called_twice_does_its_work_once() {
    for (runtime, cgroups, image, edits) in [
        ("runc", "v1", "bookworm", "own"),
        ("crun", "v1", "sid", "own"),
        ("runc", "v2", "bookworm", "legacy"),
        ("crun", "v2", "trixie", "host legacy"),
        ("youki", "v1", "bookworm", "own"),
        ("crun", "none", "trixie", "own"),
        ("crun", "none", "sid", "host"),
        ("runc", "hybrid", "sid", "user"),
    ] {
        let view = View::open("trixie", cgroups);
        let container = Container::with(&view, runtime, image, |config| {
            edit_as(edits, config);
            let hook = config["hooks"]["createRuntime"][0].clone();
            config["hooks"]["createRuntime"] = json!([hook, hook]);
        });
        let booted = container.boot();
        assert!(
            booted.is_ok(),
            "{runtime} {cgroups} {image} {edits}: {booted:?}"
        );
        let places = container.shell("grep -c ' /run ' /proc/self/mountinfo");
        assert_eq!(places.trim(), "1", "{runtime} {cgroups} {image} {edits}");
    }
}
