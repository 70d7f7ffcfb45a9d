//! More than there should be: mounts, names, depth, attributes, and programs that lie about
//! their own size.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags, mkdirat, openat, setxattr};
use serde_json::json;

use crate::bundle::systemd;
use crate::case::{Case, Make};
use crate::host::Host;

/// Files with so many attributes of 60 KB, in /run.
fn attributes(at: &Path, files: u32, each: u32) {
    let value = vec![b'x'; 60_000];
    fs::create_dir(at).expect("a directory");
    for file in 0..files {
        let path = at.join(file.to_string());
        fs::write(&path, "").expect("a file");
        for number in 0..each {
            // Only these are not counted by the tests' own tmpfs.
            let name = format!("trusted.a{number}");
            setxattr(&path, name, &value, XattrFlags::empty()).expect("an attribute");
        }
    }
}

const THINGS: [(&str, &str, Make, &[i32]); 11] = [
    (
        "9 000 files that have another name elsewhere, each with a path of 4 KB",
        "run/app",
        |at| {
            let deep = deep(at);
            let elsewhere = at.join("../../elsewhere");
            fs::create_dir(&elsewhere).expect("a directory");
            for number in 0..9000 {
                let file = elsewhere.join(number.to_string());
                fs::write(&file, "").expect("a file");
                fs::hard_link(&file, deep.join(number.to_string())).expect("a name");
            }
        },
        &[0, 65],
    ),
    (
        "3 000 levels",
        "run/app",
        |at| drop(levels(at, 3000)),
        &[65],
    ),
    (
        "1 900 levels, and 8 000 directories in the last",
        "run/app",
        |at| directories(at, 1899, 8000, false),
        &[65],
    ),
    (
        "256 levels, the last two 4 500 times",
        "run/app",
        |at| directories(at, 253, 4500, true),
        &[0],
    ),
    ("257 levels", "run/app", |at| drop(levels(at, 256)), &[65]),
    (
        "9 000 links of 4 KB",
        "run/app",
        |at| {
            fs::create_dir(at).expect("a directory");
            for number in 0..9000 {
                symlink("l".repeat(4000), at.join(number.to_string())).expect("a link");
            }
        },
        &[0],
    ),
    (
        "20 attributes of 60 KB",
        "run/app",
        |at| attributes(at, 1, 20),
        &[0],
    ),
    (
        "1 500 attributes of 60 KB",
        "run/app",
        |at| attributes(at, 100, 15),
        &[65],
    ),
    (
        "11 000 attributes",
        "run/app",
        |at| {
            fs::create_dir(at).expect("a directory");
            for file in 0..1100 {
                let path = at.join(file.to_string());
                fs::write(&path, "").expect("a file");
                for number in 0..10 {
                    let name = format!("trusted.a{number}");
                    setxattr(&path, name, b"x", XattrFlags::empty()).expect("an attribute");
                }
            }
        },
        &[65],
    ),
    (
        "9 000 directories, each with a path of 4 KB",
        "run/app",
        |at| {
            let deep = deep(at);
            for number in 0..9000 {
                fs::create_dir(deep.join(number.to_string())).expect("a directory");
            }
        },
        &[0, 65],
    ),
    (
        "9 000 files, each with a path of 4 KB",
        "run/app",
        |at| {
            let deep = deep(at);
            for number in 0..9000 {
                fs::write(deep.join(number.to_string()), "").expect("a file");
            }
        },
        &[0, 65],
    ),
];

/// So many directories below that many levels, each perhaps with one in it.
fn directories(at: &Path, below: u32, count: u32, with_another: bool) {
    let last = levels(at, below);
    for number in 0..count {
        let name = number.to_string();
        mkdirat(&last, &name, Mode::RWXU).expect("a directory");
        if with_another {
            mkdirat(&last, format!("{name}/d"), Mode::RWXU).expect("a directory");
        }
    }
}

/// So many directories, each in the one before; the last of them.
fn levels(at: &Path, count: u32) -> OwnedFd {
    fs::create_dir(at).expect("a directory");
    let mut last: OwnedFd = File::open(at).expect("it").into();
    for _ in 0..count {
        mkdirat(&last, "d", Mode::RWXU).expect("a directory");
        last = openat(&last, "d", OFlags::DIRECTORY, Mode::empty()).expect("it");
    }
    last
}

/// The deepest directory that still has a path: 15 names of 250 bytes.
fn deep(at: &Path) -> std::path::PathBuf {
    let mut deep = at.to_owned();
    for _ in 0..15 {
        deep.push("d".repeat(250));
    }
    // The image itself has a path too: the hook sees it from the root on.
    fs::create_dir_all(&deep).map_or_else(|_| at.to_owned(), |()| deep)
}

/// What a shell makes of the image: `many DIRECTORY COUNT` makes files.
const IMAGES: [(&str, &str, &[i32]); 7] = [
    ("20 000 files in /run", "many run/app 20000", &[65]),
    ("20 000 files in /tmp", "many tmp/app 20000", &[0]),
    ("300 000 files in /run", "many run/app 300000", &[65]),
    ("20 000 files in /run/lock", "many run/lock 20000", &[65]),
    (
        "20 000 directories in /run",
        "mkdir -p run/app; cd run/app; seq 20000 | xargs mkdir",
        &[65],
    ),
    (
        "5 000 names of 255 bytes in /run",
        "cd run; n=$(printf '%0250d'); seq -f \"$n%05g\" 5000 | xargs touch",
        &[0],
    ),
    (
        "a file of 63 MiB in /run",
        "head -c 66060288 /dev/zero >run/file",
        &[0],
    ),
];

