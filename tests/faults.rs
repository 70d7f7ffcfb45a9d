//! Everything that can fail on the hook's way, failed: each call with each errno that it is known
//! for, one at a time, and the hook killed at each. The container is prepared as a whole or does not
//! start, one line says why, and nothing stays behind.

mod bundle;
#[allow(dead_code)] // it uses a part of this
#[path = "namespace/process.rs"]
mod process;

#[path = "faults/hosts.rs"]
mod hosts;
#[path = "faults/judge.rs"]
mod judge;
#[path = "faults/scenario.rs"]
mod scenario;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/tracer.rs"]
mod tracer;
#[path = "faults/trial.rs"]
mod trial;

use std::collections::BTreeMap;

use scenario::Scenario;
use tracer::{Call, Fault};
use trial::Trial;

/// Fail each call of the scenario's hook, and kill the hook at each that changes something; what goes
/// wrong then.
fn fail_each_call(scenario: &Scenario) -> Vec<String> {
    // The first takes away what others left in the host's cgroups.
    Trial::start(scenario).run_clean(scenario);
    let (wanted, calls) = Trial::start(scenario).run_clean(scenario);
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for call in &calls {
        let Some(errnos) = table::errnos(call.key()) else {
            wrong.push(format!("{} is not in the table: {}", call.name, call.text));
            continue;
        };
        for fault in faults(call, &errnos) {
            let count = counts.entry(&call.name).or_default();
            *count.entry(fault.to_string()).or_default() += 1;
            let found = Trial::judge(scenario, &wanted, call, fault);
            wrong.extend(found.iter().map(|found| {
                let Call { name, number, text } = call;
                format!("{fault} at {name} {number}: {found}\n    {text}")
            }));
        }
    }
    let sum: usize = counts.values().flat_map(BTreeMap::values).sum();
    let name = scenario.name;
    println!("{name}: {sum} faults, {} wrong: {counts:?}", wrong.len());
    wrong
        .into_iter()
        .map(|wrong| format!("{name}: {wrong}"))
        .collect()
}

/// What is done to a call: all errnos where it changes something, and at the first of its name (at any,
/// with `FAULTS=all`); at another one of them, each in turn.
fn faults(call: &Call, errnos: &[&'static str]) -> Vec<Fault> {
    let changes = table::changes(call.key());
    let is_full = std::env::var_os("FAULTS").is_some_and(|word| word == "all");
    let errors = errnos.iter().enumerate().filter(|(index, _)| {
        is_full || changes || call.number == 1 || *index == call.number % errnos.len()
    });
    let errors = errors.map(|(_, errno)| Fault::Error(errno));
    errors.chain(changes.then_some(Fault::Kill)).collect()
}

macro_rules! scenarios {
    ($($test:ident: $($scenario:ident)*;)*) => {$(
        #[test]
        #[ignore = "needs root: make test"]
        fn $test() {
            let wrong = [$(fail_each_call(&scenario::$scenario)),*].concat();
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    )*};
}

// Those that make places sweep each other's away, and would make other calls than they did before:
// they take turns.
scenarios! {
    every_fault_with_systemd_252_is_told_and_leaves_nothing: PLAIN;
    every_fault_with_systemd_262_is_told_and_leaves_nothing: NEW;
    every_fault_in_a_user_namespace_is_told_and_leaves_nothing: USER;
    every_fault_with_a_rootless_runtime_is_told_and_leaves_nothing: ROOTLESS;
    every_fault_with_much_to_keep_is_told_and_leaves_nothing: FULL;
    every_fault_on_a_read_only_root_is_told_and_leaves_nothing: READ_ONLY;
    every_fault_where_a_place_is_made_or_removed_is_told_and_leaves_nothing:
        MADE UNMOUNTED POSTSTOP POSTSTOP_UNMOUNTED;
}
