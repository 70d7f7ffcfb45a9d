//! Which cgroup tree a container's systemd gets, as three choices: the hierarchy that it takes of
//! those that the host can give, the place in it that it owns, and the view that it has of that
//! place. Values in, values out.

use std::fmt;

use crate::decision::CgroupWish;

/// The leaf that is made below a container's cgroup where its limits have to stay out of reach.
pub(crate) const LEAF: &str = "payload";

/// Below this cgroup at the root of a hierarchy, containers have their place by their id if the
/// runtime gave them none in it.
pub(crate) const TOP: &str = "oci-systemd-hook";

/// What is mounted on the host's `/sys/fs/cgroup`, in systemd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// cgroup2 alone.
    Unified,
    /// Version 1 hierarchies, and cgroup2 in `unified`.
    Hybrid,
    /// Version 1 hierarchies.
    Legacy,
    /// No hierarchy of systemd's.
    Absent,
}

/// Which hierarchies a systemd can use as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// Up to 229: `name=systemd` only (the cgroup2 of their time had another magic number).
    Legacy,
    /// 230 to 255, and 257, which follows its host when it is in a container.
    Both,
    /// 256, and 258 and newer: cgroup2 only.
    Unified,
}

impl Support {
    /// What this version can use; an unknown one is treated as 230 to 255.
    pub(crate) fn of(version: Option<u32>, wish: CgroupWish) -> Self {
        match (wish, version) {
            (CgroupWish::Legacy, _) | (CgroupWish::Auto, Some(..=229)) => Self::Legacy,
            (CgroupWish::Auto, None | Some(230..=255 | 257)) => Self::Both,
            (CgroupWish::Unified, _) | (CgroupWish::Auto, Some(_)) => Self::Unified,
        }
    }
}

/// The hierarchy that systemd keeps its units in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// Version 1, `name=systemd`.
    Named,
    /// cgroup2.
    Unified,
}

impl Hierarchy {
    /// The first choice: of what this systemd takes, what the host has mounted; else what can be
    /// mounted on any host.
    pub(crate) fn choose(layout: Layout, support: Support) -> Self {
        match (support, layout) {
            (Support::Legacy, _)
            | (Support::Both, Layout::Legacy | Layout::Hybrid | Layout::Absent) => Self::Named,
            (Support::Both, Layout::Unified) | (Support::Unified, _) => Self::Unified,
        }
    }

    /// Where systemd looks for it in the container.
    pub(crate) fn mount_point(self) -> &'static str {
        match self {
            Self::Named => "/sys/fs/cgroup/systemd",
            Self::Unified => "/sys/fs/cgroup",
        }
    }

    /// Where the host has it, if it has it mounted.
    pub(crate) fn host_mount_point(self, layout: Layout) -> Option<&'static str> {
        match (self, layout) {
            (Self::Named, Layout::Legacy | Layout::Hybrid) => Some("/sys/fs/cgroup/systemd"),
            (Self::Unified, Layout::Hybrid) => Some("/sys/fs/cgroup/unified"),
            (Self::Unified, Layout::Unified) => Some("/sys/fs/cgroup"),
            _ => None,
        }
    }

    /// What its line in `/proc/PID/cgroup` names.
    pub(crate) fn controller(self) -> &'static str {
        match self {
            Self::Named => "name=systemd",
            Self::Unified => "",
        }
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "name=systemd",
            Self::Unified => "cgroup2",
        })
    }
}

/// Why no tree can be given. Reads after "cannot give systemd a cgroup tree: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The process shares its cgroup with others, and may be under limits there.
    Shared(Hierarchy),
    /// The container's cgroup namespace does not begin at its cgroup or above it.
    OutsideOfNamespace(Hierarchy),
    /// The container's id cannot be the name of a cgroup.
    NoName,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(hierarchy) => {
                write!(
                    f,
                    "the runtime gave the container no cgroup of its own in {hierarchy}"
                )
            }
            Self::OutsideOfNamespace(hierarchy) => {
                write!(
                    f,
                    "its cgroup in {hierarchy} is outside of its cgroup namespace"
                )
            }
            Self::NoName => write!(f, "the container's id cannot be the name of a cgroup"),
        }
    }
}

