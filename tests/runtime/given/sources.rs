//! What is in a volume, or in a place of the image: small trees by the names that the table has for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{XattrFlags, setxattr};

use super::line::Line;
use crate::lab::{View, directory, image};

/// Every kind of file with what it can have, and nothing that a tmpfs could not hold. `$ROOT` is the number of the
/// container's root.
const TREE: &str = r#"
mkdir -p directory/below "with space" empty
echo data >file; : >nothing; echo hidden >.hidden; echo more >directory/below/file
echo '#!/bin/sh' >program; chmod 4755 program
ln -s file link; ln -s /nowhere/at/all broken; ln -s .. directory/up
chmod 1777 directory; chmod 2750 "with space"; chmod 600 directory/below/file
chown -h $((ROOT + 7)):$((ROOT + 8)) file broken "with space" directory/below
"#;

/// What a kind is made with, in an empty directory.
const SCRIPTS: [(&str, &str); 12] = [
    ("tree", TREE),
    ("empty", ""),
    // As the kubelet writes a token: renewed by one rename.
    (
        "token",
        "mkdir ..2024; echo token >..2024/token; ln -s ..2024 ..data; ln -s ..data/token token",
    ),
    (
        "hardlinks",
        "mkdir directory; echo one >one; ln one two; ln one directory/three; echo other >other",
    ),
    ("empties", "mkdir -p a/b/c d; chmod 700 a/b; chmod 1777 d"),
    (
        "deep",
        "n=0; while [ $n -lt 200 ]; do mkdir d; cd d; n=$((n + 1)); done; echo deep >file",
    ),
    (
        "many",
        "i=0; while [ $i -lt 95 ]; do mkdir d$i; (cd d$i; seq 100 | xargs touch); i=$((i + 1)); done",
    ),
    ("too-many", "seq 10001 | xargs touch"),
    ("large", "head -c 67000000 /dev/zero >large"),
    (
        "too-large",
        "head -c 67000000 /dev/zero >large; cp large larger",
    ),
    (
        "odd-owners",
        "echo a >public; echo b >private; chmod 600 private; chown 5:6 public private",
    ),
    ("special", "echo file >file; mkfifo fifo; mknod null c 1 3"),
];

/// A machine ID of the user's.
const ID: &str = "0123456789abcdef0123456789abcdef\n";

/// The volumes of a line, on the host.
pub(super) struct Sources<'view> {
    view: &'view View,
    directory: PathBuf,
}

impl<'view> Sources<'view> {
    /// Make and fill them.
    pub(super) fn new(view: &'view View, line: &Line) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("given-{}-{number}", std::process::id());
        let sources = Self {
            view,
            directory: directory().join("boot").join(name),
        };
        fs::create_dir_all(&sources.directory).expect("the lab's directory can be written");
        for volume in &line.volumes {
            if fs::symlink_metadata(sources.path(&volume.source)).is_err() {
                let root = if volume.has("U") { line.root() } else { 0 };
                sources.fill(&volume.source, &volume.place, line, root);
            }
        }
        sources
    }

    /// Where a source is for a runtime.
    pub(super) fn path(&self, source: &str) -> PathBuf {
        self.directory.join(source)
    }

    /// The same for this process.
    pub(super) fn path_here(&self, source: &str) -> PathBuf {
        self.view.path(&self.path(source))
    }

    fn fill(&self, source: &str, place: &str, line: &Line, root: u32) {
        let path = self.path(source).display().to_string();
        let here = self.path_here(source);
        let mount = |arguments: &[&str]| self.view.run("mount", &[arguments, &[&path]].concat());
        let tmpfs = ["-t", "tmpfs", "-o", "nosuid,nodev", "given"];
        match source.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "id" => fs::write(&here, ID).expect("it can be written"),
            "file" => fs::write(&here, "a file of the user's\n").expect("it can be written"),
            "socket" => {
                std::os::unix::net::UnixListener::bind(&here).expect("it can be bound");
            }
            // Kubernetes' emptyDir with `medium: Memory`, and its secrets: the kubelet mounts them without flags.
            kind @ ("memory" | "token") => {
                fs::create_dir(&here).expect("it can be made");
                mount(&["-t", "tmpfs", "-o", "mode=1777", "kubelet"]);
                fill(&here, if kind == "memory" { "tree" } else { kind }, root);
            }
            "shared" => {
                fill(&here, "tree", root);
                mount(&["--bind", &path]);
                self.view.run("mount", &["--make-shared", &path]);
            }
            // With something mounted in it on the host.
            "mounts" => {
                fill(&here, "tree", root);
                self.view.run(
                    "mount",
                    &[&tmpfs[..], &[&format!("{path}/directory")]].concat(),
                );
                fill(&here.join("directory"), "tree", root);
            }
            // A new named volume: Docker and podman copy what the image has there.
            kind if kind.starts_with("copy") => {
                let image = if line.is_in_user_namespace() {
                    image(&format!("{}.userns", line.image()))
                } else {
                    image(line.image())
                };
                let from = image.join(place.trim_start_matches('/'));
                run(Command::new("cp").arg("-a").arg(from).arg(&here));
                let id = here.join("machine-id");
                match kind.trim_start_matches("copy") {
                    "-with-id" => fs::write(id, ID).expect("it can be written"),
                    "-with-empty-id" => fs::write(id, "").expect("it can be written"),
                    "-without-id" => drop(fs::remove_file(id)),
                    _ => {}
                }
            }
            kind => fill(&here, kind, root),
        }
        if here.join("program").exists() {
            attribute(&here.join("program"), "user.given", b"value");
        }
    }
}

