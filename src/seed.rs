//! Giving the container its machine ID: written beside the file that the path ends at and renamed
//! over it, never through a link, never in place, so that what is there is whole at every moment;
//! or a file of a tmpfs bound over it, where nothing can or may be written.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::container::Container;
use crate::machine_id::{Existing, MachineId, is_replaced};
use crate::rootfs::{Entry, open_regular};
use crate::run;
use crate::sys::mount;
use crate::sys::{self, FileType, OFlags};

const PATH: &str = "/etc/machine-id";
/// D-Bus's own copy, where it is a file: systemd's tools prefer it in an image without the other.
const DBUS_PATH: &str = "/var/lib/dbus/machine-id";
const TEMPORARY: &str = ".machine-id.oci-systemd-hook";
const MODE: u32 = 0o444;
/// It fails where the file is a mount that it may not take away.
const COMMIT: &str = "systemd-machine-id-commit.service";

/// Which machine ID, and how it may get into the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) id: MachineId,
    /// A valid one of the image stays.
    pub(crate) keep: bool,
    /// How to change the file in /etc.
    pub(crate) etc: Means,
    /// How to change a file of the image.
    pub(crate) image: Means,
    /// /etc is a volume of the user's: a valid ID in it is his.
    pub(crate) etc_is_volume: bool,
    /// The SELinux label of new file systems.
    pub(crate) label: Option<String>,
}

/// How an ID may get into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Written, or bound over where that fails.
    Write,
    /// Bound over the file if there is one in the image: the root file system is going to be
    /// read-only, and so perhaps other containers' too.
    PreferBind,
    /// Bound over the file: a volume that is the user's to write only.
    Bind,
}

/// Seed the container's machine ID.
///
/// # Errors
/// It cannot be read or written: a container that shares another one's ID must not start.
pub(crate) fn seed(container: &Container, wish: &Wish) -> sys::Result<()> {
    let rootfs = &container.rootfs;
    let entry = rootfs.entry(Path::new(PATH))?;
    let place = sys::stat(&entry.directory)?.mount;
    let mounted = entry.found.as_ref().map(|(_, stat)| stat.mount);
    let mounted = mounted.filter(|mount| *mount != place);
    let Some(existing) = look(container, &entry, wish, (place, mounted))? else {
        log::warn!("{PATH} leads into a mount of the user's: left as it is");
        return Ok(());
    };
    let id = match existing.id {
        Some(id) if !is_replaced(&existing, wish.id, wish.keep) => id,
        _ => {
            let means = mounted.map_or(wish.etc, |_| Means::Bind);
            put(container, wish, &entry, wish.id, means)?;
            wish.id
        }
    };
    if mounted.is_some()
        && let Some(run) = &container.run
    {
        run::mask(run, COMMIT)?;
    }
    seed_dbus(container, wish, id)
}

/// Where D-Bus has a file of its own and not a link, it says the same.
fn seed_dbus(container: &Container, wish: &Wish, id: MachineId) -> sys::Result<()> {
    let rootfs = &container.rootfs;
    match rootfs.find_entry(DBUS_PATH)? {
        Some((_, stat)) if stat.kind == FileType::RegularFile => {}
        _ => return Ok(()),
    }
    let entry = rootfs.entry(Path::new(DBUS_PATH))?;
    // A volume of the user's is not even looked into.
    let image = sys::stat(rootfs.root())?.mount;
    let is_in_image = sys::stat(&entry.directory)?.mount == image
        && matches!(&entry.found, Some((_, stat)) if stat.mount == image);
    if !is_in_image || read(&entry)? == Some(id) {
        return Ok(());
    }
    put(container, wish, &entry, id, wish.image)
}

/// What is there, where it is the hook's to change: in the image, on the tmpfs on /run, in a volume
/// that is mounted on /etc itself, or `mounted` on the file itself. The image's links may lead into
/// any other mount of the container: a volume that the user made read-only (crun does that after the
/// hook), /etc/hosts, /proc, /sys.
fn look(
    container: &Container,
    entry: &Entry,
    wish: &Wish,
    (place, mounted): (u64, Option<u64>),
) -> sys::Result<Option<Existing>> {
    let rootfs = &container.rootfs;
    let in_image = place == sys::stat(rootfs.root())?.mount;
    let in_etc = container.etc_mount == Some(place);
    let is_ours = match mounted {
        Some(mount) => {
            let found = rootfs.find_entry(PATH)?;
            found.is_some_and(|(_, stat)| stat.is_mount && stat.mount == mount)
        }
        None => in_image || in_etc || is_on_run(container, place)?,
    };
    if !is_ours {
        return Ok(None);
    }
    Ok(Some(Existing {
        id: read(entry)?,
        in_volume: mounted.is_some() || (in_etc && wish.etc_is_volume),
    }))
}

