//! Just enough of ELF to tell which shared libraries a program needs. The file is the image's, so
//! every number in it is a lie until checked: reads are bounded, and what does not fit is `None`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAX_PROGRAM_HEADERS: u64 = 128;
const MAX_DYNAMIC: usize = 64 << 10;
const MAX_NEEDED: usize = 128;
const MAX_NAME: usize = 128;
/// How far a text is searched for: systemd 219 to 262 have 1 to 4 MiB.
const MAX_SEARCHED: u64 = 32 << 20;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// An ELF file, its header read.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    file: &'a File,
    wide: bool,
    big_endian: bool,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl<'a> Elf<'a> {
    /// Read the header and the program headers; `None` when it is no ELF file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(file: &'a File) -> io::Result<Option<Self>> {
        let header = bytes_at(file, 0, 64)?;
        if header.len() < 52 || !header.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let (wide, big_endian) = match (header[4], header[5]) {
            (1, 1) => (false, false),
            (1, 2) => (false, true),
            (2, 1) => (true, false),
            (2, 2) => (true, true),
            _ => return Ok(None),
        };
        let mut elf = Self {
            file,
            wide,
            big_endian,
            segments: Vec::new(),
        };
        elf.segments = elf.segments(&header)?;
        Ok(Some(elf))
    }

    fn segments(&self, header: &[u8]) -> io::Result<Vec<Segment>> {
        let (table, size, count) = if self.wide {
            (
                self.number(header, 32, 8),
                self.number(header, 54, 2),
                self.number(header, 56, 2),
            )
        } else {
            (
                self.number(header, 28, 4),
                self.number(header, 42, 2),
                self.number(header, 44, 2),
            )
        };
        let (Some(table), Some(size @ 32..=128), Some(count)) = (table, size, count) else {
            return Ok(Vec::new());
        };
        let bounded = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (size, count) = (bounded(size), bounded(count.min(MAX_PROGRAM_HEADERS)));
        let bytes = bytes_at(self.file, table, size * count)?;
        Ok(bytes
            .chunks_exact(size)
            .filter_map(|entry| self.segment(entry))
            .collect())
    }

    fn segment(&self, entry: &[u8]) -> Option<Segment> {
        let (offset, address, size, width) = if self.wide {
            (8, 16, 32, 8)
        } else {
            (4, 8, 16, 4)
        };
        Some(Segment {
            kind: self.number(entry, 0, 4)?,
            offset: self.number(entry, offset, width)?,
            address: self.number(entry, address, width)?,
            size: self.number(entry, size, width)?,
        })
    }

    /// The names of the libraries that the program is linked to (`DT_NEEDED`), at most 128 names
    /// of at most 127 bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn needed(&self) -> io::Result<Vec<String>> {
        let Some(dynamic) = self
            .segments
            .iter()
            .find(|segment| segment.kind == PT_DYNAMIC)
        else {
            return Ok(Vec::new());
        };
        let bytes = bytes_at(
            self.file,
            dynamic.offset,
            usize::try_from(dynamic.size).map_or(MAX_DYNAMIC, |size| size.min(MAX_DYNAMIC)),
        )?;
        let width = if self.wide { 8 } else { 4 };
        let entries: Vec<(u64, u64)> = bytes
            .chunks_exact(2 * width)
            .map_while(|entry| {
                Some((
                    self.number(entry, 0, width)?,
                    self.number(entry, width, width)?,
                ))
            })
            .collect();
        let Some(strings) = entries.iter().find(|entry| entry.0 == DT_STRTAB) else {
            return Ok(Vec::new());
        };
        let Some(strings) = self.offset_of(strings.1) else {
            return Ok(Vec::new());
        };
        let needed = entries
            .iter()
            .filter(|entry| entry.0 == DT_NEEDED)
            .take(MAX_NEEDED);
        let mut names = Vec::new();
        for (_, index) in needed {
            let Some(offset) = strings.checked_add(*index) else {
                continue;
            };
            let bytes = bytes_at(self.file, offset, MAX_NAME)?;
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            if name.len() < bytes.len() {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(names)
    }

    /// Where in the file the byte at an address of the loaded program lies.
    fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|segment| {
                let into = address.checked_sub(segment.address)?;
                (into < segment.size).then(|| segment.offset.checked_add(into))?
            })
    }

    /// What follows the first `text` that is followed by a digit, 16 bytes at most.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn after(&self, text: &[u8]) -> io::Result<Option<Vec<u8>>> {
        const CHUNK: usize = 64 << 10;
        let begins = text.len() + 1;
        // What begins in a chunk is there with all that may be asked for of it.
        let overlap = begins + 16;
        let mut offset = 0;
        while offset < MAX_SEARCHED {
            let bytes = bytes_at(self.file, offset, CHUNK + overlap)?;
            let found = bytes
                .windows(begins)
                .take(CHUNK)
                .position(|window| window.starts_with(text) && window[text.len()].is_ascii_digit());
            if let Some(at) = found {
                return Ok(Some(
                    bytes[at + text.len()..].iter().copied().take(16).collect(),
                ));
            }
            if bytes.len() <= CHUNK {
                break;
            }
            offset += CHUNK as u64;
        }
        Ok(None)
    }

    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(width)?)?;
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    }
}

