//! A host with the hook installed, as far as an engine can tell: a view with its podman or dockerd, and the containers
//! that a test starts there. podman's and Docker's command lines are one language here.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::lab::{self, View, text};

/// systemd 247, 252, 257 and 262.
pub(crate) const IMAGES: [&str; 4] = ["bullseye", "bookworm", "trixie", "sid"];

/// An engine on a host where the hook is installed. The containers end with it.
pub(crate) struct Host {
    program: &'static str,
    /// What is said before each command, as `--runtime=crun`.
    options: Vec<String>,
    daemon: Option<Daemon>,
    pub(crate) view: View,
    _alone: Flock<File>,
}

/// dockerd, and that it has to stop: when its standard input, which `tests/lab/dockerd` reads, ends.
struct Daemon {
    starter: Child,
    output: BufReader<ChildStdout>,
}

impl Host {
    /// podman, of the machine itself (`host`) or of Debian 13 (`trixie`), with one of its runtimes.
    pub(crate) fn with_podman(root: &str, cgroups: &str, runtime: &str) -> Self {
        let mut host = Self::install("podman", root, cgroups);
        host.options = vec![format!("--runtime={runtime}")];
        // Those of a test that was killed.
        host.run(&["rm", "--all", "--force", "--time=0", "--volumes"]);
        host
    }

    /// A dockerd of Debian 13.
    pub(crate) fn with_docker(cgroups: &str) -> Self {
        let mut host = Self::install("docker", "trixie", cgroups);
        host.daemon = Some(Daemon::start(&host.view));
        host
    }

    fn install(program: &'static str, root: &str, cgroups: &str) -> Self {
        let alone = alone();
        let view = View::open(root, cgroups);
        let binary = File::open(lab::hook()).expect("the hook is built");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/install-here");
        let output = view.command(script).stdin(binary).output();
        let output = output.expect("nsenter can be run");
        assert!(output.status.success(), "{}", text(&output));
        Self {
            program,
            options: Vec::new(),
            daemon: None,
            view,
            _alone: alone,
        }
    }

