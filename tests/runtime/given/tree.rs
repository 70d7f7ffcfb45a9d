//! A tree of files as a value: what is at every path, in facets that can be compared and named. Not below mounts: a
//! mount is a tree of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

/// `kind`, `mode`, `owner`, `mtime`, `content`, `same file as` and each extended attribute.
pub(super) type Facets = BTreeMap<String, String>;

/// By the paths below the top, which is "".
pub(super) type Tree = BTreeMap<PathBuf, Facets>;

pub(super) const MOUNT: &str = "mount";

/// Record what is at `top`, whose links are followed to it, and below.
pub(super) fn record(top: &Path) -> Tree {
    let mut walk = Walk {
        top,
        mount: look(top, true)
            .unwrap_or_else(|| panic!("no {}", top.display()))
            .stx_mnt_id,
        seen: BTreeMap::new(),
        tree: Tree::new(),
    };
    walk.add(Path::new(""));
    walk.tree
}

/// What statx(2) says of a path, its last link followed or not; `None` when nothing is there.
pub(super) fn look(path: &Path, follow: bool) -> Option<Statx> {
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    statx(
        CWD,
        path,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )
    .ok()
}

struct Walk<'a> {
    top: &'a Path,
    mount: u64,
    /// The first name of each file that has several.
    seen: BTreeMap<u64, PathBuf>,
    tree: Tree,
}

impl Walk<'_> {
    fn add(&mut self, below: &Path) {
        let top = below.as_os_str().is_empty();
        // Joined with nothing it would end in a slash, and be a directory.
        let path = if top {
            self.top.to_owned()
        } else {
            self.top.join(below)
        };
        let Some(stat) = look(&path, top) else {
            return; // removed since its directory was read, by the container's systemd
        };
        let kind = if stat.stx_mnt_id == self.mount {
            kind(&stat)
        } else {
            MOUNT
        };
        let mut facets = Facets::new();
        facets.insert("kind".to_owned(), kind.to_owned());
        if kind != MOUNT {
            self.describe(below, &path, &stat, &mut facets);
        }
        self.tree.insert(below.to_owned(), facets);
        if kind == "directory" {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort(); // for which name of a file is the first
            for name in names {
                self.add(&below.join(name));
            }
        }
    }

    fn describe(&mut self, below: &Path, path: &Path, stat: &Statx, facets: &mut Facets) {
        let mut set = |name: &str, value: String| drop(facets.insert(name.to_owned(), value));
        set("mode", format!("{:o}", stat.stx_mode & 0o7777));
        set("owner", format!("{}:{}", stat.stx_uid, stat.stx_gid));
        let mtime = stat.stx_mtime;
        set("mtime", format!("{}.{:09}", mtime.tv_sec, mtime.tv_nsec));
        match kind(stat) {
            "file" => set("content", text(&fs::read(path).unwrap_or_default())),
            "link" => set(
                "content",
                fs::read_link(path)
                    .unwrap_or_default()
                    .display()
                    .to_string(),
            ),
            "device" => set(
                "content",
                format!("{}:{}", stat.stx_rdev_major, stat.stx_rdev_minor),
            ),
            _ => {}
        }
        if kind(stat) != "directory" && stat.stx_nlink > 1 {
            let first = self.seen.entry(stat.stx_ino).or_insert(below.to_owned());
            set("same file as", first.display().to_string());
        }
        for (name, value) in attributes(path, below.as_os_str().is_empty()) {
            set(&name, value);
        }
    }
}

fn kind(stat: &Statx) -> &'static str {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::RegularFile => "file",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        _ => "device",
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn attributes(path: &Path, follow: bool) -> Vec<(String, String)> {
    let mut names = vec![0; 4096];
    let length = if follow {
        rustix::fs::listxattr(path, &mut names[..])
    } else {
        rustix::fs::llistxattr(path, &mut names[..])
    };
    let names = text(&names[..length.unwrap_or(0)]);
    let value = |name: &str| {
        let mut value = vec![0; 4096];
        let length = if follow {
            rustix::fs::getxattr(path, name, &mut value[..])
        } else {
            rustix::fs::lgetxattr(path, name, &mut value[..])
        };
        format!("{:?}", length.map(|length| &value[..length]))
    };
    names
        .split_terminator('\0')
        .map(|name| (name.to_owned(), value(name)))
        .collect()
}

/// One way in which a tree is not what it was.
pub(super) struct Difference {
    pub(super) path: PathBuf,
    /// `missing`, `new`, or the facet that is another, or in which it was seen and is no more.
    pub(super) what: String,
    values: [String; 2],
}

impl Difference {
    pub(super) fn is_of_top(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [before, now] = &self.values;
        let (path, what) = (self.path.display(), &self.what);
        write!(f, "{path:?} {what} {before:.40} {now:.40}")
    }
}

/// All of them, but for what lies at and below mounts that are in the way.
pub(super) fn differences(before: &Tree, now: &Tree) -> Vec<Difference> {
    let is_mount = |facets: &Facets| facets["kind"] == MOUNT;
    let is_mounted_on = |path: &Path| {
        [before, now]
            .iter()
            .any(|tree| tree.get(path).is_some_and(is_mount))
    };
    let is_below = |path: &Path| path.ancestors().skip(1).any(is_mounted_on);
    let mut found = Vec::new();
    let mut add = |path: &Path, what: &str, before: &str, now: &str| {
        found.push(Difference {
            path: path.to_owned(),
            what: what.to_owned(),
            values: [before.to_owned(), now.to_owned()],
        });
    };
    for (path, was) in before
        .iter()
        .filter(|(path, _)| !is_below(path) && !is_mounted_on(path))
    {
        let Some(is) = now.get(path) else {
            add(path, "missing", "", "");
            continue;
        };
        for facet in was
            .keys()
            .chain(is.keys().filter(|facet| !was.contains_key(*facet)))
        {
            let [was, is] = [was, is].map(|facets| facets.get(facet).map_or("–", String::as_str));
            if was != is {
                add(path, facet, was, is);
            }
        }
    }
    for path in now
        .keys()
        .filter(|path| !before.contains_key(*path) && !is_below(path))
    {
        add(path, "new", "", "");
    }
    found
}
