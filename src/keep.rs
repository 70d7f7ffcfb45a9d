//! What lies at a place before a tmpfs goes on it, kept: the image's files are copied up, the
//! user's mounts are held, to be moved to the same place later. One bounded walk, by descriptors.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::{self, FileType, Identity, OFlags, Resolve, Stat, attributes};

const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: u64 = 64 << 20;
/// A directory that is opened by its path costs a lookup for each.
const MAX_LEVELS: usize = 256;

/// A mount below the place, and where it was.
pub(crate) struct HeldMount {
    pub(crate) path: PathBuf,
    pub(crate) mount: OwnedFd,
}

/// Why a place was not copied.
#[derive(Debug)]
pub(crate) enum Failure {
    /// More than 10 000 entries, 64 MiB or 256 levels, or than fits, or paths of more than 4 KiB.
    TooMuch,
    Call(sys::Error),
}

impl From<sys::Error> for Failure {
    fn from(error: sys::Error) -> Self {
        Self::Call(error)
    }
}

/// One walk: where from, where to, and what it may still copy.
struct Walk<'a> {
    from: &'a OwnedFd,
    into: &'a OwnedFd,
    left: Budget,
    mounts: Vec<HeldMount>,
    /// Each after the one that it is in.
    directories: Vec<Directory>,
    /// The last whose subdirectories were opened: they come one after the other.
    parent: Option<(usize, Opened)>,
    /// Where the copies are of files that have more names than one.
    links: BTreeMap<Identity, (Parent, OsString)>,
}

/// A directory of the image, and its copy.
type Opened = (OwnedFd, OwnedFd);

/// The index of a directory; `None` is the place itself.
type Parent = Option<usize>;

/// What may still be copied.
struct Budget {
    entries: usize,
    bytes: u64,
}

impl Budget {
    /// An entry or an attribute, with so many bytes in it.
    fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        self.entries = self.entries.checked_sub(1).ok_or(Failure::TooMuch)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Failure::TooMuch)?;
        Ok(())
    }
}

/// A directory by its name, since ten thousand paths may have 4 KiB each.
struct Directory {
    parent: Parent,
    name: OsString,
    stat: Stat,
}

/// Copy what is in the directory `from` into the empty directory `into`, but for the mounts, which
/// are held and get an empty mount point in their place.
///
/// # Errors
/// Nothing is half done for the caller: `into` is to be thrown away then.
pub(crate) fn copy_up(from: &OwnedFd, into: &OwnedFd) -> Result<Vec<HeldMount>, Failure> {
    match copy(from, into) {
        // Deeper than a path can be long, or larger than the tmpfs.
        Err(Failure::Call(error)) if error.is_too_long() || error.is_no_space() => {
            Err(Failure::TooMuch)
        }
        copied => copied,
    }
}

fn copy(from: &OwnedFd, into: &OwnedFd) -> Result<Vec<HeldMount>, Failure> {
    let mut walk = Walk {
        from,
        into,
        left: Budget {
            entries: MAX_ENTRIES,
            bytes: MAX_BYTES,
        },
        mounts: Vec::new(),
        directories: Vec::new(),
        parent: None,
        links: BTreeMap::new(),
    };
    // A few descriptors at a time, however deep it goes: crun gives the hook the container's rlimits.
    walk.directory(None)?;
    let mut next = 0;
    while next < walk.directories.len() {
        walk.directory(Some(next))?;
        next += 1;
    }
    // Those inside first: a directory's times change with what is made in it.
    for index in (0..walk.directories.len()).rev() {
        let (original, copy) = walk.open(index)?;
        let stat = &walk.directories[index].stat;
        owned(attributes::imitate(&copy, stat))?;
        // Not before it is filled: what is made below a default ACL gets one too (acl(5)).
        attributes(original, copy, stat, &mut walk.left)?;
    }
    Ok(walk.mounts)
}

/// Open the same directory of the image and of the copy.
fn open_both(from: &OwnedFd, into: &OwnedFd, path: &Path) -> sys::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = |root| sys::open_below(root, path, flags, Resolve::Beneath);
    Ok((open(from)?, open(into)?))
}

