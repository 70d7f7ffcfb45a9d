//! Every runtime, cgroup view, systemd, cgroup namespace and user, one line for each. A cell that fails does not hide
//! the others. The environment variable CELL chooses cells: all its words have to be in a cell's name. What was seen
//! is added to the file that COMPATIBILITY names, of which `tests/lab/compatibility` makes the README's table.

use std::env;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Container, View, edit_as, hierarchies, image_version, new_hierarchies};
use crate::refusals::{Deed, Refusal, remove_below};

/// An image, and whether its systemd is held to the mode that it has on a host with cgroup v1 alone.
const SYSTEMDS: [(&str, bool); 6] = [
    ("bullseye", false),
    ("bookworm", false),
    ("trixie", false),
    ("sid", false),
    ("bullseye", true),
    ("bookworm", true),
];

/// Those that also boot in user namespaces, where the hook goes the same ways whatever the version.
const SYSTEMDS_OF_USERS: [(&str, bool); 3] =
    [("bookworm", false), ("sid", false), ("bookworm", true)];

macro_rules! matrix {
    ($($name:ident: $runtime:literal, $cgroups:literal;)*) => {$(
        #[test]
        #[ignore = "needs root and the lab: make test"]
        fn $name() {
            check_cells($runtime, $cgroups);
        }
    )*};
}

matrix! {
    matrix_of_runc_on_hybrid: "runc", "hybrid";
    matrix_of_runc_on_v1: "runc", "v1";
    matrix_of_runc_on_v2: "runc", "v2";
    matrix_of_runc_on_none: "runc", "none";
    matrix_of_crun_on_hybrid: "crun", "hybrid";
    matrix_of_crun_on_v1: "crun", "v1";
    matrix_of_crun_on_v2: "crun", "v2";
    matrix_of_crun_on_none: "crun", "none";
    matrix_of_youki_on_hybrid: "youki", "hybrid";
    matrix_of_youki_on_v1: "youki", "v1";
    matrix_of_youki_on_v2: "youki", "v2";
    matrix_of_youki_on_none: "youki", "none";
}

/// One combination.
struct Cell {
    runtime: &'static str,
    cgroups: &'static str,
    image: &'static str,
    legacy: bool,
    /// `own` or `host`
    cgroup_namespace: &'static str,
    /// `root`, or `user` in a user namespace of the container's own
    user: &'static str,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}{}",
            self.runtime,
            self.cgroups,
            self.cgroup_namespace,
            self.user,
            self.image,
            if self.legacy { " legacy" } else { "" }
        )
    }
}

fn cells(runtime: &'static str, cgroups: &'static str) -> Vec<Cell> {
    let cell = |cgroup_namespace, user, (image, legacy)| Cell {
        runtime,
        cgroups,
        image,
        legacy,
        cgroup_namespace,
        user,
    };
    let mut cells = Vec::new();
    for cgroup_namespace in ["own", "host"] {
        cells.extend(SYSTEMDS.map(|systemd| cell(cgroup_namespace, "root", systemd)));
    }
    if runtime != "youki" {
        cells.extend(SYSTEMDS_OF_USERS.map(|systemd| cell("own", "user", systemd)));
    }
    cells
}

fn check_cells(runtime: &'static str, cgroups: &'static str) {
    let chosen = env::var("CELL").unwrap_or_default();
    let before = hierarchies();
    let mut failed = Vec::new();
    for cell in cells(runtime, cgroups) {
        let name = cell.to_string();
        let words: Vec<_> = name.split(' ').collect();
        if !chosen.split_whitespace().all(|word| words.contains(&word)) {
            continue;
        }
        let (seen, line) = cell.attempt();
        let refused = Refusal::find(runtime, cgroups, cell.image, cell.legacy);
        let good = seen == refused.map_or("running".to_owned(), Refusal::cell);
        let mark = match refused {
            _ if !good => " <-- FAILED",
            Some(_) => " (the runtime's own refusal)",
            None => "",
        };
        println!("{name}: {line}{mark}");
        cell.record(&seen);
        if !good {
            failed.push(name);
        }
    }
    let new = new_hierarchies(&before);
    assert_eq!(new, [""; 0], "hierarchies that were not there before");
    assert!(
        failed.is_empty(),
        "not as it should be: {}",
        failed.join(", ")
    );
}

impl Cell {
    fn edit(&self, config: &mut Value) {
        let legacy = if self.legacy { "legacy" } else { "" };
        edit_as(
            &[self.cgroup_namespace, self.user, legacy].join(" "),
            config,
        );
    }

    /// Boot, stop and delete it: what the README is to say, and what happened in more words.
    fn attempt(&self) -> (String, String) {
        let view = View::open("trixie", self.cgroups);
        let container =
            Container::with(&view, self.runtime, self.image, |config| self.edit(config));
        let error = match self.live(&container) {
            Ok(line) => return ("running".to_owned(), line),
            Err(error) => error,
        };
        let refused = Refusal::find(self.runtime, self.cgroups, self.image, self.legacy);
        let Some(refusal) = refused.filter(|refusal| error.contains(refusal.says)) else {
            return (error.clone(), error);
        };
        if refusal.deed == Deed::Delete {
            remove_below(&container);
            if let Err(error) = container.delete().and_then(|()| container.is_gone()) {
                return (error.clone(), format!("in the second attempt: {error}"));
            }
        }
        (refusal.cell(), refusal.cell())
    }

    fn live(&self, container: &Container) -> Result<String, String> {
        let booted = container.boot()?;
        let said = container.shell("systemctl --version");
        let version = image_version(self.image);
        if !said.starts_with(&format!("systemd {version}")) {
            return Err(format!("it is not systemd {version}: {said}"));
        }
        let stopped = container.end()?;
        Ok(format!(
            "systemd {version} running {}, stopped {}",
            seconds(booted),
            seconds(stopped)
        ))
    }

    /// A line of words for `tests/lab/compatibility`.
    fn record(&self, seen: &str) {
        let Some(path) = env::var_os("COMPATIBILITY") else {
            return;
        };
        let version = image_version(self.image);
        let systemd = if self.legacy {
            format!("{version} legacy")
        } else {
            version
        };
        let fields = [
            self.runtime,
            self.cgroups,
            if self.user == "user" {
                "user namespace"
            } else {
                self.user
            },
            self.cgroup_namespace,
            &systemd,
            seen,
        ];
        let line = fields.join("\t") + "\n"; // in one call, for tests run side by side
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file that COMPATIBILITY names can be written");
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}
