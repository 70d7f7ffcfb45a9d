//! The kernel's calls on files, on what else they have ([`attributes`]) and on mounts ([`mount`]),
//! each wrapped once, always through descriptors. They know nothing of containers; a failed call
//! comes back with its name, its object and its errno.

pub(crate) mod attributes;
mod error;
pub(crate) mod mount;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, ResolveFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
pub(crate) use rustix::fs::{FileType, OFlags};

use error::Named;
pub(crate) use error::{Error, Result};

/// Device and inode: the same for two descriptors of one file.
pub(crate) type Identity = (u32, u32, u64);

/// What statx(2) says of a descriptor.
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    pub(crate) identity: Identity,
    /// How many names it has, as hard links.
    pub(crate) names: u32,
    /// Which mount it is on, as in mountinfo.
    pub(crate) mount: u64,
    /// On a cgroup file system this is the cgroup's ID, and 1 is the hierarchy's root.
    pub(crate) inode: u64,
    pub(crate) is_mount: bool,
    times: rustix::fs::Timestamps,
}

/// What statfs(2) says of the mount that a descriptor is on.
pub(crate) struct FileSystem {
    magic: u32,
    flags: StatVfsMountFlags,
}

impl FileSystem {
    const TMPFS: u32 = 0x0102_1994;
    const CGROUP: u32 = 0x0027_e0eb;
    const CGROUP2: u32 = 0x6367_7270;
    const SELINUX: u32 = 0xf97c_ff8c;

    pub(crate) fn is_tmpfs(&self) -> bool {
        self.magic == Self::TMPFS
    }
    pub(crate) fn is_cgroup(&self) -> bool {
        self.magic == Self::CGROUP
    }
    pub(crate) fn is_cgroup2(&self) -> bool {
        self.magic == Self::CGROUP2
    }
    pub(crate) fn is_selinux(&self) -> bool {
        self.magic == Self::SELINUX
    }
    pub(crate) fn is_read_only(&self) -> bool {
        self.flags.contains(StatVfsMountFlags::RDONLY)
    }
    pub(crate) fn is_noexec(&self) -> bool {
        self.flags.contains(StatVfsMountFlags::NOEXEC)
    }
    pub(crate) fn is_noatime(&self) -> bool {
        self.flags.contains(StatVfsMountFlags::NOATIME)
    }
}

/// How a path below a directory is resolved: see `openat2(2)`.
#[derive(Clone, Copy)]
pub(crate) enum Resolve {
    /// The directory is the root: absolute links and `..` stay inside; no magic links.
    InRoot,
    /// No link at all, and never out of the directory.
    Beneath,
    /// The same, and never into another mount.
    SameMount,
}

/// Open a path below a directory.
pub(crate) fn open_below(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    resolve: Resolve,
) -> Result<OwnedFd> {
    let path = path.as_ref();
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let resolve = match resolve {
        Resolve::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        Resolve::Beneath => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        Resolve::SameMount => {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
        }
    };
    // EAGAIN: a rename or a mount somewhere raced with a `..`; openat2(2) says to try again. Mounts that
    // come or go by the thousand, anywhere on the host, take a while.
    for attempt in 0..200 {
        match rustix::fs::openat2(&dir, below, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) if attempt < 50 => {}
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(Duration::from_millis(2)),
            result => return result.named("openat2", path),
        }
    }
    Err(rustix::io::Errno::AGAIN).named("openat2", path)
}

/// Open one name in a directory, creating it with `mode` if `flags` ask for that.
pub(crate) fn open_at(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd> {
    let name = name.as_ref();
    rustix::fs::openat(
        dir,
        name,
        flags | OFlags::CLOEXEC,
        Mode::from_raw_mode(mode),
    )
    .named("openat", name)
}

/// Open a directory by its name in another, for reading.
pub(crate) fn open_directory_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    open_at(dir, name, flags, 0)
}

/// Create a file that has no name yet, in the file system of a directory, for writing.
pub(crate) fn create_unnamed(dir: impl AsFd, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::from_raw_mode(mode)).named("openat", "O_TMPFILE")
}

