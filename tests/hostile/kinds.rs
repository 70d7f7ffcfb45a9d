//! The wrong kind of file at every place that a hook touches: what is no directory, no file, too
//! large, not to be changed, or has another name on the host.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::case::{Case, Make};
use crate::host::Host;

const ANY: &[i32] = &[0, 65, 71, 77];
/// What is in /run is copied, or is too much for that.
const COPIED: &[i32] = &[0, 65];

/// Where, how the hook ends where no directory is, and how where no file is.
const PLACES: [(&str, &[i32], &[i32]); 16] = [
    ("run", &[65], &[0]),
    ("run/lock", &[65], &[0]),
    ("run/host", COPIED, &[0]),
    ("run/host/container-manager", COPIED, &[0]),
    ("run/systemd", COPIED, &[0]),
    ("tmp", &[65], &[0]),
    ("etc", &[71], &[0, 77]),
    ("etc/machine-id", ANY, &[71, 77]),
    ("etc/.machine-id.oci-systemd-hook", ANY, ANY),
    ("etc/systemd/system/tmp.mount", &[0], &[0]),
    ("var", &[0], &[0]),
    ("var/lib/dbus", &[0], &[0]),
    ("var/lib/dbus/machine-id", ANY, &[0]),
    ("sys", &[71], ANY),
    ("usr/sbin/init", &[0], &[0]),
    ("usr/lib/systemd/systemd", &[0], &[0]),
];

/// What is there instead of a directory.
const FILES: [(&str, Make); 15] = [
    ("an empty file", |at| drop(File::create(at))),
    ("a FIFO", |at| node(at, FileType::Fifo, 0)),
    ("a socket", |at| drop(UnixListener::bind(at))),
    ("/dev/zero", |at| {
        node(at, FileType::CharacterDevice, makedev(1, 5));
    }),
    ("/dev/full", |at| {
        node(at, FileType::CharacterDevice, makedev(1, 7));
    }),
    ("a terminal", |at| {
        node(at, FileType::CharacterDevice, makedev(5, 0));
    }),
    ("a device of nobody's", |at| {
        node(at, FileType::CharacterDevice, makedev(4000, 1));
    }),
    ("a disk", |at| {
        node(at, FileType::BlockDevice, makedev(7, 4242));
    }),
    ("a file of the host's", |at| {
        fs::hard_link(Host::file(), at).expect("a link");
    }),
    ("65 MiB", |at| write(at, 65 << 20)),
    ("a hole of 1 TiB", |at| grow(at, 1 << 40)),
    ("the largest hole", |at| grow(at, i64::MAX as u64 - 4096)),
    ("a file of nobody's", |at| {
        write(at, 40);
        chown(at, Some(u32::MAX - 1), Some(u32::MAX - 1)).expect("chown");
    }),
    ("an immutable file", |at| {
        write(at, 40);
        chattr("+i", at);
    }),
    ("a file that only grows", |at| {
        write(at, 40);
        chattr("+a", at);
    }),
];

/// What is there instead of a file, or of an ordinary directory.
const DIRECTORIES: [(&str, Make); 5] = [
    ("a directory", |at| fs::create_dir(at).expect("a directory")),
    ("a directory with something in it", |at| {
        fs::create_dir_all(at.join("below/machine-id")).expect("directories");
        write(&at.join("file"), 40);
    }),
    ("a directory that nobody may enter", |at| {
        fs::create_dir(at).expect("a directory");
        fs::set_permissions(at, fs::Permissions::from_mode(0o0)).expect("chmod");
    }),
    ("an immutable directory", |at| {
        fs::create_dir(at).expect("a directory");
        chattr("+i", at);
    }),
    ("a directory with every bit", |at| {
        fs::create_dir(at).expect("a directory");
        fs::set_permissions(at, fs::Permissions::from_mode(0o7777)).expect("chmod");
    }),
];

fn node(at: &Path, kind: FileType, device: u64) {
    mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device).expect("mknod");
}

fn write(at: &Path, length: usize) {
    let chunk = [b'a'; 4096];
    let mut file = File::create(at).expect("a file");
    for begin in (0..length).step_by(chunk.len()) {
        let piece = &chunk[..chunk.len().min(length - begin)];
        std::io::Write::write_all(&mut file, piece).expect("written");
    }
}

fn grow(at: &Path, length: u64) {
    let file = File::create(at).expect("a file");
    file.set_len(length).expect("a hole");
}

/// The tests' file system takes it since Linux 6.6; before, the file is an ordinary one.
fn chattr(attribute: &str, at: &Path) {
    let _ = Command::new("chattr")
        .arg(attribute)
        .arg(at)
        .output()
        .expect("chattr");
}

pub(crate) fn cases(_: &Host, judge: &mut dyn FnMut(Case)) {
    for (place, no_directory, no_file) in PLACES {
        let kinds = FILES.iter().map(|kind| (kind, no_directory));
        for ((what, make), statuses) in kinds.chain(DIRECTORIES.iter().map(|kind| (kind, no_file)))
        {
            let mut case = Case::new(format!("{place} is {what}"), statuses);
            case.things.push((place.to_owned(), *make));
            if !place.starts_with("usr") {
                case.config = serde_json::json!({ "process": { "args": ["/opt/systemd"] } });
            }
            judge(case);
        }
    }
}