fn is_on_run(container: &Container, place: u64) -> sys::Result<bool> {
    let run = container.run.as_ref().map(sys::stat).transpose()?;
    Ok(run.is_some_and(|run| run.mount == place))
}

fn read(entry: &Entry) -> sys::Result<Option<MachineId>> {
    Ok(match open_regular(entry)? {
        // One byte more than an ID and its newline.
        Some(file) => MachineId::parse(&sys::read_up_to(file, 34, PATH)?),
        None => None,
    })
}

fn put(
    container: &Container,
    wish: &Wish,
    entry: &Entry,
    id: MachineId,
    means: Means,
) -> sys::Result<()> {
    let is_file = matches!(&entry.found, Some((_, stat)) if stat.kind == FileType::RegularFile);
    let is_in_image = || -> sys::Result<bool> {
        let image = sys::stat(container.rootfs.root())?.mount;
        Ok(sys::stat(&entry.directory)?.mount == image)
    };
    let is_written = match means {
        Means::Write => true,
        // Not in the image: a link leads to the tmpfs on /run.
        Means::PreferBind => !is_file || !is_in_image()?,
        Means::Bind => false,
    };
    if is_written {
        match write(entry, id) {
            Err(error) if error.is_read_only() => {}
            written => return written,
        }
    }
    bind(container, wish, entry, id)
}

fn write(entry: &Entry, id: MachineId) -> sys::Result<()> {
    // Left there by a hook that was killed, or put there by the image: not ours to write into.
    match sys::remove_at(&entry.directory, TEMPORARY) {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let named = match sys::create_unnamed(&entry.directory, MODE) {
        // It gets the name when it is whole: a hook that is killed on the way leaves nothing.
        Ok(file) => fill(&file, id).and_then(|()| sys::name(&file, &entry.directory, TEMPORARY)),
        // Not every file system has files without a name: NFS has none, nor has an older overlay.
        Err(error) if error.is_unsupported() => create(&entry.directory, TEMPORARY, id),
        Err(error) => Err(error),
    };
    let written = named.and_then(|()| sys::rename_at(&entry.directory, TEMPORARY, &entry.name));
    written.inspect_err(|_| {
        // The error that is reported is the one before.
        let _ = sys::remove_at(&entry.directory, TEMPORARY);
    })
}

fn create(directory: &OwnedFd, name: &str, id: MachineId) -> sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    fill(&sys::open_at(directory, name, flags, MODE)?, id)
}

fn fill(file: &OwnedFd, id: MachineId) -> sys::Result<()> {
    sys::write(file, format!("{id}\n").as_bytes(), PATH)
}

/// Bind a file of a read-only tmpfs over the file, which has to be there.
fn bind(container: &Container, wish: &Wish, entry: &Entry, id: MachineId) -> sys::Result<()> {
    let target = match &entry.found {
        // What is mounted on a shared mount shows on the host.
        Some((target, stat)) if !container.is_shared(stat.mount)? => target,
        _ => return Err(sys::Error::read_only("openat", PATH)),
    };
    let tmpfs = mount::create_small(wish.label.as_deref())?;
    create(&tmpfs, "machine-id", id)?;
    // Before Linux 6.15 nothing can be cloned from a detached mount: it is attached for a moment.
    mount::attach(&tmpfs, scaffold(container)?, Path::new(PATH))?;
    mount::set_attributes(&tmpfs, mount::READ_ONLY)?;
    let file = sys::open_at(&tmpfs, "machine-id", OFlags::PATH, 0)?;
    let bound = mount::duplicate(file)?;
    mount::detach(&tmpfs)?;
    mount::attach(bound, target, Path::new(PATH))
}

/// A directory that something can be mounted on without anybody's notice.
fn scaffold(container: &Container) -> sys::Result<OwnedFd> {
    if let Some(run) = &container.run
        && !container.is_shared(sys::stat(run)?.mount)?
    {
        return sys::open_at(run, ".", OFlags::PATH | OFlags::DIRECTORY, 0);
    }
    if let Some((dev, stat)) = container.rootfs.find("/dev")?
        && stat.kind == FileType::Directory
        && !container.is_shared(stat.mount)?
    {
        return Ok(dev);
    }
    Err(sys::Error::missing("move_mount", "/dev"))
}
