//! Real systemds on real runtimes: what the README promises, each promise with a container that boots.
//!
//! Needs root and the lab (`tests/lab/needs`, `tests/lab/runtimes`, `tests/lab/images`); `make test` does all of it:
//!
//! ```sh
//! cargo test --test runtime -- --ignored --test-threads=2                # everything here
//! cargo test --test runtime -- --ignored --nocapture matrix              # the table of runtimes, views and systemds
//! CELL="runc v2 own trixie" cargo test --test runtime -- --ignored --nocapture matrix   # the cells with these words
//! KEEP=1 cargo test --test runtime -- --ignored reboot                   # keep the bundle of a container that failed
//! HOOK_UNDER_TEST=/path/to/hook cargo test --test runtime -- --ignored   # against another hook binary
//! ```

mod lab;

#[path = "runtime/boot.rs"]
mod boot;
#[path = "runtime/containment.rs"]
mod containment;
#[path = "runtime/life.rs"]
mod life;
#[path = "runtime/machine_id.rs"]
mod machine_id;
#[path = "runtime/matrix.rs"]
mod matrix;
#[path = "runtime/sshd.rs"]
mod sshd;
