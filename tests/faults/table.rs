//! Which calls are failed how, and which of these faults do not stop the container, and why. In the
//! tables `|` divides columns: the name of the call, and what is in it as strace writes it. All rows
//! that fit count.

/// The errnos of a call: those of its man page that a host, an image or a limit can cause. A file that
/// is not there is no fault; a call without an errno cannot fail as it is made, or nobody could help it.
const ERRNOS: &str = "
openat2 | | ENOSYS EACCES EMFILE ENOMEM EAGAIN
open | | EMFILE EACCES ENFILE ENOMEM EINTR
openat | | EMFILE EACCES ENOMEM EIO
openat | O_CREAT | ENOSPC EROFS EDQUOT
openat | O_TMPFILE | ENOSPC EROFS EDQUOT EOPNOTSUPP
read | | EIO EINTR
read | </proc/ | ESRCH
pread64 | | EIO EINTR
write | | EIO ENOSPC EINTR
write | cgroup.procs | ESRCH EACCES EBUSY
write | cgroup.subtree_control | EACCES EBUSY ENOENT EOPNOTSUPP
statx | | ENOSYS EIO EACCES ENOMEM
fstatfs | | EIO ENOSYS EACCES
getdents64 | | EIO
readlinkat | | EIO EACCES ENOMEM
mkdirat | | ENOSPC EACCES EROFS EDQUOT ENOMEM
symlinkat | | ENOSPC EACCES EIO
linkat | | EMLINK ENOSPC EPERM
linkat | .machine-id. | EROFS EDQUOT
renameat | | EIO ENOSPC EACCES EROFS EBUSY
unlinkat | | EIO EACCES EBUSY EROFS
fchownat | | EPERM EIO EROFS EINVAL
fchown | | EPERM EIO EDQUOT EINVAL
fchmod | | EPERM EIO
utimensat | | EPERM EACCES EIO
flistxattr | | EOPNOTSUPP ENOMEM EIO
fgetxattr | | ENODATA EOPNOTSUPP EIO
fsetxattr | | EOPNOTSUPP EPERM ENOSPC EIO
setns | | EPERM ENOMEM EINVAL
unshare | | EPERM ENOMEM ENOSPC
setgroups | | EPERM ENOMEM
setresgid | | EPERM EINVAL
setresuid | | EPERM EAGAIN
fsopen | | ENOSYS EPERM EMFILE ENODEV ENOMEM
fsconfig | | EPERM EINVAL EBUSY ENOMEM
fsmount | | ENOSPC ENOSYS EPERM ENOMEM
move_mount | | ENOSPC ENOSYS EPERM EINVAL ENOMEM
open_tree | | ENOSPC ENOSYS EPERM EMFILE ENOMEM
mount | | EPERM ENOMEM EBUSY
umount2 | | EPERM ENOMEM EBUSY
fchdir | | EACCES EIO
socket | | EMFILE EACCES
connect | | ECONNREFUSED EACCES
sendto | | EAGAIN ENOBUFS ECONNREFUSED
ioctl | FIONBIO | ENOTTY
fcntl | F_GETFL | EINVAL
copy_file_range | | EIO ENOSPC EXDEV EINTR
sendfile | | EIO
lseek | | EINVAL
clock_nanosleep | | EINTR
mmap | | ENOMEM
mremap | | ENOMEM
brk | | ENOMEM
fcntl | |
prctl | |
umask | |
rt_sigprocmask | |
rt_sigaction | |
geteuid | |
getrandom | |
sysinfo | |
close | |
munmap | |
madvise | |
sigaltstack | |
exit_group | |
";

/// Calls that change something outside of the hook: the others only look, and a hook that is killed in
/// one leaves the same as one that is killed in the next of these.
const CHANGES: &str = "write mkdirat symlinkat linkat renameat unlinkat fchownat fchown fchmod \
    utimensat fsetxattr setns unshare setresgid setresuid fsconfig fsmount move_mount open_tree mount \
    umount2 exit_group";

