//! A line of the table: the words of a command line, and what they are in config.json.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use super::sources::Sources;
use crate::lab::{FIRST_ID, add_capabilities, edit_as, list};

/// One container of the table.
#[derive(Default)]
pub(super) struct Line {
    /// As it is in the table, without the remarks.
    pub(super) words: String,
    pub(super) volumes: Vec<Volume>,
    /// What the image has, as (kind, place).
    pub(super) in_image: Vec<(String, String)>,
    others: Vec<(String, String)>,
    remarks: Vec<String>,
}

/// `-v SOURCE:PLACE:OPTIONS`
pub(super) struct Volume {
    pub(super) source: String,
    pub(super) place: String,
    pub(super) options: Vec<String>,
}

const TABLE: &str = include_str!("lines.txt");

/// The lines below the heading `[section]`.
pub(super) fn lines_of(section: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut heading = "";
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[') {
            Some(name) => heading = name.trim_end_matches(']'),
            None if heading == section && !line.is_empty() => lines.push(Line::parse(line)),
            None => {}
        }
    }
    lines
}

/// Every heading of the table.
pub(super) fn sections() -> Vec<&'static str> {
    let heading = |line: &'static str| line.strip_prefix('[')?.strip_suffix(']');
    TABLE.lines().filter_map(heading).collect()
}

impl Line {
    fn parse(line: &str) -> Self {
        let mut parts = line.split(" ; ");
        let words = parts.next().unwrap_or_default();
        let mut parsed = Self {
            words: words.to_owned(),
            remarks: parts.map(str::to_owned).collect(),
            ..Self::default()
        };
        let mut words = words.split_whitespace();
        while let Some(word) = words.next() {
            if ![
                "-v",
                "--tmpfs",
                "--image",
                "--device",
                "--env",
                "--annotation",
            ]
            .contains(&word)
            {
                let (word, value) = word.split_once('=').unwrap_or((word, ""));
                parsed.others.push((word.to_owned(), value.to_owned()));
                continue;
            }
            let value = words
                .next()
                .unwrap_or_else(|| panic!("{word} of what? {line}"));
            for value in counted(value) {
                parsed.add(word, &value);
            }
        }
        parsed
    }

    fn add(&mut self, word: &str, value: &str) {
        let (first, rest) = value.split_once(':').unwrap_or((value, ""));
        match word {
            "-v" => {
                let (place, options) = rest.split_once(':').unwrap_or((rest, ""));
                let options = options.split(',').filter(|word| !word.is_empty());
                self.volumes.push(Volume {
                    source: first.to_owned(),
                    place: place.to_owned(),
                    options: options.map(str::to_owned).collect(),
                });
            }
            "--image" => self.in_image.push((first.to_owned(), rest.to_owned())),
            _ => self.others.push((word.to_owned(), value.to_owned())),
        }
    }

    /// The volumes but for those of the host's own directories, which change all the time.
    pub(super) fn users_own(&self) -> impl Iterator<Item = &Volume> {
        let is_hosts = |volume: &&Volume| volume.source.starts_with('/');
        self.volumes.iter().filter(move |volume| !is_hosts(volume))
    }

    pub(super) fn is_in_user_namespace(&self) -> bool {
        self.others.iter().any(|(word, _)| word == "--userns")
    }

    /// The number that the container's root has on the host.
    pub(super) fn root(&self) -> u32 {
        if self.is_in_user_namespace() {
            FIRST_ID
        } else {
            0
        }
    }

    pub(super) fn image(&self) -> &str {
        let usual = if self.is_in_user_namespace() {
            "bookworm"
        } else {
            "trixie"
        };
        self.remark("", "with").next().unwrap_or(usual)
    }

    /// What the table says of this to expect of a runtime: of all, or of this one.
    pub(super) fn remark<'a>(
        &'a self,
        runtime: &'a str,
        what: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.remarks.iter().filter_map(move |remark| {
            let of_it = remark
                .strip_prefix(runtime)
                .map_or(&remark[..], str::trim_start);
            of_it.strip_prefix(what)?.strip_prefix(' ')
        })
    }

    /// Make it so in config.json, as Docker does it, or podman where the word is podman's.
    pub(super) fn edit(&self, config: &mut Value, sources: &Sources) {
        // First, for options of volumes that mean the container's IDs.
        if self.is_in_user_namespace() {
            edit_as("user", config);
        }
        for (word, value) in &self.others {
            edit_by(word, value, config);
        }
        for volume in &self.volumes {
            let mount = volume.mount(&sources.path(&volume.source), config);
            list(&mut config["mounts"]).push(mount);
            for kind in ["shared", "slave"] {
                if volume.options.iter().any(|word| word.ends_with(kind)) {
                    config["linux"]["rootfsPropagation"] = json!(kind);
                }
            }
        }
    }
}

impl Volume {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|word| word == option)
    }

    fn mount(&self, source: &Path, config: &Value) -> Value {
        let mut options = vec!["rbind"];
        if !self.options.iter().any(|word| is_propagation(word)) {
            options.push("rprivate");
        }
        // `U` gives the files to the container's root: see `Sources`.
        options.extend(
            self.options
                .iter()
                .map(String::as_str)
                .filter(|word| *word != "U"),
        );
        let mut mount = json!({
            "type": "bind", "source": source, "destination": self.place, "options": options,
        });
        if self.has("idmap") {
            for mappings in ["uidMappings", "gidMappings"] {
                mount[mappings] = config["linux"][mappings].clone();
            }
        }
        mount
    }
}

fn is_propagation(word: &str) -> bool {
    ["shared", "slave", "private"].contains(&word.trim_start_matches('r'))
}

fn edit_by(word: &str, value: &str, config: &mut Value) {
    let (first, rest) = value.split_once(':').unwrap_or((value, ""));
    match word {
        "--userns" => {}
        "--read-only" => config["root"]["readonly"] = json!(true),
        "--cap-add" => add_capabilities(config, &[&format!("CAP_{value}")]),
        "--env" => list(&mut config["process"]["env"]).push(json!(value)),
        "--annotation" => {
            let (name, value) = value.split_once('=').expect("an annotation has a value");
            config["annotations"][name] = json!(value);
        }
        "--tmpfs" => {
            let mut options = vec!["noexec", "nosuid", "nodev"];
            options.extend(rest.split(',').filter(|word| !word.is_empty()));
            list(&mut config["mounts"]).push(json!({
                "type": "tmpfs", "source": "tmpfs", "destination": first, "options": options,
            }));
        }
        "--device" => {
            let device = fs::metadata(first).expect("a device of the host").rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            config["linux"]["devices"] = json!([{
                "type": "c", "path": rest, "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0,
            }]);
            let rule = json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
            list(&mut config["linux"]["resources"]["devices"]).push(rule);
        }
        _ => panic!("no word of the table: {word}"),
    }
}

/// `a{1..3}b{1..3}` is `a1b1`, `a2b2` and `a3b3`.
fn counted(word: &str) -> Vec<String> {
    let Some((_, rest)) = word.split_once("{1..") else {
        return vec![word.to_owned()];
    };
    let (last, _) = rest.split_once('}').expect("a brace is closed");
    let last: u32 = last.parse().expect("it counts to a number");
    let braces = format!("{{1..{last}}}");
    (1..=last)
        .map(|n| word.replace(&braces, &n.to_string()))
        .collect()
}
