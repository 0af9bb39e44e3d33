//! passt: where it is and how it is started. Options are those of passt(1) of Debian 12
//! (2023), which later versions take too.

use std::env;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aegis_core::network::{
    AllowedHost, GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU, PREFIX_V4,
};
use aegis_core::tools::PASST;

use crate::egress::{EgressError, Ground};
use crate::hypervisor::process::Child;
use crate::jail::{Access, Confinement, FIRST_DESCRIPTOR, Program, View};

/// Where passt confines itself: it mounts an empty root over this.
const TEMPORARY: &str = "/tmp";
/// Where it finds its own program and maps its user.
const OWN_PROC: &str = "/proc/self";

/// Finds the program, links resolved.
pub(super) fn find() -> Result<PathBuf, EgressError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = env::split_paths(&path)
        .map(|directory| directory.join(PASST.name))
        .chain(PASST.places.iter().map(PathBuf::from))
        .collect();
    let found = places.iter().find_map(|place| place.canonicalize().ok());
    found.ok_or_else(|| {
        let searched: Vec<_> = places.iter().filter_map(|place| place.parent()).collect();
        let searched: Vec<_> = searched
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        EgressError::NoPasst {
            searched: searched.join(":"),
        }
    })
}

/// Starts it on its end of the stream.
pub(super) async fn start(
    program: &Path,
    allowed: &[AllowedHost],
    stream: OwnedFd,
    ground: &Ground,
) -> Result<Child, EgressError> {
    let confinement = match &ground.jail_root {
        Some(root) => Confinement::Outbound(view(program, root, &ground.scratch)?),
        None => Confinement::Open,
    };
    let args = arguments(allowed);
    let program_of = |output| Program {
        path: program.to_owned(),
        args,
        input: None,
        descriptors: vec![stream],
        output,
        capabilities: 0,
    };
    let started = Child::spawn("passt", program_of, confinement).await;
    started.map_err(|source| EgressError::Start {
        program: program.to_owned(),
        source,
    })
}

fn view(program: &Path, root: &Path, scratch: &Path) -> Result<View, EgressError> {
    let mut view = View::of(program, root);
    // On processors that have AVX2 it becomes the program beside it that uses it.
    let mut faster = program.as_os_str().to_owned();
    faster.push(".avx2");
    let faster = Path::new(&faster);
    if faster.is_file() {
        view.bind(faster, faster, Access::Execute);
    }
    let empty = scratch.join("empty");
    match fs::create_dir(&empty) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(EgressError::System {
                operation: "make a directory",
                source: error,
            });
        }
        _ => {}
    }
    view.bind(&empty, Path::new(TEMPORARY), Access::Read);
    let own = Path::new(OWN_PROC);
    view.bind(own, own, Access::ReadWrite);
    Ok(view)
}

/// Only connections that the guest begins are carried. Its configuration is the
/// harness's, and its gateway the filter, so none of what passt could tell it is needed.
fn arguments(allowed: &[AllowedHost]) -> Vec<String> {
    let mut args = [
        "--foreground",
        "--quiet",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ndp",
        "--no-ra",
        "--no-dhcp-dns",
        "--no-dhcp-search",
    ]
    .map(str::to_owned)
    .to_vec();
    for (option, value) in [
        ("--fd", FIRST_DESCRIPTOR.to_string()),
        ("--tcp-ports", "none".to_owned()),
        ("--udp-ports", "none".to_owned()),
        ("--mtu", MTU.to_string()),
        ("--address", GUEST_V4.to_string()),
        ("--netmask", PREFIX_V4.to_string()),
        ("--gateway", GATEWAY_V4.to_string()),
        ("--address", GUEST_V6.to_string()),
        ("--gateway", GATEWAY_V6.to_string()),
    ] {
        args.extend([option.to_owned(), value]);
    }
    // Else the gateway's address means the host's loopback to it.
    if !allowed.iter().any(AllowedHost::is_loopback) {
        args.push("--no-map-gw".to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_out_of_reach_unless_it_is_allowed() {
        let is_mapped = |allowed: &[&str]| {
            let allowed: Vec<AllowedHost> = allowed.iter().map(|a| a.parse().unwrap()).collect();
            !arguments(&allowed).iter().any(|arg| arg == "--no-map-gw")
        };
        assert!(!is_mapped(&[]));
        assert!(!is_mapped(&["10.0.0.0/8"]));
        assert!(is_mapped(&["127.0.0.1:80"]));
        assert!(is_mapped(&["::1"]));
    }
}
