//! A machine ID that is a link, has another name, or is D-Bus's: it is followed inside the image
//! alone, and only the name that it ends at is replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::machine_id::{BAKED, bundle, ours, read};
use crate::process::{Process, shell};

#[test]
#[ignore = "needs root: make test"]
fn replaces_the_file_that_a_link_ends_at() {
    // The link's target, the file in the image that is to have the ID, and what it has before.
    for (target, file, content) in [
        // Inside of /etc, beside it, above it: relative and absolute, with and without a file.
        ("id", "etc/id", Some(BAKED)),
        ("./id", "etc/id", None),
        ("../id", "id", Some("")),
        ("/etc/id", "etc/id", None),
        ("/../../id", "id", Some(BAKED)),
        // The stateless image's way: below /var or /run.
        (
            "/var/lib/dbus/machine-id",
            "var/lib/dbus/machine-id",
            Some(BAKED),
        ),
        (
            "../var/lib/dbus/machine-id",
            "var/lib/dbus/machine-id",
            None,
        ),
        ("/run/machine-id", "run/machine-id", Some(BAKED)),
        ("/run/machine-id", "run/machine-id", None),
        ("../run/machine-id", "run/machine-id", Some("uninitialized")),
        ("/var/run/machine-id", "run/machine-id", None),
    ] {
        let bundle = bundle();
        symlink(target, bundle.image("etc/machine-id")).expect("a link");
        if let Some(content) = content {
            bundle.write(file, content.as_bytes());
        }
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        assert_eq!(read(process.path(file)), ours(), "{target} {content:?}");
        let link = fs::read_link(process.path("etc/machine-id")).expect("the link");
        assert_eq!(link.to_str(), Some(target));
        if file.starts_with("run/") {
            // What the image has below the tmpfs is not written to.
            let below = fs::read_to_string(bundle.image(file)).ok();
            assert_eq!(below.as_deref(), content, "{target}");
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn follows_links_to_links_and_refuses_what_leads_nowhere() {
    let bundle = bundle();
    symlink("/one", bundle.image("etc/machine-id")).expect("a link");
    symlink("two", bundle.image("one")).expect("a link");
    symlink("var/../three", bundle.image("two")).expect("a link");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(read(bundle.image("three")), ours());
    drop(process);

    let mut unadvised = Vec::new();
    for (target, errno) in [
        ("machine-id", "ELOOP"),
        ("/etc/machine-id", "ELOOP"),
        ("../etc/./machine-id", "ELOOP"),
        ("/nowhere/machine-id", "ENOENT"),
        ("/run/nowhere/machine-id", "ENOENT"),
        ("/usr/lib/systemd/systemd/machine-id", "ENOTDIR"),
        ("/usr/lib", "EISDIR"),
        (".", "EISDIR"),
    ] {
        let bundle = crate::machine_id::bundle();
        symlink(target, bundle.image("etc/machine-id")).expect("a link");
        let process = Process::start(&bundle, "");
        let run = bundle.prepare(process.pid());
        run.assert_fails(71, &["seed /etc/machine-id", errno]);
        if !run.stderr.ends_with(")\n") {
            unadvised.push(format!("{target}: {}", run.stderr));
        }
    }
    assert_eq!(unadvised, [""; 0], "what to do is not said");
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_the_other_names_of_a_hard_link_what_they_are() {
    let bundle = bundle();
    bundle.write("etc/machine-id", format!("{BAKED}\n").as_bytes());
    let file = bundle.image("etc/machine-id");
    // Deduplicated images have their equal files so.
    for name in ["etc/other", "usr/other", "var/lib/dbus/machine-id"] {
        fs::hard_link(&file, bundle.image(name)).expect("a hard link");
    }
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    for name in ["etc/machine-id", "var/lib/dbus/machine-id"] {
        assert_eq!(read(bundle.image(name)), ours(), "{name}");
        assert_eq!(fs::metadata(bundle.image(name)).expect("it").nlink(), 1);
    }
    for name in ["etc/other", "usr/other"] {
        assert_eq!(read(bundle.image(name)), format!("{BAKED}\n"), "{name}");
        assert_eq!(fs::metadata(bundle.image(name)).expect("it").nlink(), 2);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn gives_dbus_the_same_one_and_leaves_what_is_no_file() {
    for (make, is_file) in [
        ("printf ffffffffffffffffffffffffffffffff >machine-id", true),
        ("echo ffffffffffffffffffffffffffffffff >machine-id", true),
        ("touch machine-id", true),
        (
            "chmod 700 .; echo ffffffffffffffffffffffffffffffff >machine-id; chmod 400 machine-id",
            true,
        ),
        ("ln -s /etc/machine-id machine-id", false),
        ("ln -s ../../../etc/machine-id machine-id", false),
        ("ln -s /nowhere/at/all machine-id", false),
        ("ln -s machine-id machine-id", false),
        ("mkdir machine-id", false),
        ("mkfifo machine-id", false),
        ("true", false),
        ("cd ..; rmdir dbus", false),
        ("cd ..; rmdir dbus; ln -s nowhere dbus", false),
    ] {
        let bundle = bundle();
        bundle.write("etc/machine-id", BAKED.as_bytes());
        let dbus = bundle.image("var/lib/dbus");
        let look = || {
            let script = format!(
                "cd {}; find . -printf '%p %y %l %i\\n'",
                bundle.image("var").display()
            );
            let found = std::process::Command::new("sh")
                .args(["-ec", &script])
                .output();
            String::from_utf8(found.expect("find").stdout).expect("UTF-8")
        };
        shell(&format!("cd {}; {make}", dbus.display()));
        let before = look();
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        assert_eq!(read(bundle.image("etc/machine-id")), ours(), "{make}");
        if is_file {
            assert_eq!(read(dbus.join("machine-id")), ours(), "{make}");
            assert_eq!(fs::read_dir(&dbus).expect("it").count(), 1, "{make}");
        } else {
            assert_eq!(look(), before, "{make}");
        }
    }
}
