//! What happens to containers that no engine has planned: a runtime that is killed, a poststop that comes by itself.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Container, text};

impl Container<'_> {
    /// `runtime create`, and SIGKILL for the runtime after a while, if it has not ended before.
    pub(crate) fn create_and_kill_the_runtime(&self, after: Duration) {
        let mut command = self.runtime(&["create", "--bundle"]);
        command.arg(&self.bundle.directory).arg(&self.id);
        let mut timeout = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter can be run");
        thread::sleep(after);
        // The runtime is the only child of timeout(1), which is what `runtime` starts.
        let children = format!("/proc/{0}/task/{0}/children", timeout.id());
        kill(&fs::read_to_string(children).unwrap_or_default());
        timeout.wait().expect("it is our child");
    }

    /// SIGKILL for all that is in its cgroups, as an administrator would after that, and their removal, but for those
    /// that the hook made.
    pub(crate) fn clear_the_runtimes_cgroups(&self) {
        for attempt in 0..50 {
            let cgroups = self.cgroups();
            let processes = cgroups
                .iter()
                .filter_map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok());
            let processes = processes.collect::<Vec<_>>().join(" ");
            let own = format!("lab-{}", self.id);
            let left = cgroups
                .iter()
                .filter(|cgroup| cgroup.to_string_lossy().contains(&own))
                .filter(|cgroup| fs::remove_dir(cgroup).is_err() && cgroup.exists())
                .count();
            if processes.trim().is_empty() && left == 0 {
                break;
            }
            assert!(attempt < 49, "cannot clear the cgroups of {}", self.id);
            kill(&processes);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Call the hook as a runtime does at poststop; a container that is gone has no pid.
    pub(crate) fn poststop(&self) {
        let state = serde_json::json!({
            "ociVersion": "1.0.2", "id": self.id, "status": "stopped", "bundle": self.bundle.directory,
        });
        let hook = self.bundle.directory.join("hook");
        let mut command = self.view.command(&hook.display().to_string());
        let mut child = command
            .arg("poststop")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter can be run");
        let mut stdin = child.stdin.take().expect("stdin was asked for");
        stdin
            .write_all(state.to_string().as_bytes())
            .expect("the hook reads its state");
        drop(stdin);
        let output = child.wait_with_output().expect("it is our child");
        assert!(output.status.success(), "poststop: {}", text(&output));
    }
}

fn kill(pids: &str) {
    let pids: Vec<_> = pids.split_whitespace().filter(|pid| *pid != "0").collect();
    if !pids.is_empty() {
        let _ = Command::new("kill").arg("-9").args(pids).output(); // some have ended since
    }
}
