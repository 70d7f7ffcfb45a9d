//! What a container looks like from outside, by its pid, as lines that can be compared with another container's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use super::View;

/// The magic numbers of cgroup and cgroup2 file systems, as statfs(2) has them.
const CGROUPS: [i64; 2] = [0x0027_e0eb, 0x6367_7270];

/// All that the hook changes below a /run that is ready: with this file systemd knows where it is.
pub(crate) const MANAGER: [&str; 2] = [
    r#"+ host 40755 0:0 "a directory""#,
    r#"+ host/container-manager 100444 0:0 "oci\n""#,
];

/// What is in one set of lines only, as diff(1) marks it.
pub(crate) fn changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    gone.chain(after.difference(before).map(|line| format!("+ {line}")))
        .collect()
}

/// Its mounts, but for what is another in each container: the numbers, the container's id, and the layers of its root.
pub(crate) fn mounts(pid: u64, id: &str) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it is there");
    let anonymous = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").expect("it has two parts");
        let mut fields: Vec<_> = mount.split(' ').skip(3).collect();
        // The peer group of a mount that is shared.
        let group =
            |field: &mut &str| *field = field.trim_end_matches(|c: char| c.is_ascii_digit());
        fields.iter_mut().skip(3).for_each(group);
        if fields[1] == "/" {
            return fields.join(" ");
        }
        let line = format!("{} - {file_system}", fields.join(" "));
        line.replace(id, "ID").replace(&id[..12], "ID")
    };
    table.lines().map(anonymous).collect()
}

/// The cgroups that it is in.
pub(crate) fn cgroups(pid: u64, id: &str) -> BTreeSet<String> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
    cgroups.lines().map(|line| line.replace(id, "ID")).collect()
}

/// All that is below one of its directories, mounts included: paths with kind, mode, owner and content.
pub(crate) fn tree(pid: u64, id: &str, directory: &str) -> BTreeSet<String> {
    let top = PathBuf::from(format!("/proc/{pid}/root{directory}"));
    let mut lines = BTreeSet::new();
    let mut left = vec![top.clone()];
    while let Some(path) = left.pop() {
        let entry = fs::symlink_metadata(&path).expect("nothing in there runs yet");
        let content = if entry.is_dir() {
            let below = fs::read_dir(&path).expect("root reads it");
            left.extend(below.map(|entry| entry.expect("root reads it").path()));
            "a directory".to_owned()
        } else if entry.is_symlink() {
            format!(
                "-> {}",
                fs::read_link(&path).expect("root reads it").display()
            )
        } else if entry.is_file() {
            String::from_utf8_lossy(&fs::read(&path).expect("root reads it")).into_owned()
        } else {
            "special".to_owned()
        };
        let path = path.strip_prefix(&top).expect("it is below").display();
        let (mode, uid, gid) = (entry.permissions().mode(), entry.uid(), entry.gid());
        let line = format!("{path} {mode:o} {uid}:{gid} {content:?}");
        lines.insert(line.replace(id, "ID").replace(&id[..12], "ID"));
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
