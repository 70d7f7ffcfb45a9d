//! A bundle without a runtime: an image of a few files, a config.json, a state, and the built
//! binary run on it with a clean environment, as a runtime would run it.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// What a run of the hook did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// A success that nobody hears of.
    #[track_caller]
    pub(crate) fn assert_silent(&self) {
        assert_eq!(
            (self.status, self.stdout.as_str(), self.stderr.as_str()),
            (0, "", "")
        );
    }

    /// A failure with this status, and one printable line that contains all of these.
    #[track_caller]
    pub(crate) fn assert_fails(&self, status: i32, says: &[&str]) {
        let line = self
            .stderr
            .strip_suffix('\n')
            .unwrap_or_else(|| panic!("no line: {self:?}"));
        assert_eq!((self.status, self.stdout.as_str()), (status, ""), "{line}");
        assert!(
            !line.contains(|c: char| c.is_control()),
            "not one printable line: {line:?}"
        );
        assert!(line.starts_with("oci-systemd-hook: "), "{line}");
        assert!(line.len() < 2048, "a line of {} bytes", line.len());
        for text in says {
            assert!(line.contains(text), "{text:?} is not in: {line}");
        }
    }
}

/// The hook binary: ours, or the one that `HOOK_UNDER_TEST` names.
pub(crate) fn hook() -> Command {
    let ours = env!("CARGO_BIN_EXE_oci-systemd-hook");
    let mut command =
        Command::new(std::env::var_os("HOOK_UNDER_TEST").unwrap_or_else(|| ours.into()));
    command.env_clear().current_dir("/");
    command
}

/// Run a hook with this on its standard input.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hook can be run");
    // A hook that refuses its command line does not read; the runtimes' hooks see EPIPE then too.
    let _ = child
        .stdin
        .take()
        .expect("stdin was asked for")
        .write_all(input);
    let output = child.wait_with_output().expect("the hook ends");
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// A bundle in a directory of its own, which goes away with the value.
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) id: String,
    pub(crate) config: Value,
}

impl Bundle {
    /// An empty image, and the config of `/sbin/init` in it.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("ohs-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(&id);
        fs::create_dir_all(path.join("rootfs")).expect("the bundle can be made");
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "args": ["/sbin/init"], "env": ["PATH=/usr/bin:/sbin", "container=oci"], "cwd": "/" },
            "annotations": {},
        });
        Self { path, id, config }
    }

    /// An image with this systemd at its usual place, and what a Debian has around it.
    pub(crate) fn with_systemd(version: u32) -> Self {
        let bundle = Self::new();
        for directory in ["etc", "run", "tmp", "sys", "usr/sbin", "var/lib/dbus"] {
            fs::create_dir_all(bundle.image(directory)).expect("a directory of the image");
        }
        bundle.write("usr/lib/systemd/systemd", &systemd(version));
        symlink("usr/sbin", bundle.image("sbin")).expect("/sbin");
        symlink("../lib/systemd/systemd", bundle.image("usr/sbin/init")).expect("/sbin/init");
        symlink("/run", bundle.image("var/run")).expect("/var/run");
        bundle
    }

    /// A path in the image, on the host.
    pub(crate) fn image(&self, path: &str) -> PathBuf {
        self.path.join("rootfs").join(path)
    }

    /// Write a file of the image.
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.image(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        fs::write(path, content).expect("a file of the image");
    }

    /// A volume in the config, of a directory of the bundle.
    pub(crate) fn give(&mut self, source: &str, destination: &str, options: &[&str]) {
        let mount = json!({ "type": "bind", "source": self.path.join(source), "destination": destination,
            "options": options });
        match &mut self.config["mounts"] {
            Value::Array(mounts) => mounts.push(mount),
            none => *none = json!([mount]),
        }
    }

    pub(crate) fn annotate(&mut self, name: &str, value: &str) {
        self.config["annotations"][format!("oci-systemd-hook.{name}")] = json!(value);
    }

    pub(crate) fn write_config(&self) {
        fs::write(self.path.join("config.json"), self.config.to_string()).expect("config.json");
    }

    /// The container's state, as runc writes it.
    pub(crate) fn state(&self, pid: u32) -> Value {
        json!({
            "ociVersion": "1.0.2-dev", "id": self.id, "status": "creating", "pid": pid,
            "bundle": self.path, "annotations": self.config["annotations"],
        })
    }

    /// Run the hook at createRuntime for a process.
    pub(crate) fn prepare(&self, pid: u32) -> Run {
        self.write_config();
        run(hook(), self.state(pid).to_string().as_bytes())
    }

    /// Run the hook at poststop, as runc does: the process is gone, and so is its number.
    pub(crate) fn clean_up(&self) -> Run {
        let state = json!({ "id": self.id, "status": "stopped", "bundle": self.path });
        run(hook(), state.to_string().as_bytes())
    }

    /// The same as [`Self::prepare`], and what the hook logs of it.
    pub(crate) fn prepare_verbosely(&self, pid: u32) -> Run {
        self.write_config();
        let mut command = hook();
        command.env("RUST_LOG", "debug");
        run(command, self.state(pid).to_string().as_bytes())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Not by std, which takes 32 KiB for each level of a deep image: what this process has counts as
        // the hook's until that is executed.
        let mut remove = Command::new("rm");
        remove.arg("-rf").arg(&self.path).stderr(Stdio::null());
        let _ = remove.status();
    }
}

/// An ELF file that is linked to systemd's own library of this version, and does nothing.
pub(crate) fn systemd(version: u32) -> Vec<u8> {
    let strings = format!("\0libsystemd-shared-{version}.so\0libc.so.6\0");
    let number = |value: u64| value.to_le_bytes().to_vec();
    // A 64-bit header, two program headers (PT_LOAD, PT_DYNAMIC), the dynamic section, its strings.
    let dynamic = [(1, 1), (1, 26), (5, 0x1000), (0, 0)]
        .map(|(tag, value): (u64, u64)| [number(tag), number(value)].concat())
        .concat();
    let dynamic_at = 64 + 2 * 56;
    let strings_at = dynamic_at + dynamic.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[32] = 64; // where the program headers are
    file[54] = 56; // the size of one
    file[56] = 2; // how many
    for (kind, offset, address, size) in [
        (1, strings_at, 0x1000, strings.len() as u64),
        (2, dynamic_at, 0, dynamic.len() as u64),
    ] {
        file.extend(number(kind)); // and no flags
        for value in [offset, address, address, size, size, 8] {
            file.extend(number(value));
        }
    }
    [file, dynamic, strings.into_bytes()].concat()
}
