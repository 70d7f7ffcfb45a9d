//! What stays when things go wrong: nothing. Rounds of create, start, kill and delete in random order, with runtimes
//! and first processes that are killed, and with a poststop that comes twice, late, or never. ROUNDS says how many
//! (20), SEED where they begin (1).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Container, View, edit_as, hierarchies, new_hierarchies};

/// Those where the hook makes the place: runtime, view, image, edits.
const CASES: [(&str, &str, &str, &str); 6] = [
    ("runc", "v1", "sid", "own"),
    ("crun", "v1", "sid", "own"),
    ("runc", "v2", "bookworm", "own legacy"),
    ("crun", "v2", "bookworm", "host legacy"),
    ("crun", "none", "bookworm", "own"),
    ("crun", "none", "sid", "own"),
];

/// Marsaglia's xorshift: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "needs root and the lab: make test"]
fn nothing_is_left_after_rounds_of_accidents() {
    let before = hierarchies();
    let mut dice = Dice(number("SEED", 1) | 1);
    let mut ids = Vec::new();
    let mut stories = BTreeMap::<&str, u32>::new();
    let views = CASES.map(|(_, cgroups, ..)| View::open("trixie", cgroups));
    let mut late: Vec<Container> = Vec::new();
    for _ in 0..number("ROUNDS", 20) {
        let index = usize::try_from(dice.roll(CASES.len() as u64)).expect("it is small");
        let (runtime, _, image, edits) = CASES[index];
        // A hook that is not registered is a poststop that never comes, or, called by the test, late.
        let registered = dice.roll(3) > 0;
        let container = Container::with(&views[index], runtime, image, |config| {
            edit_as(edits, config);
            if !registered {
                config["hooks"]["poststop"] = json!([]);
            }
        });
        ids.push(container.id.clone());
        for story in live(&container, &mut dice) {
            *stories.entry(story).or_default() += 1;
        }
        match dice.roll(4) {
            0 => {
                container.poststop();
                container.poststop();
                *stories.entry("poststop twice more").or_default() += 1;
            }
            1 => late.push(container),
            _ => *stories.entry("no other poststop").or_default() += 1,
        }
        if late.len() > 3 {
            late.remove(0).poststop();
            *stories.entry("poststop late").or_default() += 1;
        }
    }
    drop(late); // whose poststop never came
    // The next container sweeps what is left of those before it.
    for ((runtime, _, image, edits), view) in CASES.iter().zip(&views) {
        let container = Container::with(view, runtime, image, |config| edit_as(edits, config));
        container.create().unwrap();
        container.start().unwrap();
        container.kill("KILL");
        container.wait_stopped(Duration::from_secs(10)).unwrap();
        container.delete().unwrap();
        ids.push(container.id.clone());
    }
    println!("{} containers: {stories:?}", ids.len());
    let left = settled(|| left_of(&views, &ids));
    assert_eq!(left, [""; 0], "left behind");
    drop(views);
    let new = new_hierarchies(&before);
    println!(
        "left behind: none; hierarchies as before: {}",
        new.is_empty()
    );
    assert_eq!(new, [""; 0], "hierarchies that were not there before");
}

/// One life, and what happened in it. Whatever it was, the container is deleted in the end.
fn live(container: &Container, dice: &mut Dice) -> Vec<&'static str> {
    let mut story = Vec::new();
    if dice.roll(3) == 0 {
        container.create_and_kill_the_runtime(Duration::from_millis(dice.roll(120)));
        story.push("runtime killed at create");
        container.delete_by_force();
        container.clear_the_runtimes_cgroups();
        return story;
    }
    container.create().unwrap();
    if dice.roll(2) == 0 {
        container.start().unwrap();
        thread::sleep(Duration::from_millis(dice.roll(300)));
        story.push("started");
    }
    match dice.roll(3) {
        0 => {
            container.kill("KILL");
            story.push("PID 1 killed");
        }
        1 if story.contains(&"started") && container.wait_until_running().is_ok() => {
            container.stop().unwrap();
            story.push("stopped in order");
        }
        _ => {
            story.push("deleted by force");
            container.delete_by_force();
            return story;
        }
    }
    container.wait_stopped(Duration::from_secs(10)).unwrap();
    container.delete().unwrap();
    story
}

/// Cgroups with one of the ids, and places of the hook's where nobody lives. Others' containers may have theirs.
fn left_of(views: &[View], ids: &[String]) -> Vec<String> {
    let mut left: Vec<PathBuf> = Vec::new();
    for view in views {
        left.extend(ids.iter().flat_map(|id| view.cgroups_of(id)));
        let tops = view.cgroups_of("oci-systemd-hook").into_iter();
        left.extend(tops.filter(|path| path.ends_with("oci-systemd-hook") && is_empty(path)));
    }
    left.iter().map(|path| path.display().to_string()).collect()
}

fn is_empty(directory: &Path) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    !entries.any(|entry| entry.path().is_dir())
}

/// What is left when containers of other tests have had some time to go.
fn settled(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let started = Instant::now();
    loop {
        let left = look();
        if left.is_empty() || started.elapsed() > Duration::from_secs(10) {
            return left;
        }
        thread::sleep(Duration::from_millis(100));
    }
}
