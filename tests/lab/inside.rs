//! What goes on inside a container: is its systemd up, and commands that are run there.

use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use super::container::last_line;
use super::{Container, text};

impl Container<'_> {
    /// Until systemd says that all is up, 60 seconds at most; the error says how far it came.
    pub(crate) fn wait_until_running(&self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let status = text(&self.exec(&["systemctl", "is-system-running"]));
            let waited = started.elapsed().as_secs();
            match status.as_str() {
                "running" => return Ok(()),
                "degraded" => return Err(format!("degraded: {}", self.failed_units())),
                _ if !self.is_up() => return Err(format!("exited: {}", self.last_words())),
                // Not even begun: PID 1 froze.
                "offline" if waited > 20 => return Err(format!("frozen: {}", self.last_words())),
                _ if waited > 60 => {
                    return Err(format!(
                        "not running after 60 s: {status}: {}",
                        self.last_words()
                    ));
                }
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn failed_units(&self) -> String {
        let units = self.exec(&[
            "systemctl",
            "--failed",
            "--plain",
            "--no-legend",
            "--no-pager",
        ]);
        String::from_utf8_lossy(&units.stdout)
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.bundle.directory.join("log")).unwrap_or_default();
        last_line(&(log + &self.console_text()))
    }

    /// A command in the container.
    pub(crate) fn exec(&self, command: &[&str]) -> Output {
        self.runtime(&["exec", &self.id])
            .args(command)
            .output()
            .expect("nsenter can be run")
    }

    /// Look at a command in the container while it runs, by its pid, as the host sees it; then it is killed.
    pub(crate) fn during_exec<Seen>(
        &self,
        command: &[&str],
        look: impl FnOnce(u64) -> Seen,
    ) -> Seen {
        let pid_file = self.bundle.directory.join("exec.pid");
        let mut exec = self.runtime(&["exec", "--pid-file"]);
        // Not detached: somebody has to reap it, or the container's pid namespace would not end.
        let exec = exec.arg(&pid_file).arg(&self.id).args(command);
        let mut exec = exec.spawn().expect("nsenter can be run");
        let asked = Instant::now();
        let pid = loop {
            let written = fs::read_to_string(&pid_file).unwrap_or_default();
            if let Ok(pid) = written.trim().parse() {
                break pid;
            }
            assert!(asked.elapsed().as_secs() < 10, "{command:?} was not run");
            thread::sleep(Duration::from_millis(10));
        };
        let seen = look(pid);
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        exec.wait().expect("it is our child");
        seen
    }

    /// `runtime pause`.
    pub(crate) fn pause(&self) -> Result<(), String> {
        self.logged(self.runtime(&["pause"]).arg(&self.id))
    }

    /// `runtime resume`.
    pub(crate) fn resume(&self) -> Result<(), String> {
        self.logged(self.runtime(&["resume"]).arg(&self.id))
    }

    /// A shell script in the container, which must succeed, and its output.
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.exec(&["sh", "-c", script]);
        assert!(output.status.success(), "{script}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
