//! The two JSON documents of the OCI runtime spec that a hook is given: the container's state and
//! the bundle's config.json. Only the fields that the hook needs are read, each may be missing or
//! null, and what a newer runtime adds is passed over: `oci_spec`'s own `Spec` fails as a whole on
//! one capability that it does not know, and would then stop every container of the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Root};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::Error;

/// More than the state of any container: a state has a few hundred bytes.
const STATE_LIMIT: u64 = 1 << 20;
/// Engines write config.json files of 10 to 100 KiB.
const CONFIG_LIMIT: u64 = 16 << 20;

/// The container's state (runtime.md, "State").
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    #[serde(deserialize_with = "or_default")]
    pub(crate) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) status: String,
    /// As the runtime sees it; 0 where the state has none.
    #[serde(deserialize_with = "or_default")]
    pub(crate) pid: i32,
    #[serde(deserialize_with = "or_default")]
    pub(crate) bundle: PathBuf,
}

impl State {
    /// Read the state to its end, as runtimes insist on (crun takes an EPIPE for a failure).
    ///
    /// # Errors
    /// Larger than 1 MiB, not JSON, not an object, without an id.
    pub(crate) fn read(input: impl Read) -> Result<Self, Error> {
        let bytes = read_limited(input, STATE_LIMIT)
            .map_err(|error| Error::BadState(error.to_string()))?
            .ok_or_else(|| Error::BadState("it is larger than 1 MiB".into()))?;
        if bytes.is_empty() {
            return Err(Error::BadState("standard input is empty".into()));
        }
        let state: Self = parse(&bytes).map_err(Error::BadState)?;
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
    root: Option<Root>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) process: Process,
    #[serde(deserialize_with = "well_formed")]
    mounts: Vec<Mount>,
    #[serde(deserialize_with = "texts")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) cwd: PathBuf,
    #[serde(deserialize_with = "or_default")]
    capabilities: Capabilities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(deserialize_with = "or_default")]
    bounding: Vec<String>,
}

impl Process {
    /// Whether the container's root may mount and remount: no engine's default, but a user's word.
    pub(crate) fn may_mount(&self) -> bool {
        self.capabilities
            .bounding
            .iter()
            .any(|name| name == "CAP_SYS_ADMIN")
    }

    /// A variable of the container's program; the last one wins, as in runtimes.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    #[serde(deserialize_with = "or_default")]
    mount_label: String,
    #[serde(deserialize_with = "or_default")]
    resources: Resources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "or_default")]
    memory: Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    /// Whatever number it is: a float, or beyond 64 bits.
    limit: Value,
}

impl Config {
    /// Read the config.json of a bundle.
    ///
    /// # Errors
    /// [`Error::Bundle`] when it cannot be read, [`Error::BadConfig`] when it is larger than
    /// 16 MiB or not such a document.
    pub(crate) fn read(bundle: &Path) -> Result<Self, Error> {
        let path = bundle.join("config.json");
        let bytes = File::open(&path)
            .and_then(|file| read_limited(file, CONFIG_LIMIT))
            .map_err(|source| Error::Bundle {
                path: path.clone(),
                source,
            })?
            .ok_or_else(|| Error::BadConfig {
                path: path.clone(),
                why: "it is larger than 16 MiB".into(),
            })?;
        parse(&bytes).map_err(|why| Error::BadConfig { path, why })
    }

    /// `root.path`, which is absolute or relative to the bundle.
    pub(crate) fn root_path(&self) -> Option<&Path> {
        self.root.as_ref().map(|root| root.path().as_path())
    }

    /// `root.readonly`, which the runtime applies after the hook.
    pub(crate) fn root_becomes_read_only(&self) -> bool {
        self.root.as_ref().and_then(Root::readonly).unwrap_or(false)
    }

    /// The SELinux label of the container's mounts, if it has one.
    pub(crate) fn mount_label(&self) -> Option<&str> {
        Some(self.linux.mount_label.as_str()).filter(|label| !label.is_empty())
    }

