//! Names on the bus. The version is part of all of them.

use aegis_core::handle::Handle;
use zbus::OwnedObjectPath;

/// The well-known bus name of aegisd.
pub const BUS_NAME: &str = "org.aegisvm.Aegis1";
/// The path of the manager and of the ObjectManager.
pub const ROOT_PATH: &str = "/org/aegisvm/Aegis1";
/// The Manager interface.
pub const MANAGER: &str = "org.aegisvm.Aegis1.Manager";
/// The Instance interface.
pub const INSTANCE: &str = "org.aegisvm.Aegis1.Instance";
/// The Kit interface.
pub const KIT: &str = "org.aegisvm.Aegis1.Kit";
/// The Job interface.
pub const JOB: &str = "org.aegisvm.Aegis1.Job";
/// The Image interface.
pub const IMAGE: &str = "org.aegisvm.Aegis1.Image";
/// The Secrets interface.
pub const SECRETS: &str = "org.aegisvm.Aegis1.Secrets";
/// The Volumes interface.
pub const VOLUMES: &str = "org.aegisvm.Aegis1.Volumes";
/// The Tether interface.
pub const TETHER: &str = "org.aegisvm.Aegis1.Tether";
/// What every error name of ours begins with.
pub const ERROR_PREFIX: &str = "org.aegisvm.Aegis1.Error.";

const INSTANCE_PREFIX: &str = "/org/aegisvm/Aegis1/instance/";
const KIT_PREFIX: &str = "/org/aegisvm/Aegis1/kit/";
const IMAGE_PREFIX: &str = "/org/aegisvm/Aegis1/image/";
const JOB_PREFIX: &str = "/org/aegisvm/Aegis1/job/";

/// A path element that stands for any text: letters and digits as they are,
/// every other byte (and a leading digit) as `_xx` in hexadecimal, the empty text as `_`. It is
/// the escaping of sd_bus_path_encode(3), so `busctl` users know it.
pub fn escape(text: &str) -> String {
    if text.is_empty() {
        return "_".to_owned();
    }
    let mut label = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            label.push(char::from(byte));
        } else {
            const HEX: [char; 16] = [
                '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
            ];
            label.push('_');
            label.push(HEX[usize::from(byte >> 4)]);
            label.push(HEX[usize::from(byte & 15)]);
        }
    }
    label
}

/// The text a path element stands for; `None` if [`escape`] makes no such element.
pub fn unescape(label: &str) -> Option<String> {
    if label == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == label).then_some(text)
}

/// The path of an instance.
pub fn instance_path(handle: &Handle) -> OwnedObjectPath {
    below(INSTANCE_PREFIX, handle.as_str())
}

/// The path of a kit.
pub fn kit_path(name: &str) -> OwnedObjectPath {
    below(KIT_PREFIX, name)
}

/// The path of an image, by the digits of its identity.
pub fn image_path(digits: &str) -> OwnedObjectPath {
    below(IMAGE_PREFIX, digits)
}

/// The path of a job.
pub fn job_path(number: u64) -> OwnedObjectPath {
    object_path(format!("{JOB_PREFIX}{number}"))
}

/// The handle an instance's path stands for.
pub fn instance_of(path: &str) -> Option<Handle> {
    unescape(path.strip_prefix(INSTANCE_PREFIX)?)?.parse().ok()
}

/// The name a kit's path stands for.
pub fn kit_of(path: &str) -> Option<String> {
    unescape(path.strip_prefix(KIT_PREFIX)?)
}

fn below(prefix: &str, text: &str) -> OwnedObjectPath {
    object_path(format!("{prefix}{}", escape(text)))
}

fn object_path(path: String) -> OwnedObjectPath {
    // Prefixes are valid and labels hold letters, digits and '_' alone.
    OwnedObjectPath::try_from(path).expect("an escaped label makes a valid path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_back() {
        for (text, label) in [
            ("web", "web"),
            ("my-agent", "my_2dagent"),
            ("a.b_c", "a_2eb_5fc"),
            ("1st", "_31st"),
            ("", "_"),
            ("ä", "_c3_a4"),
        ] {
            assert_eq!(escape(text), label);
            assert_eq!(unescape(label).as_deref(), Some(text));
        }
    }

    #[test]
    fn foreign_labels_stand_for_nothing() {
        for label in ["_2", "_2D", "_61", "a-b", "_zz", "_ff"] {
            assert_eq!(unescape(label), None, "{label}");
        }
    }

    #[test]
    fn paths_carry_the_handle() {
        let handle: Handle = "my-agent".parse().unwrap();
        let path = instance_path(&handle);
        assert_eq!(path.as_str(), "/org/aegisvm/Aegis1/instance/my_2dagent");
        assert_eq!(instance_of(path.as_str()), Some(handle));
        assert_eq!(instance_of("/org/aegisvm/Aegis1/kit/a"), None);
        assert_eq!(kit_of(kit_path("agent").as_str()).as_deref(), Some("agent"));
        assert_eq!(job_path(7).as_str(), "/org/aegisvm/Aegis1/job/7");
    }
}
