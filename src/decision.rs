//! Who asks for what: whether a container is a candidate for the hook at all, and what its
//! annotations wish. Values in, values out; what lies in the image is somebody else's question.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The `PATH` that runtimes assume where the container's environment has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable in a container's environment that keeps the hook away, as it kept the one of old.
pub(crate) const SWITCH: &str = "oci-systemd-hook";
/// The annotations that are the hook's.
pub(crate) const ANNOTATIONS: [&str; 3] = [Policy::MODE, Policy::CGROUP, Policy::MACHINE_ID];

/// What a container's program is, as its config says it.
pub(crate) struct Request<'a> {
    /// `args[0]`.
    pub(crate) program: &'a str,
    pub(crate) cwd: &'a Path,
    /// The variable `PATH` of its environment.
    pub(crate) path: Option<&'a str>,
    /// The variable [`SWITCH`] of its environment.
    pub(crate) switch: Option<&'a str>,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// The registration is opt-in already (`--always`).
    pub(crate) always: bool,
}

/// A container that may be systemd's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where its program may lie inside the image; the first that exists is it.
    pub(crate) programs: Vec<PathBuf>,
    /// Take the image's usual systemd where the program is something else.
    pub(crate) always: bool,
}

/// Why a container is left alone. Reads after "nothing to do: ".
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// The annotation says `never`, or the environment `oci-systemd-hook=disabled`.
    Disabled,
    /// It starts something that is not called `init` or `systemd`.
    OtherProgram(String),
    /// The program lies nowhere in the image; the runtime will say so better.
    NoProgram(PathBuf),
    /// The program has the right name and is something else.
    NotSystemd { program: PathBuf, what: String },
    /// Forced by `always`, and there is no systemd in the image.
    NoSystemd,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => write!(f, "disabled for this container"),
            Self::OtherProgram(program) => {
                write!(f, "{program} is called neither init nor systemd")
            }
            Self::NoProgram(program) => {
                write!(f, "there is no {} in the image", program.display())
            }
            Self::NotSystemd { program, what } => write!(f, "{} is {what}", program.display()),
            Self::NoSystemd => write!(f, "there is no systemd in the image"),
        }
    }
}

/// Decide from the config alone. `never` and `disabled` beat `always`, which beats `auto`.
pub(crate) fn candidate(request: &Request<'_>) -> Result<Candidate, Skip> {
    let mode = request.annotations.get(Policy::MODE).map(String::as_str);
    if mode == Some("never") || request.switch == Some("disabled") {
        return Err(Skip::Disabled);
    }
    let always = request.always || mode == Some("always");
    let program = request.program;
    let name = program.rsplit('/').next().unwrap_or("");
    let programs = match name {
        "init" | "systemd" if program.contains('/') => vec![request.cwd.join(program)],
        "init" | "systemd" => search_path(request.path)
            .map(|dir| Path::new(dir).join(name))
            .collect(),
        _ if always => Vec::new(),
        _ => return Err(Skip::OtherProgram(program.to_owned())),
    };
    Ok(Candidate { programs, always })
}

fn search_path(path: Option<&str>) -> impl Iterator<Item = &str> {
    path.unwrap_or(USUAL_PATH)
        .split(':')
        .filter(|dir| !dir.is_empty())
}

/// What a container's annotations wish, beyond the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) cgroup: CgroupWish,
    /// Leave a valid machine ID of the image as it is.
    pub(crate) keep_machine_id: bool,
}

/// `oci-systemd-hook.cgroup`: which systemd to plan for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupWish {
    /// The one that is found.
    Auto,
    /// As for systemd 256 and newer.
    Unified,
    /// As for systemd up to 229.
    Legacy,
}

/// An annotation of ours with a word that it does not take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadAnnotation {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) words: &'static str,
}

impl Policy {
    const MODE: &str = "oci-systemd-hook.mode";
    const CGROUP: &str = "oci-systemd-hook.cgroup";
    const MACHINE_ID: &str = "oci-systemd-hook.machine-id";

