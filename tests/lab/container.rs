//! One container of one runtime, from its creation to the look at what it left behind. Dropping it cleans up,
//! however the test ended; with `KEEP=1` the bundle of a failed test stays.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bundle::Bundle;
use super::console::Console;
use super::{View, text};

/// A bundle over an image, with the image as the lower layer of an overlay, and the container made from it.
pub(crate) struct Container<'view> {
    pub(super) view: &'view View,
    runtime: String,
    /// 64 hexadecimal digits, as engines make them.
    pub(crate) id: String,
    pub(super) bundle: Bundle<'view>,
    console: Option<Console>,
    mounts_before: Vec<String>,
}

impl<'view> Container<'view> {
    /// A bundle with Docker's defaults and the hook; nothing is created yet.
    pub(crate) fn new(view: &'view View, runtime: &str, image: &str) -> Self {
        Self::with(view, runtime, image, |_| ())
    }

    /// The same with its config.json edited. `process.terminal` gets it a console.
    pub(crate) fn with(
        view: &'view View,
        runtime: &str,
        image: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Self {
        let id = random_id();
        let bundle = Bundle::make(view, &id, image, edit);
        let console = bundle
            .wants_terminal
            .then(|| Console::listen(&bundle.directory.join("console")));
        let mounts_before = view.mounts_of(&id[..12]);
        Self {
            view,
            runtime: runtime.into(),
            id,
            bundle,
            console,
            mounts_before,
        }
    }

    /// Create and start it, and wait until it is `running`.
    pub(crate) fn boot(&self) -> Result<Duration, String> {
        let started = Instant::now();
        self.create()?;
        self.start()?;
        self.wait_until_running()?;
        Ok(started.elapsed())
    }

    /// `runtime create`; the error is what the hook said, or else the runtime.
    pub(crate) fn create(&self) -> Result<(), String> {
        let mut command = self.runtime(&["create", "--bundle"]);
        command.arg(&self.bundle.directory);
        if let Some(console) = &self.console {
            command.arg("--console-socket").arg(&console.socket);
        }
        let hook_said = self.bundle.directory.join("hook-said");
        let _ = fs::remove_file(&hook_said);
        self.logged(command.arg(&self.id)).map_err(|log| {
            let said = fs::read_to_string(hook_said).unwrap_or_default() + &log;
            format!("not created: {}", hook_line(&said))
        })
    }

    /// `runtime start`.
    pub(crate) fn start(&self) -> Result<(), String> {
        self.logged(self.runtime(&["start"]).arg(&self.id))
    }

    /// Run it with its output in a file of the bundle: what it starts holds on to that for the container's life.
    pub(super) fn logged(&self, command: &mut Command) -> Result<(), String> {
        let path = self.bundle.directory.join("log");
        let log = fs::File::create(&path).expect("the bundle can be written");
        let copy = log.try_clone().expect("a descriptor can be copied");
        let status = command
            .stdout(copy)
            .stderr(log)
            .status()
            .expect("nsenter can be run");
        if status.success() {
            Ok(())
        } else {
            Err(last_line(&fs::read_to_string(path).unwrap_or_default()))
        }
    }

    /// `runtime kill`; systemd's stop signal, SIGRTMIN+3, is `37`, which youki does not know.
    pub(crate) fn kill(&self, signal: &str) {
        let sent = if self.runtime == "youki" && signal == "37" {
            let mut command = self.view.command("kill");
            command.args(["-37", &self.pid().to_string()]).output()
        } else {
            self.runtime(&["kill", &self.id, signal]).output()
        };
        let sent = sent.expect("nsenter can be run");
        let what = format!("{} kill {signal}", self.runtime);
        assert!(sent.status.success(), "{what}: {}", text(&sent));
    }

    /// What the runtime says to a signal that it does not know.
    pub(crate) fn refused_signal(&self, signal: &str) -> String {
        let mut kill = self.runtime(&["kill", &self.id, signal]);
        self.logged(&mut kill)
            .expect_err("the runtime knows that signal")
    }

    /// How long it took to end, or an error after `limit`.
    pub(crate) fn wait_stopped(&self, limit: Duration) -> Result<Duration, String> {
        let started = Instant::now();
        while self.is_up() {
            if started.elapsed() > limit {
                return Err(format!("still there after {} s", limit.as_secs()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(started.elapsed())
    }

    /// Signal 37, and at most ten seconds.
    pub(crate) fn stop(&self) -> Result<Duration, String> {
        self.kill("37");
        self.wait_stopped(Duration::from_secs(10))
            .map_err(|error| format!("signal 37: {error}"))
    }

    /// Whether its first process is there.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state()["status"].as_str(), Some("created" | "running"))
    }

    /// Its first process, as the host sees it.
    pub(crate) fn pid(&self) -> u64 {
        self.state()["pid"]
            .as_u64()
            .expect("a container that is up has a pid")
    }

    fn state(&self) -> Value {
        let output = self
            .runtime(&["state", &self.id])
            .output()
            .expect("nsenter can be run");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// `runtime delete`, of a container that has stopped.
    pub(crate) fn delete(&self) -> Result<(), String> {
        let output = self
            .runtime(&["delete", &self.id])
            .output()
            .expect("nsenter can be run");
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("not deleted: {}", text(&output)))
        }
    }

    /// `runtime delete --force`, of whatever there is.
    pub(crate) fn delete_by_force(&self) {
        let _ = self.runtime(&["delete", "--force", &self.id]).output();
    }

    /// Stop and delete it, and find nothing left.
    pub(crate) fn end(&self) -> Result<Duration, String> {
        let took = self.stop()?;
        self.delete()?;
        self.is_gone()?;
        Ok(took)
    }

    /// That nothing is left of it.
    pub(crate) fn is_gone(&self) -> Result<(), String> {
        match self.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("left behind: {}", left.join(", "))),
        }
    }

    /// What a deleted container should not have left: its cgroups, and changes in the mount tables.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mounts = self.view.mounts_of(&self.id[..12]);
        let gone = self
            .mounts_before
            .iter()
            .filter(|line| !mounts.contains(line))
            .map(|line| format!("no more: {line}"));
        let new = mounts
            .iter()
            .filter(|line| !self.mounts_before.contains(line))
            .cloned();
        let cgroups = self
            .cgroups()
            .into_iter()
            .map(|path| path.display().to_string());
        cgroups.chain(new).chain(gone).collect()
    }

