//! Where a container's machine ID comes from, as its file says it: `container_uuid`, the container's
//! id, the host's machine ID, and none of them.

use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, hook, run};
use crate::machine_id::{BAKED, bundle, read};
use crate::process::Process;

const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The ID that a container of this name gets.
fn id_of(name: &str, container_uuid: Option<&str>) -> String {
    let mut bundle = Bundle::with_systemd(252);
    let uuid = container_uuid.map(|uuid| format!("container_uuid={uuid}"));
    bundle.config["process"]["env"] = json!(uuid.iter().collect::<Vec<_>>());
    let process = Process::start(&bundle, "");
    name.clone_into(&mut bundle.id);
    process.prepare(&bundle);
    read(bundle.image("etc/machine-id"))
}

#[test]
#[ignore = "needs root: make test"]
fn takes_the_uuid_in_either_spelling_and_passes_over_what_is_none() {
    let name = "ids-box";
    let made = id_of(name, None);
    for (uuid, is_one) in [
        ("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", true),
        ("0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0", true),
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f0", true),
        ("0F1E2D3C4B5A69788796A5B4C3D2E1F0", true),
        ("", false),
        ("no-uuid-at-all", false),
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f", false),
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f0f", false),
        ("0f1e2d3-c4b5a-6978-8796-a5b4c3d2e1f0", false),
        ("{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}", false),
        ("urn:uuid:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", false),
        ("00000000-0000-0000-0000-000000000000", false),
        ("00000000000000000000000000000000", false),
        (" 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", false),
    ] {
        let expected = if is_one {
            format!("{ID}\n")
        } else {
            made.clone()
        };
        assert_eq!(id_of(name, Some(uuid)), expected, "{uuid:?}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn takes_the_first_digits_of_an_id_that_has_them_and_makes_one_of_a_name() {
    let tail = "ffffffffffffffffffffffffffffffff";
    for name in [
        format!("{ID}{tail}"),
        format!("{}{tail}", ID.to_uppercase()),
        ID.to_owned(),
        format!("{ID}-and-more"),
    ] {
        assert_eq!(id_of(&name, None), format!("{ID}\n"), "{name}");
    }
    let names = [
        "box".to_owned(),
        "box2".to_owned(),
        ID[1..].to_owned(),
        format!("g{ID}"),
        format!("{}{tail}", "0".repeat(32)),
    ];
    let made: Vec<_> = names.iter().map(|name| id_of(name, None)).collect();
    for (index, id) in made.iter().enumerate() {
        assert!(id.len() == 33 && *id != format!("{ID}\n"), "{id}");
        assert!(!made[..index].contains(id), "{}", names[index]);
        assert_eq!(&id_of(&names[index], None), id, "{}", names[index]);
    }
}

/// The ID of a container called `box` whose runtime is on a host with this as /etc/machine-id.
fn id_on_host(machine_id: &str) -> String {
    let mut bundle = Bundle::with_systemd(252);
    let process = Process::start(&bundle, "");
    "box".clone_into(&mut bundle.id);
    bundle.write_config();
    let hook = hook();
    let mut command = Command::new("unshare");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["--mount", "--propagation", "private", "--", "sh", "-ec"])
        .arg(format!(
            "mount -t tmpfs none /etc; {machine_id}; exec \"$0\""
        ))
        .arg(hook.get_program());
    run(command, bundle.state(process.pid()).to_string().as_bytes()).assert_silent();
    read(bundle.image("etc/machine-id"))
}

/// The names of version 5 (RFC 9562) in the project's own namespace, which is not to change: the ID
/// has to be the same at the next start, with the next version of the hook too.
#[test]
#[ignore = "needs root: make test"]
fn makes_do_without_a_machine_id_of_the_hosts() {
    let expected = "a01b7cc1da815256b13aaeb9d71031a2\n";
    for none in [
        "true",
        "touch /etc/machine-id",
        "echo uninitialized >/etc/machine-id",
        "echo 00000000000000000000000000000000 >/etc/machine-id",
        "mkdir /etc/machine-id",
        "ln -s machine-id /etc/machine-id",
    ] {
        assert_eq!(id_on_host(none), expected, "{none}");
    }
    let one = id_on_host(&format!("echo {BAKED} >/etc/machine-id"));
    let other = id_on_host(&format!("echo {ID} >/etc/machine-id"));
    assert!(
        one != expected && other != expected && one != other,
        "{one}{other}"
    );
    assert_eq!(one, id_on_host(&format!("echo {BAKED} >/etc/machine-id")));
}

#[test]
#[ignore = "needs root: make test"]
fn keeps_what_is_valid_and_nothing_else_where_it_is_told_to() {
    for (content, is_kept) in [
        (Some(format!("{BAKED}\n")), true),
        (Some(BAKED.to_owned()), true),
        (Some(String::new()), false),
        (Some("uninitialized\n".to_owned()), false),
        (Some("0".repeat(32)), false),
        (None, false),
    ] {
        let mut bundle = bundle();
        bundle.annotate("machine-id", "keep");
        if let Some(content) = &content {
            bundle.write("etc/machine-id", content.as_bytes());
        }
        bundle.write("var/lib/dbus/machine-id", ID.as_bytes());
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        let id = read(bundle.image("etc/machine-id"));
        let expected = content.filter(|_| is_kept);
        assert_eq!(id, expected.unwrap_or_else(crate::machine_id::ours));
        // What D-Bus says follows what systemd says, and not the other way round.
        let dbus = read(bundle.image("var/lib/dbus/machine-id"));
        assert_eq!(dbus.trim_end(), id.trim_end());
    }
}
