//! strace(1) on the hook: which calls it makes, and one of them failed or the hook killed in it.

use std::fmt;
use std::fs;
use std::process::Command;

use crate::bundle::{Bundle, Run, hook, run};
use crate::scenario::{self, Scenario};

/// The first call that is the hook's own, and no loader's or language's: `process::settle`.
const FIRST: &str = "prctl(PR_SET_DUMPABLE";

/// A call that the hook made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The how manieth of this name it is, from 1.
    pub(crate) number: usize,
    /// As strace writes it: `openat(5</run>, "lock", O_RDONLY|O_PATH) = 7`.
    pub(crate) text: String,
}

/// What is done to a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It fails with this errno, and is not made.
    Error(&'static str),
    /// The hook is killed before it.
    Kill,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error(errno) => errno,
            Self::Kill => "SIGKILL",
        })
    }
}

/// The scenario's hook behind this command. `host`, after the scenario's own, is a shell script that is
/// run before it, in a mount namespace of the hook's own.
pub(crate) fn on_host(
    scenario: &Scenario,
    bundle: &Bundle,
    host: &str,
    before: &[&str],
) -> Command {
    let script = match &*format!("{}{host}", scenario.host) {
        "" => "exec \"$@\"".to_owned(),
        host => format!(
            "exec unshare --mount --propagation private sh -ec '{host}\n exec \"$@\"' sh \"$@\""
        ),
    };
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .args(["-ec", &script, "sh"])
        .args(before);
    if scenario.is_rootless {
        let user = scenario::AS_USER.split(' ');
        command.args(user).arg(bundle.path.join(scenario::HOOK));
    } else {
        command.arg(hook().get_program());
    }
    command
}

impl Call {
    /// For the tables.
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.name, &self.text)
    }

    /// Whether one of another run is this call too: with the same file, and the same name in it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.is_text(&other.text)
    }

    fn is_text(&self, text: &str) -> bool {
        let ((file, name), (other_file, other_name)) = (shape(&self.text), shape(text));
        let is_name = name.is_none() || other_name.is_none() || name == other_name;
        file == other_file && is_name
    }
}

/// The first argument, and the second if it is a string (the buffer of a failed read is none), without
/// what could be a number.
fn shape(text: &str) -> (String, Option<String>) {
    let mut arguments = text
        .split([',', ')'])
        .map(|part| part.replace(|c: char| c.is_ascii_hexdigit(), ""));
    let first = arguments.next().unwrap_or_default();
    (
        first,
        arguments.next().filter(|part| part.starts_with(" \"")),
    )
}

/// Run the hook under strace, with these arguments of it, and read what that wrote.
fn trace(scenario: &Scenario, bundle: &Bundle, input: &[u8], arguments: &[&str]) -> (Run, String) {
    let file = bundle.path.join("trace");
    let to = file.to_str().expect("a path of the tests");
    let strace = ["strace", "-qq", "-f", "-y", "-o", to];
    let before = [&strace, arguments].concat();
    let ran = run(on_host(scenario, bundle, "", &before), input);
    let text = fs::read(&file).expect("strace, which tests/lab/needs installs");
    (ran, String::from_utf8_lossy(&text).into_owned())
}

/// The calls in what strace wrote.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .map(|line| line.split_once(' ').map_or(line, |(_, text)| text.trim()));
    lines.filter(|line| line.contains('('))
}

/// Run the hook, and see what it calls.
pub(crate) fn calls(scenario: &Scenario, bundle: &Bundle, input: &[u8]) -> (Run, Vec<Call>) {
    let (ran, text) = trace(scenario, bundle, input, &[]);
    let mut calls: Vec<Call> = Vec::new();
    for text in lines(&text) {
        let name = text.split('(').next().unwrap_or_default();
        calls.push(Call {
            name: name.to_owned(),
            number: 1 + calls.iter().filter(|call| call.name == name).count(),
            text: text.to_owned(),
        });
    }
    let first = calls.iter().position(|call| call.text.starts_with(FIRST));
    let own = calls.split_off(first.expect("the hook's first call"));
    (ran, own)
}

/// Run the hook with a fault in a call; whether it came to that.
pub(crate) fn inject(
    scenario: &Scenario,
    bundle: &Bundle,
    input: &[u8],
    call: &Call,
    fault: Fault,
) -> (Run, bool) {
    let Call { name, number, .. } = call;
    let what = match fault {
        // brk(2) tells a failure by the old end, which no errno is.
        Fault::Error(_) if name == "brk" => "retval=0".to_owned(),
        Fault::Error(errno) => format!("error={errno}"),
        Fault::Kill => "signal=KILL".to_owned(),
    };
    let trace_only = format!("--trace={name}");
    let inject = format!("--inject={name}:{what}:when={number}");
    // The last makes it three times as fast; strace 6.1 sends no signals then.
    let arguments = [trace_only.as_str(), &inject, "--seccomp-bpf"];
    let count = arguments.len() - usize::from(matches!(fault, Fault::Kill));
    let (ran, text) = trace(scenario, bundle, input, &arguments[..count]);
    let hit = match fault {
        Fault::Error(_) => lines(&text).find(|line| line.contains("(INJECTED)")),
        Fault::Kill => lines(&text).nth(number - 1).filter(|_| ran.status == -1),
    };
    (ran, hit.is_some_and(|line| call.is_text(line)))
}
