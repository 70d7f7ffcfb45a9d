//! What a container looks like from outside, by its pid, as lines that can be compared with another container's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use super::View;

/// The magic numbers of cgroup and cgroup2 file systems, as statfs(2) has them.
const CGROUPS: [i64; 2] = [0x0027_e0eb, 0x6367_7270];

/// What the hook changes where all has been done: by this file systemd knows where it is.
pub(crate) const MANAGER: [&str; 2] = [
    r#"+ /run/host/container-manager: 100444 0:0 "oci\n""#,
    r#"+ /run/host: 40755 0:0 "a directory""#,
];

/// Its mounts, its cgroups, and the files on what the hook or an engine mounts for systemd; but for what is another in
/// each container, as its id.
pub(crate) fn look(pid: u64, id: &str) -> BTreeSet<String> {
    let mut lines = mounts(pid);
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
    lines.extend(cgroups.lines().map(|line| format!("cgroup {line}")));
    for place in ["/run", "/tmp", "/var/log"] {
        lines.extend(tree(pid, place));
    }
    let anonymous = |line: &String| line.replace(id, "ID").replace(&id[..12], "ID");
    lines.iter().map(anonymous).collect()
}

/// What is in one set of lines only, as diff(1) marks it.
pub(crate) fn changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    gone.chain(after.difference(before).map(|line| format!("+ {line}")))
        .collect()
}

/// The same, but for those of the cgroup tree.
pub(crate) fn changes_elsewhere(
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
) -> Vec<String> {
    let mut changed = changes(before, after);
    changed.retain(|line| !line.contains(" /sys/fs/cgroup") && !line[2..].starts_with("cgroup "));
    changed
}

/// As mountinfo has them, but for the numbers, and the layers of the root.
fn mounts(pid: u64) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it is there");
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").expect("it has two parts");
        let mut fields: Vec<_> = mount.split(' ').skip(3).collect();
        for group in fields.iter_mut().skip(3) {
            *group = group.trim_end_matches(|c: char| c.is_ascii_digit());
        }
        match fields[1] {
            "/" => format!("mount {}", fields.join(" ")),
            _ => format!("mount {} - {file_system}", fields.join(" ")),
        }
    };
    table.lines().map(line).collect()
}

/// All that is below one of its directories, mounts included: paths with kind, mode, owner and content.
fn tree(pid: u64, directory: &str) -> Vec<String> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let mut lines = Vec::new();
    let mut left = vec![root.join(directory.trim_start_matches('/'))];
    while let Some(path) = left.pop() {
        let entry = fs::symlink_metadata(&path).expect("nothing in there runs yet");
        let content = if entry.is_dir() {
            let below = fs::read_dir(&path).expect("root reads it");
            left.extend(below.map(|entry| entry.expect("root reads it").path()));
            "a directory".to_owned()
        } else if entry.is_symlink() {
            let target = fs::read_link(&path).expect("root reads it");
            format!("-> {}", target.display())
        } else if entry.is_file() {
            String::from_utf8_lossy(&fs::read(&path).expect("root reads it")).into_owned()
        } else {
            "special".to_owned()
        };
        let path = path.strip_prefix(&root).expect("it is below").display();
        let (mode, uid, gid) = (entry.permissions().mode(), entry.uid(), entry.gid());
        lines.push(format!("/{path}: {mode:o} {uid}:{gid} {content:?}"));
    }
    lines
}

/// The cgroups that can be written below its /sys/fs/cgroup, and are neither those that it is in nor below them.
pub(crate) fn foreign_cgroups(view: &View, pid: u64, id: &str) -> Vec<PathBuf> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let its = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
    let its = its.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let its: Vec<_> = its.filter(|path| path.contains(id)).collect();
    let is_own = |path: &PathBuf| its.iter().any(|own| path.to_string_lossy().contains(own));
    let own = view.cgroups_of(id).into_iter().filter(is_own);
    let own: Vec<_> = own.filter_map(|path| identity(&path).ok()).collect();
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from(format!("/proc/{pid}/root/sys/fs/cgroup"))];
    while let Some(path) = left.pop() {
        let below = fs::read_dir(&path).into_iter().flatten().flatten();
        let directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(directories.map(|entry| entry.path()));
        // Cgroups of others come and go meanwhile.
        let is_cgroup = statfs(&path).is_ok_and(|found| CGROUPS.contains(&found.f_type));
        let is_foreign = identity(&path).is_ok_and(|found| !own.contains(&found));
        if is_cgroup && is_foreign && access(&path, Access::WRITE_OK).is_ok() {
            found.push(path);
        }
    }
    found
}
