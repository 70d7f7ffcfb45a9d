//! The two JSON documents of the OCI runtime spec that a hook is given: the container's state and
//! the bundle's config.json. Only the fields that the hook needs are read, each may be missing, and
//! what is wrong with one is the runtime's to say: a container that is none of systemd's must not be
//! stopped for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess};

use crate::decision::{self, Request};
use crate::error::Error;
use crate::json::{self, Shape, shape};
use crate::sys::{self, OFlags};

/// More than the state of any container: a state has a few hundred bytes.
const STATE_LIMIT: u64 = 1 << 20;
/// Engines write config.json files of 10 to 100 KiB.
const CONFIG_LIMIT: u64 = 16 << 20;
/// Smaller ones than this are read as a whole, which is faster.
const SMALL: u64 = 1 << 20;

/// These are objects of the spec, and read as serde derives it.
macro_rules! objects {
    ($($object:ident)*) => {$(
        impl<'de> Shape<'de> for $object {
            fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(object))
            }
        }
    )*};
}

objects! { State Config Root Process Capabilities Mount Linux Resources Memory }

/// The container's state (runtime.md, "State").
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    #[serde(deserialize_with = "shape")]
    pub(crate) id: String,
    #[serde(deserialize_with = "shape")]
    pub(crate) status: String,
    /// As the runtime sees it; 0 where the state has none.
    #[serde(deserialize_with = "shape")]
    pub(crate) pid: i32,
    #[serde(deserialize_with = "shape")]
    pub(crate) bundle: PathBuf,
}

impl State {
    /// Read the state to its end, as runtimes insist on (crun takes an EPIPE for a failure).
    ///
    /// # Errors
    /// Larger than 1 MiB, not JSON, not an object, without an id.
    pub(crate) fn read(input: impl Read) -> Result<Self, Error> {
        let bytes = read_up_to(input, STATE_LIMIT + 1).map_err(|error| {
            let call = sys::Error::of_io("read", "standard input", &error);
            Error::failed("read the container's state", call)
        })?;
        if bytes.len() as u64 > STATE_LIMIT {
            return Err(Error::BadState("it is larger than 1 MiB".into()));
        }
        if bytes.is_empty() {
            return Err(Error::BadState("standard input is empty".into()));
        }
        let state: Self =
            json::from_slice(&bytes).map_err(|error| Error::BadState(error.to_string()))?;
        if state.id.is_empty() {
            return Err(Error::BadState("it has no id".into()));
        }
        Ok(state)
    }
}

/// What the hook needs of config.json (config.md, config-linux.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    #[serde(deserialize_with = "shape")]
    root: Root,
    #[serde(deserialize_with = "shape")]
    pub(crate) process: Process,
    #[serde(deserialize_with = "shape")]
    mounts: Mounts,
    #[serde(deserialize_with = "shape")]
    annotations: Annotations,
    #[serde(deserialize_with = "shape")]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Root {
    #[serde(deserialize_with = "shape")]
    path: PathBuf,
    #[serde(deserialize_with = "shape")]
    readonly: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    #[serde(deserialize_with = "shape")]
    args: Program,
    #[serde(deserialize_with = "shape")]
    env: Environment,
    #[serde(deserialize_with = "shape")]
    pub(crate) cwd: PathBuf,
    #[serde(deserialize_with = "shape")]
    capabilities: Capabilities,
}

/// `args`, of which only the program matters.
#[derive(Debug, Default)]
struct Program(String);

impl<'de> Shape<'de> for Program {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let mut program: Option<String> = None;
        json::each(list, |arg| _ = program.get_or_insert(arg))?;
        Ok(Self(program.unwrap_or_default()))
    }
}

/// `env`, of which only a few variables matter; the last value of one wins, as in runtimes.
#[derive(Debug, Default)]
struct Environment(BTreeMap<&'static str, String>);

impl Environment {
    const NAMES: [&'static str; 4] = ["PATH", "container", "container_uuid", decision::SWITCH];
}

impl<'de> Shape<'de> for Environment {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let mut variables = BTreeMap::new();
        json::each(list, |entry: String| {
            if let Some((name, value)) = entry.split_once('=')
                && let Some(name) = Self::NAMES.into_iter().find(|known| *known == name)
            {
                variables.insert(name, value.to_owned());
            }
        })?;
        Ok(Self(variables))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(deserialize_with = "shape")]
    bounding: Bounding,
}

/// `bounding`, of which only `CAP_SYS_ADMIN` matters.
#[derive(Debug, Default)]
struct Bounding(bool);

impl<'de> Shape<'de> for Bounding {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        json::any(list, |name| name == "CAP_SYS_ADMIN").map(Self)
    }
}

