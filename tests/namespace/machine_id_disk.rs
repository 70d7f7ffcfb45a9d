//! A machine ID on a disk that takes none: full, without room for a file, or with attributes of
//! chattr(1). What was there is whole afterwards, and nothing of the hook's is beside it.

use crate::bundle::Bundle;
use crate::machine_id::{BAKED, bundle, ours, read};
use crate::process::{Process, shell};

/// A container with an ext4 file system of its own on /etc, and what is done there.
fn with_disk(make: &str) -> (Bundle, Process) {
    let bundle = bundle();
    let disk = bundle.path.join("disk");
    shell(&format!(
        "truncate -s 1M {0}; mkfs.ext4 -q -m 0 -N 32 -O ^has_journal {0}",
        disk.display()
    ));
    let setup = format!("mount -o loop ../disk etc; rmdir etc/lost+found; cd etc; {make}");
    let process = Process::start(&bundle, &setup);
    (bundle, process)
}

fn with_tmpfs(options: &str, make: &str) -> (Bundle, Process) {
    let bundle = bundle();
    let setup = format!("mount -t tmpfs -o {options} tmpfs etc; cd etc; {make}");
    let process = Process::start(&bundle, &setup);
    (bundle, process)
}

/// The names on it.
fn names(process: &Process) -> Vec<String> {
    let entries = std::fs::read_dir(process.path("etc"))
        .expect("/etc")
        .flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("fill")).collect();
    names.sort();
    names
}

/// Block by block: a larger write would fail as a whole, and leave room.
const FILL: &str = "dd if=/dev/zero of=fill bs=1k 2>/dev/null || true";
const USE_UP: &str = "n=0; while touch fill$n 2>/dev/null; do n=$((n+1)); done";

#[test]
#[ignore = "needs root: make test"]
fn leaves_the_old_file_whole_where_there_is_no_room_for_another() {
    let old = "echo uninitialized >machine-id";
    let cases = [
        ("full disk", with_disk(&format!("{old}; {FILL}"))),
        ("no inodes", with_disk(&format!("{old}; {USE_UP}"))),
        (
            "full tmpfs",
            with_tmpfs("size=8k", &format!("{old}; {FILL}")),
        ),
        (
            "tmpfs, no inodes",
            with_tmpfs("nr_inodes=8", &format!("{old}; {USE_UP}")),
        ),
    ];
    let mut left = Vec::new();
    for (what, (bundle, process)) in &cases {
        let run = bundle.prepare(process.pid());
        println!("{what}: {run:?}");
        run.assert_fails(
            71,
            &["cannot seed /etc/machine-id with ", "ENOSPC", "space"],
        );
        let file = read(process.path("etc/machine-id"));
        assert_eq!(file, "uninitialized\n", "{what}");
        let names = names(process);
        if names != ["machine-id"] {
            left.push(format!("{what}: {names:?}"));
        }
    }
    assert_eq!(left, [""; 0]);

    // And none is left where there was none.
    let (bundle, process) = with_disk(FILL);
    let run = bundle.prepare(process.pid());
    run.assert_fails(71, &["cannot seed /etc/machine-id with ", "ENOSPC"]);
    assert_eq!(names(&process), [""; 0]);
}

#[test]
#[ignore = "needs root: make test"]
fn asks_nothing_of_a_full_disk_that_has_an_id() {
    for content in [BAKED.to_owned() + "\n", ours()] {
        let (bundle, process) = with_disk(&format!("printf '{content}' >machine-id; {FILL}"));
        process.prepare(&bundle);
        assert_eq!(read(process.path("etc/machine-id")), content);
        assert_eq!(names(&process), ["machine-id"]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn refuses_what_is_immutable_and_says_that_an_attribute_may_be_why() {
    for (make, left) in [
        (
            "echo uninitialized >machine-id; chattr +i machine-id",
            "machine-id",
        ),
        (
            "echo uninitialized >machine-id; chattr +a machine-id",
            "machine-id",
        ),
        ("echo uninitialized >machine-id; chattr +i .", "machine-id"),
        ("chattr +i .", ""),
    ] {
        let (bundle, process) = with_disk(make);
        let run = bundle.prepare(process.pid());
        run.assert_fails(
            77,
            &["cannot seed /etc/machine-id with ", "EPERM", "attributes"],
        );
        let left: Vec<_> = left.split_whitespace().collect();
        assert_eq!(names(&process), left, "{make}");
        if !left.is_empty() {
            let content = read(process.path("etc/machine-id"));
            assert_eq!(content, "uninitialized\n", "{make}");
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn asks_nothing_of_what_is_immutable_and_has_an_id() {
    for attribute in ["chattr +i machine-id", "chattr +i ."] {
        let (bundle, process) = with_disk(&format!("echo {BAKED} >machine-id; {attribute}"));
        process.prepare(&bundle);
        assert_eq!(read(process.path("etc/machine-id")), format!("{BAKED}\n"));
    }
}
