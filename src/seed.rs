//! Writing a machine ID into the image: beside the file that the path ends at and renamed over it,
//! never through a link, never in place, so that what is there is whole at every moment.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::machine_id::{Existing, MachineId, is_replaced};
use crate::rootfs::{Entry, Rootfs, open_regular};
use crate::sys::mount;
use crate::sys::{self, FileType, OFlags};

const PATH: &str = "/etc/machine-id";
/// D-Bus's own copy, where it is a file: systemd's tools prefer it in an image without the other.
const DBUS_PATH: &str = "/var/lib/dbus/machine-id";
/// Where the file comes from that is bound over one that cannot be replaced.
const BOUND: &str = "/run/machine-id";
const TEMPORARY: &str = ".machine-id.oci-systemd-hook";

/// How an ID may get into the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Written, or bound over where that fails.
    Write,
    /// Bound over the file if there is one: the root file system is going to be read-only, and so
    /// perhaps other containers' too.
    PreferBind,
    /// Bound over the file: a volume that is the user's to write only.
    Bind,
    /// Not at all: a mount in there would be seen on the host.
    None,
}

/// Seed the container's machine ID; with `keep`, a valid one of the image stays.
///
/// # Errors
/// It cannot be read or written: a container that shares another one's ID must not start.
pub(crate) fn seed(
    rootfs: &Rootfs,
    wanted: MachineId,
    keep: bool,
    means: Means,
) -> sys::Result<()> {
    let entry = rootfs.entry(Path::new(PATH))?;
    let Some(existing) = look(rootfs, &entry)? else {
        log::warn!("{PATH} is a mount of the user's, or leads into one: left as it is");
        return Ok(());
    };
    if !is_replaced(&existing, wanted, keep) {
        return existing.id.map_or(Ok(()), |id| seed_dbus(rootfs, id));
    }
    let is_in_image = sys::stat(&entry.directory)?.mount == sys::stat(rootfs.root())?.mount;
    let is_file = matches!(&entry.found, Some((_, stat)) if stat.kind == FileType::RegularFile);
    match means {
        Means::None => return Err(sys::Error::read_only("openat", PATH)),
        Means::Bind => bind(rootfs, &entry, wanted)?,
        Means::PreferBind if is_file && is_in_image => bind(rootfs, &entry, wanted)?,
        Means::PreferBind | Means::Write => match write(&entry, wanted) {
            Err(error) if error.is_read_only() => {
                let why = |bound| if is_file { bound } else { error };
                bind(rootfs, &entry, wanted).map_err(why)?;
            }
            written => written?,
        },
    }
    seed_dbus(rootfs, wanted)
}

/// Where D-Bus has a file of its own and not a link, it says the same.
fn seed_dbus(rootfs: &Rootfs, id: MachineId) -> sys::Result<()> {
    match rootfs.find_entry(DBUS_PATH)? {
        Some((_, stat)) if stat.kind == FileType::RegularFile => {}
        _ => return Ok(()),
    }
    let entry = rootfs.entry(Path::new(DBUS_PATH))?;
    // A volume of the user's is not even looked into.
    if sys::stat(&entry.directory)?.mount != sys::stat(rootfs.root())?.mount {
        return Ok(());
    }
    match look(rootfs, &entry)? {
        Some(existing) if is_replaced(&existing, id, false) => {}
        _ => return Ok(()),
    }
    match write(&entry, id) {
        Err(error) if error.is_read_only() => {
            log::warn!("{DBUS_PATH} keeps another machine ID: {error}");
            Ok(())
        }
        written => written,
    }
}

/// What is there, where it is the hook's to change: in the image, on the tmpfs on /run, or in a
/// volume that is mounted on /etc itself. The image's links may lead into any other mount of the
/// container: a volume that the user made read-only (crun does that after the hook), /proc, /sys.
fn look(rootfs: &Rootfs, entry: &Entry) -> sys::Result<Option<Existing>> {
    let place = sys::stat(&entry.directory)?.mount;
    let is_on = |path| -> sys::Result<bool> {
        let found = rootfs.find_entry(path)?;
        Ok(found.is_some_and(|(_, stat)| stat.is_mount && stat.mount == place))
    };
    let in_image = place == sys::stat(rootfs.root())?.mount;
    let in_run = !in_image && is_on("/run")? && sys::file_system(&entry.directory)?.is_tmpfs();
    let in_etc = !in_image && is_on("/etc")?;
    let is_mount = matches!(&entry.found, Some((_, stat)) if stat.mount != place);
    if is_mount || !(in_image || in_run || in_etc) {
        return Ok(None);
    }
    let id = match open_regular(entry)? {
        // One byte more than an ID and its newline.
        Some(file) => MachineId::parse(&sys::read_up_to(file, 34, PATH)?),
        None => None,
    };
    // What is on a tmpfs at this time was copied there from the image: it is no volume.
    let in_volume = in_etc && !sys::file_system(&entry.directory)?.is_tmpfs();
    Ok(Some(Existing { id, in_volume }))
}

fn write(entry: &Entry, id: MachineId) -> sys::Result<()> {
    // Left there by a hook that was killed, or put there by the image: not ours to write into.
    match sys::remove_at(&entry.directory, TEMPORARY) {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let written = create(&entry.directory, TEMPORARY, id)
        .and_then(|_| sys::rename_at(&entry.directory, TEMPORARY, &entry.name));
    written.inspect_err(|_| {
        // The error that is reported is the one before.
        let _ = sys::remove_at(&entry.directory, TEMPORARY);
    })
}

fn create(directory: &OwnedFd, name: &str, id: MachineId) -> sys::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = sys::open_at(directory, name, flags, 0o444)?;
    sys::write(&file, format!("{id}\n").as_bytes(), PATH)?;
    Ok(file)
}

/// On a read-only /etc: bind a file of the tmpfs on /run over the file, which has to be there.
fn bind(rootfs: &Rootfs, entry: &Entry, id: MachineId) -> sys::Result<()> {
    let Some((target, _)) = &entry.found else {
        return Err(sys::Error::read_only("openat", PATH));
    };
    let run = rootfs.open_directory("/run")?;
    if !sys::file_system(&run)?.is_tmpfs() {
        return Err(sys::Error::missing("openat", BOUND));
    }
    let source = match create(&run, "machine-id", id) {
        Err(error) if error.is_existing() => {
            sys::remove_at(&run, "machine-id")?;
            create(&run, "machine-id", id)?
        }
        created => created?,
    };
    mount::attach(mount::duplicate(source)?, target, Path::new(PATH))
}