impl Process {
    /// `args[0]`.
    pub(crate) fn program(&self) -> &str {
        &self.args.0
    }

    /// Whether the container's root may mount and remount: no engine's default, but a user's word.
    pub(crate) fn may_mount(&self) -> bool {
        self.capabilities.bounding.0
    }

    /// A variable of the container's program, one of those that are kept.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env.0.get(name).map(String::as_str)
    }
}

/// `mounts`, of which those matter that are read-only or a bind, in one text: there may be a million of
/// them, and as many values of their own would take several times the room.
#[derive(Debug, Default)]
struct Mounts(String);

/// A mount of the config that is read-only or a bind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given<'a> {
    pub(crate) read_only: bool,
    pub(crate) is_bind: bool,
    /// As the config spells it; the image's links may lead it elsewhere.
    pub(crate) destination: &'a Path,
    /// Of a bind; absolute, or relative to the bundle.
    pub(crate) source: &'a Path,
}

impl Mounts {
    fn push(&mut self, mount: &Mount) {
        // By its type for crun, by an option for runc.
        let is_bind = mount.kind.is_bind || mount.options.bind;
        let kind = match (mount.options.read_only, is_bind) {
            (true, true) => "rb",
            (true, false) => "r",
            (false, true) => "b",
            (false, false) => return,
        };
        let fields = [kind, &mount.destination, &mount.source];
        // No path has one.
        if fields.iter().any(|field| field.contains('\0')) {
            return;
        }
        for field in fields {
            self.0.push_str(field);
            self.0.push('\0');
        }
    }

    fn iter(&self) -> impl Iterator<Item = Given<'_>> {
        let mut fields = self.0.split_terminator('\0');
        std::iter::from_fn(move || {
            let kind = fields.next()?;
            Some(Given {
                read_only: kind.contains('r'),
                is_bind: kind.contains('b'),
                destination: Path::new(fields.next()?),
                source: Path::new(fields.next()?),
            })
        })
    }
}

impl<'de> Shape<'de> for Mounts {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let mut mounts = Self::default();
        json::each(list, |mount: Mount| mounts.push(&mount))?;
        Ok(mounts)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    #[serde(deserialize_with = "shape")]
    destination: String,
    #[serde(deserialize_with = "shape")]
    source: String,
    #[serde(rename = "type", deserialize_with = "shape")]
    kind: Kind,
    #[serde(deserialize_with = "shape")]
    options: Options,
}

/// `type`, of which only "bind" matters.
#[derive(Debug, Default)]
struct Kind {
    is_bind: bool,
}

impl Shape<'_> for Kind {
    fn text(text: &str) -> Self {
        Self {
            is_bind: text == "bind",
        }
    }
}

/// `options`, of which only those matter that make it read-only or a bind.
#[derive(Debug, Default)]
struct Options {
    read_only: bool,
    bind: bool,
}

impl<'de> Shape<'de> for Options {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let mut options = Self::default();
        json::each(list, |option: String| match option.as_str() {
            "ro" | "rro" => options.read_only = true,
            "bind" | "rbind" => options.bind = true,
            _ => {}
        })?;
        Ok(options)
    }
}

/// `annotations`, of which only ours matter.
#[derive(Debug, Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Shape<'de> for Annotations {
    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        let mut annotations = BTreeMap::new();
        let is_ours = |name: &str| decision::ANNOTATIONS.contains(&name);
        json::each_entry(object, is_ours, |name, value: Option<String>| {
            annotations.extend(value.map(|value| (name, value)));
        })?;
        Ok(Self(annotations))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    #[serde(deserialize_with = "shape")]
    mount_label: String,
    #[serde(deserialize_with = "shape")]
    resources: Resources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "shape")]
    memory: Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    #[serde(deserialize_with = "shape")]
    limit: u64,
}

