//! How much room there is in the hook's own file systems, as statfs(2) tells a program that asks.

use serde_json::json;

use crate::bundle::Bundle;
use crate::process::Process;

const MIB: u64 = 1 << 20;

/// Bytes, and files and directories, of what is mounted at a place.
fn room(process: &Process, at: &str) -> (u64, u64) {
    let found = rustix::fs::statvfs(process.path(at)).expect("statfs");
    (found.f_blocks * found.f_frsize, found.f_files)
}

/// Of the machine, in bytes: what sysinfo(2) says, as the hook asks it.
fn memory() -> u64 {
    let told = rustix::system::sysinfo();
    told.totalram * u64::from(told.mem_unit)
}

/// tmpfs rounds up to whole pages, which are its blocks.
fn pages(process: &Process, bytes: u64) -> u64 {
    let found = rustix::fs::statvfs(process.path("run")).expect("statfs");
    bytes.next_multiple_of(found.f_frsize)
}

#[test]
#[ignore = "needs root: make test"]
fn gives_run_a_fifth_and_tmp_a_half_of_the_memory_that_the_container_may_use() {
    let machine = memory();
    for (limit, memory) in [
        (None, machine),
        (Some(json!(0)), machine),
        (Some(json!(-1)), machine),
        (Some(json!(1_u64 << 62)), machine),
        (Some(json!(1024 * MIB)), 1024 * MIB),
        (Some(json!(1000 * MIB + 1)), 1000 * MIB + 1),
        (Some(json!(320 * MIB)), 320 * MIB),
        (Some(json!(64 * MIB)), 64 * MIB),
        (Some(json!(6 * MIB)), 6 * MIB),
        (Some(json!(1)), 1),
    ] {
        let mut bundle = Bundle::with_systemd(252);
        bundle.write("usr/lib/systemd/system/tmp.mount", b"[Mount]\n");
        if let Some(limit) = &limit {
            bundle.config["linux"]["resources"]["memory"]["limit"] = limit.clone();
        }
        let process = Process::start(&bundle, "");
        process.prepare(&bundle);
        let run = pages(&process, (memory / 5).max(64 * MIB));
        assert_eq!(room(&process, "run"), (run, 800_000), "{limit:?}");
        let tmp = pages(&process, (memory / 2).max(MIB));
        assert_eq!(room(&process, "tmp"), (tmp, 1_000_000), "{limit:?}");
        assert_eq!(room(&process, "run/lock").0, 5 * MIB, "{limit:?}");
    }
}