/// Up to `length` bytes; fewer where the file ends before.
fn bytes_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(more) => read += more,
            // An offset beyond what a file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A minimal ELF file that needs these libraries, in either width and byte order.
    fn program(wide: bool, big_endian: bool, names: &[&str]) -> Vec<u8> {
        let number = |value: u64, width: usize| {
            let bytes = value.to_be_bytes()[8 - width..].to_vec();
            if big_endian {
                bytes
            } else {
                bytes.into_iter().rev().collect::<Vec<_>>()
            }
        };
        let width = if wide { 8 } else { 4 };
        let (header, entry) = if wide { (64, 56) } else { (52, 32) };
        let mut strings = vec![0];
        let mut dynamic = Vec::new();
        for name in names {
            dynamic.extend(
                [
                    number(DT_NEEDED, width),
                    number(strings.len() as u64, width),
                ]
                .concat(),
            );
            strings.extend([name.as_bytes(), &[0]].concat());
        }
        dynamic.extend([number(DT_STRTAB, width), number(0x1000, width)].concat());
        let dynamic_at = header + 2 * entry;
        let strings_at = dynamic_at + dynamic.len();

        let mut file = [
            b"\x7fELF",
            &[1 + u8::from(wide), 1 + u8::from(big_endian), 1][..],
        ]
        .concat();
        file.resize(header, 0);
        let mut put = |at: usize, value: usize, width: usize| {
            file[at..at + width].copy_from_slice(&number(value as u64, width));
        };
        put(if wide { 32 } else { 28 }, header, width);
        put(if wide { 54 } else { 42 }, entry, 2);
        put(if wide { 56 } else { 44 }, 2, 2);
        for (kind, offset, address, size) in [
            (PT_LOAD, strings_at, 0x1000, strings.len()),
            (PT_DYNAMIC, dynamic_at, 0, dynamic.len()),
        ] {
            let (offset_at, address_at, size_at) = if wide { (8, 16, 32) } else { (4, 8, 16) };
            let mut segment = vec![0; entry];
            segment[..4].copy_from_slice(&number(kind, 4));
            for (at, value) in [(offset_at, offset), (address_at, address), (size_at, size)] {
                segment[at..at + width].copy_from_slice(&number(value as u64, width));
            }
            file.extend(segment);
        }
        [file, dynamic, strings].concat()
    }

    fn with<T>(bytes: &[u8], look: impl FnOnce(&File) -> T) -> T {
        let path = std::env::temp_dir().join(format!("elf-{}-{:p}", std::process::id(), bytes));
        File::create(&path)
            .and_then(|mut file| file.write_all(bytes))
            .expect("a file");
        let looked = look(&File::open(&path).expect("the file"));
        std::fs::remove_file(&path).expect("removed");
        looked
    }

    fn needed(bytes: &[u8]) -> Option<Vec<String>> {
        with(bytes, |file| {
            Elf::read(file)
                .expect("read")
                .map(|elf| elf.needed().expect("read"))
        })
    }

    #[test]
    fn reads_the_needed_libraries_in_each_width_and_byte_order() {
        let names = ["libsystemd-shared-247.so", "libc.so.6"];
        for (wide, big_endian) in [(true, false), (true, true), (false, false), (false, true)] {
            let found = needed(&program(wide, big_endian, &names)).expect("an ELF file");
            assert_eq!(found, names, "{wide} {big_endian}");
        }
    }

    #[test]
    fn takes_no_other_file_for_elf() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
            assert_eq!(needed(bytes), None);
        }
    }

    #[test]
    fn survives_every_truncation_and_every_changed_byte() {
        let whole = program(true, false, &["libsystemd-shared-252.so"]);
        for length in 0..whole.len() {
            needed(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                needed(&changed);
            }
        }
    }

    #[test]
    fn finds_a_text_also_across_the_border_of_a_chunk() {
        let mut bytes = program(true, false, &[]);
        bytes.resize((64 << 10) - 4, b'x');
        bytes.extend(b"systemd is systemd 219 and more");
        let found = with(&bytes, |file| {
            Elf::read(file)
                .expect("read")
                .expect("ELF")
                .after(b"systemd ")
                .expect("read")
        });
        assert_eq!(found.expect("found"), b"219 and more");
    }
}
