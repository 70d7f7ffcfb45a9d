//! How a container ends, and what it says on its terminal.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Container, View, text};

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
    std::fs::read_to_string(container.path("/var/stopped")).is_ok_and(|text| text == "orderly\n")
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
