//! One run of the hook in a scenario, and whether all is well afterwards: in the container, or, if it
//! does not start, everywhere else.

use crate::bundle::{Bundle, Run, run};
use crate::judge::{Before, Listing, differences, places, prepared};
use crate::process::{Process, shell};
use crate::scenario::Scenario;
use crate::table;
use crate::tracer::{Call, Fault, calls, inject, on_host};

/// A container, ready for the hook's first run or for its last.
pub(crate) struct Trial {
    pub(crate) bundle: Bundle,
    /// It has ended before poststop.
    process: Option<Process>,
    input: Vec<u8>,
    before: Before,
}

impl Trial {
    pub(crate) fn start(scenario: &Scenario) -> Self {
        let (bundle, process) = scenario.start();
        let state = bundle.state(process.pid()).to_string().into_bytes();
        let mut trial = Self {
            before: Before::of(&bundle),
            input: state,
            process: Some(process),
            bundle,
        };
        if scenario.is_poststop {
            trial.run(scenario, "", &[]).assert_silent();
            trial.before = Before::of(&trial.bundle);
            trial.stop();
        }
        trial
    }

    /// Run a shell's commands in the container's mount namespace.
    pub(crate) fn inside(&self, commands: &str) {
        let pid = self.process.as_ref().expect("it has not ended").pid();
        shell(&format!(
            "nsenter --target {pid} --mount sh -ec '{commands}'"
        ));
    }

    /// Run the hook on this host, behind this command.
    pub(crate) fn run(&self, scenario: &Scenario, host: &str, before: &[&str]) -> Run {
        run(on_host(scenario, &self.bundle, host, before), &self.input)
    }

    /// End the process; the hook's next run is its last.
    fn stop(&mut self) {
        self.process = None;
        let (id, bundle) = (&self.bundle.id, &self.bundle.path);
        let state = serde_json::json!({ "id": id, "status": "stopped", "bundle": bundle });
        self.input = state.to_string().into_bytes();
    }

    /// What the hook has done for the container; at poststop, what it has not taken away.
    pub(crate) fn prepared(&self) -> Listing {
        let Some(process) = &self.process else {
            let places = places(&self.bundle).into_iter();
            return places
                .map(|place| (format!("place {}", place.display()), String::new()))
                .collect();
        };
        prepared(&self.bundle, process)
    }

    /// See what the hook does and calls if all goes well.
    pub(crate) fn run_clean(mut self, scenario: &Scenario) -> (Listing, Vec<Call>) {
        let (ran, mut calls) = calls(scenario, &self.bundle, &self.input);
        ran.assert_silent();
        calls.retain(|call| !is_of_another(&call.text, &self.bundle.id));
        let wanted = self.prepared();
        let changed = self.end(scenario, &wanted);
        assert!(changed.is_empty(), "{}: {changed:?}", scenario.name);
        (wanted, calls)
    }

    /// What a fault in a call makes wrong.
    pub(crate) fn judge(
        scenario: &Scenario,
        wanted: &Listing,
        call: &Call,
        fault: Fault,
    ) -> Vec<String> {
        let mut call = call.clone();
        for _ in 0..5 {
            let mut trial = Self::start(scenario);
            let (ran, is_hit) = inject(scenario, &trial.bundle, &trial.input, &call, fault);
            if !is_hit {
                // Other containers on this host, whose places it looks at too, came or went.
                trial.end(scenario, wanted);
                let (_, calls) = Self::start(scenario).run_clean(scenario);
                let same = calls.into_iter().filter(|other| call.is(other));
                let next = same.min_by_key(|other| other.number.abs_diff(call.number));
                call = next.unwrap_or(call);
                continue;
            }
            let mut wrong = match fault {
                Fault::Kill => Vec::new(),
                Fault::Error(errno) if ran.status == 0 => {
                    let may = table::tolerated(call.key(), errno, scenario.is_poststop);
                    let but = may.as_deref().unwrap_or(&[]);
                    let mut wrong = differences(wanted, &trial.prepared(), but);
                    wrong.extend(may.is_none().then(|| "it is lived with".to_owned()));
                    wrong
                }
                Fault::Error(errno) => {
                    let is_told = |line: &str| table::is_told(call.key(), errno, ran.status, line);
                    misreported(&ran, is_told).into_iter().collect()
                }
            };
            wrong.extend(trial.end(scenario, wanted));
            return wrong;
        }
        vec!["it does not come to it".to_owned()]
    }

    /// End the process and run the hook at poststop; what is not as before then.
    pub(crate) fn end(&mut self, scenario: &Scenario, wanted: &Listing) -> Vec<String> {
        self.stop();
        let end = self.run(scenario, "", &[]);
        let mut changed = self.before.changes(&self.bundle, wanted);
        if (end.status, end.stderr.as_str()) != (0, "") {
            changed.push(format!("poststop: {end:?}"));
        }
        changed
    }
}

/// Whether a call is about the place of another container, which may be the host's.
fn is_of_another(text: &str, id: &str) -> bool {
    let below = text.split("/oci-systemd-hook").nth(1).unwrap_or_default();
    let name = below.strip_prefix('/').or(below.strip_prefix(">, \""));
    name.is_some_and(|name| !name.starts_with(id))
}

/// What is wrong with a run that should have failed with one line that tells why.
pub(crate) fn misreported(ran: &Run, is_told: impl Fn(&str) -> bool) -> Option<String> {
    let line = ran.stderr.strip_suffix('\n').unwrap_or_default();
    let is_line = line.starts_with("oci-systemd-hook: ") && !line.contains(char::is_control);
    let causes: Vec<_> = line
        .split(" (")
        .next()
        .unwrap_or_default()
        .split(": ")
        .collect();
    let is_once = causes.windows(2).all(|pair| pair[0] != pair[1]);
    let is_known = [65, 66, 69, 71, 77].contains(&ran.status) && ran.stdout.is_empty();
    let is_right = is_known && is_line && is_once && line.contains("cannot ") && is_told(line);
    (!is_right).then(|| format!("misreported: {ran:?}"))
}