impl Config {
    /// Read the config.json of a bundle.
    ///
    /// # Errors
    /// [`Error::Bundle`] when it cannot be read, [`Error::BadConfig`] when it is larger than
    /// 16 MiB or not such a document.
    pub(crate) fn read(bundle: &Path) -> Result<Self, Error> {
        let path = bundle.join("config.json");
        let unreadable = |call, error: io::Error| Error::Bundle {
            path: path.clone(),
            call: sys::Error::of_io(call, "", &error),
        };
        let bad = |why| Error::BadConfig {
            path: path.clone(),
            why,
        };
        // Nobody may come to the other end of a FIFO.
        let mut file = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path)
            .map_err(|error| unreadable("open", error))?;
        let head = read_up_to(&mut file, SMALL).map_err(|error| unreadable("read", error))?;
        if (head.len() as u64) < SMALL {
            return json::from_slice(&head).map_err(|error| bad(error.to_string()));
        }
        let metadata = file
            .metadata()
            .map_err(|error| unreadable("statx", error))?;
        if !metadata.is_file() || metadata.len() > CONFIG_LIMIT {
            return Err(bad("it is larger than 16 MiB".into()));
        }
        // Should it grow, what is read of it ends somewhere in the middle.
        json::from_reader(head.chain(file.take(CONFIG_LIMIT - SMALL)))
            .map_err(|error| bad(error.to_string()))
    }

    /// What the container asks for, by its config.
    pub(crate) fn request(&self, always: bool) -> Request<'_> {
        Request {
            program: self.process.program(),
            cwd: &self.process.cwd,
            path: self.process.variable("PATH"),
            switch: self.process.variable(decision::SWITCH),
            annotations: self.annotations(),
            always,
        }
    }

    /// `root.path`, which is absolute or relative to the bundle.
    pub(crate) fn root_path(&self) -> Option<&Path> {
        Some(self.root.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// `root.readonly`, which the runtime applies after the hook.
    pub(crate) fn root_becomes_read_only(&self) -> bool {
        self.root.readonly
    }

    /// The annotations that are the hook's.
    pub(crate) fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations.0
    }

    /// The SELinux label of the container's mounts, if it has one.
    pub(crate) fn mount_label(&self) -> Option<&str> {
        Some(self.linux.mount_label.as_str()).filter(|label| !label.is_empty())
    }

    /// The container's memory limit in bytes; runtimes take 0 and -1 for none. One that does not fit
    /// limits nothing either.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        Some(self.linux.resources.memory.limit).filter(|limit| *limit > 0)
    }

    /// The mounts of the config that are read-only or a bind. crun makes them read-only only after the
    /// hook, so that looking at a mount does not tell.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = Given<'_>> {
        self.mounts.iter()
    }
}

