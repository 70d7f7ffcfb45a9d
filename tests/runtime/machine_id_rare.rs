//! The rare cases of the machine ID, on every systemd: it boots to `running`, no unit of it failed, and all that asks for
//! the ID hears the same.

use std::process::Command;

use serde_json::{Value, json};

use crate::lab::{Container, View};
use crate::machine_id::{BAKED, agreed_machine_id_of};

const GIVEN: &str = "fedcba9876543210fedcba9876543210";
const UUID: &str = "FEDCBA98-7654-3210-fedc-ba9876543210";

/// Which ID the container has in the end.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    Given,
    Baked,
    Own,
}

struct Case {
    name: &'static str,
    /// What is added to its config.json.
    edit: fn(&mut Value),
    /// What is done before, by a shell in the bundle: `$R` is its root file system.
    setup: &'static str,
    has: Has,
}

const CASES: [Case; 12] = [
    Case {
        name: "a file of the user's, read-only",
        edit: |config| bind(config, "id", "/etc/machine-id", "ro"),
        setup: "echo $GIVEN >id",
        has: Has::Given,
    },
    Case {
        name: "a file of the user's, writable",
        edit: |config| bind(config, "id", "/etc/machine-id", "rw"),
        setup: "echo $GIVEN >id",
        has: Has::Given,
    },
    Case {
        name: "an empty file of the user's",
        edit: |config| bind(config, "id", "/etc/machine-id", "rw"),
        setup: ": >id",
        has: Has::Own,
    },
    Case {
        name: "a volume on /etc that has an ID",
        edit: |config| bind(config, "etc", "/etc", "rw"),
        setup: "cp -a $R/etc etc; echo $GIVEN >etc/machine-id",
        has: Has::Given,
    },
    Case {
        name: "a volume on /etc that has none",
        edit: |config| bind(config, "etc", "/etc", "rw"),
        setup: "cp -a $R/etc etc; rm -f etc/machine-id",
        has: Has::Own,
    },
    Case {
        name: "a read-only volume on /etc with an empty file",
        edit: |config| bind(config, "etc", "/etc", "ro"),
        setup: "cp -a $R/etc etc; rm -f etc/machine-id; : >etc/machine-id",
        has: Has::Own,
    },
    Case {
        name: "a read-only root with an empty file",
        edit: |config| {
            config["root"]["readonly"] = json!(true);
            mounts(config)
                .push(json!({ "destination": "/var", "type": "tmpfs", "source": "tmpfs" }));
        },
        setup: "rm -f $R/etc/machine-id; : >$R/etc/machine-id",
        has: Has::Own,
    },
    Case {
        name: "a file of D-Bus's own",
        edit: |_| (),
        setup: "rm -f $R/var/lib/dbus/machine-id; echo $BAKED >$R/var/lib/dbus/machine-id",
        has: Has::Own,
    },
    Case {
        name: "a hard link",
        edit: |_| (),
        setup: "rm -f $R/etc/machine-id; echo $BAKED >$R/etc/id; ln $R/etc/id $R/etc/machine-id",
        has: Has::Own,
    },
    Case {
        name: "keep",
        edit: |config| config["annotations"]["oci-systemd-hook.machine-id"] = json!("keep"),
        setup: "rm -f $R/etc/machine-id; echo $BAKED >$R/etc/machine-id",
        has: Has::Baked,
    },
    Case {
        name: "container_uuid",
        edit: |config| environment(config).push(json!(format!("container_uuid={UUID}"))),
        setup: "",
        has: Has::Given,
    },
    Case {
        name: "container_uuid without dashes",
        edit: |config| environment(config).push(json!(format!("container_uuid={GIVEN}"))),
        setup: "",
        has: Has::Given,
    },
];

fn mounts(config: &mut Value) -> &mut Vec<Value> {
    config["mounts"].as_array_mut().expect("a list")
}

fn environment(config: &mut Value) -> &mut Vec<Value> {
    config["process"]["env"].as_array_mut().expect("a list")
}

/// Bind something of the bundle.
fn bind(config: &mut Value, source: &str, destination: &str, flags: &str) {
    mounts(config).push(json!({
        "destination": destination, "type": "bind", "source": source, "options": ["rbind", flags],
    }));
}

fn every_case_boots(suite: &str) {
    let view = View::open("trixie", "v2");
    for case in &CASES {
        let container = Container::with(&view, "runc", suite, case.edit);
        let prepared = Command::new("sh")
            .args(["-ec", case.setup])
            .current_dir(container.beside(""))
            .env("R", container.path("/"))
            .envs([("GIVEN", GIVEN), ("BAKED", BAKED)])
            .status();
        assert!(
            prepared.is_ok_and(|status| status.success()),
            "{}",
            case.name
        );
        container
            .boot()
            .unwrap_or_else(|error| panic!("{suite}, {}: {error}", case.name));
        let id = agreed_machine_id_of(&container);
        let has = match id.as_str() {
            GIVEN => Has::Given,
            BAKED => Has::Baked,
            _ => Has::Own,
        };
        println!("{suite}, {}: {id}", case.name);
        assert!(has == case.has, "{suite}, {}: {id}", case.name);
        if has == Has::Own {
            assert_eq!(id, container.id[..32], "{suite}, {}", case.name);
        }
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rare_cases_of_the_machine_id_boot_247() {
    every_case_boots("bullseye");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rare_cases_of_the_machine_id_boot_252() {
    every_case_boots("bookworm");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rare_cases_of_the_machine_id_boot_257() {
    every_case_boots("trixie");
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn rare_cases_of_the_machine_id_boot_262() {
    every_case_boots("sid");
}