    /// Read the annotations of a container that is going to be prepared. (Those of any other
    /// container are nobody's business: Kubernetes' annotations are a whole pod's.)
    pub(crate) fn read(annotations: &BTreeMap<String, String>) -> Result<Self, BadAnnotation> {
        let word = |name| annotations.get(name).map(String::as_str);
        let bad = |name: &'static str, words| BadAnnotation {
            name,
            value: annotations.get(name).cloned().unwrap_or_default(),
            words,
        };
        if !matches!(word(Self::MODE), None | Some("auto" | "always" | "never")) {
            return Err(bad(Self::MODE, "auto, always or never"));
        }
        let cgroup = match word(Self::CGROUP) {
            None | Some("auto") => CgroupWish::Auto,
            Some("unified") => CgroupWish::Unified,
            Some("legacy") => CgroupWish::Legacy,
            Some(_) => return Err(bad(Self::CGROUP, "auto, unified or legacy")),
        };
        let keep_machine_id = match word(Self::MACHINE_ID) {
            None | Some("seed") => false,
            Some("keep") => true,
            Some(_) => return Err(bad(Self::MACHINE_ID, "seed or keep")),
        };
        Ok(Self {
            cgroup,
            keep_machine_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(program: &str) -> Result<Candidate, Skip> {
        decide_with(program, None, None, "auto", false)
    }

    fn decide_with(
        program: &str,
        path: Option<&str>,
        switch: Option<&str>,
        mode: &str,
        always: bool,
    ) -> Result<Candidate, Skip> {
        candidate(&Request {
            program,
            cwd: Path::new("/srv"),
            path,
            switch,
            annotations: &[(Policy::MODE.to_owned(), mode.to_owned())].into(),
            always,
        })
    }

    #[test]
    fn takes_init_and_systemd_for_candidates() {
        for (program, looked_at) in [
            ("/sbin/init", "/sbin/init"),
            ("/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd"),
            ("/init", "/init"),
            ("./init", "/srv/./init"),
        ] {
            let candidate = decide(program).expect(program);
            assert_eq!(candidate.programs, [Path::new(looked_at)], "{program}");
            assert!(!candidate.always);
        }
    }

    #[test]
    fn looks_a_bare_name_up_in_the_path_of_the_process() {
        let candidate =
            decide_with("init", Some("/b::/c"), None, "auto", false).expect("a candidate");
        assert_eq!(
            candidate.programs,
            [Path::new("/b/init"), Path::new("/c/init")]
        );
        assert_eq!(decide("systemd").expect("systemd").programs.len(), 6);
    }

    #[test]
    fn leaves_every_other_program_alone() {
        for program in [
            "",
            "/",
            "sh",
            "/bin/sh",
            "/sbin/init/",
            "/usr/bin/tini",
            "/opt/initdb",
            "/sbin/init.sh",
            "/sbin/openrc-init",
        ] {
            let skip = decide(program);
            assert_eq!(
                skip,
                Err(Skip::OtherProgram(program.to_owned())),
                "{program}"
            );
        }
    }

    #[test]
    fn lets_never_beat_always_and_always_beat_auto() {
        let disabled = Some("disabled");
        for (switch, mode, always, expected) in [
            (None, "never", true, Err(Skip::Disabled)),
            (disabled, "always", true, Err(Skip::Disabled)),
            (disabled, "auto", false, Err(Skip::Disabled)),
            (Some("enabled"), "always", false, Ok(true)),
            (None, "auto", true, Ok(true)),
            (None, "nonsense", true, Ok(true)),
            (
                None,
                "auto",
                false,
                Err(Skip::OtherProgram("/start".to_owned())),
            ),
        ] {
            let decided = decide_with("/start", None, switch, mode, always);
            let decided = decided.map(|candidate| candidate.always);
            assert_eq!(decided, expected, "{switch:?} {mode} {always}");
        }
    }

    #[test]
    fn reads_the_words_of_the_annotations() {
        let read = |pairs: &[(&str, &str)]| {
            Policy::read(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        let default = Policy {
            cgroup: CgroupWish::Auto,
            keep_machine_id: false,
        };
        assert_eq!(read(&[]), Ok(default));
        assert_eq!(
            read(&[("oci-systemd-hook.mode", "always"), ("other", "x")]),
            Ok(default)
        );
        assert_eq!(
            read(&[
                ("oci-systemd-hook.cgroup", "legacy"),
                ("oci-systemd-hook.machine-id", "keep")
            ]),
            Ok(Policy {
                cgroup: CgroupWish::Legacy,
                keep_machine_id: true
            })
        );
        for name in ["mode", "cgroup", "machine-id"] {
            let name = format!("oci-systemd-hook.{name}");
            for value in ["", "Always", "yes", "seed "] {
                let bad = read(&[(&name, value)]).expect_err(&name);
                assert_eq!((bad.name, bad.value.as_str()), (name.as_str(), value));
            }
        }
    }
}