/// What a shell does in the container's mount namespace: `mounts DIRECTORY COUNT` mounts.
const INSIDE: [(&str, &str, &[i32]); 4] = [
    ("900 mounts in /run", "mounts run 900", &[0]),
    ("3 000 mounts in /run", "mounts run 3000", &[0, 71]),
    ("4 096 mounts elsewhere", "nest data2", &[0]),
    ("4 096 mounts below one in /run", "nest run/data", &[0]),
];

const SHELL: &str = r#"
    many() { mkdir -p "$1"; (cd "$1"; seq "$2" | xargs touch); }
    mounts() {
        for n in $(seq "$2"); do mkdir -p "$1/m$n"; echo "none $PWD/$1/m$n tmpfs size=4k"; done >../table
        mount --all --fstab ../table
    }
    nest() {
        mkdir -p "$1"; mount -t tmpfs nest "$1"; cd "$1"
        for n in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir $n; mount --rbind . $n; done; cd - >/dev/null
    }
"#;

/// Programs that are systemd by their name: a change of one that is.
type Change = fn(&mut Vec<u8>);

const PROGRAMS: [(&str, Change); 22] = [
    ("cut off after its magic", |elf| elf.truncate(4)),
    ("cut off in its header", |elf| elf.truncate(40)),
    ("cut off behind its header", |elf| elf.truncate(64)),
    ("cut off in its segments", |elf| elf.truncate(100)),
    ("cut off in its strings", |elf| elf.truncate(elf.len() - 20)),
    ("of a width that is none", |elf| elf[4] = 9),
    ("of an order that is none", |elf| elf[5] = 0xff),
    ("of the other order", |elf| elf[5] = 2),
    ("of the other width", |elf| elf[4] = 1),
    ("of 65 535 segments", |elf| put(elf, 56, &[0xff; 2])),
    ("of segments of 65 535 bytes", |elf| {
        put(elf, 54, &[0xff; 2]);
    }),
    ("of segments of no bytes", |elf| put(elf, 54, &[0; 2])),
    ("with segments beyond any file", |elf| {
        put(elf, 32, &[0xff; 8]);
    }),
    ("with segments at the end of numbers", |elf| {
        put(elf, 32, &[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    }),
    ("with segments over its header", |elf| put(elf, 32, &[0; 8])),
    ("with a dynamic section that has no end", |elf| {
        put(elf, 64 + 56 + 32, &[0xff; 8]);
    }),
    ("with a dynamic section beyond any file", |elf| {
        put(elf, 64 + 56 + 8, &[0xff; 8]);
    }),
    ("with strings beyond any address", |elf| {
        put(elf, 64 + 16, &[0xff; 8]);
    }),
    ("with a name beyond its strings", |elf| {
        put(elf, 64 + 112 + 8, &[0xff; 8]);
    }),
    ("with a name that does not end", |elf| {
        let begin = elf.len() - 40;
        elf[begin..].fill(b'a');
        elf.extend([b'a'; 1 << 16]);
    }),
    ("with 100 000 libraries", |elf| {
        let needed = [1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
        let at = elf.len() as u64;
        elf.extend(needed.repeat(100_000));
        put(elf, 64 + 56 + 8, &at.to_le_bytes());
        put(elf, 64 + 56 + 32, &(16 * 100_000_u64).to_le_bytes());
    }),
    ("with a version in colours", |elf| {
        put(elf, 64 + 56, &[9]);
        elf.extend(b"systemd 9\x1b[31m\n999999999999999999999");
    }),
];

fn put(elf: &mut [u8], at: usize, bytes: &[u8]) {
    elf[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn cases(_: &Host, judge: &mut dyn FnMut(Case)) {
    for (what, at, make, statuses) in THINGS {
        let mut case = Case::new(format!("{what} in /run"), statuses);
        case.things.push((at.to_owned(), make));
        judge(case);
    }
    for (what, image, statuses) in IMAGES {
        let mut case = Case::new(what, statuses);
        case.image = format!("{SHELL} {image}");
        judge(case);
    }
    for (what, inside, statuses) in INSIDE {
        let mut case = Case::new(what, statuses);
        case.inside = format!("{SHELL} {inside}");
        judge(case);
    }
    for (what, change) in PROGRAMS {
        let mut case = Case::new(format!("a systemd {what}"), &[0]);
        let mut elf = systemd(252);
        change(&mut elf);
        case.program = Some(elf);
        judge(case);
    }
    for (what, length) in [("1 TiB", 1_u64 << 40), ("8 EiB", i64::MAX as u64 - 4096)] {
        let mut case = Case::new(format!("a systemd of {what} of nothing"), &[0]);
        case.image =
            format!("printf '\\177ELF\\2\\1\\1' >opt/systemd; truncate -s {length} opt/systemd");
        case.config = json!({ "process": { "args": ["/opt/systemd"] } });
        judge(case);
    }
}