/// The process's cgroup P in the chosen hierarchy, as the runtime left it.
#[allow(clippy::struct_excessive_bools)] // observations, and none of them a state of another
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// P as the container reads it in `/proc/PID/cgroup`: `/` where its cgroup namespace begins.
    pub(crate) view: String,
    /// P is not the hierarchy's root, and only this process is in it.
    pub(crate) own: bool,
    /// P is not the root and there are controllers: leaving it may be leaving a limit.
    pub(crate) limited: bool,
    /// The container has its own user namespace, and P's limits are not its root's to write.
    pub(crate) owned_by_others: bool,
    /// The container's root has `CAP_SYS_ADMIN`.
    pub(crate) may_mount: bool,
    /// The hierarchy's root is where the container's paths begin.
    pub(crate) from_root: bool,
    /// The container sees P, writable, where systemd looks for it: somebody did it already.
    pub(crate) ready: bool,
}

/// The second choice: the cgroup that systemd owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// P itself.
    Own,
    /// A leaf below P, so that P's files, the limits, are not the container's to write.
    Leaf,
    /// One that the hook makes at the hierarchy's root and removes at poststop.
    Made,
}

/// The third choice: how the container sees its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The mount's root is the place, and writable.
    Root,
    /// A read-only mount, and the place writable at this path in it.
    Below(String),
    /// The place at this path, in a mount that is writable as a whole.
    Within(String),
}

/// The tree that a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) place: Place,
    pub(crate) view: View,
}

impl Tree {
    /// Where in the mounted tree the place is, if it is not its root.
    pub(crate) fn place_at(&self) -> Option<&str> {
        match &self.view {
            View::Root => None,
            View::Below(path) | View::Within(path) => Some(path),
        }
    }

    /// Whether the mount on the hierarchy's mount point is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.view, View::Below(_))
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.hierarchy, self.hierarchy.mount_point())?;
        match &self.view {
            View::Root | View::Within(_) => write!(f, ", writable"),
            View::Below(path) => write!(f, ", writable at {path} only"),
        }
    }
}

/// Choose place and view for the container `id`; `None` when it has its tree already.
pub(crate) fn tree(
    hierarchy: Hierarchy,
    process: &Membership,
    id: &str,
) -> Result<Option<Tree>, Obstacle> {
    if process.ready {
        return Ok(None);
    }
    let place = match (process.own, hierarchy) {
        // A named hierarchy has no controllers, so there is nothing at P to protect.
        (true, Hierarchy::Named) => Place::Own,
        (true, Hierarchy::Unified) if process.owned_by_others => Place::Own,
        (true, Hierarchy::Unified) => Place::Leaf,
        (false, _) if process.limited => return Err(Obstacle::Shared(hierarchy)),
        (false, _) => Place::Made,
    };
    let path = match place {
        Place::Own => process.view.clone(),
        Place::Leaf => format!("{}/{LEAF}", process.view.trim_end_matches('/')),
        Place::Made if !process.from_root => return Err(Obstacle::OutsideOfNamespace(hierarchy)),
        Place::Made if !is_name(id) => return Err(Obstacle::NoName),
        Place::Made => format!("/{TOP}/{id}"),
    };
    if path.split('/').any(|part| part == "..") {
        return Err(Obstacle::OutsideOfNamespace(hierarchy));
    }
    let view = match place {
        _ if path == "/" => View::Root,
        // Nothing read-only holds a root that can remount it, and all that the mount shows is the
        // container's. A second mount in it would only keep runc in there from working, which
        // opens cgroup2 files with RESOLVE_NO_XDEV.
        Place::Leaf if process.may_mount && process.view == "/" => View::Within(path),
        _ => View::Below(path),
    };
    Ok(Some(Tree {
        hierarchy,
        place,
        view,
    }))
}

