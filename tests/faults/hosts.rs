//! Hosts on which nothing works: without descriptors, memory, room for mounts, /proc or standard streams,
//! and with read-only hierarchies. The hook prepares the container as a whole, or says why not.

use crate::bundle::Run;
use crate::judge::differences;
use crate::scenario::{FULL, MADE, NEW, PLAIN, Scenario};
use crate::trial::{Trial, misreported};

/// Run the hook on such a host and behind such a command, and see to it that it did all or nothing.
#[track_caller]
fn all_or_nothing(scenario: &Scenario, host: &str, before: &[&str]) -> Run {
    all_or_nothing_in(scenario, ":", host, before)
}

/// The same, after a shell script in the container's mount namespace.
#[track_caller]
fn all_or_nothing_in(scenario: &Scenario, inside: &str, host: &str, before: &[&str]) -> Run {
    let (wanted, _) = Trial::start(scenario).run_clean(scenario);
    let mut trial = Trial::start(scenario);
    trial.inside(inside);
    let ran = trial.run(scenario, host, before);
    if ran.status == 0 {
        let half = differences(&wanted, &trial.prepared(), &[]);
        assert!(half.is_empty(), "{} {before:?}: {half:#?}", scenario.name);
    }
    let changed = trial.end(scenario, &wanted);
    assert!(
        changed.is_empty(),
        "{} {before:?}: {changed:#?}",
        scenario.name
    );
    ran
}

/// Run it behind a shell's command.
#[track_caller]
fn behind(scenario: &Scenario, command: &str) -> Run {
    let command = format!("{command}; exec \"$@\"");
    all_or_nothing(scenario, "", &["sh", "-c", &command, "sh"])
}

#[track_caller]
fn assert_told(ran: &Run, says: &str) {
    let wrong = misreported(ran, |line| line.contains(says));
    assert_eq!(wrong, None, "{says}");
}

#[test]
#[ignore = "needs root: make test"]
fn takes_any_limit_of_descriptors() {
    // A hook that is not linked statically needs a fourth one to be loaded.
    let mut limit = 4;
    loop {
        let ran = behind(&FULL, &format!("ulimit -n {limit}"));
        if ran.status == 0 {
            break;
        }
        assert_told(&ran, if limit == 4 { "" } else { "EMFILE" });
        limit += 1;
    }
    println!("descriptors: enough are {limit}");
    assert!(limit <= 32, "{limit}");
}

#[test]
#[ignore = "needs root: make test"]
fn takes_any_limit_of_memory() {
    // What is missing ends it before it begins, or, by SIGABRT and a line of the language, on the way.
    let mut kilobytes = 1000;
    loop {
        let ran = behind(&FULL, &format!("ulimit -v {kilobytes}"));
        println!(
            "{kilobytes} kB of memory: {} {}",
            ran.status,
            ran.stderr.trim_end()
        );
        if ran.status == 0 {
            break;
        }
        kilobytes += 100;
    }
    assert!(kilobytes <= 32 << 10, "{kilobytes}");
}

#[test]
#[ignore = "needs root: make test"]
fn tells_of_hierarchies_that_are_read_only() {
    let host = "\nfor top in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        ! mountpoint -q $top || mount -o remount,bind,ro $top; done";
    for scenario in [PLAIN, NEW, FULL, MADE] {
        let ran = all_or_nothing(&scenario, host, &[]);
        println!("read-only: {}: {ran:?}", scenario.name);
        if ran.status != 0 {
            assert_told(&ran, "EROFS");
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn tells_of_a_host_without_proc() {
    for host in ["\numount -l /proc", "\nmount -t tmpfs nothing /proc"] {
        let ran = all_or_nothing(&PLAIN, host, &[]);
        assert_told(&ran, "");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn does_without_standard_streams() {
    for streams in [">&-", "2>&-", ">&- 2>&-"] {
        behind(&FULL, &format!("exec {streams}")).assert_silent();
    }
    let ran = behind(&FULL, "exec <&-");
    assert_told(&ran, "standard input is empty");
    assert_eq!(behind(&FULL, "exec <&- >&- 2>&-").status, 65);
    assert_eq!(behind(&FULL, "exec 2>/dev/full; ulimit -n 6").status, 71);
}

/// Fill the mount namespace but for `$free` mounts: a tree of mounts is bound below itself until there is
/// no room for twice as many, and then the parts of it for which there is.
const FILL: &str =
    "mount -t tmpfs fill /mnt; cd /mnt; mkdir all $(seq -f free%g $free) $(seq -f rest%g 20)
    mount -t tmpfs all all; mkdir $(seq -f all/%g 20)
    for dir in free*; do [ ! -d $dir ] || mount --bind $dir $dir; done
    for last in $(seq 20); do mount --rbind all all/$last || break; done
    for part in $(seq $((last - 1)) -1 1); do mount --rbind all/$part rest$part || :; done
    ! mount --bind all/20 all/20
    for dir in free*; do [ ! -d $dir ] || umount $dir; done";

#[test]
#[ignore = "needs root: make test"]
fn takes_any_room_for_mounts() {
    let mut free = 0;
    loop {
        let inside = format!("exec 2>/dev/null; free={free}; {FILL}");
        let ran = all_or_nothing_in(&FULL, &inside, "", &[]);
        if ran.status == 0 {
            break;
        }
        assert_told(&ran, "ENOSPC");
        free += 1;
    }
    println!("fs.mount-max: enough are {free}");
    assert!(free > 0);
}
