//! The terminal of a container: the runtime makes it and sends its other end over a socket, as the runtime
//! specifications of runc and crun (`--console-socket`) have it. What is written to /dev/console is kept.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A socket that waits for one terminal, and what was read from it so far. Its thread ends with the test process:
/// a terminal that nobody has open at the moment reads as an error, as one does that is gone.
pub(super) struct Console {
    pub(super) socket: PathBuf,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    pub(super) fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket can be made in the bundle");
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (sink, here) = (Arc::clone(&output), Arc::downgrade(&output));
        thread::spawn(move || {
            let Some(mut terminal) = listener
                .accept()
                .ok()
                .and_then(|(stream, _)| receive(&stream))
            else {
                return;
            };
            drop(sink);
            let mut buffer = [0; 4096];
            while let Some(output) = here.upgrade() {
                match terminal.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        output
                            .lock()
                            .expect("no reader panics")
                            .extend_from_slice(&buffer[..length]);
                    }
                    _ => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self {
            socket: socket.into(),
            output,
        }
    }

    /// All that was written to /dev/console so far, without colours.
    pub(super) fn text(&self) -> String {
        let output =
            String::from_utf8_lossy(&self.output.lock().expect("no reader panics")).into_owned();
        without_escapes(&output)
    }
}

/// The descriptor that comes with the only message.
fn receive(stream: &UnixStream) -> Option<File> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut name)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .ok()?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors
        .flatten()
        .next()
        .map(|descriptor: OwnedFd| descriptor.into())
}

/// Text without the control sequences of a terminal (ECMA-48: ESC, `[`, parameters, one letter).
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\x1b');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let rest = part.strip_prefix('[').unwrap_or(part);
        plain.push_str(
            rest.trim_start_matches(|c: char| !c.is_ascii_alphabetic())
                .get(1..)
                .unwrap_or_default(),
        );
    }
    plain
}
