//! Writing into /run, where it is the container's own: a tmpfs that the hook or the runtime made
//! for it, by its root's descriptor. Nothing of ours goes into a volume of the user's.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::sys::{self, OFlags, Resolve};

/// What systemd reads as the name of its container manager (Container Interface).
const MANAGER: &[u8] = b"oci\n";

/// Write /run/host/container-manager.
pub(crate) fn name_manager(run: &OwnedFd) -> sys::Result<()> {
    let Some(directory) = make_directory(run, "host")? else {
        return Ok(());
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match sys::open_at(directory, "container-manager", flags, 0o444) {
        // Another run of the hook, or a name that the image chose.
        Err(error) if error.is_existing() => Ok(()),
        file => sys::write(file?, MANAGER, "/run/host/container-manager"),
    }
}

/// Mask a unit for this boot.
pub(crate) fn mask(run: &OwnedFd, unit: &str) -> sys::Result<()> {
    let Some(units) = make_directory(run, "systemd/system")? else {
        return Ok(());
    };
    match sys::make_link_at(Path::new("/dev/null"), units, unit) {
        Err(error) if !error.is_existing() => Err(error),
        _ => Ok(()),
    }
}

/// Make a directory below /run and open it. `None` where a link of the image's or a mount of the
/// user's is in the way: nothing of ours is written into what they lead to.
fn make_directory(run: &OwnedFd, path: &str) -> sys::Result<Option<OwnedFd>> {
    let mut made = PathBuf::new();
    let mut opened = None;
    for name in Path::new(path) {
        made.push(name);
        match sys::make_directory_at(opened.as_ref().unwrap_or(run), name, 0o755) {
            Err(error) if !error.is_existing() => return Err(error),
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match sys::open_below(run, &made, flags, Resolve::SameMount) {
            Err(error) if error.is_loop() || error.is_elsewhere() || error.is_missing() => {
                log::warn!("/run/{path} is left out: {error}");
                return Ok(None);
            }
            directory => opened = Some(directory?),
        }
    }
    Ok(opened)
}
