//! Root file systems that are read-only, or become so after the hook: the machine ID comes as a file of
//! a tmpfs, bound over the one that is there, and the tree of the image stays as it was.

use std::fs;

use serde_json::json;

use crate::bundle::Bundle;
use crate::machine_id::{BAKED, bundle, ours, read};
use crate::process::Process;

const ID: &str = "etc/machine-id";
const DBUS: &str = "var/lib/dbus/machine-id";
/// What the kernel says of a root file system that is read-only already.
const READ_ONLY: &str = "mount -o remount,bind,ro .";

/// An image with an ID in both files; with `readonly` the runtime makes it read-only later.
fn with_ids(readonly: bool) -> Bundle {
    let mut bundle = bundle();
    for file in [ID, DBUS] {
        bundle.write(file, BAKED.as_bytes());
    }
    // Where an image of Debian has them: they cannot be made later.
    for directory in ["run/lock", "dev"] {
        fs::create_dir(bundle.image(directory)).expect("a directory of the image");
    }
    bundle.config["root"]["readonly"] = json!(readonly);
    bundle
}

#[test]
#[ignore = "needs root: make test"]
fn binds_the_id_over_both_of_its_files() {
    for (readonly, setup) in [(true, ""), (false, READ_ONLY), (true, READ_ONLY)] {
        let bundle = with_ids(readonly);
        let process = Process::start(&bundle, setup);
        let made = process.prepare(&bundle);
        for file in [ID, DBUS] {
            assert_eq!(read(process.path(file)), ours(), "{file} {setup}");
            assert_eq!(read(bundle.image(file)), BAKED, "{file} {setup}");
            let bound: Vec<_> = made.iter().filter(|mount| mount.at[1..] == *file).collect();
            let [bound] = bound[..] else {
                panic!("not one mount: {bound:?}")
            };
            let flags = (bound.flags.as_str(), bound.is_private);
            assert_eq!(flags, ("ro,nosuid,nodev,noexec", true));
        }
        // Its tmpfs was attached for a moment, and is gone.
        let runs = made.iter().filter(|mount| mount.at == "/run").count();
        assert_eq!(runs, 1, "{made:?}");
        process.assert_untouched(&bundle);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn needs_no_tmpfs_on_run_for_it() {
    let mut bundle = with_ids(true);
    let volume = bundle.path.join("volume");
    fs::create_dir_all(&volume).expect("the volume");
    bundle.give("volume", "/run", &["bind"]);
    let setup = "mount -t tmpfs dev dev; mount --bind ../volume run";
    let process = Process::start(&bundle, setup);
    process.prepare(&bundle);
    assert_eq!(read(process.path(ID)), ours());
    let names: Vec<_> = fs::read_dir(&volume)
        .expect("the volume")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["lock"], "more than a mount point");
}

#[test]
#[ignore = "needs root: make test"]
fn warns_of_a_var_that_logind_cannot_write() {
    for (setup, is_warned) in [("", true), ("mount -t tmpfs var var", false)] {
        let bundle = with_ids(true);
        let process = Process::start(&bundle, setup);
        let said = bundle.prepare_verbosely(process.pid()).stderr;
        let is_said = said.contains("/var is read-only") && said.contains("--tmpfs /var");
        assert_eq!(is_said, is_warned, "{said}");
    }
}
