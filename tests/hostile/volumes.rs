//! Volumes that others have too: what is mounted or written in them is seen on the host.

use serde_json::{Value, json};

use crate::case::Case;
use crate::host::Host;

/// The container's mounts are the host's, as with `rshared` volumes.
const SHARED: &str = "--mount --cgroup --propagation unchanged";

/// What is in the way: shell in the image, shell in the container, what the config says of it.
const CASES: [(&str, &str, &str, &[i32]); 17] = [
    (
        "cgroups in a shared volume",
        "rm -r sys; ln -s data sys",
        "",
        &[0, 65, 71],
    ),
    (
        "cgroups at a link to a shared volume",
        "",
        "umount sys; mkdir sys/fs; ln -s /data sys/fs/cgroup",
        &[0, 65, 71],
    ),
    (
        "a shared volume on /sys/fs/cgroup",
        "",
        "umount sys; mkdir -p sys/fs/cgroup; mount --bind data sys/fs/cgroup",
        &[0, 65, 71],
    ),
    (
        "a shared volume with nothing on /sys/fs/cgroup",
        "",
        "umount sys; mkdir -p sys/fs/cgroup; mount --bind EMPTY sys/fs/cgroup",
        &[0, 65, 71],
    ),
    (
        "a shared volume on /sys",
        "",
        "mount --bind data sys",
        &[0, 65, 71],
    ),
    (
        "a shared volume on /run",
        "",
        "mount --bind data run; mount --make-shared run",
        &[65],
    ),
    (
        "a shared volume on /run/lock",
        "mkdir run/lock",
        "mount --bind data run/lock",
        &[0],
    ),
    (
        "a shared volume on /run/host",
        "mkdir run/host",
        "mount --bind data run/host",
        &[0],
    ),
    (
        "a shared volume on /run/systemd",
        "mkdir run/systemd",
        "mount --bind data run/systemd",
        &[0],
    ),
    ("a shared volume on /tmp", "", "mount --bind data tmp", &[0]),
    ("a shared volume on /etc", "", "mount --bind data etc", &[0]),
    ("a shared volume on /var", "", "mount --bind data var", &[0]),
    (
        "a shared volume on /var/lib/dbus",
        "",
        "mount --bind data var/lib/dbus",
        &[0],
    ),
    (
        "a file of a shared volume on /etc/machine-id",
        "touch etc/machine-id",
        "mount --bind data/file etc/machine-id",
        &[0, 71],
    ),
    (
        "a file of a shared volume on D-Bus's",
        "touch var/lib/dbus/machine-id",
        "mount --bind data/file var/lib/dbus/machine-id",
        &[0],
    ),
    ("the host's /etc on /etc", "", "mount --bind /etc etc", &[0]),
    (
        "the host's cgroups on /sys/fs/cgroup",
        "",
        "mount --rbind /sys/fs/cgroup sys/fs/cgroup",
        &[0, 65, 71],
    ),
];

pub(crate) fn cases(_: &Host, judge: &mut dyn FnMut(Case)) {
    for (what, image, inside, statuses) in CASES {
        for unshare in ["--mount --cgroup --propagation private", SHARED] {
            for systemd in [252, 262] {
                for is_ro in [false, true] {
                    let all: &[i32] = if is_ro { &[0, 65, 71] } else { statuses };
                    let name = format!("{what}, {systemd}, {unshare}, read-only: {is_ro}");
                    let mut case = Case::new(name, all);
                    case.systemd = systemd;
                    case.image = image.into();
                    case.inside = inside.replace("EMPTY", &Host::empty().to_string_lossy());
                    case.unshare = unshare;
                    case.config = json!({ "mounts": binds(is_ro) });
                    case.mounts_anywhere_inside = true;
                    judge(case);
                }
            }
        }
    }
}

/// What the config says of the volumes.
fn binds(is_ro: bool) -> Value {
    let options = if is_ro {
        &["rbind", "ro"][..]
    } else {
        &["rbind"]
    };
    [
        "/run",
        "/etc",
        "/etc/machine-id",
        "/tmp",
        "/var",
        "/sys",
        "/sys/fs/cgroup",
    ]
    .map(|at| json!({ "destination": at, "type": "bind", "source": "/", "options": options }))
    .into()
}
