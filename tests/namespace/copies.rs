//! What copying could add to a file of the image's, or fail at: ACLs, files that are nobody's in the
//! container's user namespace, files that do not fit.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use crate::bundle::Bundle;
use crate::process::{Process, shell};

const DEFAULT: &str = "system.posix_acl_default";
const ACCESS: &str = "system.posix_acl_access";

/// `u::rw-,u:5:r--,g::---,m::r--,o::---`: the version, and a tag, permissions and an ID each
/// (`struct posix_acl_xattr_entry` of the kernel).
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 5),
        (0x04, 0, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
#[ignore = "needs root: make test"]
fn gives_no_copy_an_acl_that_the_file_has_not() {
    let bundle = Bundle::with_systemd(252);
    // What is there before the directory has a default ACL does not inherit it.
    shell(&format!(
        "cd {}; mkdir -p app/below; touch app/file app/below/file",
        bundle.image("run").display()
    ));
    setxattr(
        bundle.image("run/app"),
        DEFAULT,
        &acl(),
        XattrFlags::empty(),
    )
    .expect("a file system with ACLs");
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    let attribute = |path: &str, name: &str| {
        let mut value = vec![0; 1024];
        let length = getxattr(process.path(path), name, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    };
    assert_eq!(attribute("run/app", DEFAULT), Ok(acl()));
    for path in ["run/app/file", "run/app/below", "run/app/below/file"] {
        for name in [ACCESS, DEFAULT] {
            // A file can have no default ACL: it has no such attribute either.
            let found = attribute(path, name);
            assert_eq!(found, Err(Errno::NODATA), "{path} {name}");
        }
    }
}

/// As an unprivileged user has it: nobody but root is mapped.
const USER: &str = "--user --map-root-user --mount --net --cgroup --propagation private";

#[test]
#[ignore = "needs root: make test"]
fn leaves_out_what_is_nobodys_in_the_user_namespace() {
    let bundle = Bundle::with_systemd(252);
    shell(&format!(
        "cd {}; mkdir private open open/mine; echo x >mine; echo x >private/x; echo x >open/x
        ln -s x link; chown -h 5:6 private private/x open open/x link; chmod 700 private",
        bundle.image("run").display()
    ));
    let process = Process::start_with(&bundle, USER, "mount -t tmpfs users run/open/mine");
    process.prepare(&bundle);
    for (path, is_there) in [
        ("run/mine", true),
        ("run/open/mine", true),
        ("run/open/x", false),
        ("run/private", false),
    ] {
        assert_eq!(process.path(path).exists(), is_there, "{path}");
    }
    assert!(process.path("run/link").is_symlink());
    // A mount of the user's is never lost with the directory that it is in.
    assert!(
        process
            .mounts()
            .iter()
            .any(|mount| mount.at == "/run/open/mine")
    );
}

#[test]
#[ignore = "needs root: make test"]
fn gives_nobody_the_rights_of_an_acl_that_it_leaves_out() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("run/file", b"x");
    setxattr(
        bundle.image("run/file"),
        ACCESS,
        &acl(),
        XattrFlags::empty(),
    )
    .expect("an ACL");
    let process = Process::start_with(&bundle, USER, "");
    process.prepare(&bundle);
    let copy = fs::metadata(process.path("run/file")).expect("the copy");
    // It was 640 on the image, where the 4 is what the ACL gives at most.
    assert_eq!(copy.mode() & 0o777, 0o600);
}

#[test]
#[ignore = "needs root: make test"]
fn says_that_run_lock_has_more_in_it_than_fits() {
    let bundle = Bundle::with_systemd(252);
    fs::create_dir(bundle.image("run/lock")).expect("a directory");
    bundle.write("run/lock/large", &vec![0; 6 << 20]);
    let process = Process::start(&bundle, "");
    bundle
        .prepare(process.pid())
        .assert_fails(65, &["/run/lock", "what fits", "clean it in the image"]);
}

#[test]
#[ignore = "needs root: make test"]
fn keeps_the_names_of_a_file_together() {
    let bundle = Bundle::with_systemd(252);
    bundle.write("run/a/file", b"x");
    fs::create_dir(bundle.image("run/b")).expect("a directory");
    for name in ["run/a/other", "run/b/third"] {
        fs::hard_link(bundle.image("run/a/file"), bundle.image(name)).expect("a hard link");
    }
    let process = Process::start(&bundle, "");
    process.prepare(&bundle);
    let inode = |path| fs::metadata(process.path(path)).expect("the copy").ino();
    assert_eq!(inode("run/a/file"), inode("run/a/other"));
    assert_eq!(inode("run/a/file"), inode("run/b/third"));
}
