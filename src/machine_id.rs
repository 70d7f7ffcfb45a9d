//! The machine ID of a container (machine-id(5)): which one it gets, and whether what its image
//! has is replaced. Values in, values out.

use std::fmt;

use uuid::Uuid;

/// The namespace of IDs on a host that has no machine ID itself.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_2c54_93e8_4d07_a2d6_58c0_71fe_3b49);

/// A valid machine ID: 32 lower-case hexadecimal digits, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineId(Uuid);

impl MachineId {
    /// Read an ID as systemd accepts it in a file: the digits, and perhaps a newline.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_suffix(b"\n").unwrap_or(text);
        Self::of_digits(digits).filter(|_| !digits.iter().any(u8::is_ascii_uppercase))
    }

    /// The ID of a container: its `container_uuid` in either spelling of a UUID; else the first
    /// 32 digits of an id that begins with so many, as podman has it; else one that is made of
    /// the container's id and the host's machine ID, and so differs between hosts and not between
    /// two starts.
    pub(crate) fn of_container(
        container_uuid: Option<&str>,
        id: &str,
        host: Option<MachineId>,
    ) -> Self {
        container_uuid
            .and_then(Self::of_uuid)
            .or_else(|| Self::of_digits(id.as_bytes().get(..32)?))
            .unwrap_or_else(|| {
                let namespace = host.map_or(NAMESPACE, |host| host.0);
                Self(Uuid::new_v5(&namespace, id.as_bytes()))
            })
    }

    /// A UUID with or without its dashes; uuid also knows braces and URNs, systemd does not.
    pub(crate) fn of_uuid(text: &str) -> Option<Self> {
        if !matches!(text.len(), 32 | 36) {
            return None;
        }
        Uuid::try_parse(text)
            .ok()
            .filter(|uuid| !uuid.is_nil())
            .map(Self)
    }

    fn of_digits(digits: &[u8]) -> Option<Self> {
        let all = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
        all.then(|| Self::of_uuid(std::str::from_utf8(digits).ok()?))?
    }
}

/// As in the file, without the newline.
impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// What lies at `/etc/machine-id` before the container starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// The ID in the file; `None` where it is missing, empty, `uninitialized` or anything else.
    pub(crate) id: Option<MachineId>,
    /// The file is in a volume of the user's.
    pub(crate) in_volume: bool,
}

/// Whether to write `wanted` where `existing` is. With `keep` a valid ID of the image stays.
pub(crate) fn is_replaced(existing: &Existing, wanted: MachineId, keep: bool) -> bool {
    existing
        .id
        .is_none_or(|id| id != wanted && !existing.in_volume && !keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn reads_what_systemd_reads() {
        for (text, valid) in [
            (ID.to_owned(), true),
            (format!("{ID}\n"), true),
            (format!("{ID}\n\n"), false),
            (format!("{ID}x"), false),
            (ID.to_uppercase(), false),
            (ID[1..].to_owned(), false),
            ("0".repeat(32), false),
            ("01234567-89ab-cdef-0123-456789abcdef".to_owned(), false),
            ("uninitialized\n".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(
                MachineId::parse(text.as_bytes()).is_some(),
                valid,
                "{text:?}"
            );
        }
    }

    #[test]
    fn prefers_the_uuid_of_the_container_then_its_id() {
        let long = "ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (uuid, id, expected) in [
            (Some("01234567-89AB-CDEF-0123-456789abcdef"), long, ID),
            (Some(ID), "box", ID),
            (None, long, "abcdef6789abcdef0123456789abcdef"),
            (Some("nonsense"), long, "abcdef6789abcdef0123456789abcdef"),
            (
                Some("{01234567-89ab-cdef-0123-456789abcdef}"),
                long,
                "abcdef6789abcdef0123456789abcdef",
            ),
            (Some("00000000-0000-0000-0000-000000000000"), ID, ID),
        ] {
            assert_eq!(
                MachineId::of_container(uuid, id, None).to_string(),
                expected,
                "{uuid:?} {id}"
            );
        }
    }

    #[test]
    fn makes_an_id_of_any_other_name_that_is_stable_and_differs_between_hosts() {
        let host = MachineId::parse(ID.as_bytes());
        let zeros = "0".repeat(64);
        let made = ["box", "Box", "a", "0123456789abcdef", "ü", &zeros]
            .map(|name| MachineId::of_container(None, name, host).to_string());
        for (index, id) in made.iter().enumerate() {
            assert!(MachineId::parse(id.as_bytes()).is_some(), "{id}");
            assert!(!made[..index].contains(id), "{id}");
        }
        assert_eq!(
            MachineId::of_container(None, "box", host).to_string(),
            made[0]
        );
        assert_ne!(
            MachineId::of_container(None, "box", None).to_string(),
            made[0]
        );
    }

    #[test]
    fn replaces_what_the_image_had_and_keeps_what_the_user_gave() {
        let (ours, baked) = (
            MachineId::of_uuid(ID),
            MachineId::of_container(None, "baked", None),
        );
        let wanted = ours.expect("valid");
        for (id, in_volume, keep, replaced) in [
            (None, false, false, true),
            (None, false, true, true),
            (None, true, false, true),
            (ours, false, false, false),
            (Some(baked), false, false, true),
            (Some(baked), false, true, false),
            (Some(baked), true, false, false),
        ] {
            let existing = Existing { id, in_volume };
            assert_eq!(
                is_replaced(&existing, wanted, keep),
                replaced,
                "{existing:?} {keep}"
            );
        }
    }
}