impl Drop for Sources<'_> {
    fn drop(&mut self) {
        // Those on which something is mounted, however often.
        let script = format!(
            "grep -F {0} /proc/self/mounts | cut -d' ' -f2 | tac | xargs -r umount --lazy",
            self.directory.display()
        );
        let _ = self.view.command("sh").args(["-c", &script]).output();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Make a place of the image; `rootfs` is its top, as this process reaches it.
pub(super) fn fill_image(rootfs: &Path, kind: &str, place: &str, root: u32) {
    let path = rootfs.join(place.trim_start_matches('/'));
    if let Some(target) = kind.strip_prefix("link=") {
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        std::os::unix::fs::symlink(target, &path).expect("the rootfs can be written");
        return;
    }
    if kind == "file" {
        fs::create_dir_all(path.parent().expect("it is in a directory"))
            .expect("the rootfs can be written");
        fs::write(&path, "a file of the image's\n").expect("the rootfs can be written");
        return;
    }
    match kind {
        "attributes" => {
            fill(&path, "tree", root);
            add_attributes(&path, root);
        }
        // Of an id that a user namespace has no number for.
        "foreign-acl" => {
            fill(&path, "tree", root);
            attribute(&path.join("nothing"), "system.posix_acl_access", &acl(5));
        }
        _ => fill(&path, kind, root),
    }
}

/// Fill a directory, which is made if it is not there, and set all times back: only what stays is seen to be the same.
fn fill(directory: &Path, kind: &str, root: u32) {
    fs::create_dir_all(directory).expect("the lab's directory can be written");
    let script = SCRIPTS.iter().find(|(name, _)| *name == kind);
    let (_, script) = script.unwrap_or_else(|| panic!("no kind of source is called {kind}"));
    let owners = r#"find . -xdev -user 0 -exec chown -h "$ROOT:$ROOT" {} +"#;
    let times =
        "find . -xdev -depth -exec touch --no-dereference --date=@1000000000.123456789 {} +";
    let script = format!("umask 022; ( :; {script}\n ); {owners}; {times}");
    run(Command::new("sh")
        .args(["-ec", &script])
        .env("ROOT", root.to_string())
        .current_dir(directory));
}

fn add_attributes(tree: &Path, root: u32) {
    // VFS_CAP_REVISION_2 with the effective bit, and CAP_NET_BIND_SERVICE (capabilities(7)).
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([0, 4, 0, 0]);
    capability.extend([0; 12]);
    let acl = acl(root + 5);
    for (file, name, value) in [
        ("program", "security.capability", &capability[..]),
        ("file", "trusted.given", b"value"),
        ("directory", "trusted.given", b"value"),
        ("nothing", "system.posix_acl_access", &acl),
        ("directory/below", "system.posix_acl_access", &acl),
        ("directory/below", "system.posix_acl_default", &acl),
    ] {
        attribute(&tree.join(file), name, value);
    }
}

/// `u::rwx,u:USER:r-x,g::---,m::rwx,o::---` (acl(5); `struct posix_acl_xattr_entry` of the kernel).
fn acl(user: u32) -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01_u16, 7_u16, u32::MAX),
        (0x02, 5, user),
        (0x04, 0, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn attribute(file: &Path, name: &str, value: &[u8]) {
    setxattr(file, name, value, XattrFlags::empty()).expect("a file system with attributes");
}

fn run(command: &mut Command) {
    let output = command.output().expect("it can be run");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        crate::lab::text(&output)
    );
}