    /// The container's memory limit in bytes; runtimes take 0 and -1 for none. One that does not fit
    /// limits nothing either.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.linux
            .resources
            .memory
            .limit
            .as_u64()
            .filter(|limit| *limit > 0)
    }

    /// Where the config mounts something read-only, as it spells it. crun makes it so only after
    /// the hook, so that looking at the mount does not tell.
    pub(crate) fn read_only_destinations(&self) -> impl Iterator<Item = &Path> {
        let is_read_only = |mount: &&Mount| {
            let options = mount.options().iter().flatten();
            options
                .into_iter()
                .any(|option| option == "ro" || option == "rro")
        };
        self.mounts
            .iter()
            .filter(is_read_only)
            .map(|mount| mount.destination().as_path())
    }
}

/// Read a document whose top is an object; serde would take an array for one too.
fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// A JSON `null` is the same as a missing field.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The mounts that are ones. What is wrong with another is the runtime's to say: a container that
/// is none of systemd's must not be stopped for it.
fn well_formed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Mount>, D::Error> {
    let mounts: Vec<Value> = or_default(from)?;
    Ok(mounts
        .into_iter()
        .filter_map(|mount| serde_json::from_value(mount).ok())
        .collect())
}

/// The annotations that are texts, for the same reason.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let annotations: BTreeMap<String, Value> = or_default(from)?;
    let text = |(name, value)| match value {
        Value::String(value) => Some((name, value)),
        _ => None,
    };
    Ok(annotations.into_iter().filter_map(text).collect())
}

/// All of the input, or `None` when it is larger than `limit`.
fn read_limited(input: impl Read, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    // As large as most; otherwise it would begin with reads of 32 bytes.
    let mut bytes = Vec::with_capacity(64 << 10);
    input.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).expect("a config")
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
        ] {
            assert_eq!(State::read(text.as_bytes()).expect(text).pid, 0);
        }
    }

    #[test]
    fn refuses_what_is_not_a_state() {
        for text in [
            "",
            "{",
            "[]",
            "7",
            "\u{0}",
            "{}",
            r#"{"id":7}"#,
            r#"{"id":"c","pid":"7"}"#,
            r#"{"id":"c","pid":1e99}"#,
        ] {
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
            assert!(config.process.args.is_empty(), "{text}");
        }
    }

    #[test]
    fn knows_limits_labels_and_variables() {
        let config = config(
            r#"{"process":{"env":["A=1","AB=2","A=3","C"]},
                "linux":{"mountLabel":"system_u:object_r:container_file_t:s0","resources":{"memory":{"limit":1048576}}}}"#,
        );
        assert_eq!(config.memory_limit(), Some(1_048_576));
        assert_eq!(
            config.mount_label(),
            Some("system_u:object_r:container_file_t:s0")
        );
        assert_eq!(config.process.variable("A"), Some("3"));
        assert_eq!(config.process.variable("C"), None);
    }

    #[test]
    fn leaves_to_the_runtime_what_is_wrong_with_a_mount_or_an_annotation() {
        let config = config(
            r#"{"mounts":[{"destination":5},{"destination":"/a","options":[null]},7,
                {"destination":"/run","options":["ro"]}],"annotations":{"a":null,"b":1,"c":"d","c":"e"}}"#,
        );
        let found: Vec<_> = config.read_only_destinations().collect();
        assert_eq!(found, [Path::new("/run")]);
        assert_eq!(
            config.annotations,
            [("c".to_owned(), "e".to_owned())].into()
        );
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
        for limit in ["0", "-1", "1e30", "99999999999999999999", "null", "\"1G\""] {
            let text = format!(r#"{{"linux":{{"resources":{{"memory":{{"limit":{limit}}}}}}}}}"#);
            assert_eq!(config(&text).memory_limit(), None);
        }
    }

    #[test]
    fn knows_what_becomes_read_only() {
        let config = config(
            r#"{"mounts":[{"destination":"/run/","type":"tmpfs","options":["nosuid","ro"]},
                {"destination":"/tmp"},{"destination":"/a/../b","options":["rro"]},{"destination":"/c","options":null}]}"#,
        );
        let found: Vec<_> = config.read_only_destinations().collect();
        assert_eq!(found, [Path::new("/run/"), Path::new("/a/../b")]);
    }
}
