//! What the hook is about to do to a container, as a value: facts come in, steps go out, and
//! nothing here asks or changes the system. Destinations are inside the root file system.

use std::fmt;

use crate::cgroup::{Hierarchy, Layout, Place, Tree};
use crate::error::Error;
use crate::machine_id::MachineId;
use crate::seed::{Means, Wish};

/// What was observed of a container and its host.
#[allow(clippy::struct_excessive_bools)] // observations, and none of them a state of another
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) run: Spot,
    pub(crate) lock: Spot,
    pub(crate) tmp: Spot,
    pub(crate) etc: Spot,
    /// The image's systemd has a `tmp.mount` that is not masked.
    pub(crate) image_mounts_tmp: bool,
    pub(crate) root_is_read_only: bool,
    /// The container's memory limit, or the machine's memory where that is less, in bytes.
    pub(crate) memory: u64,
    /// The SELinux label of new file systems, where SELinux is enabled.
    pub(crate) label: Option<String>,
    pub(crate) layout: Layout,
    /// The one that systemd is going to keep its units in.
    pub(crate) hierarchy: Hierarchy,
    /// The cgroup tree to give; `None` when it is there.
    pub(crate) tree: Option<Tree>,
    /// The hook has the runtime's rights; else those of the container's root only, as the hook of
    /// a rootless runtime that makes the user namespace itself.
    pub(crate) is_outside: bool,
    /// The container's root, where its place has to be given to it: it has its own user namespace.
    pub(crate) delegate_to: Option<(u32, u32)>,
    pub(crate) legacy_tree: LegacyTree,
    /// The container's root has `CAP_SYS_ADMIN`.
    pub(crate) may_mount: bool,
    pub(crate) machine_id: MachineId,
    pub(crate) keep_machine_id: bool,
}

/// What is at a place before the hook comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Missing,
    Directory,
    Link,
    NotADirectory,
    /// Somebody mounted something there.
    Mount {
        /// A tmpfs that was made for the container, and no volume.
        is_ours: bool,
        /// It is, or the runtime makes it so after the hook.
        read_only: bool,
        /// What is mounted in it would be seen on the host.
        shared: bool,
    },
}

/// What is on /sys/fs/cgroup in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LegacyTree {
    /// Not what runtimes make for version 1: a tmpfs with a `systemd` in it.
    Absent,
    /// That, and made for the container.
    Made,
    /// The host's own, as a volume.
    Hosts,
}

/// Why no tmpfs can go on a place. Reads after "cannot mount a tmpfs on /run: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceObstacle {
    Link,
    NotADirectory,
    ReadOnly,
    Shared,
    TooMuch,
}

impl fmt::Display for PlaceObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "it is a link in the image",
            Self::NotADirectory => "it is not a directory in the image",
            Self::ReadOnly => "the config mounts something on it, read-only",
            Self::Shared => "it is in a volume that is shared with the host",
            Self::TooMuch => {
                "the image has more in it than 10000 entries, 64 MiB, 256 levels or what fits"
            }
        })
    }
}

/// A tmpfs to make: nosuid and nodev, and never noexec on /run, where images run things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) destination: &'static str,
    pub(crate) mode: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Files and directories; `None` is the kernel's default, which goes by the memory.
    pub(crate) inodes: Option<u32>,
    pub(crate) noexec: bool,
    pub(crate) label: Option<String>,
}

/// One change to a container, in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Move the process into the leaf or the place that the tree is about; enable the controllers
    /// for it where nothing else could.
    MoveProcess {
        tree: Tree,
        enable_controllers: bool,
    },
    /// Give the place to the container's root.
    Delegate {
        hierarchy: Hierarchy,
        root: (u32, u32),
    },
    /// Open the file system of the cgroup tree, while the host's are still in sight.
    OpenTree(Tree),
    EnterNamespaces,
    /// Mount a tmpfs and keep what is there: files are copied, mounts are moved.
    MountTmpfs(Tmpfs),
    /// Write /run/host/container-manager, by which systemd 247 and newer know where they are.
    NameManager,
    /// Mount a tmpfs on /sys/fs/cgroup, with a `systemd` in it for the hierarchy.
    MakeLegacyTree {
        label: Option<String>,
    },
    /// Cover `/sys/fs/cgroup/unified`: a systemd that may mount would mount cgroup2 there, and on
    /// a version 1 host that is the host's.
    CoverUnified {
        label: Option<String>,
        /// The directory is made where it is missing: in no volume.
        is_made: bool,
    },
    AttachTree(Tree),
    SeedMachineId(Wish),
}

