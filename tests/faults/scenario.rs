//! The containers that faults are tried on: between them, the hook makes every call that it can make.

use std::fs;
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

use crate::bundle::{Bundle, hook};
use crate::process::{Process, hierarchies, shell};

/// One kind of container, host or stage.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    version: u32,
    /// Arguments of unshare(1).
    unshare: &'static str,
    /// A shell script in the container's root file system and mount namespace.
    setup: &'static str,
    /// The runtime put the process into no cgroup.
    in_root: bool,
    /// A shell script in the mount namespace that the hook is run in.
    pub(crate) host: &'static str,
    make: fn(&mut Bundle),
    /// The hook is called by a user, whose container it is: by a rootless runtime that is in no user namespace.
    pub(crate) is_rootless: bool,
    /// The faults are in the hook's run at poststop.
    pub(crate) is_poststop: bool,
}

/// How somebody becomes the user of a rootless runtime, nobody.
pub(crate) const AS_USER: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";
/// His copy of the hook, in the bundle: ours may be where he may not go.
pub(crate) const HOOK: &str = "hook";

const OWN: &str = "--mount --cgroup --propagation private";

pub(crate) const PLAIN: Scenario = Scenario {
    name: "systemd 252",
    version: 252,
    unshare: OWN,
    setup: "",
    in_root: false,
    host: "",
    make: |_| {},
    is_rootless: false,
    is_poststop: false,
};

pub(crate) const NEW: Scenario = Scenario {
    name: "systemd 262",
    version: 262,
    make: |bundle| bundle.write("etc/machine-id", b"0123456789abcdef0123456789abcdef\n"),
    ..PLAIN
};

pub(crate) const USER: Scenario = Scenario {
    name: "a user namespace",
    version: 262,
    unshare: "--user --map-root-user --mount --net --cgroup --propagation private",
    ..PLAIN
};

pub(crate) const ROOTLESS: Scenario = Scenario {
    name: "a rootless runtime",
    is_rootless: true,
    ..USER
};

pub(crate) const FULL: Scenario = Scenario {
    name: "a full /run and the host's cgroup namespace",
    unshare: "--mount --propagation private",
    setup: "mount -t tmpfs users run/app/deep; mount --bind ../volume/file run/secret
        mount -t tmpfs users tmp/dir; echo theirs >tmp/dir/theirs",
    make: fill,
    ..PLAIN
};

pub(crate) const READ_ONLY: Scenario = Scenario {
    name: "a read-only root",
    setup: "mount -t tmpfs cgroup sys/fs/cgroup; mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
        mount -o remount,bind,ro .",
    make: |bundle| {
        for file in ["etc/machine-id", "var/lib/dbus/machine-id"] {
            bundle.write(file, b"0123456789abcdef0123456789abcdef\n");
        }
        for directory in ["run/lock", "dev"] {
            fs::create_dir(bundle.image(directory)).expect("a directory of the image");
        }
        bundle.config["root"]["readonly"] = json!(true);
        bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    },
    ..PLAIN
};

pub(crate) const MADE: Scenario = Scenario {
    name: "no cgroup",
    in_root: true,
    ..PLAIN
};

pub(crate) const UNMOUNTED: Scenario = Scenario {
    name: "no cgroup on a host without cgroup2",
    version: 262,
    // Whose machine ID is one, whatever that of the machine of the tests is.
    host: "[ ! -e /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified
        id=$(mktemp); echo 0123456789abcdef0123456789abcdef >$id
        mount --bind $id /etc/machine-id; rm $id",
    ..MADE
};

pub(crate) const POSTSTOP: Scenario = Scenario {
    name: "poststop",
    is_poststop: true,
    ..MADE
};

pub(crate) const POSTSTOP_UNMOUNTED: Scenario = Scenario {
    name: "poststop on a host without cgroup2",
    is_poststop: true,
    ..UNMOUNTED
};

/// What an image may have in /run and /tmp, and what a user may have mounted there.
fn fill(bundle: &mut Bundle) {
    bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
    bundle.write("run/app/file", b"content");
    fs::create_dir(bundle.path.join("volume")).expect("a volume");
    fs::write(bundle.path.join("volume/file"), "the user's").expect("its file");
    shell(&format!(
        "cd {}; mkdir -m 700 run/app/deep tmp/dir; touch run/secret tmp/file; ln -s file run/app/link
        ln run/app/file run/app/again; chown -h 5:6 run/app run/app/file run/app/link
        chmod 4711 run/app/file; find run tmp -exec touch -hd @{} {{}} +",
        bundle.image("").display(),
        crate::judge::OLD
    ));
    for path in ["run/app", "run/app/file"] {
        setxattr(
            bundle.image(path),
            "trusted.test",
            b"x",
            XattrFlags::empty(),
        )
        .expect("a file system with extended attributes");
    }
}

/// Make files in a directory the user's.
fn give(directory: &Path, files: &str) {
    let directory = directory.display();
    shell(&format!("cd {directory}; chown 65534:65534 {files}"));
}

impl Scenario {
    /// A bundle and its process, the same every time but for the bundle's path and the process's number.
    pub(crate) fn start(&self) -> (Bundle, Process) {
        let mut bundle = Bundle::with_systemd(self.version);
        let letters = self.name.chars().filter(char::is_ascii_alphanumeric);
        // Of one length and form, whatever the number of the run; the same in all runs of a test.
        let thread = format!("{:?}", std::thread::current().id());
        let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
        bundle.id = format!(
            "{}-{digits}-{}",
            std::process::id(),
            letters.collect::<String>()
        );
        (self.make)(&mut bundle);
        bundle.write_config();
        let process = if self.in_root {
            Process::start_in_root(&bundle, self.unshare)
        } else if self.is_rootless {
            fs::copy(hook().get_program(), bundle.path.join(HOOK)).expect("a copy of the hook");
            give(&bundle.path, "-R .");
            let unshare = format!("-- {AS_USER} unshare {}", self.unshare);
            let process = Process::start_with(&bundle, &unshare, self.setup);
            // As it is delegated to a user: his limits stay root's.
            for top in hierarchies() {
                give(&top.join(&bundle.id), ". cgroup.procs");
            }
            process
        } else {
            Process::start_with(&bundle, self.unshare, self.setup)
        };
        (bundle, process)
    }
}
