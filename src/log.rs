//! Where the hook's words go: warnings and errors to the host's journal or syslog, since runtimes
//! throw a hook's standard error away; all that `RUST_LOG` asks for to both.

use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::error::{printable, short};

/// journald and every syslog daemon listen here.
const SYSLOG: &str = "/dev/log";
/// The facility "daemon" of syslog(3).
const DAEMON: u8 = 3 << 3;

struct Logger {
    stderr: env_logger::Logger,
    container: OnceLock<String>,
    syslog: OnceLock<Option<UnixDatagram>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Take up logging. `RUST_LOG` chooses what is said, and nothing else.
pub fn init() {
    let filters = std::env::var("RUST_LOG").unwrap_or_default();
    let filters = Some(filters.as_str()).filter(|filters| are_filters(filters));
    let stderr = env_logger::Builder::new()
        .parse_filters(filters.unwrap_or("off"))
        .format(|to, record| std::io::Write::write_fmt(to, format_args!("{}\n", text(record))))
        .build();
    let filter = stderr.filter().max(LevelFilter::Warn);
    let logger = LOGGER.get_or_init(|| Logger {
        stderr,
        container: OnceLock::new(),
        syslog: OnceLock::new(),
    });
    // It fails only where a logger is set already, which is this one.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(filter);
    }
}

/// Whether these are levels, each perhaps of a module: `debug`, `warn,oci_systemd_hook=trace`. Of
/// anything else, which may come from a container (runc up to 1.2 hands its environment on to a hook
/// that has none), the parser of `env_logger` would complain on standard error, quoting it.
fn are_filters(text: &str) -> bool {
    text.split(',').all(|filter| {
        let (module, level) = filter.split_once('=').unwrap_or(("", filter));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
        module.bytes().all(is_plain) && level.parse::<LevelFilter>().is_ok()
    })
}

/// Name the container that everything from here on is about.
pub(crate) fn about(id: &str) {
    if let Some(logger) = LOGGER.get() {
        let _ = logger.container.set(short(id));
    }
}

/// Connect to the host's log now: inside the container its name would be the image's.
pub(crate) fn connect() {
    if let Some(logger) = LOGGER.get() {
        logger.connected();
    }
}

/// Write the hook's last line: to standard error, and to the host's log.
pub fn report(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
    if let Some(logger) = LOGGER.get() {
        logger.tell_host(3, line);
    }
}

fn text(record: &Record) -> String {
    let container = LOGGER.get().and_then(|logger| logger.container.get());
    let id = container.map(|id| format!("{id}: ")).unwrap_or_default();
    printable(&format!("oci-systemd-hook: {id}{}", record.args()))
}

impl Logger {
    fn connected(&self) -> Option<&UnixDatagram> {
        let connect = || {
            let socket = UnixDatagram::unbound().ok()?;
            // A log that nobody reads must not hold a container back.
            socket.set_nonblocking(true).ok()?;
            socket.connect(SYSLOG).ok()?;
            Some(socket)
        };
        self.syslog.get_or_init(connect).as_ref()
    }

    /// A host without a log, or with a full one, does not hear it.
    fn tell_host(&self, severity: u8, line: &str) {
        if let Some(socket) = self.connected() {
            let _ = socket.send(format!("<{}>{line}", DAEMON | severity).as_bytes());
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Warn || self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.stderr.log(record);
        // crun and, on success, runc throw standard error away: what is asked for is told there too.
        if record.level() <= Level::Warn || self.stderr.matches(record) {
            let severity = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            self.tell_host(severity, &text(record));
        }
    }

    fn flush(&self) {}
}
