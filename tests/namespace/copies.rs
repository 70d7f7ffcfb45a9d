//! What copying could add to a file of the image's, or fail at: default ACLs, and files that are
//! nobody's in the container's user namespace.

use std::fs;

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

#[test]
#[ignore = "needs root: make test"]
fn leaves_out_what_nobody_in_the_user_namespace_may_read() {
    let bundle = Bundle::with_systemd(252);
    shell(&format!(
        "cd {}; echo x >private; echo x >public; chown 5:6 private public; chmod 600 private",
        bundle.image("run").display()
    ));
    let unshare = "--user --map-root-user --mount --net --cgroup --propagation private";
    let process = Process::start_with(&bundle, unshare, "");
    process.prepare(&bundle);
    assert!(!process.path("run/private").exists());
    let public = fs::read_to_string(process.path("run/public"));
    assert_eq!(public.expect("what everybody may read"), "x\n");
}