/// Give a file that has no name one.
pub(crate) fn name(file: impl AsFd, dir: impl AsFd, name: &str) -> Result<()> {
    // By its descriptor alone it would need CAP_DAC_READ_SEARCH on the host.
    let path = own_path(&file);
    rustix::fs::linkat(rustix::fs::CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
        .named("linkat", name)
}

/// Open the file behind an `O_PATH` descriptor for reading: it, and nothing that has come to its
/// name since. The hook is in the host's file tree all the time, so /proc is the host's.
pub(crate) fn reopen(file: impl AsFd) -> Result<OwnedFd> {
    reopen_with(file, OFlags::empty())
}

/// The same with flags of open(2).
pub(crate) fn reopen_with(file: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    open_host(
        &own_path(&file),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | flags,
    )
}

fn own_path(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Open a path of the runtime's own mount namespace.
pub(crate) fn open_host(path: &str, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).named("open", path)
}

/// Describe the file behind a descriptor.
pub(crate) fn stat(fd: impl AsFd) -> Result<Stat> {
    let found = rustix::fs::statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )
    .named("statx", "")?;
    if !found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Err(Error::new(
            "statx",
            "MOUNT_ROOT",
            rustix::io::Errno::NOSYS.raw_os_error(),
        ));
    }
    let time = |at: rustix::fs::StatxTimestamp| rustix::fs::Timespec {
        tv_sec: at.tv_sec,
        tv_nsec: at.tv_nsec.into(),
    };
    Ok(Stat {
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        mode: u32::from(found.stx_mode) & 0o7777,
        owner: (found.stx_uid, found.stx_gid),
        size: found.stx_size,
        identity: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        names: found.stx_nlink,
        mount: found.stx_mnt_id,
        inode: found.stx_ino,
        is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        times: rustix::fs::Timestamps {
            last_access: time(found.stx_atime),
            last_modification: time(found.stx_mtime),
        },
    })
}

/// Describe the file system, and this mount of it, behind a descriptor.
pub(crate) fn file_system(fd: impl AsFd) -> Result<FileSystem> {
    let found = rustix::fs::fstatfs(&fd).named("fstatfs", "")?;
    // The magic numbers are 32 bits wide; the fields are longs.
    let flags = u64::try_from(found.f_flags).unwrap_or(0);
    Ok(FileSystem {
        magic: u32::try_from(found.f_type & 0xffff_ffff).unwrap_or(0),
        flags: StatVfsMountFlags::from_bits_retain(flags),
    })
}

pub(crate) fn read_link_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<PathBuf> {
    let name = name.as_ref();
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).named("readlinkat", name)?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// Make a directory with exactly this mode (the hook's umask is 0).
pub(crate) fn make_directory_at(dir: impl AsFd, name: impl AsRef<Path>, mode: u32) -> Result<()> {
    let name = name.as_ref();
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)).named("mkdirat", name)
}

pub(crate) fn make_link_at(target: &Path, dir: impl AsFd, name: impl AsRef<Path>) -> Result<()> {
    let name = name.as_ref();
    rustix::fs::symlinkat(target, dir, name).named("symlinkat", name)
}

/// Give a file of the directory `root` a second name.
pub(crate) fn make_hard_link(
    root: impl AsFd,
    path: &Path,
    dir: impl AsFd,
    name: impl AsRef<Path>,
) -> Result<()> {
    let name = name.as_ref();
    rustix::fs::linkat(root, path, dir, name, AtFlags::empty()).named("linkat", name)
}

pub(crate) fn rename_at(dir: impl AsFd, from: &str, to: impl AsRef<Path>) -> Result<()> {
    let to = to.as_ref();
    rustix::fs::renameat(&dir, from, &dir, to).named("renameat", to)
}

pub(crate) fn remove_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<()> {
    let name = name.as_ref();
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).named("unlinkat", name)
}

pub(crate) fn remove_directory_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<()> {
    let name = name.as_ref();
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).named("rmdir", name)
}

/// What is in a directory, but for `.` and `..`.
pub(crate) fn entries(
    dir: impl AsFd,
) -> Result<impl Iterator<Item = Result<(OsString, FileType)>>> {
    let entries = rustix::fs::Dir::read_from(dir).named("getdents64", "")?;
    Ok(
        entries.filter_map(|entry| match entry.named("getdents64", "") {
            Ok(entry) => {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                (name != "." && name != "..").then(|| Ok((name.to_owned(), entry.file_type())))
            }
            Err(error) => Some(Err(error)),
        }),
    )
}

/// The memory of this machine, in bytes.
pub(crate) fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // `totalram` is an unsigned long, 32 bits wide on some machines.
    #[allow(clippy::useless_conversion)]
    u64::from(info.totalram).saturating_mul(info.mem_unit.into())
}

/// Read a file to its end, but not more than `limit` bytes.
pub(crate) fn read_up_to(fd: OwnedFd, limit: u64, object: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::from(fd), limit), &mut bytes)
        .map_err(|error| Error::of_io("read", object, &error))?;
    Ok(bytes)
}

/// Write a text into an open file, in one call (cgroup files take a value a write).
pub(crate) fn write(fd: impl AsFd, text: &[u8], object: &str) -> Result<()> {
    let written = rustix::io::write(fd, text).named("write", object)?;
    if written == text.len() {
        return Ok(());
    }
    Err(Error::new(
        "write",
        object,
        rustix::io::Errno::NOSPC.raw_os_error(),
    ))
}