impl Walk<'_> {
    /// Where a directory is, below the place.
    fn path(&self, mut of: Parent) -> PathBuf {
        let mut names = Vec::new();
        while let Some(index) = of {
            names.push(&self.directories[index].name);
            of = self.directories[index].parent;
        }
        names.iter().rev().collect()
    }

    fn open(&mut self, index: usize) -> sys::Result<Opened> {
        let Directory { parent, name, .. } = &self.directories[index];
        let name = Path::new(name);
        let Some(parent) = *parent else {
            return open_both(self.from, self.into, name);
        };
        let opened = match self.parent.take() {
            Some((at, opened)) if at == parent => opened,
            _ => open_both(self.from, self.into, &self.path(Some(parent)))?,
        };
        let child = open_both(&opened.0, &opened.1, name);
        self.parent = Some((parent, opened));
        child
    }

    fn directory(&mut self, of: Parent) -> Result<(), Failure> {
        let path = self.path(of);
        if path.iter().count() > MAX_LEVELS {
            return Err(Failure::TooMuch);
        }
        let (from, into) = match of {
            Some(index) => self.open(index)?,
            None => open_both(self.from, self.into, &path)?,
        };
        for entry in sys::entries(&from)? {
            self.entry(&from, &into, entry?.0, (of, &path))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        name: OsString,
        parent: (Parent, &Path),
    ) -> Result<(), Failure> {
        let (parent, path) = (parent.0, parent.1.join(&name));
        let found = sys::open_at(from, &name, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
        let stat = sys::stat(&found)?;
        let is_copied = stat.kind == FileType::RegularFile && !stat.is_mount;
        self.left.take(if is_copied { stat.size } else { 0 })?;
        if !stat.is_mount && is_left_out(&found, &stat)? {
            log::info!(
                "left out: /{} below the place: its owner is not mapped",
                path.display()
            );
            return Ok(());
        }
        match stat.kind {
            FileType::Directory if stat.is_mount => {
                sys::make_directory_at(into, &name, 0o755)?;
                self.mounts.push(HeldMount { path, mount: found });
            }
            _ if stat.is_mount => {
                create_file(into, &name)?;
                self.mounts.push(HeldMount { path, mount: found });
            }
            FileType::Directory => {
                sys::make_directory_at(into, &name, 0o700)?;
                self.directories.push(Directory { parent, name, stat });
            }
            FileType::RegularFile => self.file(&found, &stat, into, (parent, name))?,
            FileType::Symlink => {
                sys::make_link_at(&sys::read_link_at(&found, "")?, into, &name)?;
                owned(attributes::imitate_at(into, &name, &stat))?;
            }
            kind => log::info!("left out: /{} below the place, a {kind:?}", path.display()),
        }
        Ok(())
    }

    fn file(
        &mut self,
        found: &OwnedFd,
        stat: &Stat,
        into: &OwnedFd,
        at: (Parent, OsString),
    ) -> Result<(), Failure> {
        let name = &at.1;
        if let Some((parent, first)) = self.links.get(&stat.identity) {
            let first = self.path(*parent).join(first);
            return Ok(sys::make_hard_link(self.into, &first, into, name)?);
        }
        let source = File::from(sys::reopen(found)?);
        let mut copy = File::from(create_file(into, name)?);
        // Not one byte more than was counted, should it grow.
        io::copy(&mut io::Read::take(&source, stat.size), &mut copy)
            .map_err(|error| sys::Error::of_io("write", name.display().to_string(), &error))?;
        // Attributes last: a chown takes a file's capabilities away.
        owned(attributes::imitate(&copy, stat))?;
        attributes(&source, &copy, stat, &mut self.left)?;
        if stat.names > 1 {
            self.links.insert(stat.identity, at);
        }
        Ok(())
    }
}

/// Copy the extended attributes that a tmpfs accepts; never SELinux's, which belongs to the image.
/// Each counts as an entry.
fn attributes(
    from: impl AsFd,
    to: impl AsFd,
    stat: &Stat,
    left: &mut Budget,
) -> Result<(), Failure> {
    let names = match attributes::extended_names(&from) {
        Err(error) if error.is_unsupported() => return Ok(()),
        names => names?,
    };
    for name in names.iter().filter(|name| *name != b"security.selinux") {
        let Some(value) = attributes::extended(&from, name)? else {
            continue;
        };
        left.take(value.len() as u64)?;
        match attributes::set_extended(&to, name, &value) {
            Err(error) if error.is_unsupported() || error.is_forbidden() => {
                log::info!("left out: an extended attribute: {error}");
            }
            Err(error) if error.is_invalid() && is_acl(name) => {
                log::info!("left out: an ACL that names who is not mapped: {error}");
                // The group's bits are the ACL's mask (acl(5)); without it the group would get what
                // others were given.
                attributes::set_mode(&to, stat.mode & !0o070)?;
            }
            copied => copied?,
        }
    }
    Ok(())
}

/// A group of the image's that the container's user namespace has no number for, or the owner of a
/// link or a directory: it is root's then, as all that the namespace makes.
fn owned(imitated: sys::Result<()>) -> sys::Result<()> {
    match imitated {
        Err(error) if error.is_invalid() => {
            log::info!("an owner is not mapped: {error}");
            Ok(())
        }
        imitated => imitated,
    }
}

/// Whether an entry is left out because its owner has no number in the user namespace that the hook
/// is in: a file always, and a directory that nobody in there may enter. One that can be entered may
/// have the user's mounts in it.
///
/// Such an owner looks like the kernel's default for `overflowuid`, which is somebody too. The kernel
/// tells them apart: only the owner, and root where it knows him, may open without a trace
/// (`O_NOATIME`, open(2)).
fn is_left_out(found: &OwnedFd, stat: &Stat) -> sys::Result<bool> {
    const OVERFLOW: u32 = 65_534;
    if stat.owner.0 != OVERFLOW {
        return Ok(false);
    }
    let opened = match stat.kind {
        FileType::RegularFile => sys::reopen_with(found, OFlags::NOATIME),
        FileType::Directory => sys::open_at(found, ".", OFlags::PATH, 0),
        _ => return Ok(false),
    };
    match opened {
        Err(error) if error.is_forbidden() => Ok(true),
        opened => opened.map(|_| false),
    }
}

fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

fn create_file(dir: &OwnedFd, name: &OsStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    sys::open_at(dir, name, flags, 0o600)
}