    /// All cgroups that bear its ID, the deepest first.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        self.view.cgroups_of(&self.id)
    }

    /// What was said on /dev/console.
    pub(crate) fn console_text(&self) -> String {
        self.console.as_ref().map(Console::text).unwrap_or_default()
    }

    /// A path of its root file system, also before it is created and after it is deleted.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.bundle.path(path)
    }

    /// Make a file in its root file system, with the directories above it.
    pub(crate) fn write(&self, path: &str, mode: u32, content: &str) {
        self.bundle.write(path, mode, content);
    }

    /// A file beside the container's own, on the host's side.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.bundle.directory.join(name)
    }

    pub(super) fn runtime(&self, arguments: &[&str]) -> Command {
        let mut command = self.view.command(&self.runtime);
        command
            .arg("--root")
            .arg(self.bundle.directory.join("state"));
        if self.view.cgroups == "none" && self.runtime == "crun" {
            command.arg("--cgroup-manager=disabled");
        }
        command.args(arguments);
        command
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.delete_by_force();
        if !thread::panicking() {
            return; // nothing is hidden from a test that looks for it
        }
        // or the next test would trip over what this one found
        for cgroup in self.cgroups() {
            let _ = fs::remove_dir(&cgroup);
            let above = cgroup
                .parent()
                .filter(|above| above.ends_with("oci-systemd-hook"));
            let _ = above.map(fs::remove_dir);
        }
    }
}

fn random_id() -> String {
    let uuid = || {
        fs::read_to_string("/proc/sys/kernel/random/uuid")
            .expect("the kernel makes UUIDs")
            .replace(['-', '\n'], "")
    };
    uuid() + &uuid()
}

/// The last thing said that is not systemd's farewell.
pub(super) fn last_line(text: &str) -> String {
    let farewell = |line: &&str| {
        !line.is_empty()
            && !line.starts_with("Exiting PID 1")
            && !line.starts_with("Freezing execution")
    };
    text.lines()
        .map(str::trim)
        .rfind(farewell)
        .unwrap_or("it said nothing")
        .to_owned()
}

/// The hook's own line, out of what a runtime makes of it; or else all that the runtime said.
fn hook_line(said: &str) -> &str {
    let line = said
        .find("oci-systemd-hook: ")
        .map_or(said, |start| &said[start..]);
    line.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches("\\n\"")
}
