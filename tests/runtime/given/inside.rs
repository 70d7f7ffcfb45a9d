//! What is in a container that was created: its mounts, and the trees in them, as its own processes reach them. Its
//! root is opened through its process, and paths are followed inside of it, so that nothing has to run in there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::tree::{Facets, Tree, look, record};
use crate::lab::{Container, text};

/// The inside of a container.
pub(super) struct Inside {
    process: PathBuf,
    root: File,
    /// By their IDs.
    mounts: BTreeMap<u64, Mount>,
}

/// A line of mountinfo, see proc(5).
pub(super) struct Mount {
    id: u64,
    /// Where it is, with no links on the way.
    pub(super) at: PathBuf,
    /// The type of its file system.
    pub(super) kind: String,
    /// What must be the same with the hook and without: `type`, `root`, `flags`, `propagation`, `options`.
    pub(super) facets: Facets,
}

impl Inside {
    pub(super) fn of(container: &Container) -> Self {
        let process = PathBuf::from(format!("/proc/{}", container.pid()));
        let table = fs::read_to_string(process.join("mountinfo")).expect("it is up");
        let mounts = table.lines().map(Mount::parse);
        Self {
            root: File::open(process.join("root")).expect("it is up"),
            mounts: mounts.map(|mount| (mount.id, mount)).collect(),
            process,
        }
    }

    /// Whether its first process is there, and no zombie.
    pub(super) fn is_up(&self) -> bool {
        fs::read_link(self.process.join("root")).is_ok()
    }

    /// Ask the image's systemctl, 60 seconds at most.
    pub(super) fn systemctl(&self, arguments: &[&str]) -> String {
        let pid = self.process.file_name().expect("it is /proc/PID");
        let mut command = Command::new("timeout");
        command
            .args(["60", "nsenter", "--all", "--target"])
            .arg(pid);
        let output = command.args(["--", "systemctl"]).args(arguments).output();
        text(&output.expect("timeout can be run"))
    }

    fn open(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve).ok()
    }

    /// What is at a path; `None` when nothing is.
    pub(super) fn tree(&self, path: &Path) -> Option<Tree> {
        let found = self.open(path)?;
        Some(record(&descriptor(&found)))
    }

    /// The mount that a path leads into.
    pub(super) fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let found = self.open(path)?;
        self.mounts
            .get(&look(&descriptor(&found), true)?.stx_mnt_id)
    }

    /// Where a mount is whose place may be spelled in other ways.
    pub(super) fn resolved(&self, place: &Path) -> PathBuf {
        self.mount_of(place)
            .map_or_else(|| place.to_owned(), |mount| mount.at.clone())
    }

    /// Those that are not covered by others.
    pub(super) fn visible_mounts(&self) -> impl Iterator<Item = &Mount> {
        let is_visible = |mount: &&Mount| {
            self.mount_of(&mount.at)
                .is_some_and(|top| top.id == mount.id)
        };
        self.mounts.values().filter(is_visible)
    }

    pub(super) fn read(&self, path: &str) -> String {
        let found = self.open(Path::new(path));
        found.map_or_else(String::new, |found| {
            fs::read_to_string(descriptor(&found)).unwrap_or_default()
        })
    }
}

fn descriptor(found: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", found.as_raw_fd()).into()
}

impl Mount {
    fn parse(line: &str) -> Self {
        let (mount, system) = line.split_once(" - ").expect("mountinfo has a dash");
        let mount: Vec<_> = mount.split(' ').collect();
        let system: Vec<_> = system.split(' ').collect();
        // The number of a peer group is another in each container.
        let propagation: Vec<_> = mount[6..]
            .iter()
            .filter_map(|field| field.split(':').next())
            .collect();
        let facets = [
            ("type", system[0].to_owned()),
            ("root", mount[3].to_owned()),
            ("flags", mount[5].to_owned()),
            ("propagation", propagation.join(" ")),
            ("options", system[2].to_owned()),
        ];
        Self {
            id: mount[0].parse().expect("mountinfo begins with an ID"),
            at: mount[4].replace(r"\040", " ").into(),
            kind: system[0].to_owned(),
            facets: facets.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Whether it is what an option of a volume asks for.
    pub(super) fn is_as(&self, option: &str) -> bool {
        match option {
            "ro" | "noexec" | "nosuid" | "nodev" | "noatime" => {
                self.facets["flags"].split(',').any(|flag| flag == option)
            }
            "shared" | "rshared" => self.facets["propagation"] == "shared",
            "slave" | "rslave" => self.facets["propagation"] == "master",
            "private" | "rprivate" => self.facets["propagation"].is_empty(),
            _ => true,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.at == Path::new("/")
    }
}
