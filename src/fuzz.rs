//! What has to hold for every input, however hostile: the targets of `fuzz/`, and of the tests below,
//! which try variations of the same seeds. A target panics where something does not hold.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgroup::{self, Hierarchy, Layout, Membership, Support};
use crate::decision::{self, CgroupWish, Policy};
use crate::elf::Elf;
use crate::error::Error;
use crate::json;
use crate::machine_id::MachineId;
use crate::oci::{Config, State};
use crate::plan::{self, Facts, LegacyTree, Spot, Step};
use crate::proc;
use crate::rootfs::{Rootfs, open_regular};
use crate::seed::Means;

/// Choices that are made by the bytes of an input, zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn any<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()].clone()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (first, rest) = self.0.split_at(length);
        self.0 = rest;
        first
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// An error is one line of bounded length, without control characters, and not called a bug.
fn check(error: &Error) {
    let line = error.line(Some("id"));
    assert!(
        line.len() < 4096 && !line.contains(char::is_control),
        "{line:?}"
    );
    assert_ne!(error.exit_status(), 70);
}

/// Standard input.
pub fn state(data: &[u8]) {
    match State::read(data) {
        Ok(state) => assert!(!state.id.is_empty()),
        Err(error) => check(&error),
    }
}

/// config.json: read at once and bit by bit it says the same, and every wish leads to a decision.
pub fn config(data: &[u8]) {
    let at_once = json::from_slice::<Config>(data);
    let streamed = json::from_reader::<Config>(data);
    let (Ok(config), Ok(streamed)) = (&at_once, &streamed) else {
        assert_eq!(
            at_once.is_ok(),
            streamed.is_ok(),
            "{at_once:?} {streamed:?}"
        );
        return;
    };
    assert_eq!(format!("{config:?}"), format!("{streamed:?}"));
    let request = config.request(false);
    if let Ok(candidate) = decision::candidate(&request) {
        let is_ours = |path: &PathBuf| path.ends_with("init") || path.ends_with("systemd");
        assert!(candidate.programs.iter().all(is_ours), "{candidate:?}");
    }
    if let Err(bad) = Policy::read(config.annotations()) {
        check(&bad.into());
    }
    assert_ne!(config.memory_limit(), Some(0));
}

/// `/proc/PID/cgroup`.
pub fn cgroup(data: &[u8]) {
    for controller in ["", "name=systemd"] {
        if let Err(error) = proc::cgroup_in(data, controller) {
            check(&Error::failed("look", error));
        }
    }
}

/// `/proc/PID/mountinfo` and `/proc/PID/uid_map`.
pub fn mountinfo(data: &[u8]) {
    if let Err(error) = proc::mount_in(data, 1) {
        check(&Error::failed("look", error));
    }
    let text = String::from_utf8_lossy(data);
    let _ = text.lines().find_map(proc::of_zero);
}

/// `/etc/machine-id`, `container_uuid` and the container's id: whatever they are, there is a valid
/// ID in the end.
pub fn machine_id(data: &[u8]) {
    let parsed = MachineId::parse(data);
    if let Some(id) = parsed {
        assert_eq!(id.to_string().as_bytes(), &data[..32]);
    }
    let mut choices = Choices(data);
    let (uuid, id) = (choices.text(), choices.text());
    let id = MachineId::of_container(Some(&uuid), &id, parsed).to_string();
    assert!(MachineId::parse(id.as_bytes()).is_some(), "{id}");
}

/// The program of the image: reads have their bounds.
pub fn elf(data: &[u8]) {
    let path = scratch();
    fs::write(&path, data).expect("a file");
    let file = File::open(&path).expect("the file");
    fs::remove_file(&path).expect("the file");
    if let Some(elf) = Elf::read(&file).expect("it can be read") {
        let needed = elf.needed().expect("it can be read");
        assert!(needed.len() <= 128 && needed.iter().all(|name| name.chars().count() < 128));
        let _ = elf.after(b"systemd ").expect("it can be read");
    }
}

