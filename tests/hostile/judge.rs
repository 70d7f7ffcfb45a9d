//! One judge for all cases: by what is seen of the host, the container and the hook afterwards, and
//! not by how a hook goes about it. Only the status is asked case by case.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::bundle::Bundle;
use crate::case::{Case, Outcome};
use crate::host::{Host, SECRET};
use crate::process::Process;

/// In KiB.
const MEMORY: i64 = 32 << 10;
/// Where a hook may mount something, or below.
const PLACES: [&str; 5] = [
    "/run",
    "/run/lock",
    "/tmp",
    "/etc/machine-id",
    "/sys/fs/cgroup",
];

/// What makes the cases of a group, one by one: some are large.
pub(crate) type Cases = fn(&Host, &mut dyn FnMut(Case));

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) case: String,
    /// The host, another container, or a secret of theirs; not only the hook's manners.
    pub(crate) is_harm: bool,
    pub(crate) what: String,
}

/// Run those cases of a group that are wanted, as often as `HOSTILE_ROUNDS` says.
pub(crate) fn judge(
    host: &Host,
    group: &str,
    cases: Cases,
    is_wanted: fn(&Case) -> bool,
) -> Vec<Finding> {
    let rounds = std::env::var("HOSTILE_ROUNDS").map_or(1, |text| text.parse().expect("a number"));
    let mut findings = Vec::new();
    let (mut judged, mut slowest) = (0, (Duration::ZERO, String::new()));
    for _ in 0..rounds {
        cases(host, &mut |case| {
            if is_wanted(&case) {
                let (found, took) = judge_one(host, &case);
                judged += 1;
                findings.extend(found);
                slowest = slowest.clone().max((took, case.name));
            }
        });
    }
    println!(
        "{group}: {judged} cases, {} findings; the slowest hook took {:?} ({:?}), the largest {} KiB",
        findings.len(),
        slowest.0,
        slowest.1,
        peak()
    );
    findings
}

/// The most memory that any child had resident, in KiB. It counts all children, of which the shells
/// are small and rm(1) of the largest image is below the bound, and the most that this process had
/// itself since it last forgot it.
fn peak() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.max_rss())
}

/// So that what a case took to be made is not taken for the hook's (proc(5)).
fn forget_own_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("the peak of this process");
}

fn judge_one(host: &Host, case: &Case) -> (Vec<Finding>, Duration) {
    let mut findings = Vec::new();
    let mut find = |is_harm, what: String| {
        findings.push(Finding {
            case: case.name.clone(),
            is_harm,
            what,
        });
    };
    let (bundle, process) = case.start(host);
    let own = (process.pid(), bundle.id.as_str());
    let (before, mounts, peak_before) = (host.look(own), mounts(&process), peak());
    host.heard();
    forget_own_peak();

    let outcome = case.prepare(&bundle, &process);
    let harm = differences(&before, &host.look(own));
    if !harm.is_empty() {
        Host::mend(&before);
    }
    for line in harm {
        find(true, line);
    }
    for point in strange_mounts(case, &bundle, &process, &mounts) {
        find(true, format!("mounted in the container: {point}"));
    }
    let run = process.path("run");
    if !run.is_symlink() && shows_secret(&run, 6) {
        find(true, "the container has the host's secret".to_owned());
    }
    if !case.statuses.contains(&outcome.status) {
        find(
            false,
            format!("status {} {}", outcome.status, outcome.stderr),
        );
    }
    for what in bad_manners(case, &outcome) {
        find(false, what);
    }
    for line in host.heard().iter().filter(|line| !is_printable(line)) {
        find(false, format!("to the log: {line:?}"));
    }
    let memory = peak();
    if memory > MEMORY && memory > peak_before {
        find(false, format!("{memory} KiB of memory"));
    }

    drop(process);
    let after = case.clean_up(&bundle);
    for line in differences(&before, &host.look(own)) {
        find(true, format!("after poststop: {line}"));
    }
    if Host::has_place(&bundle.id) {
        find(true, "poststop left the container's cgroup".to_owned());
    }
    if ![0, 65].contains(&after.status) || after.is_late {
        find(
            false,
            format!("poststop: {} {}", after.status, after.stderr),
        );
    }
    (findings, outcome.took.max(after.took))
}

fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("gone: {line}"));
    let new = after.difference(before).map(|line| format!("new: {line}"));
    // The rest is of the same kind.
    new.chain(gone).take(6).collect()
}

/// The IDs and places of a container's mounts, all of them and not only those of the image.
fn mounts(process: &Process) -> BTreeSet<(String, String)> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", process.pid()));
    let field = |line: &str, index| line.split(' ').nth(index).unwrap_or_default().to_owned();
    let table = table.unwrap_or_default();
    table
        .lines()
        .map(|line| (field(line, 0), field(line, 4)))
        .collect()
}

fn strange_mounts(
    case: &Case,
    bundle: &Bundle,
    process: &Process,
    before: &BTreeSet<(String, String)>,
) -> Vec<String> {
    let image = bundle.path.join("rootfs");
    let image = image.to_string_lossy();
    let swapped = case.swap.iter().flat_map(|(one, other)| [*one, *other]);
    let allowed: Vec<String> = swapped
        .map(|place| format!("/{place}"))
        .chain(PLACES.map(str::to_owned))
        .collect();
    let is_allowed = |point: &str| {
        point.strip_prefix(&*image).is_some_and(|at| {
            case.mounts_anywhere_inside
                || at.starts_with("/sys/fs/cgroup/")
                || allowed.iter().any(|place| at == place)
        })
    };
    let now = mounts(process);
    let new = now.difference(before).map(|(_, point)| point.clone());
    new.filter(|point| !is_allowed(point)).collect()
}

/// Whether a file of the host's was copied into the container.
fn shows_secret(directory: &Path, depth: u32) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.take(2000).any(|entry| {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => depth > 0 && shows_secret(&path, depth - 1),
            Ok(kind) if kind.is_file() => {
                let is_small = entry.metadata().is_ok_and(|found| found.len() < 4096);
                is_small && fs::read_to_string(&path).is_ok_and(|text| text.contains(SECRET))
            }
            _ => false,
        }
    })
}

/// No control characters, and none that hide or turn what follows.
fn is_printable(line: &str) -> bool {
    let is_plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    line.len() < 2048 && line.chars().all(is_plain)
}

fn bad_manners(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    if outcome.is_late {
        found.push("it does not end".to_owned());
    }
    if !outcome.stdout.is_empty() {
        found.push(format!("on standard output: {:?}", outcome.stdout));
    }
    let lines: Vec<&str> = outcome.stderr.split_terminator('\n').collect();
    let expected = usize::from(outcome.status != 0 && !case.is_deaf);
    let is_asked = case.environment.iter().any(|(name, _)| name == "RUST_LOG");
    if lines.len() != expected && !is_asked {
        found.push(format!("{} lines: {:?}", lines.len(), outcome.stderr));
    }
    if !lines
        .iter()
        .all(|line| is_printable(line) && line.starts_with("oci-systemd-hook: "))
    {
        found.push(format!("not one printable line: {:?}", outcome.stderr));
    }
    found
}
