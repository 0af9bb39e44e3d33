//! What of an instance a saved guest depends on: everything that shapes the machine
//! or is told to the guest at its boot.

use std::path::Path;

use aegis_core::vm_spec::VmSpec;
use aegis_link::message::GENERATION;

use super::StartError;
use crate::hypervisor::GuestKernel;
use crate::snapshot::stamp::Stamp;

/// The stamp of a machine as its files are now: all that a guest sees of it before it is
/// told what to become. The disk, which changes while the guest runs, is not in it.
///
/// # Errors
/// A file cannot be looked at.
pub(super) fn machine_of(spec: &VmSpec, kernel: &GuestKernel) -> Result<Stamp, StartError> {
    let mut stamp = Stamp::default()
        .with("the generation of the link", GENERATION)
        .with("the platform", spec.platform)
        .with("the memory", format_args!("{} MiB", spec.memory_mib))
        .with("the number of CPUs", spec.cpus)
        .with("the network", spec.network);
    stamp = with_file(stamp, "the kernel of the guest", kernel.image())?;
    stamp = with_file(stamp, "the initramfs of the guest", kernel.initramfs())?;
    if spec.layers.is_empty() {
        let base = spec.guest_dir.join("base.squashfs");
        return with_file(stamp, "the base image", &base);
    }
    for (number, layer) in spec.layers.iter().enumerate() {
        stamp = with_file(stamp, &format!("layer {number} of the image"), layer)?;
    }
    Ok(stamp)
}

/// The stamp of what a guest is told at its boot, or has from its instance otherwise.
pub(super) fn instance_of(spec: &VmSpec) -> Stamp {
    // All fields by name, so that a new one is thought of. Secrets are like the memory
    // of the programs that have them: new ones are for programs that start later.
    let VmSpec {
        handle,
        // Of the machine.
        memory_mib: _,
        cpus: _,
        accel: _,
        platform: _,
        guest_dir: _,
        layers: _,
        network: _,
        read_only_root,
        disk,
        inject,
        workspace: _,
        volumes: _,
        command,
        stop_signal,
        terminal,
        restart: _,
        env,
        needs_secrets: _,
        credential: _,
        workdir,
        user,
        ports: _,
        // The filter's alone: the guest does not see what is allowed.
        allowed_hosts: _,
        idle: _,
        leases: _,
        aegisd: _,
        ephemeral: _,
        insecure: _,
        dir: _,
        templates: _,
        accel_cache: _,
        revision: _,
        grace_secs: _,
    } = spec;
    let disk = disk.as_ref().map(|disk| &disk.path);
    Stamp::default()
        .with("the name of the instance", handle)
        .with("whether the root can be written to", !read_only_root)
        .with_quiet("the place of the disk", &disk)
        .with_quiet("the kit's programs", inject)
        .with_quiet("what is shared of the host", &spec.shares())
        .with_quiet("the command", command)
        .with_quiet("the stop signal", stop_signal)
        .with("whether the command has a terminal", terminal)
        .with_quiet("the environment", env)
        .with_quiet("the working directory", workdir)
        .with_quiet("the user", user)
        .with(
            "whether programs find the API of the instance",
            spec.serves_api(),
        )
}

/// Adds a file.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn with_file(stamp: Stamp, what: &str, path: &Path) -> Result<Stamp, StartError> {
    let look = |source| StartError::Look {
        path: path.to_owned(),
        source,
    };
    stamp.with_file(what, path).map_err(look)
}
