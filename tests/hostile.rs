//! Hostile images, configs, states and callers: some hundred cases of a few lines each. The host, its
//! other containers and their secrets are what they were, whatever a container brings; and the hook
//! ends in time, in little memory, with one line and a documented status. No runtime is needed.
//!
//! `HOSTILE_ROUNDS=100` repeats them; `HOOK_UNDER_TEST` looks at another hook.

mod bundle;
#[allow(dead_code)]
#[path = "namespace/process.rs"]
mod process;

#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/host.rs"]
mod host;
#[path = "hostile/judge.rs"]
mod judge;

#[path = "hostile/kinds.rs"]
mod kinds;
#[path = "hostile/links.rs"]
mod links;
#[path = "hostile/words.rs"]
mod words;

#[path = "hostile/callers.rs"]
mod callers;

#[path = "hostile/processes.rs"]
mod processes;

#[path = "hostile/sizes.rs"]
mod sizes;

#[path = "hostile/volumes.rs"]
mod volumes;

use std::path::Path;

use case::Case;
use host::{hook_under_test, on_its_own};
use judge::{Cases, Finding, judge};

const GROUPS: [(&str, Cases); 8] = [
    ("links", links::cases),
    ("kinds", kinds::cases),
    ("words", words::cases),
    ("sizes", sizes::cases),
    ("callers", callers::cases),
    ("volumes", volumes::cases),
    ("processes", processes::cases),
    ("races", processes::races),
];

#[track_caller]
fn stands_against(group: &str, test: &str) {
    let (_, cases) = GROUPS.iter().find(|(name, _)| *name == group).expect("it");
    on_its_own(test, &hook_under_test(), |host| {
        let findings = judge(host, group, *cases, |_| true);
        let told: Vec<String> = findings.iter().map(tell).collect();
        assert!(told.is_empty(), "\n{}", told.join("\n"));
    });
}

fn tell(finding: &Finding) -> String {
    let kind = if finding.is_harm { "HARM" } else { "manners" };
    format!("{kind}: {}: {}", finding.case, finding.what)
}

#[test]
#[ignore = "needs root: make test"]
fn follows_no_link_out_of_the_image() {
    stands_against("links", "follows_no_link_out_of_the_image");
}

#[test]
#[ignore = "needs root: make test"]
fn takes_no_file_for_what_it_is_not() {
    stands_against("kinds", "takes_no_file_for_what_it_is_not");
}

#[test]
#[ignore = "needs root: make test"]
fn is_told_nothing_by_texts_and_numbers() {
    stands_against("words", "is_told_nothing_by_texts_and_numbers");
}

#[test]
#[ignore = "needs root: make test"]
fn bounds_what_it_reads_copies_and_holds() {
    stands_against("sizes", "bounds_what_it_reads_copies_and_holds");
}

#[test]
#[ignore = "needs root: make test"]
fn does_not_care_who_calls_it_and_how() {
    stands_against("callers", "does_not_care_who_calls_it_and_how");
}

#[test]
#[ignore = "needs root: make test"]
fn changes_nothing_that_others_see_too() {
    stands_against("volumes", "changes_nothing_that_others_see_too");
}

#[test]
#[ignore = "needs root: make test"]
fn enters_no_process_but_a_containers() {
    stands_against("processes", "enters_no_process_but_a_containers");
}

#[test]
#[ignore = "needs root: make test"]
fn is_led_nowhere_by_what_changes_under_it() {
    stands_against("races", "is_led_nowhere_by_what_changes_under_it");
}

/// The proof that the corpus can fail: a hook that does the same by plain paths, as hooks did.
#[test]
#[ignore = "needs root: make test"]
fn finds_a_hook_unsafe_that_trusts_its_image() {
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/trusting-hook");
    on_its_own("finds_a_hook_unsafe_that_trusts_its_image", &hook, |host| {
        let mut harm = Vec::new();
        for (group, cases) in GROUPS {
            let findings = judge(host, group, cases, leads_to_the_host);
            harm.extend(findings.into_iter().filter(|finding| finding.is_harm));
        }
        let mut cases: Vec<&str> = harm.iter().map(|finding| finding.case.as_str()).collect();
        cases.dedup();
        println!("harm in {} cases:\n{}", cases.len(), cases.join("\n"));
        assert!(cases.len() >= 60, "{}", cases.len());
        // What the hooks of old did, each of it.
        for what in [
            "new: file /etc/machine-id ",
            "new: file /etc/cron.d/new ",
            "mounted in the container: /etc",
            "gone: file /run/secret ",
            "new: mount of self: ",
            "the container has the host's secret",
        ] {
            let is_found = harm.iter().any(|finding| finding.what.contains(what));
            assert!(is_found, "{what:?} is not in {harm:#?}");
        }
    });
}

/// Most cases lead a trusting hook nowhere either: what is where they lead to by a plain path?
fn leads_to_the_host(case: &Case) -> bool {
    [
        "the host's",
        "cron.d",
        "upwards",
        "by the host's path",
        "root (/proc",
        "another container",
    ]
    .iter()
    .any(|text| case.name.contains(text))
}
