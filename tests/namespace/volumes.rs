//! Volumes of the user's that the image's links lead into: writable when the hook comes, and not its
//! to write. crun makes a bind read-only only after the hook; the config says so.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::bundle::Bundle;
use crate::process::{Process, shell};

/// What is in a directory and below it, with the content of its files.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            found.extend(content(&path));
        }
        found.push((name, fs::read(&path).unwrap_or_default()));
    }
    found.sort();
    found
}

/// A container with a volume at `at`, in which nothing may change.
fn prepare_untouched(at: &str, make: impl FnOnce(&mut Bundle)) {
    let mut bundle = Bundle::with_systemd(252);
    bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
    let volume = bundle.path.join("volume");
    for directory in ["system", "lock"] {
        fs::create_dir_all(volume.join(directory)).expect("the volume");
    }
    for name in ["file", "machine-id", "container-manager"] {
        fs::write(volume.join(name), format!("precious {name}")).expect("a file of the user's");
    }
    fs::create_dir_all(bundle.image(at)).expect("the place of the volume");
    make(&mut bundle);
    let before = content(&volume);
    let process = Process::start(&bundle, &format!("mount --bind ../volume {at}"));
    bundle.prepare(process.pid());
    let after = content(&volume);
    drop(process);
    let path = volume.display();
    shell(&format!("! mountpoint -q {path} || umount {path}"));
    assert_eq!(after, before, "{at}");
}

fn link(bundle: &Bundle, target: &str, at: &str) {
    let path = bundle.image(at);
    let _ = fs::remove_dir_all(&path);
    symlink(target, path).expect("a link");
}

#[test]
#[ignore = "needs root: make test"]
fn writes_nothing_where_the_images_links_lead_into_a_volume() {
    prepare_untouched("data", |bundle| {
        link(bundle, "/data/file", "etc/machine-id");
    });
    prepare_untouched("data", |bundle| link(bundle, "/data/new", "etc/machine-id"));
    prepare_untouched("data", |bundle| link(bundle, "/data", "etc"));
    prepare_untouched("data", |bundle| link(bundle, "/data", "var/lib/dbus"));
    prepare_untouched("data", |bundle| link(bundle, "/data", "run/host"));
    prepare_untouched("data", |bundle| {
        link(bundle, "/data", "run/systemd");
        // Too much to copy: tmp.mount is masked in /run/systemd/system then.
        shell(&format!(
            "cd {}; seq 10001 | xargs touch",
            bundle.image("tmp").display()
        ));
    });
}

#[test]
#[ignore = "needs root: make test"]
fn writes_nothing_into_what_becomes_read_only() {
    let read_only = |bundle: &mut Bundle, destination: &str| {
        let mount =
            json!({ "destination": destination, "type": "bind", "options": ["rbind", "ro"] });
        bundle.config["mounts"] = json!([mount]);
    };
    prepare_untouched("etc", |bundle| read_only(bundle, "/etc"));
    prepare_untouched("etc", |bundle| read_only(bundle, "/var/../etc/"));
    prepare_untouched("run", |bundle| read_only(bundle, "/etc/../run"));
    prepare_untouched("run", |bundle| {
        link(bundle, "/run", "myrun");
        read_only(bundle, "/myrun");
    });
}

/// The link by which the runtime came to /etc or /run is below what it mounted there.
#[test]
#[ignore = "needs root: make test"]
fn writes_nothing_into_what_the_images_links_brought_to_a_place_and_then_hide() {
    for (place, options) in [("etc", &["ro"][..]), ("run", &["ro"]), ("run", &[])] {
        for on_tmpfs in [false, true] {
            prepare_untouched(place, |bundle| {
                let hidden = format!("{place}/l");
                symlink(format!("/{hidden}"), bundle.image("conf")).expect("a link");
                symlink(".", bundle.image(&hidden)).expect("a link");
                symlink("/run/file", bundle.image("etc/machine-id")).expect("a link");
                bundle.give("volume", "/conf", options);
                if on_tmpfs {
                    let volume = bundle.path.join("volume");
                    let path = volume.display();
                    shell(&format!(
                        "mv {path} {path}.old; mkdir {path}; mount -t tmpfs volume {path}; cp -a {path}.old/. {path}"
                    ));
                }
            });
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn binds_an_id_over_the_file_of_a_read_only_volume_on_etc() {
    let mut bundle = Bundle::with_systemd(252);
    let volume = bundle.path.join("volume");
    fs::create_dir(&volume).expect("the volume");
    fs::write(volume.join("machine-id"), "").expect("its file");
    bundle.config["mounts"] =
        json!([{ "destination": "/etc", "type": "bind", "options": ["rro"] }]);
    let process = Process::start(&bundle, "mount --bind ../volume etc");
    process.prepare(&bundle);
    assert_eq!(fs::read(volume.join("machine-id")).expect("it"), b"");
    assert_eq!(
        fs::read(process.path("etc/machine-id"))
            .expect("the ID")
            .len(),
        33
    );
}

#[test]
#[ignore = "needs root: make test"]
fn does_not_write_into_a_root_that_becomes_read_only_and_may_be_others_too() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.write("etc/machine-id", b"");
    bundle.config["root"]["readonly"] = json!(true);
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    assert_eq!(
        fs::read(bundle.image("etc/machine-id")).expect("the file"),
        b""
    );
    assert_eq!(
        fs::read(process.path("etc/machine-id"))
            .expect("the ID")
            .len(),
        33
    );
}

#[test]
#[ignore = "needs root: make test"]
fn mounts_nothing_in_a_volume_that_is_shared() {
    let mut bundle = Bundle::with_systemd(252);
    fs::create_dir_all(bundle.path.join("volume/lock")).expect("the volume");
    bundle.give("volume", "/run", &["rbind", "rshared"]);
    let setup = "mount --bind ../volume run; mount --make-shared run";
    let process = Process::start(&bundle, setup);
    process.assert_refused(&bundle, 65, &["/run/lock", "shared with the host"]);

    drop(process);

    // With something of the user's on it there is nothing to mount.
    let process = Process::start(&bundle, &format!("{setup}; mount -t tmpfs lock run/lock"));
    process.prepare(&bundle);
}

#[test]
#[ignore = "needs root: make test"]
fn replaces_a_baked_id_that_a_link_keeps_at_the_top_of_the_image() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("mid", b"0123456789abcdef0123456789abcdef\n");
    symlink("../mid", bundle.image("etc/machine-id")).expect("a link");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    let id = fs::read_to_string(bundle.image("mid")).expect("the ID");
    assert!(
        id.len() == 33 && !id.starts_with("0123456789abcdef"),
        "{id}"
    );
}

#[test]
#[ignore = "needs root: make test"]
fn writes_the_id_on_the_tmpfs_where_a_link_of_a_read_only_root_leads_there() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.write("run/machine-id", b"0123456789abcdef0123456789abcdef\n");
    symlink("/run/machine-id", bundle.image("etc/machine-id")).expect("a link");
    bundle.config["root"]["readonly"] = json!(true);
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    let id = fs::read_to_string(process.path("run/machine-id")).expect("the ID");
    assert!(
        id.len() == 33 && !id.starts_with("0123456789abcdef"),
        "{id}"
    );
}
