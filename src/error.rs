//! Everything that stops a container from starting: one variant for each thing that a person can
//! act on, the exit status of each, and, in one place, what to do about it.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;

use crate::cgroup;
use crate::decision::BadAnnotation;
use crate::plan::PlaceObstacle;
use crate::sys;

/// Why the hook failed. Displayed, each reads after the container's id.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is not one of the hook's.
    #[error("{0}")]
    Usage(String),
    /// Standard input is no container state.
    #[error("cannot read the container's state: {0}")]
    BadState(String),
    /// The bundle's config.json cannot be read.
    #[error("cannot read {}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// The call that failed.
        #[source]
        call: sys::Error,
    },
    /// The bundle's config.json is no JSON object, or too large to be a config.
    #[error("cannot read {}: {why}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// An annotation of ours has a word that it does not take.
    #[error("cannot take the annotation {name}={value}: it takes {words}")]
    BadAnnotation {
        /// The annotation.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it could say.
        words: &'static str,
    },
    /// The state does not lead to a container that could be prepared safely.
    #[error("cannot enter the container")]
    Refused(#[from] Refusal),
    /// config.json has no `root.path`.
    #[error("cannot read config.json: it has no root.path")]
    NoRoot,
    /// A place of the image or of the config is not one that a tmpfs could go on.
    #[error("cannot mount a tmpfs on {0}: {1}")]
    Place(&'static str, PlaceObstacle),
    /// No cgroup tree for this container.
    #[error("cannot give systemd a cgroup tree: {0}")]
    Cgroup(cgroup::Obstacle),
    /// A step failed in the kernel.
    #[error("cannot {doing}")]
    Failed {
        /// The step, as it reads after "cannot".
        doing: String,
        /// The call that failed, with its object and errno.
        #[source]
        call: sys::Error,
    },
}

/// Why a container was not entered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No process of a container has this number.
    #[error("its state has pid {0}")]
    Pid(i32),
    /// The process has ended.
    #[error("process {0} is gone")]
    Gone(i32),
    /// The process has the hook's mount namespace.
    #[error("process {0} has no mount namespace of its own")]
    OwnMountNamespace(i32),
    /// The process has the mount namespace of the host's init.
    #[error("process {0} is in the mount namespace of the host")]
    HostMountNamespace(i32),
    /// Nobody could become root in there.
    #[error("its user namespace has no root")]
    NoRoot,
    /// The container's namespace has nothing at `root.path`.
    #[error("there is no {} in its mount namespace", .0.display())]
    NoRootfs(PathBuf),
    /// `root.path` is not where the runtime mounted a root file system.
    #[error("{} is not the mount of a root file system", .0.display())]
    NotARootfs(PathBuf),
}

impl From<BadAnnotation> for Error {
    fn from(bad: BadAnnotation) -> Self {
        Self::BadAnnotation {
            name: bad.name,
            value: bad.value,
            words: bad.words,
        }
    }
}

impl Error {
    /// A failed call, and what it was good for: reads after "cannot".
    pub(crate) fn failed(doing: impl fmt::Display, call: sys::Error) -> Self {
        Self::Failed {
            doing: doing.to_string(),
            call,
        }
    }

    /// The class of the failure, as sysexits(3) numbers it.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::BadState(_)
            | Self::BadConfig { .. }
            | Self::BadAnnotation { .. }
            | Self::NoRoot
            | Self::Refused(_)
            | Self::Place(..)
            | Self::Cgroup(_) => 65,
            Self::Bundle { .. } => 66,
            Self::Failed { call, .. } => match call.name().as_str() {
                "ENOSYS" => 69,
                "EPERM" | "EACCES" => 77,
                _ => 71,
            },
        }
    }

    /// What to do, where that is more than the errno says.
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Usage(_) => "see oci-systemd-hook --help",
            Self::BadState(_) => "it is run by an OCI runtime, not by hand",
            Self::Bundle { call, .. } if !call.is_missing() => return hint_of(call),
            Self::Bundle { .. } | Self::BadConfig { .. } | Self::NoRoot => {
                "the state's bundle has to be the folder of the container's config.json"
            }
            Self::BadAnnotation { .. } => "mend or remove the annotation",
            Self::Refused(Refusal::Pid(_)) => "register the hook at createRuntime",
            Self::Refused(Refusal::Gone(_)) => "look into the runtime's log",
            Self::Refused(Refusal::OwnMountNamespace(_) | Refusal::HostMountNamespace(_)) => {
                "register the hook at createRuntime, for a container with a mount namespace; or keep the hook away: oci-systemd-hook.mode=never"
            }
            Self::Refused(Refusal::NoRoot) => "map the ID 0 in it: systemd has to be root",
            Self::Refused(Refusal::NoRootfs(_)) => {
                "register the hook at createRuntime; youki has to be 0.6 or newer; or keep the hook away: oci-systemd-hook.mode=never"
            }
            Self::Refused(Refusal::NotARootfs(_)) => {
                "root.path in config.json has to be the container's root file system"
            }
            Self::Place(_, PlaceObstacle::Link | PlaceObstacle::NotADirectory) => {
                "make it a directory in the image"
            }
            Self::Place(_, PlaceObstacle::ReadOnly) => "mount it without ro, or not at all",
            Self::Place(_, PlaceObstacle::Shared) => {
                "mount something on it, or the volume without shared"
            }
            Self::Place(_, PlaceObstacle::TooMuch) => {
                "clean it in the image, or mount something on it"
            }
            Self::Cgroup(cgroup::Obstacle::Shared(_)) => {
                "let the runtime make one: linux.cgroupsPath, and for a rootless engine a delegated cgroup (systemd: Delegate=yes)"
            }
            Self::Cgroup(cgroup::Obstacle::OutsideOfNamespace(_)) => {
                "let the runtime make the container's cgroup, or leave its cgroup namespace out"
            }
            Self::Cgroup(cgroup::Obstacle::NoName) => {
                "name it with letters, digits and any of _ + - . only"
            }
            Self::Failed { call, .. } => return hint_of(call),
        })
    }

    /// The one line that is printed: `oci-systemd-hook: ID: cannot … (what to do)`. What comes
    /// from an image or a config cannot add lines or colours to it, nor push the advice out of it.
    pub(crate) fn line(&self, id: Option<&str>) -> String {
        let id = id.map(|id| format!("{}: ", short(id))).unwrap_or_default();
        let mut line = format!("oci-systemd-hook: {id}{self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            line.extend([": ", &error.to_string()]);
            cause = error.source();
        }
        let line = printable(&line);
        match self.hint() {
            Some(hint) => format!("{line} ({hint})"),
            None => line,
        }
    }
}

