//! Paths below the container's root file system, by descriptor. Everything in it is the image's
//! word: links are followed inside it only (openat2(2), `RESOLVE_IN_ROOT`), and never a magic one.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::{self, FileType, OFlags, Resolve, Stat};

/// Links that are followed before a chain of them counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// The root directory of the container's file system.
#[derive(Debug)]
pub(crate) struct Rootfs(OwnedFd);

/// A name in a directory, which exists or could be made there.
pub(crate) struct Entry {
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
    /// What is there now; never a link.
    pub(crate) found: Option<(OwnedFd, Stat)>,
}

impl Rootfs {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A descriptor (`O_PATH`) of what is at a path, links followed; `None` when nothing is.
    pub(crate) fn find(&self, path: &str) -> sys::Result<Option<(OwnedFd, Stat)>> {
        self.look(path, OFlags::empty())
    }

    /// The same, but for a link in the last component, which is described itself.
    pub(crate) fn find_entry(&self, path: &str) -> sys::Result<Option<(OwnedFd, Stat)>> {
        self.look(path, OFlags::NOFOLLOW)
    }

    fn look(&self, path: &str, flags: OFlags) -> sys::Result<Option<(OwnedFd, Stat)>> {
        match sys::open_below(&self.0, path, OFlags::PATH | flags, Resolve::InRoot) {
            Ok(found) => {
                let stat = sys::stat(&found)?;
                Ok(Some((found, stat)))
            }
            // Links that go round in a circle lead nowhere.
            Err(error) if error.is_missing() || error.is_loop() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A descriptor (`O_PATH`) of a directory that has to be there.
    pub(crate) fn open_directory(&self, path: &str) -> sys::Result<OwnedFd> {
        sys::open_below(
            &self.0,
            path,
            OFlags::PATH | OFlags::DIRECTORY,
            Resolve::InRoot,
        )
    }

    /// The same, but no component is a link, and the last is made, mode 755, where it is missing.
    pub(crate) fn make_directory(&self, path: &str) -> sys::Result<OwnedFd> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        // Who shares the image may have put a link there since it was looked at.
        let parent = sys::open_below(&self.0, parent, flags, Resolve::Beneath)?;
        make_directory_at(&parent, Path::new(path.file_name().unwrap_or_default()))
    }

    /// Follow a path to its end, link by link, to the directory and name where it ends: a file
    /// is replaced by its name, and the name is what a program is known by.
    pub(crate) fn entry(&self, path: &Path) -> sys::Result<Entry> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let name = path.file_name().map(ToOwned::to_owned);
            let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let Some(name) = name else {
                // "/" or a path that ends in "..": a directory, whatever it is called.
                let directory = sys::open_below(&self.0, &path, flags, Resolve::InRoot)?;
                let found = sys::open_at(&directory, ".", flags, 0)?;
                let stat = sys::stat(&found)?;
                return Ok(Entry {
                    directory,
                    name: ".".into(),
                    found: Some((found, stat)),
                });
            };
            let directory = sys::open_below(&self.0, &parent, flags, Resolve::InRoot)?;
            let found = match sys::open_at(&directory, &name, OFlags::PATH | OFlags::NOFOLLOW, 0) {
                Err(error) if error.is_missing() => None,
                found => Some(found?),
            };
            let Some(found) = found else {
                return Ok(Entry {
                    directory,
                    name,
                    found: None,
                });
            };
            let stat = sys::stat(&found)?;
            if stat.kind != FileType::Symlink {
                return Ok(Entry {
                    directory,
                    name,
                    found: Some((found, stat)),
                });
            }
            // Joined as text, resolved by the kernel: `..` goes up from where the links led to.
            path = join(&parent, &sys::read_link_at(&found, "")?);
        }
        Err(sys::Error::too_many_links(&path))
    }
}

/// A directory by its name, no link, which is made, mode 755, where it is missing.
pub(crate) fn make_directory_at(parent: &OwnedFd, name: &Path) -> sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let open = || sys::open_at(parent, name, flags, 0);
    match open() {
        Err(error) if error.is_missing() => {}
        opened => return opened,
    }
    match sys::make_directory_at(parent, name, 0o755) {
        Err(error) if !error.is_existing() => Err(error),
        _ => open(),
    }
}

fn join(parent: &Path, target: &Path) -> PathBuf {
    Path::new("/").join(parent).join(target)
}

/// Open a regular file for reading, the one that was looked at; a FIFO or a device is never opened.
pub(crate) fn open_regular(entry: &Entry) -> sys::Result<Option<OwnedFd>> {
    match &entry.found {
        Some((file, stat)) if stat.kind == FileType::RegularFile => sys::reopen(file).map(Some),
        _ => Ok(None),
    }
}
