//! One line of the table on one runtime: the container without the hook, to know what the runtime makes of it; with
//! the hook, created; then booted; then gone. Each time the volumes are looked at on the host, and all of it inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::inside::{Inside, Mount};
use super::line::Line;
use super::sources::{Sources, fill_image};
use super::tree::{Difference, Facets, MOUNT, Tree, differences, record};
use crate::lab::{Container, View};
use crate::refusals::Refusal;

/// Where the hook mounts a tmpfs of its own, if nothing is mounted there.
const PLACES: [&str; 3] = ["/run", "/run/lock", "/tmp"];

/// What it makes in them.
const OURS: [&str; 8] = [
    "host",
    "host/container-manager",
    "lock",
    "machine-id",
    "systemd",
    "systemd/system",
    "systemd/system/systemd-machine-id-commit.service",
    "systemd/system/tmp.mount",
];

/// Where the container's systemd makes files and sets modes and times, as it does on any machine: in these, and
/// further down in ...
const SYSTEMDS: [&str; 6] = ["/run", "/run/lock", "/tmp", "/etc", "/var", "/var/lib"];

/// ... these.
const SYSTEMDS_ALL: [&str; 6] = [
    "/run/log",
    "/run/systemd/journal",
    "/var/cache",
    "/var/lib/dbus",
    "/var/log",
    "/var/tmp",
];

/// The line, the runtime, and the view of the host's cgroups that it is tried in.
pub(super) struct Trial<'a> {
    view: &'a View,
    runtime: &'a str,
    line: &'a Line,
    /// What was seen and should not be.
    wrong: Vec<String>,
}

/// Who has been at work since the trees were recorded.
#[derive(Clone, Copy, PartialEq)]
enum Since {
    Created,
    Booted,
}

impl<'a> Trial<'a> {
    pub(super) fn new(view: &'a View, runtime: &'a str, line: &'a Line) -> Self {
        Self {
            view,
            runtime,
            line,
            wrong: Vec::new(),
        }
    }

    /// What the table is to say, or all that is wrong.
    pub(super) fn run(mut self) -> Result<String, Vec<String>> {
        let sources = Sources::new(self.view, self.line);
        let bare = self.container(&sources, false);
        let container = self.container(&sources, true);
        let outcome = self.live(&sources, &bare, &container);
        for container in [&bare, &container] {
            container.delete_by_force();
            for cgroup in container.cgroups() {
                let _ = fs::remove_dir(cgroup); // youki's, and of one that failed: not for this test to find
            }
        }
        match outcome {
            Ok(cell) if self.wrong.is_empty() => Ok(cell),
            Ok(_) => Err(self.wrong),
            Err(error) => {
                self.wrong.push(error);
                Err(self.wrong)
            }
        }
    }