/// The input to its end, but not more than `limit` bytes.
fn read_up_to(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    // As large as most documents; otherwise it would begin with reads of 32 bytes.
    let mut bytes = Vec::with_capacity(64 << 10);
    input.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        json::from_slice(text.as_bytes()).expect("a config")
    }

    #[test]
    fn reads_the_states_of_all_runtimes() {
        for text in [
            r#"{"ociVersion":"1.0.2-dev","id":"c","status":"creating","pid":7,"bundle":"/b/c","annotations":{}}"#,
            r#"{"ociVersion":"1.0","id":"c","pid":7,"root":"/b/c/rootfs","bundle":"\/b\/c","status":"created"}"#,
            r#"{"id":"c","status":"creating","pid":7,"bundle":"/b/c","annotations":null,"new":[{}]}"#,
        ] {
            let state = State::read(text.as_bytes()).expect(text);
            assert_eq!(state.id, "c");
            assert_eq!(state.pid, 7);
            assert_eq!(state.bundle, Path::new("/b/c"));
        }
    }

    #[test]
    fn takes_a_missing_or_null_pid_for_none() {
        for text in [
            r#"{"id":"c","status":"stopped"}"#,
            r#"{"id":"c","pid":null,"status":"stopped"}"#,
            r#"{"id":"c","pid":"7"}"#,
            r#"{"id":"c","pid":1e99}"#,
            r#"{"id":"c","pid":2147483648}"#,
            r#"{"id":"c","pid":18446744073709551616}"#,
        ] {
            assert_eq!(State::read(text.as_bytes()).expect(text).pid, 0);
        }
    }

    #[test]
    fn refuses_what_is_not_a_state() {
        for text in ["", "{", "[]", "7", "\u{0}", "{}", r#"{"id":7}"#] {
            assert!(
                matches!(State::read(text.as_bytes()), Err(Error::BadState(_))),
                "{text}"
            );
        }
        assert!(matches!(
            State::read(&[0xff, 0xfe][..]),
            Err(Error::BadState(_))
        ));
        let large = format!(r#"{{"id":"{}"}}"#, "x".repeat(1 << 20));
        assert!(matches!(
            State::read(large.as_bytes()),
            Err(Error::BadState(_))
        ));
    }

    #[test]
    fn takes_every_field_of_the_config_as_optional() {
        for text in [
            "{}",
            r#"{"root":null,"process":null,"mounts":null,"annotations":null,"linux":null}"#,
            r#"{"process":{"args":null,"env":null,"cwd":null,"capabilities":null},"linux":{"resources":{"memory":{"limit":null}},"mountLabel":null}}"#,
            r#"{"linux":{"resources":{"memory":null},"seccomp":{"defaultAction":"SCMP_ACT_NEW"},"namespaces":[{"type":"new"}]}}"#,
        ] {
            let config = config(text);
            assert_eq!(config.memory_limit(), None, "{text}");
            assert_eq!(config.mount_label(), None, "{text}");
            assert_eq!(config.process.program(), "", "{text}");
        }
    }

    #[test]
    fn knows_limits_labels_and_variables() {
        let config = config(
            r#"{"process":{"env":["container=1","containers=2",null,"container=3","PATH","A=1"]},
                "linux":{"mountLabel":"system_u:object_r:container_file_t:s0","resources":{"memory":{"limit":1048576}}}}"#,
        );
        assert_eq!(config.memory_limit(), Some(1_048_576));
        assert_eq!(
            config.mount_label(),
            Some("system_u:object_r:container_file_t:s0")
        );
        assert_eq!(config.process.variable("container"), Some("3"));
        assert_eq!(config.process.variable("PATH"), None);
    }

    #[test]
    fn leaves_to_the_runtime_what_is_wrong_with_a_mount_or_an_annotation() {
        let config = config(
            r#"{"mounts":[{"destination":5},{"destination":"/a","options":[null]},7,
                {"destination":"/run","options":["ro"]}],"annotations":{"a":null,"b":1,"oci-systemd-hook.mode":1,
                "oci-systemd-hook.cgroup":"d","oci-systemd-hook.cgroup":"e"}}"#,
        );
        let found: Vec<_> = config.mounts().map(|mount| mount.destination).collect();
        assert_eq!(found, [Path::new("/run")]);
        let annotations = config.annotations();
        assert_eq!(annotations["oci-systemd-hook.cgroup"], "e");
        assert_eq!(annotations.len(), 1);
    }

    #[test]
    fn knows_who_may_mount() {
        for (capabilities, may_mount) in [
            (r#"{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"]}"#, true),
            (r#"{"bounding":["CAP_CHOWN","CAP_OF_TOMORROW"]}"#, false),
            (r#"{"bounding":null}"#, false),
            ("{}", false),
        ] {
            let config = config(&format!(
                r#"{{"process":{{"capabilities":{capabilities}}}}}"#
            ));
            assert_eq!(config.process.may_mount(), may_mount, "{capabilities}");
        }
    }

    #[test]
    fn takes_no_limit_for_none() {
        for limit in [
            "0",
            "-1",
            "1e30",
            "99999999999999999999",
            "null",
            "\"1G\"",
            "[]",
            "{}",
        ] {
            let text = format!(r#"{{"linux":{{"resources":{{"memory":{{"limit":{limit}}}}}}}}}"#);
            assert_eq!(config(&text).memory_limit(), None);
        }
    }

    #[test]
    fn knows_what_is_the_hosts_and_what_becomes_read_only() {
        let config = config(
            r#"{"mounts":[{"destination":"/run/","type":"tmpfs","source":"x","options":["nosuid","ro"]},
                {"destination":"/tmp"},{"destination":"/a/../b","source":"b","options":["rro","rbind"]},
                {"destination":"/c","type":"bind","source":"/h","options":null},{"destination":"/d","type":7},
                {"destination":"/e\u0000/f","options":["ro"]},{"destination":"/g","options":["bind"]}]}"#,
        );
        let mount = |read_only, is_bind, destination, source| Given {
            read_only,
            is_bind,
            destination: Path::new(destination),
            source: Path::new(source),
        };
        let found: Vec<_> = config.mounts().collect();
        let expected = [
            mount(true, false, "/run/", "x"),
            mount(true, true, "/a/../b", "b"),
            mount(false, true, "/c", "/h"),
            mount(false, true, "/g", ""),
        ];
        assert_eq!(found, expected);
    }
}
