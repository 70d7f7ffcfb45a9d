//! What a run of the hook left of a container, its image and its host, as text that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

use crate::bundle::Bundle;
use crate::process::{Process, hierarchies};

/// By path or place, what is there.
pub(crate) type Listing = BTreeMap<String, String>;

/// What is in a directory and below it. The time of what is older than the tests is told too: it was
/// copied.
pub(crate) fn list(top: &Path) -> Listing {
    let mut found = Listing::new();
    let mut next = vec![top.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let stat = path.symlink_metadata().expect("an entry");
            let content = if stat.is_dir() {
                next.push(path.clone());
                String::new()
            } else if stat.is_symlink() {
                format!("-> {}", path.read_link().expect("a link").display())
            } else {
                let content = fs::read(&path).expect("a file");
                format!("{} {}", stat.nlink(), content.escape_ascii())
            };
            let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
            let age = if stat.mtime() == OLD { "old" } else { "" };
            let attributes = attributes(&path);
            let text = format!("{mode:o} {uid}:{gid} {content} {age} {attributes}");
            let path = path.strip_prefix(top).expect("it is below");
            found.insert(path.display().to_string(), text);
        }
    }
    found
}

/// The time of what is copied.
pub(crate) const OLD: i64 = 1_000_000_000;

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 1024];
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0);
    let show = |name: &[u8]| {
        let mut value = vec![0; 1024];
        let length = lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        let value = value[..length].escape_ascii();
        format!("{}={value}", name.escape_ascii())
    };
    let all: Vec<_> = names.filter(|name| !name.is_empty()).map(show).collect();
    all.join(" ")
}

/// All that the hook may have done for a container, as the container has it.
pub(crate) fn prepared(bundle: &Bundle, process: &Process) -> Listing {
    let mut found = Listing::new();
    for mount in process.mounts() {
        let same = format!("mount_{}/", mount.at);
        let count = found.keys().filter(|key| key.starts_with(&same)).count();
        found.insert(format!("{same}{count}"), format!("{mount:?}"));
    }
    for directory in ["run", "tmp", "etc", "var"] {
        for (path, text) in list(&process.path(directory)) {
            found.insert(format!("{directory}/{path}"), text);
        }
    }
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid()));
    for line in cgroups.expect("its cgroups").lines() {
        if let Some((_, path)) = line.split_once(":name=systemd:").or(line.split_once("0::")) {
            for top in hierarchies() {
                let control =
                    fs::read_to_string(top.join(&path[1..]).join("../cgroup.subtree_control"));
                found.insert(
                    format!("{line} {}", top.display()),
                    control.unwrap_or_default(),
                );
            }
        }
    }
    let path = bundle.path.to_str().expect("a path of the tests");
    let number = bundle
        .path
        .file_name()
        .expect("a name")
        .to_str()
        .expect("a name");
    for text in found.values_mut() {
        *text = text.replace(path, "BUNDLE").replace(number, "NUMBER");
    }
    found
}

/// The host's mounts that a hook gone astray could change: those on the places that it knows in a
/// container, and those of the bundle.
fn mounts(bundle: &Bundle) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let is_known = |at: &str| {
        ["/run", "/run/lock", "/run/host", "/tmp"].contains(&at)
            || ["/sys", "/etc", "/dev"]
                .iter()
                .any(|top| at.starts_with(top))
            || Path::new(at).starts_with(&bundle.path)
    };
    let is_watched = |line: &&str| line.split(' ').nth(4).is_some_and(is_known);
    table
        .lines()
        .filter(is_watched)
        .map(ToOwned::to_owned)
        .collect()
}

/// The places that the hook made for the container.
pub(crate) fn places(bundle: &Bundle) -> Vec<PathBuf> {
    let places = hierarchies()
        .into_iter()
        .map(|top| top.join("oci-systemd-hook").join(&bundle.id));
    places.filter(|place| place.exists()).collect()
}

/// A text without its digits, and its length: the same for any two machine IDs.
fn form(text: &str) -> (usize, String) {
    (
        text.len(),
        text.replace(|c: char| c.is_ascii_hexdigit(), ""),
    )
}

/// What is in one of the listings and not, or other, in the other one; but for keys that begin so.
pub(crate) fn differences(wanted: &Listing, found: &Listing, but: &[&str]) -> Vec<String> {
    let keys: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter(|key| !but.iter().any(|start| key.starts_with(start)))
        .filter(|key| wanted.get(*key) != found.get(*key))
        .map(|key| format!("{key}: {:?} and not {:?}", found.get(key), wanted.get(key)))
        .collect()
}

/// The host and the image before a fault.
pub(crate) struct Before {
    mounts: Vec<String>,
    image: Listing,
    volume: Listing,
}

impl Before {
    pub(crate) fn of(bundle: &Bundle) -> Self {
        Self {
            mounts: mounts(bundle),
            image: list(&bundle.image("")),
            volume: list(&bundle.path.join("volume")),
        }
    }

    /// What is not as it was, when the process has ended and poststop has run; but for the machine ID
    /// that a clean run writes, and empty directories.
    pub(crate) fn changes(&self, bundle: &Bundle, clean: &Listing) -> Vec<String> {
        let mut found = Vec::new();
        if mounts(bundle) != self.mounts {
            found.push("the host's mounts changed".to_owned());
        }
        for place in places(bundle) {
            found.push(format!("left: {}", place.display()));
        }
        let (image, volume) = (list(&bundle.image("")), list(&bundle.path.join("volume")));
        if volume != self.volume {
            found.push("the user's volume changed".to_owned());
        }
        for (path, text) in &image {
            let is_empty = text.starts_with("40755 ")
                && !image
                    .keys()
                    .any(|other| other.starts_with(&format!("{path}/")));
            // A hook that is killed at the last moment leaves a whole one under its first name. The next
            // one takes it away.
            let name = path.replace(".machine-id.oci-systemd-hook", "machine-id");
            let is_whole = clean.get(&name).map(|id| form(id)) == Some(form(text));
            let is_id = name.ends_with("/machine-id") && is_whole;
            match self.image.get(path) {
                Some(before) if before == text => {}
                None if is_empty => {}
                _ if is_id => {}
                before => found.push(format!("{path} in the image: {text}, before: {before:?}")),
            }
        }
        for path in self.image.keys().filter(|path| !image.contains_key(*path)) {
            found.push(format!("{path} in the image is gone"));
        }
        found
    }
}
