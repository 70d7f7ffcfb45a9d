//! What a runtime hands on of the container's to a hook, or leaves behind in it: an environment,
//! limits, signals, descriptors, a directory; and arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::case::Case;
use crate::host::Host;

/// Variables that a container may choose where its runtime hands them on (runc up to 1.2, to a hook
/// that is registered without an environment).
const VARIABLES: [(&str, &str); 26] = [
    ("LD_PRELOAD", "/data/file"),
    ("LD_PRELOAD", "\u{1b}[31m/a\n/b"),
    ("LD_LIBRARY_PATH", "/data:/tmp"),
    ("LD_AUDIT", "/data/file"),
    ("LD_DEBUG", "all"),
    ("LD_BIND_NOW", "1"),
    (
        "GLIBC_TUNABLES",
        "glibc.malloc.check=3:glibc.malloc.perturb=255:x==",
    ),
    ("MALLOC_CHECK_", "3"),
    ("MALLOC_ARENA_MAX", "0"),
    ("MALLOC_TRACE", "/etc/cron.d/trace"),
    ("MALLOC_CONF", "stats_print:true"),
    ("GCONV_PATH", "/data"),
    ("LOCPATH", "/data"),
    ("LC_ALL", "../../../../data"),
    ("NLSPATH", "/data/%N"),
    ("RUST_BACKTRACE", "full"),
    ("RUST_MIN_STACK", "99999999999999999999"),
    ("RUST_LOG_STYLE", "always"),
    ("TMPDIR", "/etc/cron.d"),
    ("PATH", "/data:."),
    ("HOME", "/etc"),
    ("container", "\u{1b}]0;x\u{7}"),
    ("container_uuid", "00000000-0000-0000-0000-000000000000"),
    ("NOTIFY_SOCKET", "/dev/log"),
    ("LISTEN_FDS", "3"),
    ("oci-systemd-hook", "disabled"),
];

/// What is asked to be logged, by whom nobody knows.
const LOGS: [&str; 6] = [
    "trace",
    "debug,\n\u{1b}[31mx=y=z",
    "===",
    "/[",
    "\u{202e}",
    ",,,,info/(",
];

/// What a shell does before it becomes the hook, and how that may end.
const CALLERS: [(&str, &str, &[i32], bool); 35] = [
    ("no standard input", "exec <&-", &[65], false),
    ("no standard output", "exec >&-", &[0], false),
    ("no standard error", "exec 2>&-", &[0], true),
    ("none of the three", "exec <&- >&- 2>&-", &[65], true),
    ("a full standard error", "exec 2>/dev/full", &[0], true),
    (
        "a full standard error, and something to say",
        "exec </dev/null 2>/dev/full",
        &[65],
        true,
    ),
    ("a directory as input", "exec </etc", &[71], false),
    (
        "an input that cannot be read",
        "exec 0>/dev/null",
        &[65],
        false,
    ),
    (
        "a terminal's device as input",
        "exec </dev/urandom",
        &[65],
        false,
    ),
    (
        "descriptors of the host's",
        "exec 3</etc/shadow 4</ 5</proc/self/ns/mnt 6<. 7<>/etc/machine-id 8</dev/disk",
        &[0],
        false,
    ),
    ("no more descriptors", "ulimit -n 3", &[66], false),
    ("one descriptor", "ulimit -n 4", &[71], false),
    ("two descriptors", "ulimit -n 5", &[71], false),
    ("five descriptors", "ulimit -n 8", &[71], false),
    ("eight descriptors", "ulimit -n 11", &[0, 71], false),
    ("sixteen descriptors", "ulimit -n 19", &[0], false),
    ("files of no bytes", "ulimit -f 0", &[71], false),
    ("files of 512 bytes", "ulimit -f 1", &[0], false),
    (
        "files of no bytes, quietly",
        "trap '' XFSZ; ulimit -f 0",
        &[71],
        false,
    ),
    ("no core files", "ulimit -c 0", &[0], false),
    (
        "no processes",
        "exec prlimit --nproc=0 \"$0\" \"$@\"",
        &[0],
        false,
    ),
    ("a stack of 64 KiB", "ulimit -s 64", &[0], false),
    ("no locked memory", "ulimit -l 0", &[0], false),
    ("memory of 16 MiB", "ulimit -v 16384", &[0], false),
    ("data of 8 MiB", "ulimit -d 8192", &[0], false),
    (
        "no signals",
        "trap '' HUP INT QUIT PIPE TERM CHLD ALRM USR1 USR2",
        &[0],
        false,
    ),
    (
        "blocked signals",
        "exec env --block-signal \"$0\" \"$@\"",
        &[0],
        false,
    ),
    ("a umask that leaves nothing", "umask 777", &[0], false),
    ("a umask that leaves all", "umask 0", &[0], false),
    (
        "a directory that is gone",
        "mkdir /tmp/gone; cd /tmp/gone; rmdir /tmp/gone",
        &[0],
        false,
    ),
    ("a directory of the host's", "cd /etc/cron.d", &[0], false),
    (
        "a lowest priority",
        "exec nice -n 19 \"$0\" \"$@\"",
        &[0],
        false,
    ),
    (
        "a user without rights",
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" \"$@\"",
        &[77],
        false,
    ),
    (
        "root without capabilities",
        "exec setpriv --bounding-set -all --inh-caps -all \"$0\" \"$@\"",
        &[77],
        false,
    ),
    (
        "no new privileges",
        "exec setpriv --no-new-privs \"$0\" \"$@\"",
        &[0],
        false,
    ),
];

const ARGUMENTS: [(&str, &[u8], &[i32]); 8] = [
    ("nothing", b"", &[64]),
    ("lines and colours", b"\x1b[31m\ncreateRuntime", &[64]),
    ("no UTF-8", b"\xff\xfe\x80", &[64]),
    ("a stage that is too late", b"createContainer", &[64]),
    ("an option that is none", b"--root=/", &[64]),
    ("another directory", b"../../etc", &[64]),
    ("the other stage", b"poststop", &[0]),
    ("a known one", b"--always", &[0]),
];

pub(crate) fn cases(_: &Host, judge: &mut dyn FnMut(Case)) {
    let logs = LOGS.iter().map(|value| ("RUST_LOG", *value));
    let mut all = Case::new("all of these variables", &[0]);
    for (name, value) in VARIABLES.into_iter().chain(logs) {
        let mut case = Case::new(format!("{name}={value}"), &[0]);
        case.environment.push((name.into(), value.into()));
        if name != "RUST_LOG" {
            all.environment.extend(case.environment.clone());
        }
        judge(case);
    }
    all.environment
        .push((OsString::from_vec(b"\xff\xfe".to_vec()), "x".into()));
    all.environment
        .push(("LONG".into(), "x".repeat(100_000).into()));
    judge(all);
    for (what, caller, statuses, is_deaf) in CALLERS {
        let mut case = Case::new(format!("called with {what}"), statuses);
        case.caller = caller.into();
        case.is_deaf = is_deaf;
        judge(case);
    }
    for (what, argument, statuses) in ARGUMENTS {
        let mut case = Case::new(format!("an argument of {what}"), statuses);
        case.arguments.push(OsString::from_vec(argument.to_vec()));
        judge(case);
    }
    let mut case = Case::new("an argument of 100 000 bytes", &[64]);
    case.arguments.push("\u{1b}[31m".repeat(20_000).into());
    judge(case);
}
