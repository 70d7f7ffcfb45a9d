//! What a container's program really is: whether it is systemd, by the file that it ends at inside
//! the image, and which version, by the library that this file is linked to. Nothing is executed.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::decision::{Candidate, Skip};
use crate::elf::Elf;
use crate::rootfs::{Entry, Rootfs, open_regular};
use crate::sys;

/// Where systemd lies in every distribution that follows the file hierarchy.
const USUAL_SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// The systemd that the container is going to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// `None` where the file does not tell.
    pub(crate) version: Option<u32>,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "systemd {version}"),
            None => write!(f, "a systemd that does not tell its version"),
        }
    }
}

/// Look into the image: is the candidate systemd?
///
/// # Errors
/// A path of the image cannot be looked at; that something is not there is no error.
pub(crate) fn identify(
    rootfs: &Rootfs,
    candidate: &Candidate,
) -> sys::Result<Result<Payload, Skip>> {
    let skip = match identify_first(rootfs, &candidate.programs)? {
        Ok(payload) => return Ok(Ok(payload)),
        Err(skip) => skip,
    };
    if !candidate.always {
        return Ok(Err(skip));
    }
    let usual = USUAL_SYSTEMD.map(PathBuf::from);
    Ok(identify_first(rootfs, &usual)?.map_err(|_| Skip::NoSystemd))
}

/// The first of the programs that exists is the one that would be started.
fn identify_first(rootfs: &Rootfs, programs: &[PathBuf]) -> sys::Result<Result<Payload, Skip>> {
    for program in programs {
        let entry = match rootfs.entry(program) {
            // Neither does the runtime find a program there.
            Err(error) if error.is_no_path() => continue,
            entry => entry?,
        };
        if entry.found.is_some() {
            return identify_entry(program, &entry);
        }
    }
    let program = programs.first().cloned().unwrap_or_default();
    Ok(Err(Skip::NoProgram(program)))
}

fn identify_entry(program: &Path, entry: &Entry) -> sys::Result<Result<Payload, Skip>> {
    let not = |what: String| {
        Ok(Err(Skip::NotSystemd {
            program: program.to_owned(),
            what,
        }))
    };
    if entry.name != "systemd" {
        return not(if program.file_name() == Some(&entry.name) {
            "not systemd".to_owned()
        } else {
            format!("a link to {}, not to systemd", entry.name.display())
        });
    }
    let Some(file) = open_regular(entry)? else {
        return not("not a regular file".to_owned());
    };
    let file = File::from(file);
    let failed = |error| sys::Error::of_io("read", program.display().to_string(), &error);
    let Some(elf) = Elf::read(&file).map_err(failed)? else {
        return not("not an ELF file".to_owned());
    };
    let mut version = elf
        .needed()
        .map_err(failed)?
        .iter()
        .find_map(|name| library_version(name));
    if version.is_none() {
        // systemd up to 230, or linked statically: its own text for `--version`.
        version = elf
            .after(b"systemd ")
            .map_err(failed)?
            .and_then(|text| leading_number(&text));
    }
    Ok(Ok(Payload { version }))
}

/// The version in `libsystemd-shared-252.so`, `libsystemd-core-251.2-1.fc37.so`.
fn library_version(name: &str) -> Option<u32> {
    let rest = name
        .strip_prefix("libsystemd-shared-")
        .or_else(|| name.strip_prefix("libsystemd-core-"))?;
    leading_number(rest.as_bytes())
}

fn leading_number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_in_each_form_of_the_library_name() {
        for (name, version) in [
            ("libsystemd-shared-231.so", Some(231)),
            ("libsystemd-shared-247.3.so", Some(247)),
            ("libsystemd-core-252.so", Some(252)),
            ("libsystemd-shared-251.2-1.fc37.so", Some(251)),
            ("libsystemd-shared-262~rc1.so", Some(262)),
            ("libsystemd-shared-.so", None),
            ("libsystemd-shared-99999999999.so", None),
            ("libsystemd.so.0", None),
            ("libc.so.6", None),
        ] {
            assert_eq!(library_version(name), version, "{name}");
        }
    }
}