/// Whether an id can be a file name that is nothing but a name: the characters that runtimes
/// allow in ids, and not so long that the kernel refuses it.
pub(crate) fn is_name(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_each_systemd_takes() {
        for (version, support) in [
            (Some(219), Support::Legacy),
            (Some(229), Support::Legacy),
            (Some(230), Support::Both),
            (Some(255), Support::Both),
            (Some(256), Support::Unified),
            (Some(257), Support::Both),
            (Some(258), Support::Unified),
            (Some(262), Support::Unified),
            (None, Support::Both),
        ] {
            assert_eq!(
                Support::of(version, CgroupWish::Auto),
                support,
                "{version:?}"
            );
            assert_eq!(Support::of(version, CgroupWish::Legacy), Support::Legacy);
            assert_eq!(Support::of(version, CgroupWish::Unified), Support::Unified);
        }
    }

    #[test]
    fn gives_what_the_host_has_mounted_of_what_systemd_takes() {
        use Layout::{Absent, Hybrid, Legacy, Unified};
        for (layout, [legacy, both, unified]) in [
            (
                Legacy,
                [Hierarchy::Named, Hierarchy::Named, Hierarchy::Unified],
            ),
            (
                Hybrid,
                [Hierarchy::Named, Hierarchy::Named, Hierarchy::Unified],
            ),
            (
                Unified,
                [Hierarchy::Named, Hierarchy::Unified, Hierarchy::Unified],
            ),
            (
                Absent,
                [Hierarchy::Named, Hierarchy::Named, Hierarchy::Unified],
            ),
        ] {
            assert_eq!(
                Hierarchy::choose(layout, Support::Legacy),
                legacy,
                "{layout:?}"
            );
            assert_eq!(Hierarchy::choose(layout, Support::Both), both, "{layout:?}");
            assert_eq!(
                Hierarchy::choose(layout, Support::Unified),
                unified,
                "{layout:?}"
            );
        }
    }

    fn member(view: &str) -> Membership {
        Membership {
            view: view.to_owned(),
            own: true,
            limited: false,
            owned_by_others: false,
            may_mount: false,
            from_root: false,
            ready: false,
        }
    }

    #[test]
    fn shows_the_place_at_the_path_that_the_container_reads() {
        let below = |path: &str| View::Below(path.to_owned());
        for (hierarchy, at, place, view) in [
            (Hierarchy::Named, "/", Place::Own, View::Root),
            (
                Hierarchy::Named,
                "/docker/c",
                Place::Own,
                below("/docker/c"),
            ),
            (Hierarchy::Unified, "/", Place::Leaf, below("/payload")),
            (
                Hierarchy::Unified,
                "/docker/c",
                Place::Leaf,
                below("/docker/c/payload"),
            ),
        ] {
            let tree = tree(hierarchy, &member(at), "c")
                .expect("a tree")
                .expect("to do");
            assert_eq!(
                tree,
                Tree {
                    hierarchy,
                    place,
                    view
                },
                "{hierarchy} {at}"
            );
        }
    }

    #[test]
    fn gives_cgroup2_as_a_whole_only_where_its_limits_are_not_the_containers() {
        let safe = Membership {
            owned_by_others: true,
            ..member("/")
        };
        let given = tree(Hierarchy::Unified, &safe, "c")
            .expect("a tree")
            .expect("to do");
        assert_eq!((given.place, given.view), (Place::Own, View::Root));
    }

    #[test]
    fn gives_one_mount_to_a_root_that_could_remount_it() {
        let admin = |view| Membership {
            may_mount: true,
            ..member(view)
        };
        let given = tree(Hierarchy::Unified, &admin("/"), "c")
            .expect("a tree")
            .expect("to do");
        assert_eq!(
            (given.place, given.view),
            (Place::Leaf, View::Within("/payload".to_owned()))
        );
        // In the host's namespace there is more to see than its own.
        let given = tree(Hierarchy::Unified, &admin("/c"), "c")
            .expect("a tree")
            .expect("to do");
        assert_eq!(given.view, View::Below("/c/payload".to_owned()));
    }

    #[test]
    fn makes_a_place_where_the_runtime_gave_none() {
        let shared = Membership {
            own: false,
            from_root: true,
            ..member("/")
        };
        for hierarchy in [Hierarchy::Named, Hierarchy::Unified] {
            let made = tree(hierarchy, &shared, "c-1")
                .expect("a tree")
                .expect("to do");
            let view = View::Below("/oci-systemd-hook/c-1".to_owned());
            assert_eq!(
                made,
                Tree {
                    hierarchy,
                    place: Place::Made,
                    view
                }
            );
            for id in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(256)] {
                assert_eq!(tree(hierarchy, &shared, id), Err(Obstacle::NoName), "{id}");
            }
            let outside = Membership {
                from_root: false,
                ..shared.clone()
            };
            let refused = Err(Obstacle::OutsideOfNamespace(hierarchy));
            assert_eq!(tree(hierarchy, &outside, "c"), refused);
        }
    }

    #[test]
    fn leaves_a_tree_alone_that_is_right_already() {
        let ready = Membership {
            own: false,
            ready: true,
            ..member("/payload")
        };
        assert_eq!(tree(Hierarchy::Unified, &ready, "c"), Ok(None));
    }

    #[test]
    fn lets_no_container_out_of_the_limits_of_a_shared_cgroup() {
        let shared = Membership {
            own: false,
            limited: true,
            from_root: true,
            ..member("/user.slice")
        };
        let refused = Err(Obstacle::Shared(Hierarchy::Unified));
        assert_eq!(tree(Hierarchy::Unified, &shared, "c"), refused);
        let outside = Err(Obstacle::OutsideOfNamespace(Hierarchy::Unified));
        assert_eq!(tree(Hierarchy::Unified, &member("/../other"), "c"), outside);
    }
}
