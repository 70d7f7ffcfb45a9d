//! Which cgroup tree a container's systemd gets, as three choices: the hierarchy that it takes of
//! those that the host has, the place in it that it owns, and the view that it has of that place.
//! Values in, values out.

use std::fmt;

use crate::decision::CgroupWish;

/// The leaf that is made below a container's cgroup where its limits have to stay out of reach.
pub(crate) const LEAF: &str = "payload";

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

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unified => "cgroup v2",
            Self::Hybrid => "hybrid cgroup",
            Self::Legacy => "cgroup v1",
            Self::Absent => "no cgroup",
        })
    }
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
    /// Where systemd looks for it in the container.
    pub(crate) fn mount_point(self) -> &'static str {
        match self {
            Self::Named => "/sys/fs/cgroup/systemd",
            Self::Unified => "/sys/fs/cgroup",
        }
    }

    /// Where the host has it.
    pub(crate) fn host_mount_point(self, layout: Layout) -> &'static str {
        match (self, layout) {
            (Self::Unified, Layout::Hybrid) => "/sys/fs/cgroup/unified",
            (hierarchy, _) => hierarchy.mount_point(),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The host has nothing that the hook can pass on yet.
    NotOnHost(Layout),
    /// This pair of host and systemd needs a hierarchy of its own, which the hook does not make yet.
    Crossed(Layout, Support),
    /// The process is in no cgroup of the hierarchy, in its root, or not alone.
    NotOwn(Hierarchy),
    /// The cgroup namespace begins elsewhere than at the container's cgroup or above it.
    OutsideOfNamespace(Hierarchy),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOnHost(layout) => {
                write!(
                    f,
                    "{layout} hierarchy is mounted on this host's /sys/fs/cgroup"
                )
            }
            Self::Crossed(layout, support) => {
                let systemd = match support {
                    Support::Legacy => "a systemd that takes name=systemd only",
                    Support::Both => "this systemd",
                    Support::Unified => "a systemd that takes cgroup2 only",
                };
                write!(f, "{systemd} on a {layout} host is not supported yet")
            }
            Self::NotOwn(hierarchy) => {
                write!(
                    f,
                    "the runtime gave the container no cgroup of its own in {hierarchy}"
                )
            }
            Self::OutsideOfNamespace(hierarchy) => {
                write!(
                    f,
                    "the container's cgroup in {hierarchy} is outside of its cgroup namespace"
                )
            }
        }
    }
}

/// The first choice: of what the host has, what this systemd takes.
pub(crate) fn hierarchy(layout: Layout, support: Support) -> Result<Hierarchy, Obstacle> {
    match (layout, support) {
        (Layout::Legacy | Layout::Hybrid, Support::Legacy | Support::Both) => Ok(Hierarchy::Named),
        (Layout::Hybrid | Layout::Unified, Support::Unified) | (Layout::Unified, Support::Both) => {
            Ok(Hierarchy::Unified)
        }
        (Layout::Legacy, Support::Unified) | (Layout::Unified, Support::Legacy) => {
            Err(Obstacle::Crossed(layout, support))
        }
        (Layout::Absent, _) => Err(Obstacle::NotOnHost(layout)),
    }
}

/// The process's cgroup P in the chosen hierarchy, as the runtime made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// P as the container reads it in `/proc/PID/cgroup`: `/` where its cgroup namespace begins.
    pub(crate) view: String,
    /// P is not the hierarchy's root, and only this process is in it.
    pub(crate) own: bool,
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
}

/// The third choice: how the container sees its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The mount's root is the place, and writable.
    Root,
    /// A read-only mount, and the place writable at this path in it.
    Below(String),
}

/// The tree that a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) place: Place,
    pub(crate) view: View,
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.hierarchy, self.hierarchy.mount_point())?;
        match &self.view {
            View::Root => write!(f, ", writable"),
            View::Below(path) => write!(f, ", writable at {path} only"),
        }
    }
}

/// Choose place and view; `None` when the container has its tree already.
pub(crate) fn tree(hierarchy: Hierarchy, process: &Membership) -> Result<Option<Tree>, Obstacle> {
    if process.view.starts_with("/..") {
        return Err(Obstacle::OutsideOfNamespace(hierarchy));
    }
    if process.ready {
        return Ok(None);
    }
    if !process.own {
        return Err(Obstacle::NotOwn(hierarchy));
    }
    let place = match hierarchy {
        // A named hierarchy has no controllers, so there is nothing at P to protect.
        Hierarchy::Named => Place::Own,
        Hierarchy::Unified => Place::Leaf,
    };
    let path = match place {
        Place::Own => process.view.clone(),
        Place::Leaf => format!("{}/{LEAF}", process.view.trim_end_matches('/')),
    };
    let view = if path == "/" {
        View::Root
    } else {
        View::Below(path)
    };
    Ok(Some(Tree {
        hierarchy,
        place,
        view,
    }))
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
    fn gives_the_hierarchy_that_the_pair_has_in_common() {
        use Layout::{Absent, Hybrid, Legacy, Unified};
        for (layout, support, expected) in [
            (Legacy, Support::Legacy, Some(Hierarchy::Named)),
            (Legacy, Support::Both, Some(Hierarchy::Named)),
            (Legacy, Support::Unified, None),
            (Hybrid, Support::Legacy, Some(Hierarchy::Named)),
            (Hybrid, Support::Both, Some(Hierarchy::Named)),
            (Hybrid, Support::Unified, Some(Hierarchy::Unified)),
            (Unified, Support::Legacy, None),
            (Unified, Support::Both, Some(Hierarchy::Unified)),
            (Unified, Support::Unified, Some(Hierarchy::Unified)),
            (Absent, Support::Legacy, None),
            (Absent, Support::Both, None),
            (Absent, Support::Unified, None),
        ] {
            assert_eq!(
                hierarchy(layout, support).ok(),
                expected,
                "{layout} {support:?}"
            );
        }
    }

    fn member(view: &str) -> Membership {
        Membership {
            view: view.to_owned(),
            own: true,
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
            let tree = tree(hierarchy, &member(at))
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
    fn leaves_a_tree_alone_that_is_right_already() {
        let ready = Membership {
            own: false,
            ready: true,
            ..member("/payload")
        };
        assert_eq!(tree(Hierarchy::Unified, &ready), Ok(None));
    }

    #[test]
    fn gives_nothing_of_a_cgroup_that_is_not_the_containers_own() {
        let shared = Membership {
            own: false,
            ..member("/user.slice")
        };
        assert_eq!(
            tree(Hierarchy::Named, &shared),
            Err(Obstacle::NotOwn(Hierarchy::Named))
        );
        let outside = Obstacle::OutsideOfNamespace(Hierarchy::Unified);
        assert_eq!(tree(Hierarchy::Unified, &member("/../other")), Err(outside));
    }
}