/// Reads after "cannot", so that a step, its log line and its error are one sentence.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MoveProcess { tree, .. } => match tree.place {
                Place::Made => write!(f, "move the process into a cgroup of its own"),
                _ => write!(f, "move the process into a leaf of its cgroup"),
            },
            Self::Delegate { .. } => write!(f, "give the cgroup to the container's root"),
            Self::OpenTree(tree) => write!(f, "open the hierarchy {}", tree.hierarchy),
            Self::EnterNamespaces => write!(f, "enter the container's namespaces"),
            Self::MountTmpfs(tmpfs) => write!(f, "mount a tmpfs on {}", tmpfs.destination),
            Self::NameManager => write!(f, "write /run/host/container-manager"),
            Self::MakeLegacyTree { .. } => write!(f, "mount a tmpfs on /sys/fs/cgroup"),
            Self::CoverUnified { .. } => write!(f, "mount a tmpfs on /sys/fs/cgroup/unified"),
            Self::AttachTree(tree) => write!(f, "mount {tree}"),
            Self::SeedMachineId(wish) => write!(f, "seed /etc/machine-id with {}", wish.id),
        }
    }
}

/// What has to be done, given the facts.
///
/// # Errors
/// [`Error::Place`] where something of the image or the config is in the way.
pub(crate) fn plan(facts: &Facts) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    if let Some(tree) = &facts.tree {
        if tree.place != Place::Own {
            // On a hybrid host it would only make `runc exec` fail with EBUSY, for good.
            let enable_controllers = facts.layout == Layout::Unified;
            steps.push(Step::MoveProcess {
                tree: tree.clone(),
                enable_controllers,
            });
        }
        if let Some(root) = facts.delegate_to {
            steps.push(Step::Delegate {
                hierarchy: tree.hierarchy,
                root,
            });
        }
    }
    // A file system can be opened by who may mount in the mount namespace that he is in. The
    // runtime's rights are for the first one; the container's root has them in the second.
    let open = facts.tree.iter().map(|tree| Step::OpenTree(tree.clone()));
    if facts.is_outside {
        steps.extend(open);
        steps.push(Step::EnterNamespaces);
    } else {
        steps.push(Step::EnterNamespaces);
        steps.extend(open);
    }

    let tmpfs = |destination, mode, size, inodes| Tmpfs {
        destination,
        mode,
        size,
        inodes,
        noexec: false,
        label: facts.label.clone(),
    };
    match facts.run {
        Spot::Mount {
            read_only: true, ..
        } => {
            return Err(Error::Place("/run", PlaceObstacle::ReadOnly));
        }
        Spot::Mount { shared: true, .. } if needs_mount("/run/lock", facts.lock)? => {
            return Err(Error::Place("/run/lock", PlaceObstacle::Shared));
        }
        _ => {}
    }
    if needs_mount("/run", facts.run)? {
        steps.push(Step::MountTmpfs(tmpfs(
            "/run",
            0o755,
            run_size(facts.memory),
            Some(800_000),
        )));
    }
    if needs_mount("/run/lock", facts.lock)? {
        let lock = tmpfs("/run/lock", 0o1777, 5 << 20, None);
        steps.push(Step::MountTmpfs(Tmpfs {
            noexec: true,
            ..lock
        }));
    }
    let wants_tmp = facts.image_mounts_tmp || facts.root_is_read_only;
    // A link is the image's way to have none: systemd's tmp.mount is not for it either.
    if wants_tmp && facts.tmp != Spot::Link && needs_mount("/tmp", facts.tmp)? {
        let tmp = tmpfs("/tmp", 0o1777, tmp_size(facts.memory), Some(1_000_000));
        steps.push(Step::MountTmpfs(tmp));
    }
    if facts.run.is_ours() {
        steps.push(Step::NameManager);
    }

    if let Some(tree) = &facts.tree {
        if tree.hierarchy == Hierarchy::Named && facts.legacy_tree == LegacyTree::Absent {
            let label = facts.label.clone();
            steps.push(Step::MakeLegacyTree { label });
        }
        steps.push(Step::AttachTree(tree.clone()));
    }
    let is_legacy = facts.hierarchy == Hierarchy::Named && facts.legacy_tree != LegacyTree::Absent;
    if is_legacy && facts.may_mount {
        steps.push(Step::CoverUnified {
            label: facts.label.clone(),
            is_made: facts.legacy_tree == LegacyTree::Made,
        });
    }
    let image = if facts.root_is_read_only {
        Means::PreferBind
    } else {
        Means::Write
    };
    steps.push(Step::SeedMachineId(Wish {
        id: facts.machine_id,
        keep: facts.keep_machine_id,
        etc: match facts.etc {
            Spot::Mount {
                read_only: true, ..
            } => Means::Bind,
            Spot::Mount { .. } => Means::Write,
            _ => image,
        },
        image,
        etc_is_volume: matches!(facts.etc, Spot::Mount { is_ours: false, .. }),
        label: facts.label.clone(),
    }));
    Ok(steps)
}

