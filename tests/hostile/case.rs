//! A case of the corpus, as data: an image, a config, a state and a caller, and how the hook is run
//! on them. What is seen of it is for the judge.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::bundle::{Bundle, hook, systemd};
use crate::host::Host;
use crate::process::{Process, shell};

/// Longer than any hook may take, on a machine that has other things to do too.
pub(crate) const TIME: Duration = Duration::from_secs(20);

/// Makes something at a path.
pub(crate) type Make = fn(&Path);

/// What is hostile. All that is left out is as in any container.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The version of its systemd: 252 gets name=systemd here, and 262 cgroup2.
    pub(crate) systemd: u32,
    /// Links of the image: where, and what they say.
    pub(crate) links: Vec<(String, String)>,
    /// Other things of the image: where, and what makes them.
    pub(crate) things: Vec<(String, Make)>,
    /// In place of its systemd.
    pub(crate) program: Option<Vec<u8>>,
    /// Shell, in the image.
    pub(crate) image: String,
    /// Shell, in the container's mount namespace, in the image.
    pub(crate) inside: String,
    /// Arguments of unshare(1).
    pub(crate) unshare: &'static str,
    /// Goes over the config, as a merge patch (RFC 7396).
    pub(crate) config: Value,
    /// Shell, in the bundle, after config.json was written.
    pub(crate) bundle: String,
    /// Goes over the state.
    pub(crate) state: Value,
    /// Goes in place of the state.
    pub(crate) input: Option<Vec<u8>>,
    /// Shell, in the process that becomes the hook.
    pub(crate) caller: String,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) arguments: Vec<OsString>,
    /// Two paths of the image that are exchanged all the time.
    pub(crate) swap: Option<(&'static str, &'static str)>,
    /// When the container dies.
    pub(crate) dies_after: Option<Duration>,
    /// Which ends are right.
    pub(crate) statuses: &'static [i32],
    /// The image's links lead to where it mounts, which hurts the container alone.
    pub(crate) mounts_anywhere_inside: bool,
    /// Nobody hears what the hook says.
    pub(crate) is_deaf: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, statuses: &'static [i32]) -> Self {
        Self {
            name: name.into(),
            systemd: 252,
            links: Vec::new(),
            things: Vec::new(),
            program: None,
            image: String::new(),
            inside: String::new(),
            unshare: "--mount --cgroup --propagation private",
            config: json!({}),
            bundle: String::new(),
            state: json!({}),
            input: None,
            caller: String::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            swap: None,
            dies_after: None,
            statuses,
            mounts_anywhere_inside: false,
            is_deaf: false,
        }
    }

    /// The bundle, and the container that was made of it.
    pub(crate) fn start(&self, host: &Host) -> (Bundle, Process) {
        let mut bundle = Bundle::with_systemd(self.systemd);
        bundle.id = host.id();
        for directory in ["proc", "dev", "data"] {
            fs::create_dir(bundle.image(directory)).expect("a directory of the image");
        }
        bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
        // A systemd that is there, wherever the usual way to it leads.
        bundle.write("opt/systemd", &systemd(self.systemd));
        if let Some(program) = &self.program {
            bundle.write("usr/lib/systemd/systemd", program);
        }
        let image = bundle.image("");
        for (at, make) in &self.things {
            make(&make_room(&bundle, at));
        }
        for (at, target) in &self.links {
            symlink(target, make_room(&bundle, at)).expect("a link");
        }
        if !self.image.is_empty() {
            shell(&format!("cd {}; {}", image.display(), self.image));
        }
        merge(&mut bundle.config, &self.config);
        let inside = format!(
            "mount -t proc proc proc; mount --rbind /dev dev; mount --bind {} data; {}",
            Host::volume().display(),
            self.inside
        );
        let process = Process::start_with(&bundle, self.unshare, &inside);
        bundle.write_config();
        if !self.bundle.is_empty() {
            shell(&format!("cd {}; {}", bundle.path.display(), self.bundle));
        }
        (bundle, process)
    }

    /// The hook at createRuntime, with everything that happens meanwhile.
    pub(crate) fn prepare(&self, bundle: &Bundle, process: &Process) -> Outcome {
        let mut state = bundle.state(process.pid());
        merge(&mut state, &self.state);
        let input = self
            .input
            .clone()
            .unwrap_or_else(|| state.to_string().into());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            if let Some((one, other)) = self.swap {
                let (one, other, is_over) = (bundle.image(one), bundle.image(other), &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                    }
                });
            }
            if let Some(after) = self.dies_after {
                scope.spawn(move || {
                    thread::sleep(after);
                    shell(&format!("kill -9 {}", process.pid()));
                });
            }
            let outcome = self.call(bundle, &input);
            is_over.store(true, Ordering::Relaxed);
            outcome
        })
    }

    /// The hook at poststop.
    pub(crate) fn clean_up(&self, bundle: &Bundle) -> Outcome {
        let mut state = json!({ "id": bundle.id, "bundle": bundle.path });
        merge(&mut state, &self.state);
        state["status"] = json!("stopped");
        state["pid"] = json!(0);
        Self::new("", &[]).call(bundle, state.to_string().as_bytes())
    }

    fn call(&self, bundle: &Bundle, input: &[u8]) -> Outcome {
        let state = bundle.path.join("state");
        fs::write(&state, input).expect("the state");
        let program = hook();
        let mut command = if self.caller.is_empty() {
            program
        } else {
            let mut command = Command::new("/bin/sh");
            let script = format!("{}\nexec \"$0\" \"$@\"", self.caller);
            command.args(["-c", &script]).arg(program.get_program());
            command.env_clear().current_dir("/");
            command
        };
        let begin = Instant::now();
        let mut child = command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(File::open(&state).expect("the state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the hook can be run");
        let mut is_late = false;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if begin.elapsed() > TIME {
                is_late = true;
                let _ = child.kill();
            }
            thread::sleep(Duration::from_micros(200));
        };
        let took = begin.elapsed();
        let mut said = [Vec::new(), Vec::new()];
        // What it said fits into a pipe, or it has not ended in time.
        let _ = child
            .stdout
            .take()
            .map(|mut pipe| pipe.read_to_end(&mut said[0]));
        let _ = child
            .stderr
            .take()
            .map(|mut pipe| pipe.read_to_end(&mut said[1]));
        let [stdout, stderr] = said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Outcome {
            status: status
                .code()
                .unwrap_or_else(|| -status.signal().unwrap_or_default()),
            is_late,
            took,
            stdout,
            stderr,
        }
    }
}

/// How a hook ended; a negative status is a signal.
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) is_late: bool,
    pub(crate) took: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A path of the image at which nothing is, in a directory that is there.
fn make_room(bundle: &Bundle, at: &str) -> std::path::PathBuf {
    let path = bundle.image(at);
    fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(&path).expect("room for it");
    }
    let _ = fs::remove_file(&path);
    path
}

/// JSON Merge Patch (RFC 7396).
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