/// Faults that the hook may live with: the errnos, what may then differ from a clean run (beginnings of
/// a listing's keys; nothing: the container is prepared as ever), and why that is right.
const TOLERATED: &str = "
read | | EINTR | | read again
openat2 | | EAGAIN | | tried again (openat2(2))
clock_nanosleep | | EINTR | | slept on
brk | | ENOMEM | | the allocator takes other memory
mmap | | ENOMEM | | the allocator takes other memory
open | /proc/1/ns/mnt | EACCES | | not readable in a rootless user namespace; nor could it be entered
open | \"/etc/machine-id\" | EACCES | etc/machine-id var/lib/dbus/machine-id | a host that shows no ID has none
socket | AF_UNIX | EMFILE EACCES | | the host's log is a courtesy
ioctl | FIONBIO | ENOTTY | | the host's log is a courtesy
connect | /dev/log | ECONNREFUSED EACCES | | the host's log is a courtesy
sendto | | EAGAIN ENOBUFS ECONNREFUSED | | the host's log is a courtesy
write | <socket: | EIO ENOSPC EINTR | | the host's log is a courtesy
openat | cgroup.controllers | EACCES | 0:: | limits that are not the caller's stay the host's
openat | cgroup.subtree_control | EACCES | 0:: | limits that are not the caller's stay the host's
write | cgroup.subtree_control | EACCES EBUSY | 0:: | a cgroup whose limits are another's, or that has a process besides
setgroups | | EPERM | | denied in a rootless user namespace; the groups are the caller's own
fsconfig | | EBUSY | | a hierarchy that is about to go: tried again
unlinkat | AT_REMOVEDIR | EBUSY | | a cgroup that dies late: tried again
openat | oci-systemd-hook>, \".\" | EMFILE EACCES ENOMEM EIO | | what others left is the next one's to sweep
fcntl | oci-systemd-hook>, F_GETFL | EINVAL | | what others left is the next one's to sweep
getdents64 | oci-systemd-hook>, | EIO | | what others left is the next one's to sweep
statx | STATX_ALL | ENOSYS EIO EACCES ENOMEM | | std looks how to copy best; it then copies plainly
copy_file_range | | EXDEV EINTR | | copied plainly
fchown | | EINVAL | run/app | an owner that is not mapped: it is root's then
fchownat | | EINVAL | run/app | an owner that is not mapped: it is root's then
flistxattr | | EOPNOTSUPP | run/app | no attributes on this file system
fgetxattr | | ENODATA | run/app | an attribute that has gone since it was listed
fsetxattr | | EOPNOTSUPP EPERM | run/app | an attribute that a tmpfs does not take
mkdirat | </>, | ENOSPC | mount_/tmp/ run/systemd | too much for a tmpfs on /tmp, which stays as it is
openat | </>, | ENOSPC | mount_/tmp/ run/systemd | too much for a tmpfs on /tmp, which stays as it is
copy_file_range | | ENOSPC | mount_/tmp/ run/systemd | too much for a tmpfs on /tmp
fsetxattr | | ENOSPC | mount_/tmp/ run/systemd | too much for a tmpfs on /tmp
unlinkat | .machine-id. | EROFS | mount_/etc/machine-id etc/machine-id | bound over instead
openat | O_TMPFILE | EROFS | mount_/etc/machine-id etc/machine-id | bound over instead
openat | O_TMPFILE | EOPNOTSUPP | | written under a name
linkat | .machine-id. | EROFS | mount_/etc/machine-id etc/machine-id | bound over instead
renameat | .machine-id. | EROFS | mount_/etc/machine-id etc/machine-id | bound over instead
";

/// Failures that may also be told in other words than the errno's: the errnos, the status, the words.
const TOLD_OTHERWISE: &str = "
openat | config.json | EMFILE EACCES ENOMEM EIO | 66 | config.json
read | config.json | EIO | 66 | config.json
read | </proc/ | ESRCH | 65 | is gone
mkdirat | </>, | ENOSPC | 65 | what fits
mkdirat | </app>, | ENOSPC | 65 | what fits
openat | </>, | ENOSPC | 65 | what fits
openat | </app>, | ENOSPC | 65 | what fits
symlinkat | </app>, | ENOSPC | 65 | what fits
linkat | </> | ENOSPC | 65 | what fits
copy_file_range | | ENOSPC | 65 | what fits
fsetxattr | | ENOSPC | 65 | what fits
";

/// What is in the columns behind the first two of the rows that fit.
fn rows<'a>(
    table: &'static str,
    (name, text): (&'a str, &'a str),
) -> impl Iterator<Item = Vec<&'static str>> + 'a {
    let rows = table.lines().filter(|row| !row.is_empty());
    rows.filter_map(move |row| {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        (columns[0] == name && text.contains(columns[1])).then(|| columns[2..].to_vec())
    })
}

fn words(column: &'static str) -> impl Iterator<Item = &'static str> {
    column.split_whitespace()
}

/// Whether the call changes something, or is the last.
pub(crate) fn changes((name, text): (&str, &str)) -> bool {
    words(CHANGES).any(|call| call == name)
        || ["O_CREAT", "O_TMPFILE"]
            .iter()
            .any(|flag| text.contains(flag))
}

/// The errnos that a call is failed with; `None` for a call that is not in the table.
pub(crate) fn errnos(call: (&str, &str)) -> Option<Vec<&'static str>> {
    let mut rows = rows(ERRNOS, call).peekable();
    rows.peek()?;
    Some(rows.flat_map(|row| words(row[0])).collect())
}

/// Whether a fault may be lived with: the beginnings of what may differ then.
pub(crate) fn tolerated(
    call: (&str, &str),
    errno: &str,
    is_poststop: bool,
) -> Option<Vec<&'static str>> {
    // It may be a rootless one, which is called for the containers of others too; what it leaves is
    // taken away by the next one that may.
    if is_poststop && ["EPERM", "EACCES"].contains(&errno) {
        return Some(vec!["place"]);
    }
    let row = rows(TOLERATED, call).find(|row| words(row[0]).any(|word| word == errno))?;
    Some(words(row[1]).collect())
}

/// Whether a failure of this status and line tells of the fault.
pub(crate) fn is_told(call: (&str, &str), errno: &str, status: i32, line: &str) -> bool {
    let usual = match errno {
        "ENOSYS" => 69,
        "EPERM" | "EACCES" => 77,
        _ => 71,
    };
    let is_usual = status == usual && line.contains(&format!(": {errno}: "));
    is_usual
        || rows(TOLD_OTHERWISE, call).any(|row| {
            let is_errno = words(row[0]).any(|word| word == errno);
            is_errno && row[1].parse() == Ok(status) && line.contains(row[2])
        })
}
