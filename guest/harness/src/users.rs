//! Users and groups of the guest, read from its own files: a static program
//! has no NSS, and the guest's libc is not ours.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use aegis_link::message::{Fault, Symbol};
use nix::unistd::{Gid, Uid};

/// The users of the guest (passwd(5)).
pub(crate) const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Most bytes of one of these files that are read.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups, the primary one included.
    pub(crate) groups: Vec<Gid>,
    /// Login name, or the number where there is none.
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Resolves `name`, `uid`, `name:group` or `uid:gid` in the running root;
/// nothing means root.
pub(crate) fn resolve(user: Option<&str>) -> Result<Identity, Fault> {
    let read = |path| {
        read(path).map_err(|error| {
            let message = format!("cannot read {path}: {error}");
            Fault::new(Symbol::UserNotFound, message)
        })
    };
    lookup(user.unwrap_or("0"), &read(PASSWD)?, &read(GROUP)?)
}

/// The beginning of a file of users or groups. A path where there is none, or
/// something that is not a file, tells of nobody: such a device may have no end.
pub(crate) fn read(path: &str) -> io::Result<String> {
    let nonblocking = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match nonblocking {
        Ok(file) if file.metadata()?.is_file() => file,
        Ok(_) => return Ok(String::new()),
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENXIO) => Ok(String::new()),
                _ => Err(error),
            };
        }
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The same on the text of the files (passwd(5), group(5)). A number needs no
/// entry; a user given with a group gets that group alone.
fn lookup(wanted: &str, passwd: &str, group: &str) -> Result<Identity, Fault> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            let name = fields.first().is_some_and(|name| *name == user);
            let uid = number.is_some() && fields.get(2).and_then(|uid| uid.parse().ok()) == number;
            !user.is_empty() && (name || uid)
        });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)).copied();
    let uid = field(2)
        .and_then(|uid| uid.parse().ok())
        .or(number)
        .ok_or_else(|| {
            Fault::new(
                Symbol::UserNotFound,
                format!("the guest has no user {user:?}"),
            )
        })?;
    let name = field(0).unwrap_or(user).to_owned();
    let primary = field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0);

    let members = |fields: &[&str]| {
        fields
            .get(3)
            .is_some_and(|all| all.split(',').any(|m| m == name))
    };
    let groups = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let (gid, groups) = match wanted_group {
        Some(wanted) => {
            let mut groups = groups;
            let gid = groups
                .find(|fields| fields.first().is_some_and(|name| *name == wanted))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| {
                    Fault::new(
                        Symbol::UserNotFound,
                        format!("the guest has no group {wanted:?}"),
                    )
                })?;
            (gid, vec![Gid::from_raw(gid)])
        }
        None => {
            let more = groups
                .filter(|fields| members(fields))
                .filter_map(|fields| fields.get(2)?.parse().ok())
                .filter(|gid| *gid != primary);
            (
                primary,
                std::iter::once(primary)
                    .chain(more)
                    .map(Gid::from_raw)
                    .collect(),
            )
        }
    };
    Ok(Identity {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        name,
        home: field(5)
            .filter(|home| !home.is_empty())
            .unwrap_or("/")
            .to_owned(),
        shell: field(6)
            .filter(|shell| !shell.is_empty())
            .unwrap_or("/bin/sh")
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:100:A,,:/home/alice:\nbroken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:alice\nwheel:x:10:bob,alice\nsolo:x:7:\nbad\n";

    fn ids(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), Symbol> {
        lookup(wanted, PASSWD, GROUP)
            .map(|identity| {
                let groups = identity.groups.iter().map(|gid| gid.as_raw()).collect();
                (
                    identity.uid.as_raw(),
                    identity.gid.as_raw(),
                    groups,
                    identity.home,
                )
            })
            .map_err(|fault| fault.symbol)
    }

    #[test]
    fn users_are_found_as_they_may_be_written() {
        let alice = (1000, 100, vec![100, 10], "/home/alice".to_owned());
        assert_eq!(ids("alice"), Ok(alice.clone()));
        assert_eq!(ids("1000"), Ok(alice));
        assert_eq!(ids("0"), Ok((0, 0, vec![0], "/root".to_owned())));
        assert_eq!(
            ids("alice:solo"),
            Ok((1000, 7, vec![7], "/home/alice".to_owned()))
        );
        assert_eq!(
            ids("alice:42"),
            Ok((1000, 42, vec![42], "/home/alice".to_owned()))
        );
        assert_eq!(ids("4711:12"), Ok((4711, 12, vec![12], "/".to_owned())));
        assert_eq!(ids("4711"), Ok((4711, 0, vec![0], "/".to_owned())));
        assert_eq!(
            lookup("0", "", "").map(|root| root.shell),
            Ok("/bin/sh".to_owned())
        );
    }

    #[test]
    fn what_is_not_a_file_tells_of_nobody() {
        for path in ["/dev/zero", "/etc", "/etc/passwd/none", "/no/such"] {
            assert_eq!(read(path).unwrap(), "", "{path}");
        }
        assert!(read("/etc/passwd").unwrap().contains("root"));
    }

    #[test]
    fn who_is_not_there_is_a_fault() {
        for wanted in ["bob", "", ":", "alice:nobody", "-1", "alice:", "4294967296"] {
            assert_eq!(ids(wanted), Err(Symbol::UserNotFound), "{wanted:?}");
        }
    }
}
