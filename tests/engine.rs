//! Real engines: podman finds the hook through hooks.d, Docker through CDI, with the files as they are shipped and in
//! the places where packages put them; and what a user then types boots systemd.
//!
//! Needs root and the lab (`tests/lab/needs`, `tests/lab/runtimes`, `tests/lab/images`); `make test` does all of it.
//! One test at a time, as the engines of a root are shared; podman is that of the host, and that of Debian 13:
//!
//! ```sh
//! cargo test --test engine                                       # the registration files alone, without privilege
//! cargo test --test engine -- --ignored docker                   # the tests whose names say docker
//! HOOK_UNDER_TEST=/path/to/hook cargo test --test engine -- --ignored
//! ```

// This binary has no need of the lab's own containers.
#[allow(unused_imports)]
mod lab;

#[path = "engine/docker.rs"]
mod docker;
#[path = "engine/host.rs"]
mod host;
#[path = "engine/own_systemd.rs"]
mod own_systemd;
#[path = "engine/podman.rs"]
mod podman;
#[path = "engine/readme.rs"]
mod readme;
#[path = "engine/registration.rs"]
mod registration;
#[path = "engine/restarts.rs"]
mod restarts;