impl Spot {
    /// Whether there is in the end what the hook may write into: a tmpfs of the container's own.
    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, Self::Mount { is_ours: false, .. })
    }
}

fn needs_mount(destination: &'static str, spot: Spot) -> Result<bool, Error> {
    match spot {
        Spot::Mount { .. } => Ok(false),
        Spot::Missing | Spot::Directory => Ok(true),
        Spot::Link => Err(Error::Place(destination, PlaceObstacle::Link)),
        Spot::NotADirectory => Err(Error::Place(destination, PlaceObstacle::NotADirectory)),
    }
}

/// systemd's own share for /run, a fifth; but in a small container still enough to boot with:
/// systemd up to 257 refuses to reload with less than 16 MiB free.
fn run_size(memory: u64) -> u64 {
    (memory / 5).max(64 << 20)
}

/// systemd's own share for /tmp, a half. A size of 0 would be no limit at all.
fn tmp_size(memory: u64) -> u64 {
    (memory / 2).max(1 << 20)
}

impl Tmpfs {
    /// The options as fsconfig(2) takes them.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("mode", format!("{:o}", self.mode)),
            ("size", self.size.to_string()),
        ];
        options.extend(self.inodes.map(|inodes| ("nr_inodes", inodes.to_string())));
        options.extend(self.label.clone().map(|label| ("context", label)));
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::View;

    fn facts() -> Facts {
        Facts {
            run: Spot::Directory,
            lock: Spot::Missing,
            tmp: Spot::Directory,
            etc: Spot::Directory,
            image_mounts_tmp: false,
            root_is_read_only: false,
            memory: 8 << 30,
            label: None,
            layout: Layout::Unified,
            hierarchy: Hierarchy::Unified,
            tree: Some(Tree {
                hierarchy: Hierarchy::Unified,
                place: Place::Leaf,
                view: View::Below("/payload".to_owned()),
            }),
            is_outside: true,
            delegate_to: None,
            legacy_tree: LegacyTree::Absent,
            may_mount: false,
            machine_id: MachineId::of_container(None, "box", None),
            keep_machine_id: false,
        }
    }

    const MOUNT: Spot = Spot::Mount {
        shared: false,
        is_ours: true,
        read_only: false,
    };

    fn sentences(facts: &Facts) -> Vec<String> {
        plan(facts)
            .expect("a plan")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn mounts(facts: &Facts) -> Vec<&'static str> {
        let destination = |step: &Step| match step {
            Step::MountTmpfs(tmpfs) => Some(tmpfs.destination),
            _ => None,
        };
        plan(facts)
            .expect("a plan")
            .iter()
            .filter_map(destination)
            .collect()
    }

    #[test]
    fn opens_the_tree_then_enters_then_mounts_and_seeds_the_machine_id_last() {
        let seed = format!("seed /etc/machine-id with {}", facts().machine_id);
        assert_eq!(
            sentences(&facts()),
            [
                "move the process into a leaf of its cgroup",
                "open the hierarchy cgroup2",
                "enter the container's namespaces",
                "mount a tmpfs on /run",
                "mount a tmpfs on /run/lock",
                "write /run/host/container-manager",
                "mount cgroup2 on /sys/fs/cgroup, writable at /payload only",
                &seed,
            ]
        );
    }

    #[test]
    fn gives_the_place_to_the_root_of_a_user_namespace_before_it_enters() {
        let facts = Facts {
            delegate_to: Some((100_000, 100_000)),
            ..facts()
        };
        assert_eq!(
            sentences(&facts)[1],
            "give the cgroup to the container's root"
        );
    }

    #[test]
    fn opens_the_tree_inside_where_it_has_no_rights_outside() {
        let sentences = sentences(&Facts {
            is_outside: false,
            ..facts()
        });
        let expected = [
            "enter the container's namespaces",
            "open the hierarchy cgroup2",
        ];
        assert_eq!(sentences[1..3], expected);
    }

    #[test]
    fn finds_nothing_to_mount_the_second_time() {
        let facts = Facts {
            run: MOUNT,
            lock: MOUNT,
            tmp: MOUNT,
            tree: None,
            image_mounts_tmp: true,
            ..facts()
        };
        assert_eq!(mounts(&facts), [""; 0]);
        assert!(sentences(&facts)[0].starts_with("enter"));
    }

    #[test]
    fn mounts_tmp_where_the_image_would_or_the_root_is_read_only() {
        for (image_mounts_tmp, root_is_read_only, tmp, mounted) in [
            (false, false, Spot::Directory, false),
            (true, false, Spot::Directory, true),
            (true, false, Spot::Missing, true),
            (false, true, Spot::Directory, true),
            (true, true, MOUNT, false),
            (true, false, Spot::Link, false),
        ] {
            let facts = Facts {
                tmp,
                image_mounts_tmp,
                root_is_read_only,
                ..facts()
            };
            assert_eq!(mounts(&facts).contains(&"/tmp"), mounted, "{tmp:?}");
        }
    }

    #[test]
    fn refuses_places_that_a_tmpfs_cannot_go_on() {
        for (run, lock, expected) in [
            (Spot::Link, Spot::Missing, ("/run", PlaceObstacle::Link)),
            (
                Spot::NotADirectory,
                Spot::Missing,
                ("/run", PlaceObstacle::NotADirectory),
            ),
            (
                Spot::Directory,
                Spot::Link,
                ("/run/lock", PlaceObstacle::Link),
            ),
            (
                Spot::Mount {
                    is_ours: true,
                    read_only: true,
                    shared: false,
                },
                MOUNT,
                ("/run", PlaceObstacle::ReadOnly),
            ),
        ] {
            let refused = plan(&Facts {
                run,
                lock,
                ..facts()
            });
            assert!(
                matches!(refused, Err(Error::Place(at, why)) if (at, why) == expected),
                "{run:?}"
            );
        }
        let run = Spot::Mount {
            is_ours: true,
            read_only: false,
            shared: true,
        };
        let shared = plan(&Facts {
            run,
            lock: Spot::Missing,
            ..facts()
        });
        assert!(matches!(
            shared,
            Err(Error::Place("/run/lock", PlaceObstacle::Shared))
        ));
        assert!(
            plan(&Facts {
                run,
                lock: MOUNT,
                ..facts()
            })
            .is_ok()
        );
    }

    #[test]
    fn binds_the_machine_id_where_it_must_not_write() {
        let volume = |read_only, shared| Spot::Mount {
            is_ours: false,
            read_only,
            shared,
        };
        for (etc, root_is_read_only, expected) in [
            (Spot::Directory, false, Means::Write),
            (Spot::Directory, true, Means::PreferBind),
            (volume(false, false), true, Means::Write),
            (volume(false, true), false, Means::Write),
            (volume(true, false), false, Means::Bind),
            (volume(true, true), false, Means::Bind),
        ] {
            let facts = Facts {
                etc,
                root_is_read_only,
                ..facts()
            };
            let last = plan(&facts).expect("a plan").pop();
            assert!(
                matches!(&last, Some(Step::SeedMachineId(wish)) if wish.etc == expected),
                "{last:?}"
            );
        }
    }

    #[test]
    fn writes_nothing_but_mount_points_into_a_users_own_run() {
        let facts = Facts {
            run: Spot::Mount {
                is_ours: false,
                read_only: false,
                shared: false,
            },
            ..facts()
        };
        assert_eq!(mounts(&facts), ["/run/lock"]);
        assert!(
            !sentences(&facts)
                .iter()
                .any(|step| step.starts_with("write"))
        );
    }

    #[test]
    fn makes_the_tree_of_a_legacy_container_that_has_none() {
        let tree = Tree {
            hierarchy: Hierarchy::Named,
            place: Place::Own,
            view: View::Root,
        };
        for (legacy_tree, made) in [
            (LegacyTree::Absent, true),
            (LegacyTree::Made, false),
            (LegacyTree::Hosts, false),
        ] {
            let facts = Facts {
                tree: Some(tree.clone()),
                layout: Layout::Legacy,
                legacy_tree,
                ..facts()
            };
            let sentences = sentences(&facts);
            assert_eq!(
                sentences.contains(&"mount a tmpfs on /sys/fs/cgroup".to_owned()),
                made
            );
            assert!(
                sentences
                    .contains(&"mount name=systemd on /sys/fs/cgroup/systemd, writable".to_owned())
            );
            assert!(!sentences[0].contains("leaf"));
        }
    }

    #[test]
    fn keeps_a_systemd_that_may_mount_away_from_the_hosts_cgroup2() {
        for (may_mount, legacy_tree, hierarchy, covered) in [
            (true, LegacyTree::Made, Hierarchy::Named, true),
            (true, LegacyTree::Hosts, Hierarchy::Named, true),
            (false, LegacyTree::Made, Hierarchy::Named, false),
            (true, LegacyTree::Absent, Hierarchy::Named, false),
            (true, LegacyTree::Made, Hierarchy::Unified, false),
        ] {
            // Also where the tree itself is somebody else's work.
            let facts = Facts {
                hierarchy,
                tree: None,
                legacy_tree,
                may_mount,
                ..facts()
            };
            let cover = "mount a tmpfs on /sys/fs/cgroup/unified".to_owned();
            assert_eq!(sentences(&facts).contains(&cover), covered);
        }
    }

    #[test]
    fn sizes_run_as_systemd_does_within_the_limits_of_the_container() {
        for (memory, size) in [
            (10 << 30, 2 << 30),
            (320 << 20, 64 << 20),
            (1 << 20, 64 << 20),
            (0, 64 << 20),
        ] {
            assert_eq!(run_size(memory), size, "{memory}");
        }
    }

    #[test]
    fn gives_each_tmpfs_its_options() {
        let facts = Facts {
            image_mounts_tmp: true,
            ..facts()
        };
        let steps = plan(&facts).expect("a plan");
        let found: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::MountTmpfs(tmpfs) => Some(tmpfs),
                _ => None,
            })
            .map(|tmpfs| {
                let options = tmpfs.options();
                let options = options.iter().map(|(key, value)| format!("{key}={value}"));
                let options = options.collect::<Vec<_>>().join(",");
                (tmpfs.destination, options, tmpfs.noexec)
            })
            .collect();
        let expected = [
            ("/run", "mode=755,size=1717986918,nr_inodes=800000", false),
            ("/run/lock", "mode=1777,size=5242880", true),
            ("/tmp", "mode=1777,size=4294967296,nr_inodes=1000000", false),
        ];
        assert_eq!(
            found,
            expected.map(|(at, options, noexec)| (at, options.to_owned(), noexec))
        );
    }

    #[test]
    fn gives_tmp_half_of_the_memory_and_never_no_limit() {
        for (memory, size) in [
            (8 << 30, 4 << 30),
            (2 << 20, 1 << 20),
            (1, 1 << 20),
            (0, 1 << 20),
        ] {
            assert_eq!(tmp_size(memory), size, "{memory}");
        }
    }

    #[test]
    fn labels_every_tmpfs_where_selinux_is_enabled() {
        let label = Some("system_u:object_r:container_file_t:s0:c1,c2".to_owned());
        let steps = plan(&Facts {
            label: label.clone(),
            image_mounts_tmp: true,
            ..facts()
        })
        .expect("a plan");
        let tmpfs: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::MountTmpfs(tmpfs) => Some(tmpfs),
                _ => None,
            })
            .collect();
        assert_eq!(tmpfs.len(), 3);
        for tmpfs in tmpfs {
            assert!(
                tmpfs
                    .options()
                    .contains(&("context", label.clone().unwrap_or_default()))
            );
        }
    }
}
