//! Real systemds on real runtimes: what the README promises, each promise with a container that boots.
//!
//! Needs root and the lab (`tests/lab/needs`, `runtimes`, `youki`, `images`, all beside it); `make test` does all of it:
//!
//! ```sh
//! cargo test --test runtime -- --ignored --test-threads=2                # everything here
//! cargo test --test runtime -- --ignored --nocapture matrix              # the table of runtimes, views and systemds
//! cargo test --test runtime -- --ignored --nocapture limits_             # each attempt to escape, and its errno
//! ROUNDS=200 SEED=2 cargo test --test runtime -- --ignored accidents     # more rounds of accidents, others
//! CELL="runc v2 own trixie" cargo test --test runtime -- --ignored --nocapture matrix   # the cells with these words
//! LINE=/run/lock cargo test --test runtime -- --ignored --nocapture given    # the lines of given/lines.txt with these words
//! KEEP=1 cargo test --test runtime -- --ignored reboot                   # keep the bundle of a container that failed
//! HOOK_UNDER_TEST=/path/to/hook cargo test --test runtime -- --ignored   # against another hook binary
//! ```

mod lab;

#[path = "runtime/boot.rs"]
mod boot;
#[path = "runtime/compatibility.rs"]
mod compatibility;
#[path = "runtime/containment.rs"]
mod containment;
#[path = "runtime/engines.rs"]
mod engines;
#[path = "runtime/given/mod.rs"]
mod given;
#[path = "runtime/leftovers.rs"]
mod leftovers;
#[path = "runtime/life.rs"]
mod life;
#[path = "runtime/limits.rs"]
mod limits;
#[path = "runtime/machine_id.rs"]
mod machine_id;
#[path = "runtime/machine_id_rare.rs"]
mod machine_id_rare;
#[path = "runtime/matrix.rs"]
mod matrix;
#[path = "runtime/refusals.rs"]
mod refusals;
#[path = "runtime/rootless.rs"]
mod rootless;
#[path = "runtime/sshd.rs"]
mod sshd;