    fn container(&self, sources: &Sources, with_hook: bool) -> Container<'a> {
        let edit = |config: &mut serde_json::Value| {
            self.line.edit(config, sources);
            if !with_hook {
                config["hooks"] = json!({});
            }
        };
        let container = Container::with(self.view, self.runtime, self.line.image(), edit);
        for (kind, place) in &self.line.in_image {
            fill_image(&container.path("/"), kind, place, self.line.root());
        }
        container
    }

    fn live(
        &mut self,
        sources: &Sources,
        bare: &Container,
        container: &Container,
    ) -> Result<String, String> {
        if let Err(error) = bare.create() {
            return self.refused("the runtime", &error);
        }
        let without = Inside::of(bare);
        // Not earlier: the runtime makes mount points in volumes, too.
        let volumes = self.volumes(sources);
        // However they are spelled.
        let places = self
            .line
            .users_own()
            .map(|volume| without.resolved(Path::new(&volume.place)));
        let places: Vec<_> = places.collect();
        let image = image_of(container);
        if let Err(error) = container.create() {
            self.check_host(&volumes, &places, sources, Since::Created);
            return self.refused("the hook", &error);
        }
        let inside = Inside::of(container);
        let image_now = image_of(container);
        self.check_mounts(&without, &inside);
        self.check_host(&volumes, &places, sources, Since::Created);
        self.check_volumes(&volumes, &without, &inside, Since::Created);
        self.check_tmpfs(&without, &inside);
        self.check_image(&image, &image_now);
        self.check_places(&image_now, &without, &inside, Since::Created);
        if let Some(text) = self.remark("refused").next() {
            self.wrong.push(format!("not refused: {text}"));
        }

        container.start()?;
        let degraded = self.remark("degraded").next().map(str::to_owned);
        match (Self::wait(container, &inside), &degraded) {
            (Ok(()), None) => {}
            (Ok(()), Some(unit)) => self.wrong.push(format!("not degraded by {unit}")),
            (Err(error), Some(unit)) if error.starts_with("degraded") && error.contains(unit) => {}
            (Err(error), _) => return Err(error),
        }
        let inside = Inside::of(container);
        self.check_mounts(&without, &inside);
        self.check_volumes(&volumes, &without, &inside, Since::Booted);
        self.check_places(&image_now, &without, &inside, Since::Booted);
        self.check_machine_id(&inside);
        self.end(container, &inside)?;
        self.check_host(&volumes, &places, sources, Since::Booted);
        Ok(degraded.map_or("kept".to_owned(), |unit| format!("kept; degraded: {unit}")))
    }

    /// Until its systemd has started all. Not by the runtime's `exec` each moment, for some hundred boots; and youki's
    /// does not enter the user namespace, so that newer systemds take it for nobody they know.
    fn wait(container: &Container, inside: &Inside) -> Result<(), String> {
        let socket = Path::new("/run/systemd/private");
        if until(Duration::from_secs(20), || {
            inside.mount_of(socket).is_some()
        }) {
            let said = inside.systemctl(&["is-system-running", "--wait"]);
            match said.as_str() {
                "running" => return Ok(()),
                "degraded" => {
                    let units =
                        inside.systemctl(&["--failed", "--plain", "--no-legend", "--no-pager"]);
                    return Err(format!("{said}: {units}"));
                }
                _ => {}
            }
        }
        container.wait_until_running() // or what it died of
    }

    /// Stop it, however many mounts its systemd tries to unmount first, and delete it, as far as the runtime can.
    fn end(&self, container: &Container, inside: &Inside) -> Result<(), String> {
        container.kill("37");
        if !until(Duration::from_secs(60), || !inside.is_up()) {
            return Err("signal 37: still there after 60 s".to_owned());
        }
        container.wait_stopped(Duration::from_secs(10))?; // in the runtime's eyes, too
        let refusal = Refusal::find(self.runtime, &self.view.cgroups, self.line.image(), false);
        match container.delete() {
            Err(error) if refusal.is_some_and(|refusal| error.contains(refusal.says)) => Ok(()),
            deleted => deleted.and_then(|()| container.is_gone()),
        }
    }

    /// The hook's status is in the table, too: youki says nothing else of a hook that failed.
    fn refused(&self, by: &str, error: &str) -> Result<String, String> {
        let is_expected = |text: &&str| match text.split_once(' ') {
            Some((status, text)) if status.parse::<u8>().is_ok() => {
                error.contains(text) || error.ends_with(&format!("exit code: {status}"))
            }
            _ => error.contains(*text),
        };
        match self.remark("refused").find(is_expected) {
            Some(text) => Ok(format!("refused by {by}: {text}")),
            None => Err(format!("refused by {by}: {error}")),
        }
    }

    fn remark(&self, what: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.line.remark(self.runtime, what)
    }

    fn volumes(&self, sources: &Sources) -> Vec<Tree> {
        let volumes = self.line.users_own();
        volumes
            .map(|volume| record(&sources.path_here(&volume.source)))
            .collect()
    }

    /// Everything that the runtime mounted is where it was, in the same way, and so is what is in its tmpfs.
    fn check_mounts(&mut self, without: &Inside, inside: &Inside) {
        for mount in without
            .visible_mounts()
            .filter(|mount| !mount.at.starts_with("/sys/fs/cgroup"))
        {
            let at = &mount.at;
            let Some(now) = inside.mount_of(at).filter(|now| now.at == *at) else {
                self.wrong
                    .push(format!("nothing is mounted on {}", at.display()));
                continue;
            };
            // The layers of the root file system are in its options.
            let facets = mount
                .facets
                .iter()
                .filter(|(name, _)| *name != "options" || at != Path::new("/"));
            for (name, was) in facets {
                let is = &now.facets[name];
                if is != was {
                    self.wrong
                        .push(format!("{name} of {}: {was}, {is}", at.display()));
                }
            }
        }
    }

    /// In the runtime's tmpfs is what it put there: podman's `--tmpfs` brings what the image has.
    fn check_tmpfs(&mut self, without: &Inside, inside: &Inside) {
        let is_runtimes = |at: &Path| {
            ["/dev", "/proc", "/sys"]
                .iter()
                .any(|top| at.starts_with(top))
        };
        let of_users = |mount: &&Mount| mount.kind == "tmpfs" && !is_runtimes(&mount.at);
        for mount in without.visible_mounts().filter(of_users) {
            let [before, now] =
                [without, inside].map(|inside| inside.tree(&mount.at).unwrap_or_default());
            for difference in unexplained(&before, &now, &mount.at, Since::Created) {
                // The two were made at different times.
                if difference.what != "mtime" && !is_ours(&difference) {
                    self.wrong
                        .push(format!("{}: {difference}", mount.at.display()));
                }
            }
        }
    }

    /// What is below each destination is what is in the volume.
    fn check_volumes(&mut self, before: &[Tree], without: &Inside, inside: &Inside, since: Since) {
        for (volume, before) in self.line.users_own().zip(before) {
            let place = Path::new(&volume.place);
            let what = format!("{}, {}", volume.place, since.said());
            let Some(now) = inside.tree(place) else {
                self.wrong.push(format!("{what}: nothing is there"));
                continue;
            };
            let mount = inside.mount_of(place);
            let unmet = volume
                .options
                .iter()
                .filter(|word| mount.is_some_and(|mount| !mount.is_as(word)));
            self.wrong
                .extend(unmet.map(|word| format!("{what}: not {word}")));
            // Owners are others in there, by the user's own wish.
            let mapped = volume.has("idmap").then(|| without.tree(place)).flatten();
            let at = inside.resolved(place);
            let unexplained = unexplained(mapped.as_ref().unwrap_or(before), &now, &at, since);
            self.wrong.extend(
                unexplained
                    .iter()
                    .map(|difference| format!("{what}: {difference}")),
            );
        }
    }

    /// What is in the volumes is what was in them.
    fn check_host(&mut self, before: &[Tree], places: &[PathBuf], sources: &Sources, since: Since) {
        let now = self.volumes(sources);
        let volumes = self.line.users_own().zip(places);
        for (((volume, at), before), now) in volumes.zip(before).zip(&now) {
            let what = format!("{} on the host, {}", volume.source, since.said());
            let unexplained = unexplained(before, now, at, since);
            let unexplained = unexplained
                .iter()
                .map(|difference| format!("{what}: {difference}"));
            self.wrong.extend(unexplained);
        }
    }

    /// In the image's own file system nothing has changed but what the runtime makes.
    fn check_image(&mut self, before: &[(&str, Tree)], now: &[(&str, Tree)]) {
        for ((place, before), (_, now)) in before.iter().zip(now) {
            let found = differences(before, now);
            for difference in &found {
                let is_device = || now[&difference.path]["kind"] == "device";
                let is_made =
                    is_mount_point(difference, now) || difference.what == "new" && is_device();
                if !is_made && !is_of_growth(difference, &found) {
                    self.wrong
                        .push(format!("the image's {place}: {difference}"));
                }
            }
        }
    }

    /// Where the hook covered the image, all that the image has there is there.
    fn check_places(
        &mut self,
        image: &[(&'static str, Tree)],
        without: &Inside,
        inside: &Inside,
        since: Since,
    ) {
        for (place, image) in image {
            let top = Path::new(place);
            let is_users = !without.mount_of(top).is_some_and(Mount::is_root);
            let is_emptied = self.remark("emptied").any(|emptied| emptied == *place);
            if is_users || since == Since::Booted && is_emptied {
                continue;
            }
            let now = inside.tree(top).unwrap_or_default();
            let found = differences(image, &now);
            for difference in &found {
                let path = top.join(&difference.path);
                let explained = difference.is_of_top()
                    || is_ours(difference)
                    || since == Since::Booted && (difference.what == "new" || is_systemds(&path))
                    || is_of_growth(difference, &found)
                    || self.is_on_purpose(difference, &path);
                if !explained {
                    self.wrong
                        .push(format!("{place}, {}: {difference}", since.said()));
                }
            }
            if since == Since::Created {
                let left_out = self
                    .remark("left out")
                    .filter(|path| Path::new(path).starts_with(top));
                let there = left_out.filter(|path| inside.mount_of(Path::new(path)).is_some());
                let there: Vec<_> = there.map(|path| format!("not left out: {path}")).collect();
                self.wrong.extend(there);
            }
        }
    }

    /// As the table has it.
    fn is_on_purpose(&self, difference: &Difference, path: &Path) -> bool {
        let path = path.to_string_lossy();
        match &difference.what[..] {
            "missing" => self.remark("left out").any(|left_out| left_out == path),
            facet => self
                .remark("other")
                .any(|other| other == format!("{facet} of {path}")),
        }
    }

    fn check_machine_id(&mut self, inside: &Inside) {
        let id = inside.read("/etc/machine-id");
        let is_given = self
            .line
            .volumes
            .iter()
            .any(|volume| volume.place == "/etc/machine-id");
        if !is_given && !is_machine_id(&id) {
            self.wrong.push(format!("its machine ID: {id:?}"));
        }
    }
}

/// Look until it is so; whether it came to be in time.
fn until(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// What the image's own file system has at the places, seen from the host.
fn image_of(container: &Container) -> Vec<(&'static str, Tree)> {
    let is_there = |place: &&str| {
        container
            .path(place)
            .symlink_metadata()
            .is_ok_and(|stat| stat.is_dir())
    };
    let there = PLACES.into_iter().filter(is_there);
    there
        .map(|place| (place, record(&container.path(place))))
        .collect()
}

/// The differences of a volume at a place that are neither a mount point, nor the machine ID in an /etc that had none,
/// nor what systemd does where it is at home.
fn unexplained(before: &Tree, now: &Tree, at: &Path, since: Since) -> Vec<Difference> {
    let found = differences(before, now);
    let had_id = before
        .get(Path::new("machine-id"))
        .and_then(|facets| facets.get("content"));
    let gets_id = at == Path::new("/etc") && !had_id.is_some_and(|id| is_machine_id(id));
    let is_systemds = since == Since::Booted && is_systemds(at);
    let is_explained = |difference: &Difference| {
        is_mount_point(difference, now)
            || is_of_growth(difference, &found)
            || gets_id && difference.path == Path::new("machine-id")
            || gets_id && difference.is_of_top() && difference.what == "mtime"
            || is_systemds
                && (["new", "mtime"].contains(&&difference.what[..]) || difference.is_of_top())
    };
    let explained: Vec<_> = found.iter().map(is_explained).collect();
    let mut explained = explained.into_iter();
    found
        .into_iter()
        .filter(|_| explained.next() == Some(false))
        .collect()
}

fn is_systemds(path: &Path) -> bool {
    SYSTEMDS.iter().any(|place| path == Path::new(place))
        || SYSTEMDS_ALL.iter().any(|top| path.starts_with(top))
}

/// What the hook makes on its tmpfs, and on a user's in the same place.
fn is_ours(difference: &Difference) -> bool {
    difference.what == "new" && OURS.iter().any(|name| difference.path == Path::new(name))
}

/// Nothing but a place for a mount: an empty file, or a directory, whose own content is looked at by itself.
fn is_mount_point(difference: &Difference, now: &Tree) -> bool {
    let is_place = |facets: &Facets| match &facets["kind"][..] {
        "directory" | MOUNT => true,
        "file" => facets["content"].is_empty(),
        _ => false,
    };
    difference.what == "new" && now.get(&difference.path).is_some_and(is_place)
}

/// The time of a directory in which something is new.
fn is_of_growth(difference: &Difference, all: &[Difference]) -> bool {
    let is_in_it =
        |other: &Difference| other.what == "new" && other.path.parent() == Some(&difference.path);
    difference.what == "mtime" && all.iter().any(is_in_it)
}

fn is_machine_id(text: &str) -> bool {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Since {
    fn said(self) -> &'static str {
        match self {
            Self::Created => "before it is started",
            Self::Booted => "after the boot",
        }
    }
}
