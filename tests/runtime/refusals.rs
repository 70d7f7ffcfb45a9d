//! What runtimes cannot do by themselves, with a hook or without: the only table of it. The matrix sees each fail
//! that way, with the hook and without it, and the README has no other cell that is not `running`.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Container, View, use_host_cgroup_namespace};

/// What a runtime cannot do with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Create,
    /// It boots, and stops.
    Delete,
}

/// A runtime, the views of cgroups where it fails, with which systemds, and what it says.
pub(crate) struct Refusal {
    runtime: &'static str,
    cgroups: &'static [&'static str],
    /// Of an image, and whether its systemd is held to its legacy mode.
    of: fn(&str, bool) -> bool,
    pub(crate) deed: Deed,
    pub(crate) says: &'static str,
}

pub(crate) const REFUSALS: [Refusal; 5] = [
    Refusal {
        runtime: "crun",
        cgroups: &["hybrid"],
        of: |_, _| true,
        deed: Deed::Create,
        says: "cgroups in hybrid mode not supported, drop all controllers from cgroupv2",
    },
    Refusal {
        runtime: "runc",
        cgroups: &["none"],
        of: |_, _| true,
        deed: Deed::Create,
        says: "no cgroup mount found in mountinfo",
    },
    Refusal {
        runtime: "youki",
        cgroups: &["none"],
        of: |_, _| true,
        deed: Deed::Create,
        says: "cgroup devices is required to fulfill the request, but is not supported by this system",
    },
    // It removes a cgroup, and not what is below it: on v2 the units of systemd ...
    Refusal {
        runtime: "youki",
        cgroups: &["v2"],
        of: |_, legacy| !legacy,
        deed: Deed::Delete,
        says: "could not delete",
    },
    // ... and on v1 what systemd 247 makes in the controllers, which youki mounts writable whatever the config says.
    Refusal {
        runtime: "youki",
        cgroups: &["hybrid", "v1"],
        of: |image, _| image == "bullseye",
        deed: Deed::Delete,
        says: "could not delete",
    },
];

impl Refusal {
    /// Of this runtime, in this view, with this systemd.
    pub(crate) fn find(
        runtime: &str,
        cgroups: &str,
        image: &str,
        legacy: bool,
    ) -> Option<&'static Self> {
        REFUSALS.iter().find(|refusal| {
            refusal.runtime == runtime
                && refusal.cgroups.contains(&cgroups)
                && (refusal.of)(image, legacy)
        })
    }

    /// What the README says in such a cell.
    pub(crate) fn cell(&self) -> String {
        match self.deed {
            Deed::Create => self.says.to_owned(),
            Deed::Delete => format!("running, but not deleted: {}", self.says),
        }
    }

    /// Let the runtime try it without a hook, and without systemd.
    fn provoke(&self, cgroups: &str, edit: impl FnOnce(&mut Value)) -> Result<(), String> {
        let view = View::open("trixie", cgroups);
        let container = Container::with(&view, self.runtime, "bookworm", |config| {
            edit(config);
            config["hooks"] = json!({});
            config["process"]["args"] = json!(["sleep", "1000"]);
        });
        container.create()?;
        container.start()?;
        for cgroup in container.cgroups() {
            let _ = fs::create_dir(cgroup.join("below")); // seen twice, in the view and on the host
        }
        container.kill("KILL");
        container.wait_stopped(Duration::from_secs(10))?;
        let deleted = container.delete();
        remove_below(&container);
        deleted
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn what_a_runtime_refuses_it_refuses_without_the_hook() {
    for refusal in &REFUSALS {
        for cgroups in refusal.cgroups {
            for edit in [|_: &mut Value| (), use_host_cgroup_namespace] {
                let outcome = refusal.provoke(cgroups, edit);
                let expected = match refusal.deed {
                    Deed::Create => "not created: ",
                    Deed::Delete => "not deleted: ",
                };
                assert!(
                    outcome.as_ref().is_err_and(
                        |error| error.starts_with(expected) && error.contains(refusal.says)
                    ),
                    "{} {cgroups}: {outcome:?}",
                    refusal.runtime
                );
                println!("{} {cgroups}: {expected}{}", refusal.runtime, refusal.says);
            }
        }
    }
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn youki_does_not_know_the_stop_signal_and_an_exec_stops_systemd() {
    let view = View::open("trixie", "v1");
    let container = Container::new(&view, "youki", "bookworm");
    container.boot().unwrap();
    let said = container.refused_signal("37");
    assert!(said.contains("invalid signal: 37"), "{said}");
    container.exec(&["systemctl", "exit"]);
    container.wait_stopped(Duration::from_secs(10)).unwrap();
    container.delete().unwrap();
    container.is_gone().unwrap();
}

/// What an administrator does then: remove what is below the container's own cgroups.
pub(crate) fn remove_below(container: &Container) {
    let own = format!("lab-{}", container.id);
    for cgroup in container.cgroups() {
        if !cgroup.ends_with(&own) {
            let _ = fs::remove_dir(cgroup);
        }
    }
}
