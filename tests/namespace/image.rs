//! What the image has in the places that are covered, and whether its program is systemd.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, systemd};
use crate::process::{Process, shell};

/// What makes an image different.
type Make = fn(&Bundle);

#[test]
#[ignore = "needs root: make test"]
fn copies_up_what_the_image_has_in_run() {
    let bundle = Bundle::with_systemd(252);
    let run = bundle.image("run");
    shell(&format!(
        "cd {}; mkdir -p app/deep lock/sub empty; echo one >app/file; chmod 640 app/file; chown 5:6 app/file
        touch -d 2001-02-03T04:05:06.789Z app/file; chmod 1770 app/deep; chown 7:8 app
        ln -s /nonexistent/link app/link; touch -h -d 2002-01-01Z app/link; mkfifo app/fifo
        echo locked >lock/sub/file; printf x >'a name with spaces'; chmod 4755 'a name with spaces'
        touch -d 2003-03-03Z empty; touch -d 2001-02-03T04:05:06Z app",
        run.display()
    ));
    let capable = Command::new("setcap")
        .args(["cap_net_raw=ep"])
        .arg(run.join("app/file"))
        .status();
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);

    let file = fs::metadata(process.path("run/app/file")).expect("the file");
    assert_eq!(
        (
            file.mode() & 0o7777,
            file.uid(),
            file.gid(),
            file.mtime(),
            file.mtime_nsec()
        ),
        (0o640, 5, 6, 981_173_106, 789_000_000)
    );
    assert_eq!(
        fs::read_to_string(process.path("run/app/file")).expect("it"),
        "one\n"
    );
    let app = fs::metadata(process.path("run/app")).expect("the directory");
    assert_eq!((app.uid(), app.gid(), app.mtime()), (7, 8, 981_173_106));
    assert_eq!(
        fs::metadata(process.path("run/app/deep"))
            .expect("it")
            .mode()
            & 0o7777,
        0o1770
    );
    assert_eq!(
        fs::metadata(process.path("run/empty")).expect("it").mtime(),
        1_046_649_600
    );
    assert_eq!(
        fs::read_link(process.path("run/app/link"))
            .expect("the link")
            .to_str(),
        Some("/nonexistent/link")
    );
    assert_eq!(
        fs::symlink_metadata(process.path("run/app/link"))
            .expect("it")
            .mtime(),
        1_009_843_200
    );
    assert!(!process.path("run/app/fifo").exists());
    assert_eq!(
        fs::metadata(process.path("run/a name with spaces"))
            .expect("it")
            .mode()
            & 0o7777,
        0o4755
    );
    assert_eq!(
        fs::read_to_string(process.path("run/lock/sub/file")).expect("it"),
        "locked\n"
    );
    if capable.is_ok_and(|status| status.success()) {
        let shown = Command::new("getcap")
            .arg(process.path("run/app/file"))
            .output()
            .expect("getcap");
        assert!(
            String::from_utf8_lossy(&shown.stdout).contains("cap_net_raw"),
            "{shown:?}"
        );
    }
    // The image itself is as it was.
    assert!(
        fs::symlink_metadata(run.join("app/fifo"))
            .expect("it")
            .file_type()
            .is_fifo()
    );
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_to_copy_too_much_from_run_and_leaves_tmp_as_it_is() {
    let many = |path: &str| format!("mkdir -p {path}; cd {path}; seq 10001 | xargs touch");
    let bundle = Bundle::with_systemd(252);
    shell(&many(bundle.image("run/many").to_str().expect("UTF-8")));
    let process = Process::start(&bundle, "");
    process.assert_refused(&bundle, 65, &["/run", "10000", "clean"]);

    let bundle = Bundle::with_systemd(252);
    fs::File::create(bundle.image("run/sparse"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("a sparse file");
    let process = Process::start(&bundle, "");
    process.assert_refused(&bundle, 65, &["/run", "64 MiB"]);

    let bundle = Bundle::with_systemd(252);
    bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
    shell(&many(bundle.image("tmp/many").to_str().expect("UTF-8")));
    let process = Process::start(&bundle, "");
    assert!(
        process
            .prepare(&bundle)
            .iter()
            .all(|mount| mount.at != "/tmp")
    );
    let mask = fs::read_link(process.path("run/systemd/system/tmp.mount")).expect("a mask");
    assert_eq!(mask.to_str(), Some("/dev/null"));
    assert!(process.path("tmp/many/10001").exists());
}

#[test]
#[ignore = "needs root: make test"]
fn makes_the_directories_that_an_image_lacks() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
    for path in ["run", "tmp"] {
        fs::remove_dir(bundle.image(path)).expect("removed");
    }
    let process = Process::start(&bundle, "");
    let made = process.prepare(&bundle);
    for at in ["/run", "/run/lock", "/tmp"] {
        assert!(made.iter().any(|mount| mount.at == at), "{at} in {made:?}");
    }
    assert_eq!(
        fs::metadata(bundle.image("run"))
            .expect("made")
            .permissions()
            .mode()
            & 0o7777,
        0o755
    );
}

/// Make /sbin/init a link.
fn link(bundle: &Bundle, target: &str) {
    bundle.write("usr/bin/busybox", b"\x7fELF");
    fs::create_dir_all(bundle.image("usr/sbin")).expect("a directory");
    symlink(target, bundle.image("usr/sbin/init")).expect("a link");
}

#[test]
#[ignore = "needs root: make test"]
fn leaves_other_inits_alone_and_says_what_they_are() {
    let others: [(Make, &str); 8] = [
        (
            |bundle| bundle.write("usr/sbin/init", b"#!/bin/sh\nexec s6-svscan\n"),
            "/sbin/init is not systemd",
        ),
        (
            |bundle| bundle.write("usr/sbin/init", &systemd(252)),
            "/sbin/init is not systemd",
        ),
        (|bundle| link(bundle, "../bin/busybox"), "a link to busybox"),
        (
            |bundle| link(bundle, "/usr/bin/runit-init"),
            "there is no /sbin/init",
        ),
        (|bundle| link(bundle, "init"), "there is no /sbin/init"),
        (
            |bundle| {
                bundle.write("opt/systemd", b"#!/bin/sh\n");
                link(bundle, "/opt/systemd");
            },
            "not an ELF file",
        ),
        (
            |bundle| {
                fs::create_dir_all(bundle.image("opt/systemd")).expect("a directory");
                link(bundle, "/opt/systemd");
            },
            "not a regular file",
        ),
        (
            |bundle| {
                shell(&format!(
                    "mkdir {0}; mkfifo {0}/systemd",
                    bundle.image("opt").display()
                ));
                link(bundle, "/opt/systemd");
            },
            "not a regular file",
        ),
    ];
    for (make, said) in others {
        let bundle = Bundle::with_systemd(252);
        fs::remove_file(bundle.image("usr/sbin/init")).expect("removed");
        make(&bundle);
        let process = Process::start(&bundle, "");
        let log = process.assert_untouched(&bundle);
        assert!(
            log.contains("nothing to do: ") && log.contains(said),
            "{said}: {log}"
        );
    }
}

#[test]
#[ignore = "needs root: make test"]
fn finds_systemd_by_a_bare_name_and_through_links() {
    for args in [
        json!(["init"]),
        json!(["systemd"]),
        json!(["/var/../sbin/init"]),
        json!(["/alternatives/init"]),
    ] {
        let mut bundle = Bundle::with_systemd(252);
        bundle.config["process"]["env"] =
            json!(["PATH=/nonexistent:/sbin:/usr/lib/systemd", "container=oci"]);
        fs::create_dir_all(bundle.image("etc/alternatives")).expect("a directory");
        symlink("/etc/alternatives", bundle.image("alternatives")).expect("a link");
        symlink(
            "../../../../../sbin/init",
            bundle.image("etc/alternatives/init"),
        )
        .expect("a link");
        bundle.config["process"]["args"] = args.clone();
        let process = Process::start(&bundle, "");
        assert_ne!(process.prepare(&bundle), [], "{args}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn takes_the_images_systemd_for_any_command_if_it_is_told_to() {
    let mut bundle = Bundle::with_systemd(252);
    bundle.config["process"]["args"] = json!(["/start.sh"]);
    bundle.annotate("mode", "always");
    let process = Process::start(&bundle, "");
    assert_ne!(process.prepare(&bundle), []);

    // A pod's annotations reach its side containers too.
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["/start.sh"]);
    bundle.annotate("mode", "always");
    let process = Process::start(&bundle, "");
    let log = process.assert_untouched(&bundle);
    assert!(log.contains("there is no systemd in the image"), "{log}");
}

#[test]
#[ignore = "needs root: make test"]
fn judges_the_annotations_of_a_container_that_it_would_prepare() {
    for (name, words) in [
        ("mode", "auto, always or never"),
        ("cgroup", "unified"),
        ("machine-id", "keep"),
    ] {
        let mut bundle = Bundle::with_systemd(252);
        bundle.annotate(name, "perhaps");
        let process = Process::start(&bundle, "");
        process.assert_refused(
            &bundle,
            65,
            &[&format!("oci-systemd-hook.{name}=perhaps"), words],
        );
    }
}