    /// What the engine's command line answers. runc 1.1.15 loses its own init now and then, for `exec` as for `run`,
    /// before it calls any hook: about one in a thousand times, with a message that nothing else has. Then it is asked
    /// once more.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        let ask = || {
            let mut command = self.view.command(self.program);
            command.args(&self.options).args(arguments);
            command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
            command.output().expect("nsenter can be run")
        };
        let output = ask();
        let lost = "waiting for init preliminary setup: read init-p: connection reset by peer";
        if output.status.success() || !text(&output).contains(lost) {
            return output;
        }
        eprintln!("runc lost its init, once more: {}", arguments.join(" "));
        ask()
    }

    /// What it prints; it must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{} {}: {}",
            self.program,
            arguments.join(" "),
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).trim().into()
    }

    /// The name of an image of the lab in this engine, with systemd as its command and its stop signal. It is imported
    /// once, and again when the lab has built it anew, which the tag says.
    pub(crate) fn image(&self, name: &str) -> String {
        let archive = lab::image(name).with_extension("tar");
        let built = fs::metadata(&archive)
            .expect("tests/lab/images makes it")
            .mtime();
        let image = format!("systemd-{name}:{built}");
        if !self.output(&["image", "inspect", &image]).status.success() {
            self.run(&[
                "import",
                "--change",
                r#"CMD ["/sbin/init"]"#,
                "--change",
                "STOPSIGNAL 37",
                &archive.to_string_lossy(),
                &image,
            ]);
        }
        image
    }

    /// `run --detach` with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Container<'_> {
        let id = self.run(&[&["run", "--detach"], arguments].concat());
        // podman may have something to say before.
        let id = id.lines().last().expect("it prints the id").to_owned();
        Container { host: self, id }
    }

    /// podman's `create` and `init` with these arguments: the hooks have run, its command has not. The options are
    /// podman's own.
    pub(crate) fn initialise(&self, options: &[&str], arguments: &[&str]) -> Container<'_> {
        let id = self.run(&[options, &["create"], arguments].concat());
        let id = id.lines().last().expect("it prints the id").to_owned();
        self.run(&[options, &["init", &id]].concat());
        Container { host: self, id }
    }

    /// A container that was started in another way.
    pub(crate) fn container(&self, name: &str) -> Container<'_> {
        let id = self.run(&["inspect", "--format", "{{.Id}}", name]);
        Container { host: self, id }
    }

    /// What a container that ends by itself printed, with these arguments after `run --rm`.
    pub(crate) fn run_once(&self, arguments: &[&str]) -> String {
        self.run(&[&["run", "--rm"], arguments].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        } else {
            self.output(&["rm", "--all", "--force", "--time=0", "--volumes"]);
            // podman leaves its parent cgroup, empty, in each hierarchy. Only itself is removed: below it may be the
            // empty cgroups of a container that lives, on which its systemd's tree is mounted.
            let parents = self.view.cgroups_of("libpod_parent").into_iter();
            for parent in parents.filter(|path| path.ends_with("libpod_parent")) {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

impl Daemon {
    fn start(view: &View) -> Self {
        // A session of its own: it outlives the time limit of the command, and an interrupt from the terminal ends
        // it in good order, through its input.
        let mut starter = view
            .command("setsid")
            .arg("--fork")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/dockerd"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter can be run");
        let mut output = BufReader::new(starter.stdout.take().expect("it was asked for"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its output is text");
        assert_eq!(line, "ready\n", "tests/lab/dockerd failed, see above");
        Self { starter, output }
    }

    fn stop(mut self) {
        drop(self.starter.stdin.take());
        let _ = self.starter.wait();
        let mut last = String::new();
        let _ = self.output.read_to_string(&mut last);
        if last != "stopped\n" {
            eprintln!("dockerd did not stop in good order, see above");
        }
    }
}

/// One container, by its id, removed with its host.
pub(crate) struct Container<'host> {
    host: &'host Host,
    pub(crate) id: String,
}

impl Container<'_> {
    /// What a command in it prints; it must succeed.
    pub(crate) fn exec(&self, command: &[&str]) -> String {
        self.host.run(&[&["exec", &self.id], command].concat())
    }

    pub(crate) fn try_exec(&self, command: &[&str]) -> Output {
        self.host.output(&[&["exec", &self.id], command].concat())
    }

    /// Wait until systemd has started everything, and everything is well.
    pub(crate) fn boot(&self) {
        let asked = Instant::now();
        loop {
            let output = self
                .host
                .output(&["exec", &self.id, "systemctl", "is-system-running"]);
            // On standard error the engine may have something to say of its own.
            let state = output.stdout.trim_ascii();
            if state == b"running" {
                return;
            }
            let slow = asked.elapsed() > Duration::from_secs(60);
            if slow || state == b"degraded" || !self.is_up() {
                let failed = ["exec", &self.id, "systemctl", "--failed", "--plain"];
                panic!(
                    "{}: {}: {}: {}",
                    self.host.program,
                    text(&output),
                    text(&self.host.output(&failed)),
                    text(&self.host.output(&["logs", &self.id]))
                );
            }
            sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// Its first process, as the host sees it.
    pub(crate) fn pid(&self) -> u64 {
        let pid = self.inspect("{{.State.Pid}}");
        pid.parse().expect("a container that is up has a pid")
    }

    pub(crate) fn inspect(&self, format: &str) -> String {
        self.host.run(&["inspect", "--format", format, &self.id])
    }

    /// Stop it with the image's stop signal, which systemd obeys with exit status 0: the engine does not have to kill.
    pub(crate) fn stop(&self) {
        self.host.run(&["stop", "--time=30", &self.id]);
        assert_eq!(self.inspect("{{.State.ExitCode}}"), "0", "{}", self.id);
    }

    /// Remove it, and look for what is left of it in any hierarchy, on the host and in the view.
    pub(crate) fn remove(self) {
        self.host.run(&["rm", "--force", "--volumes", &self.id]);
        let left = self.host.view.cgroups_of(&self.id);
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// Wait until it ends by itself, as one does that is not prepared for systemd.
    pub(crate) fn wait_for_its_end(&self) {
        let started = Instant::now();
        while self.is_up() {
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(30), "{} is still up", self.id);
            sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn machine_id(&self) -> String {
        self.exec(&["cat", "/etc/machine-id"])
    }

    /// What the hook promises of every container that it prepares, whoever called it.
    pub(crate) fn assert_prepared(&self) {
        let mounts = self.exec(&["cat", "/proc/mounts"]);
        for place in ["/run", "/run/lock"] {
            let options = options_of(&mounts, place, "tmpfs");
            assert!(options.is_some(), "no tmpfs on {place}: {mounts}");
        }
        let run = options_of(&mounts, "/run", "tmpfs").unwrap_or_default();
        assert!(!run.contains("noexec"), "/run is noexec: {run}");
        assert_eq!(self.exec(&["cat", "/run/host/container-manager"]), "oci");
        assert_eq!(self.machine_id(), self.id[..32]);

        let status = self.exec(&["cat", "/proc/1/status"]);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
        };
        let capabilities = u64::from_str_radix(field("CapBnd:"), 16).expect("it is hexadecimal");
        assert_eq!(capabilities & 1 << 21, 0, "CAP_SYS_ADMIN was given");
        assert_eq!(
            field("Seccomp:"),
            "2",
            "the engine's seccomp profile is off"
        );
    }
}

/// The options of the last mount on a place that is of this file system.
fn options_of(mounts: &str, place: &str, kind: &str) -> Option<String> {
    mounts.lines().rev().find_map(|line| {
        let field: Vec<_> = line.split(' ').collect();
        (field[1] == place && field[2] == kind).then(|| field[3].to_owned())
    })
}

/// Two views must not use one root's engine at a time, and their cgroups are the host's: one test at a time, whoever
/// runs it.
fn alone() -> Flock<File> {
    let directory = lab::directory().join("engine");
    fs::create_dir_all(&directory).expect("the lab can be written");
    let file = File::create(Path::new(&directory).join("lock")).expect("it can be written");
    Flock::lock(file, FlockArg::LockExclusive).expect("it can be locked")
}