/// Paths of the image, with links that the input chose: what is found is never outside.
pub fn lookup(data: &[u8]) {
    const NAMES: [&str; 6] = [
        "etc",
        "usr",
        "run",
        "usr/lib",
        "etc/machine-id",
        "usr/lib/systemd",
    ];
    let top = scratch();
    let image = top.join("image");
    fs::create_dir_all(&image).expect("a directory");
    fs::write(top.join("machine-id"), "outside").expect("a file");
    let mut choices = Choices(data);
    for name in NAMES {
        let path = image.join(name);
        let (kind, text) = (choices.byte() % 4, choices.text());
        // Below a link of the input it would be made wherever that leads, on this machine.
        let is_directory =
            |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let mut above = path.ancestors().skip(1);
        if !above.all(|path| !path.starts_with(&image) || is_directory(path)) {
            continue;
        }
        // The text of a link may be too long, or have a NUL.
        let _ = match kind {
            0 => fs::create_dir(&path),
            1 => File::create_new(&path).and_then(|mut file| file.write_all(b"inside")),
            _ => symlink(text, &path),
        };
    }
    let root = File::open(&image).expect("the image");
    let rootfs = Rootfs::new(root.into());
    let asked = choices.text();
    for path in NAMES.iter().copied().chain([asked.as_str()]) {
        if let Ok(Some((found, _))) = rootfs.find(path) {
            assert_inside(&image, &found);
        }
        if let Ok(entry) = rootfs.entry(Path::new(path)) {
            assert_inside(&image, &entry.directory);
            let mut names = Path::new(&entry.name).components();
            assert!(matches!(
                (names.next(), names.next()),
                (Some(Component::Normal(_) | Component::CurDir), None)
            ));
            if let Ok(Some(file)) = open_regular(&entry) {
                assert_inside(&image, &file);
            }
        }
    }
    drop(rootfs);
    fs::remove_dir_all(&top).expect("the directory");
}

fn assert_inside(image: &Path, found: &impl AsRawFd) {
    let path = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).expect("a path");
    assert!(path.starts_with(image), "{}", path.display());
}

fn scratch() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ohs-fuzz-{}-{number}", std::process::id()))
}

/// Any facts in: the plan names no place outside of its list, enters once, and seeds the ID last.
pub fn plan(data: &[u8]) {
    let facts = match facts(&mut Choices(data)) {
        Ok(facts) => facts,
        Err(error) => return check(&error),
    };
    let steps = match plan::plan(&facts) {
        Ok(steps) => steps,
        Err(error) => return check(&error),
    };
    let position = |is: fn(&Step) -> bool| {
        let found: Vec<_> = (0..steps.len()).filter(|at| is(&steps[*at])).collect();
        assert!(found.len() <= 1, "twice: {steps:?}");
        found.first().copied()
    };
    let entered = position(|step| matches!(step, Step::EnterNamespaces)).expect("it enters");
    let moved = position(|step| matches!(step, Step::MoveProcess { .. }));
    let delegated = position(|step| matches!(step, Step::Delegate { .. }));
    let opened = position(|step| matches!(step, Step::OpenTree(_)));
    let attached = position(|step| matches!(step, Step::AttachTree(_)));
    // The host's side comes before; None sorts before everything.
    assert!(moved < Some(entered) && delegated < Some(entered) && moved <= delegated.or(moved));
    assert_eq!(opened.is_some(), attached.is_some());
    assert_eq!(opened < Some(entered), opened.is_none() || facts.is_outside);
    assert!(opened < attached || attached.is_none());
    assert!(attached.is_none() || attached > Some(entered));
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::MountTmpfs(tmpfs) => {
                assert!(["/run", "/run/lock", "/tmp"].contains(&tmpfs.destination));
                assert!(tmpfs.size > 0 && at > entered);
            }
            Step::AttachTree(tree) | Step::OpenTree(tree) => {
                let path = Path::new(tree.place_at().unwrap_or("/"));
                assert!(path.is_absolute(), "{tree:?}");
                let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
                assert!(path.components().all(is_plain), "{tree:?}");
            }
            Step::SeedMachineId(wish) => {
                assert_eq!(at, steps.len() - 1);
                assert!(wish.etc != Means::Write || !is_read_only(facts.etc));
            }
            Step::NameManager => assert!(is_ours(facts.run)),
            Step::CoverUnified { .. } | Step::MakeLegacyTree { .. } => assert!(at > entered),
            Step::MoveProcess { .. } | Step::Delegate { .. } | Step::EnterNamespaces => {}
        }
    }
    assert!(matches!(steps.last(), Some(Step::SeedMachineId(_))));
}