/// What to do about a call's errno.
fn hint_of(call: &sys::Error) -> Option<&'static str> {
    Some(match call.name().as_str() {
        "ENOSYS" => "it takes Linux 5.8 or newer",
        "EPERM" | "EACCES" => {
            "an LSM or a file's attributes may forbid it; else run the engine as root, or, rootless, on cgroup v2 with a cgroup delegated to its user"
        }
        "EMFILE" | "ENFILE" => "raise the limit of open files",
        "ENOSPC" => "a limit of mounts, cgroups or space is reached",
        "EROFS" => {
            "make it writable, or put into the image what is missing: a directory, an empty file"
        }
        "ENOENT" | "ENOTDIR" => "the image or the config has to bring it",
        "EISDIR" => "it has to be a file",
        "ELOOP" => "mend the links on its way in the image",
        "ESTALE" => "the runtime's cgroup namespace and cgroup do not belong together",
        "EBUSY" => "something else uses it",
        _ => return None,
    })
}

/// The first 12 characters of a container's id, as engines show it.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The text in one line of about 1 KiB at most, control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if line.len() >= 1024 {
            line.push('…');
            break;
        }
        if is_plain(character) {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
    }
    line
}

/// Neither a control character nor one that hides or turns the direction of what follows.
fn is_plain(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    !character.is_control() && !is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_what_why_and_what_to_do_in_one_line() {
        let call = sys::Error::new("openat2", "/run/lock", 20);
        let error = Error::failed("mount a tmpfs on /run/lock", call);
        assert_eq!(
            error.line(Some("3f2a9c1d0b7e4455")),
            "oci-systemd-hook: 3f2a9c1d0b7e: cannot mount a tmpfs on /run/lock: \
             openat2 /run/lock: ENOTDIR: Not a directory (the image or the config has to bring it)"
        );
        let error = Error::Place("/run", PlaceObstacle::Link);
        assert_eq!(
            error.line(None),
            "oci-systemd-hook: cannot mount a tmpfs on /run: it is a link in the image \
             (make it a directory in the image)"
        );
    }

    #[test]
    fn lets_nothing_of_the_image_break_the_line() {
        let error = Error::BadAnnotation {
            name: "oci-systemd-hook.mode",
            value: "a\nb\u{1b}[31m\u{202e}ü".to_owned(),
            words: "auto",
        };
        let line = error.line(Some("x\ry"));
        assert!(
            line.contains(r"x\ry: ") && line.contains(r"a\nb\u{1b}[31m\u{202e}ü"),
            "{line}"
        );
        let long = Error::BadState("x".repeat(1 << 20)).line(None);
        assert!(long.chars().count() < 1100, "{}", long.len());
    }

    #[test]
    fn tells_the_classes_apart_by_the_status() {
        let failed = |errno| Error::failed("x", sys::Error::new("mount", "", errno)).exit_status();
        for (status, expected) in [
            (Error::Usage(String::new()).exit_status(), 64),
            (Error::Refused(Refusal::Pid(1)).exit_status(), 65),
            (Error::Cgroup(cgroup::Obstacle::NoName).exit_status(), 65),
            (failed(38), 69),
            (failed(1), 77),
            (failed(13), 77),
            (failed(28), 71),
        ] {
            assert_eq!(status, expected);
        }
    }
}
