//! argv and standard input in, one line and an exit status out.

use std::process::ExitCode;

/// sysexits(3): an internal error.
const EX_SOFTWARE: i32 = 70;

fn main() -> ExitCode {
    // A bug is one line too, and stops the container like any other failure.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        oci_systemd_hook::report(&format!(
            "oci-systemd-hook: a bug at {place}: please report it"
        ));
        std::process::exit(EX_SOFTWARE);
    }));
    oci_systemd_hook::init_log();
    let args = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned());
    match oci_systemd_hook::run(args, std::io::stdin().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            oci_systemd_hook::report(&failure.line);
            ExitCode::from(failure.exit_status)
        }
    }
}
