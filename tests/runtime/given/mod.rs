//! Nothing that a user gives is hidden, lost or changed: volumes, tmpfs, devices and what the image has in the places
//! that the hook mounts. The table in `given/lines.txt` is the list; each line is booted on one runtime, another one for
//! the next line, or on each with RUNTIMES=all, and compared with what lies on the host before and after, and with the
//! same container without the hook. LINE chooses lines: all its words have to be in the runtime, the image and the line.

mod inside;
mod line;
mod sources;
mod tree;
mod trial;

use std::env;

use crate::lab::View;
use line::{lines_of, sections};
use trial::Trial;

/// youki cannot delete what systemd leaves in cgroup2, see `refusals`.
const RUNTIMES: [(&str, &str); 3] = [("runc", "v2"), ("crun", "v2"), ("youki", "v1")];

macro_rules! sections {
    ($($test:ident: $section:literal;)*) => {
        $(
            #[test]
            #[ignore = "needs root and the lab: make test"]
            fn $test() {
                check($section);
            }
        )*

        #[test]
        fn every_section_of_the_table_has_a_test() {
            assert_eq!(sections(), [$($section),*]);
            let lines: usize = [$($section),*].map(|section| lines_of(section).len()).iter().sum();
            assert!(lines >= 60, "{lines}");
        }
    };
}

sections! {
    keeps_what_is_given_below_run: "below /run";
    keeps_what_is_given_on_its_own_places: "on /run, /run/lock and /tmp";
    keeps_what_is_spelled_otherwise: "spelled otherwise";
    keeps_flags_and_propagation: "flags and propagation";
    keeps_what_is_in_the_image: "in the image";
    keeps_what_is_given_to_a_read_only_root: "a root that is read-only";
    keeps_what_is_given_as_etc_or_as_the_machine_id: "as /etc, and the machine ID";
    keeps_what_podman_and_kubernetes_give: "as podman and Kubernetes give it";
    keeps_what_is_given_in_user_namespaces: "in user namespaces";
}

fn check(section: &str) {
    let chosen = env::var("LINE").unwrap_or_default();
    let views = ["v2", "v1"].map(|cgroups| View::open("trixie", cgroups));
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    let all = env::var("RUNTIMES").is_ok_and(|runtimes| runtimes == "all") || !chosen.is_empty();
    for (number, line) in lines_of(section).iter().enumerate() {
        let cells = RUNTIMES.map(|(runtime, cgroups)| {
            let name = format!("{runtime} {} {}", line.image(), line.words);
            if !all && RUNTIMES[number % RUNTIMES.len()].0 != runtime {
                return "–".to_owned();
            }
            if !chosen.split_whitespace().all(|word| name.contains(word)) {
                return "–".to_owned();
            }
            let view = views.iter().find(|view| view.cgroups == cgroups);
            let trial = Trial::new(view.expect("it was opened"), runtime, line);
            trial.run().unwrap_or_else(|wrong| {
                failed.push(format!("{name}:{}", first_of(&wrong)));
                "FAILED".to_owned()
            })
        });
        if cells.iter().any(|cell| cell != "–") {
            let cells = cells.join(" | ");
            rows.push(format!("| `{}` | {} | {cells} |", line.words, line.image()));
        }
    }
    let head = "| given | image | runc | crun | youki |\n|---|---|---|---|---|";
    println!("\n## {section}\n\n{head}\n{}\n", rows.join("\n"));
    assert!(
        failed.is_empty(),
        "not as it should be:\n{}",
        failed.join("\n")
    );
}

fn first_of(wrong: &[String]) -> String {
    let first = wrong[..wrong.len().min(12)].join("\n  ");
    let more = if wrong.len() > 12 { "\n  and more" } else { "" };
    format!("\n  {first}{more}")
}