fn is_ours(spot: Spot) -> bool {
    !matches!(spot, Spot::Mount { is_ours: false, .. })
}

fn is_read_only(spot: Spot) -> bool {
    matches!(
        spot,
        Spot::Mount {
            read_only: true,
            ..
        }
    )
}

/// Facts as `facts` puts them together, of observations that the input chose.
fn facts(choices: &mut Choices<'_>) -> Result<Facts, Error> {
    let mut spot = || match choices.byte() % 5 {
        0 => Spot::Missing,
        1 => Spot::Directory,
        2 => Spot::Link,
        3 => Spot::NotADirectory,
        _ => Spot::Mount {
            is_ours: choices.flag(),
            read_only: choices.flag(),
            shared: choices.flag(),
        },
    };
    let (run, lock, tmp, etc) = (spot(), spot(), spot(), spot());
    let layout = choices.any(&[
        Layout::Unified,
        Layout::Hybrid,
        Layout::Legacy,
        Layout::Absent,
    ]);
    let wish = choices.any(&[CgroupWish::Auto, CgroupWish::Unified, CgroupWish::Legacy]);
    let version = choices.flag().then(|| u32::from(choices.byte()) + 100);
    let hierarchy = Hierarchy::choose(layout, Support::of(version, wish));
    let membership = Membership {
        view: format!("/{}", choices.text()),
        own: choices.flag(),
        limited: choices.flag(),
        owned_by_others: choices.flag(),
        may_mount: choices.flag(),
        from_root: choices.flag(),
        ready: choices.flag(),
    };
    let id = choices.text();
    let tree = cgroup::tree(hierarchy, &membership, &id).map_err(Error::Cgroup)?;
    Ok(Facts {
        run,
        lock,
        tmp,
        etc,
        image_mounts_tmp: choices.flag(),
        root_is_read_only: choices.flag(),
        memory: choices.number(),
        label: choices.flag().then(|| choices.text()),
        layout,
        hierarchy,
        tree,
        is_outside: choices.flag(),
        delegate_to: choices.flag().then_some((100_000, 100_000)),
        legacy_tree: choices.any(&[LegacyTree::Absent, LegacyTree::Made, LegacyTree::Hosts]),
        may_mount: membership.may_mount,
        machine_id: MachineId::of_container(None, &id, None),
        keep_machine_id: choices.flag(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Target = fn(&[u8]);

    /// All of them, by the names of their seeds.
    const TARGETS: [(&str, Target); 8] = [
        ("state", state),
        ("config", config),
        ("cgroup", cgroup),
        ("mountinfo", mountinfo),
        ("machine_id", machine_id),
        ("elf", elf),
        ("lookup", lookup),
        ("plan", plan),
    ];

    /// What is changed in a seed: at a place, so many bytes, into these.
    type Change = (usize, usize, Vec<u8>);

    fn changed(seed: &[u8], changes: Vec<Change>) -> Vec<u8> {
        let mut data = seed.to_vec();
        for (at, length, bytes) in changes {
            let at = at % (data.len() + 1);
            let end = (at + length).min(data.len());
            data.splice(at..end, bytes);
        }
        data
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let seeds: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| fs::read(entry.expect("a seed").path()).expect("a seed"))
            .collect();
        assert!(!seeds.is_empty(), "{}", folder.display());
        seeds
    }

    #[test]
    fn holds_for_the_seeds_and_what_is_near_them() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            for seed in &seeds {
                target(seed);
            }
            let change = (any::<usize>(), 0..9_usize, vec(any::<u8>(), 0..9));
            let input = (prop::sample::select(seeds), vec(change, 0..6))
                .prop_map(|(seed, changes)| changed(&seed, changes));
            proptest!(ProptestConfig::with_cases(300), |(data in input)| target(&data));
        }
    }

    #[test]
    fn holds_for_any_bytes() {
        for (_, target) in TARGETS {
            proptest!(ProptestConfig::with_cases(300), |(data in vec(any::<u8>(), 0..400))| {
                target(&data);
            });
        }
    }
}
