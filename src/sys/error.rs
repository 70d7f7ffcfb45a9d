//! A system call that failed, and the questions that are asked of it.

use std::fmt;
use std::io;
use std::path::Path;

use crate::process::{errno_name, errno_text};

/// A system call that failed: `openat2 /run/lock: ENOTDIR: Not a directory`.
#[derive(Debug)]
pub(crate) struct Error {
    call: &'static str,
    object: String,
    errno: i32,
    /// What the file system itself said of a refused mount, read from its context.
    said: Option<String>,
}

impl Error {
    pub(crate) fn new(call: &'static str, object: impl Into<String>, errno: i32) -> Self {
        Self {
            call,
            object: object.into(),
            errno,
            said: None,
        }
    }

    /// With what the file system said of it.
    pub(super) fn saying(self, said: Option<String>) -> Self {
        Self { said, ..self }
    }

    /// For the calls that std makes; one without an errno (a bad text, say) counts as EIO.
    pub(crate) fn of_io(call: &'static str, object: impl Into<String>, error: &io::Error) -> Self {
        let errno = error
            .raw_os_error()
            .unwrap_or(rustix::io::Errno::IO.raw_os_error());
        Self::new(call, object, errno)
    }

    /// A path that leads through more links than the kernel would follow.
    pub(crate) fn too_many_links(path: &Path) -> Self {
        let errno = rustix::io::Errno::LOOP.raw_os_error();
        Self::new("readlinkat", path.display().to_string(), errno)
    }

    /// What was looked at is not what it has to be.
    pub(crate) fn stale(call: &'static str, object: &str) -> Self {
        Self::new(call, object, rustix::io::Errno::STALE.raw_os_error())
    }

    /// What was looked at is about to change, or has.
    pub(crate) fn busy(call: &'static str, object: &str) -> Self {
        Self::new(call, object, rustix::io::Errno::BUSY.raw_os_error())
    }

    /// What must not be written into.
    pub(crate) fn read_only(call: &'static str, object: &str) -> Self {
        Self::new(call, object, rustix::io::Errno::ROFS.raw_os_error())
    }

    /// Something that has to be there for the call is not.
    pub(crate) fn missing(call: &'static str, object: &str) -> Self {
        Self::new(call, object, rustix::io::Errno::NOENT.raw_os_error())
    }

    /// The errno's name, `ENOENT`.
    pub(crate) fn name(&self) -> String {
        errno_name(self.errno)
    }

    fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno == errno.raw_os_error()
    }

    /// Nothing is there: the last component, or a directory on the way, is missing or no directory.
    pub(crate) fn is_missing(&self) -> bool {
        self.is(rustix::io::Errno::NOENT) || self.is(rustix::io::Errno::NOTDIR)
    }

    /// The process behind a descriptor of /proc is gone.
    pub(crate) fn is_no_process(&self) -> bool {
        self.is(rustix::io::Errno::SRCH)
    }

    /// A path that leads nowhere, or that is none.
    pub(crate) fn is_no_path(&self) -> bool {
        self.is_missing() || self.is_loop() || self.is_too_long() || self.is_invalid()
    }

    /// The way leads into another mount.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is(rustix::io::Errno::XDEV)
    }

    pub(crate) fn is_too_long(&self) -> bool {
        self.is(rustix::io::Errno::NAMETOOLONG)
    }

    pub(crate) fn is_no_space(&self) -> bool {
        self.is(rustix::io::Errno::NOSPC)
    }

    /// An owner that has no number in the hook's user namespace.
    pub(crate) fn is_invalid(&self) -> bool {
        self.is(rustix::io::Errno::INVAL)
    }

    pub(crate) fn is_loop(&self) -> bool {
        self.is(rustix::io::Errno::LOOP)
    }

    /// Not there any more: ENODEV is what a file of a removed cgroup says that was open.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_missing() || self.is(rustix::io::Errno::NODEV)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is(rustix::io::Errno::BUSY)
    }

    /// A directory that cannot be removed because of what is in it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_busy() || self.is(rustix::io::Errno::NOTEMPTY)
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.is(rustix::io::Errno::PERM) || self.is(rustix::io::Errno::ACCESS)
    }

    /// A directory was to be read like a file.
    pub(crate) fn is_directory(&self) -> bool {
        self.is(rustix::io::Errno::ISDIR)
    }

    pub(crate) fn is_existing(&self) -> bool {
        self.is(rustix::io::Errno::EXIST)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is(rustix::io::Errno::ROFS)
    }

    pub(crate) fn is_unsupported(&self) -> bool {
        self.is(rustix::io::Errno::OPNOTSUPP)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        write!(
            f,
            ": {}: {}",
            errno_name(self.errno),
            errno_text(self.errno)
        )?;
        self.said
            .as_ref()
            .map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}

impl std::error::Error for Error {}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Names the call and its object when it fails.
pub(super) trait Named<T> {
    fn named(self, call: &'static str, object: impl AsRef<Path>) -> Result<T>;
}

impl<T> Named<T> for rustix::io::Result<T> {
    fn named(self, call: &'static str, object: impl AsRef<Path>) -> Result<T> {
        self.map_err(|errno| {
            Error::new(
                call,
                object.as_ref().display().to_string(),
                errno.raw_os_error(),
            )
        })
    }
}
