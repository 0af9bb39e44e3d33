//! The child's side of a start: from clone(2) to execve(2).
//!
//! The child is a copy of one thread of a program with several, so it must not
//! allocate or take a lock that another thread may have held: it only makes
//! system calls on memory that [`Orders`] prepared (signal-safety(7)).
#![allow(
    unsafe_code,
    reason = "clone, execve and calls without a safe wrapper, in the child only"
)]

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, pivot_root, setsid};

use super::mounts::Compiled;
use crate::jail::Step;

/// What the parent sends once the child exists.
pub(super) const GO: u8 = b'g';
/// A step's number and an errno.
pub(super) const REPORT_LENGTH: usize = 1 + size_of::<i32>();

/// The exit code of a child that could not become its program; only ever seen
/// together with a report.
const EXIT_NOT_STARTED: i32 = 127;

/// Capability numbers are six bits wide in the kernel's ABI of two 32-bit words.
const CAPABILITIES: u8 = 64;
/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE with
/// their locks (linux/securebits.h): being user 0 gives nothing.
const SECUREBITS_LOCKED: libc::c_ulong = 0x3 | 0xc | 0xc0;

/// The steps, by their numbers in a report.
const STEPS: [Step; 10] = [
    Step::Parent,
    Step::MapUser,
    Step::DetachMounts,
    Step::MountRoot,
    Step::FillRoot,
    Step::SealRoot,
    Step::EnterRoot,
    Step::PlaceDescriptors,
    Step::DropPrivileges,
    Step::Execute,
];

/// The step a report names; the child sends no other numbers.
pub(super) fn step(byte: u8) -> Step {
    let step = STEPS.get(usize::from(byte)).copied();
    step.unwrap_or(Step::Execute)
}

/// Everything the child works with, made before clone(2).
pub(super) struct Orders {
    /// The parent's end of the report, to be closed: only the parent may keep it open.
    pub(super) parent_end: RawFd,
    /// Also the last of `descriptors`.
    pub(super) report: RawFd,
    /// What becomes 0, 1, 2 and following.
    pub(super) descriptors: Vec<RawFd>,
    /// Room for copies of `descriptors` above all targets.
    pub(super) raised: Vec<RawFd>,
    pub(super) jail: Option<JailOrders>,
    pub(super) capabilities: u64,
    /// NUL-terminated, alive until execve.
    pub(super) program: *const libc::c_char,
    /// NULL-terminated array of NUL-terminated strings, alive until execve.
    pub(super) argv: *const *const libc::c_char,
}

/// What only a jailed child does.
pub(super) struct JailOrders {
    pub(super) uid_map: Vec<u8>,
    pub(super) gid_map: Vec<u8>,
    /// How many further user namespaces there may be inside.
    pub(super) user_namespaces: &'static [u8],
    pub(super) view: Compiled,
}

/// Makes the child. Only errors of clone(2) itself are returned.
pub(super) fn clone_into(
    orders: &mut Orders,
    stack: &mut [u8],
    flags: CloneFlags,
) -> nix::Result<Pid> {
    let child = Box::new(|| run(orders));
    // SAFETY: without CLONE_VM the child has its own copy of our memory, `run`
    // keeps to system calls on memory prepared before, and never returns.
    unsafe { nix::sched::clone(child, stack, flags, Some(libc::SIGCHLD)) }
}

/// Ends in the program or in a report.
fn run(orders: &mut Orders) -> isize {
    let (step, errno) = match prepare(orders) {
        Ok(()) => {
            let environment = [std::ptr::null::<libc::c_char>()];
            // SAFETY: all three are NUL- or NULL-terminated and outlive the call.
            unsafe { libc::execve(orders.program, orders.argv, environment.as_ptr()) };
            (Step::Execute, Errno::last())
        }
        Err(failed) => failed,
    };
    let mut report = [0_u8; REPORT_LENGTH];
    report[0] = step as u8;
    report[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
    // SAFETY: the buffer is as long as said; a parent that is gone needs no report.
    unsafe { libc::write(orders.report, report.as_ptr().cast(), REPORT_LENGTH) };
    // SAFETY: ends this process without the exit handlers of the one it was copied from.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

type StepResult = Result<(), (Step, Errno)>;

fn prepare(orders: &mut Orders) -> StepResult {
    let at = |step: Step| move |errno: Errno| (step, errno);
    bind_to_parent(orders).map_err(at(Step::Parent))?;
    if let Some(jail) = &orders.jail {
        map_user(jail).map_err(at(Step::MapUser))?;
        let root = jail.view.root.as_c_str();
        let none = None::<&CStr>;
        mount(
            none,
            c"/",
            none,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            none,
        )
        .map_err(at(Step::DetachMounts))?;
        mount(
            Some(c"none"),
            root,
            Some(c"tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some(c"size=64k,mode=0755"),
        )
        .map_err(at(Step::MountRoot))?;
        fill_root(&jail.view).map_err(at(Step::FillRoot))?;
        set_mount_attributes(root, libc::MOUNT_ATTR_RDONLY, false).map_err(at(Step::SealRoot))?;
        enter_root(root).map_err(at(Step::EnterRoot))?;
    }
    place_descriptors(orders).map_err(at(Step::PlaceDescriptors))?;
    drop_privileges(orders).map_err(at(Step::DropPrivileges))
}

/// Dies with the parent from now on, and makes sure that it lived until now.
fn bind_to_parent(orders: &Orders) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // SAFETY: this process's own copy of the descriptor; nothing here owns it.
    Errno::result(unsafe { libc::close(orders.parent_end) })?;
    let mut go = 0_u8;
    // SAFETY: one byte of room for one byte.
    let read = unsafe { libc::read(orders.report, (&raw mut go).cast(), 1) };
    // End of file: the parent died before it could be followed.
    if Errno::result(read)? == 1 && go == GO {
        Ok(())
    } else {
        Err(Errno::ESRCH)
    }
}

/// Maps our user to user 0 of the new namespace (user_namespaces(7)), so that
/// files of ours are root's to a file server inside.
fn map_user(jail: &JailOrders) -> nix::Result<()> {
    // A process that may not be dumped does not own its files in /proc.
    prctl::set_dumpable(true)?;
    write_file(c"/proc/self/setgroups", b"deny\n")?;
    write_file(c"/proc/self/uid_map", &jail.uid_map)?;
    write_file(c"/proc/self/gid_map", &jail.gid_map)?;
    // In a namespace inside it would have capabilities again, if over nothing of
    // the host's. Where a container shows this read-only QEMU's own filter remains.
    match write_file(c"/proc/sys/user/max_user_namespaces", jail.user_namespaces) {
        Ok(()) | Err(Errno::EROFS | Errno::EACCES | Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    prctl::set_dumpable(false)
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, content).map(drop)
}

fn fill_root(view: &Compiled) -> nix::Result<()> {
    let none = None::<&CStr>;
    for directory in &view.directories {
        make_directory(directory)?;
    }
    for (target, link) in &view.links {
        nix::unistd::symlinkat(target.as_c_str(), nix::fcntl::AT_FDCWD, link.as_c_str())?;
    }
    for bind in &view.binds {
        if bind.is_directory {
            make_directory(&bind.to)?;
        } else {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
            drop(open(bind.to.as_c_str(), flags, Mode::S_IRUSR)?);
        }
        let from = Some(bind.from.as_c_str());
        mount(
            from,
            bind.to.as_c_str(),
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
        set_mount_attributes(&bind.to, bind.attributes, true)?;
    }
    Ok(())
}

fn make_directory(path: &CString) -> nix::Result<()> {
    match nix::unistd::mkdir(path.as_c_str(), Mode::S_IRWXU) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Adds attributes to a mount (mount_setattr(2), Linux 5.12), with all mounts
/// below it if `below`. The attributes it has stay, which a remount cannot say.
fn set_mount_attributes(path: &CStr, attributes: u64, below: bool) -> nix::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attr = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated and the structure as long as said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            if below { AT_RECURSIVE } else { 0 },
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Makes the new root the only one: it is mounted over the old one, which is then
/// detached from under it (pivot_root(2), "pivot_root(".", ".")").
fn enter_root(root: &CStr) -> nix::Result<()> {
    chdir(root)?;
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")
}

/// Moves the descriptors to 0 and following and closes the rest. They are raised
/// above all targets first, so that no target is a source still needed.
fn place_descriptors(orders: &mut Orders) -> nix::Result<()> {
    let count = libc::c_int::try_from(orders.descriptors.len()).map_err(|_| Errno::EMFILE)?;
    for (raised, from) in orders.raised.iter_mut().zip(&orders.descriptors) {
        // SAFETY: plain system call on a number.
        *raised = Errno::result(unsafe { libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, count) })?;
    }
    for (target, raised) in (0..count).zip(&orders.raised) {
        let flags = if target == count - 1 {
            libc::O_CLOEXEC
        } else {
            0
        };
        // SAFETY: as above; whatever was open at the target belongs to the parent's copy.
        Errno::result(unsafe { libc::dup3(*raised, target, flags) })?;
    }
    orders.report = count - 1;
    // SAFETY: closes only what this process shall not have.
    let closed = unsafe { libc::close_range(count.unsigned_abs(), libc::c_uint::MAX, 0) };
    Errno::result(closed).map(drop)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn drop_privileges(orders: &Orders) -> nix::Result<()> {
    setsid()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::sigaction(Signal::SIGPIPE, &default) }?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked()), None)?;
    // Without a namespace of its own the process has what its user has, and an
    // unprivileged one may not even lower its bounding set.
    if orders.jail.is_some() {
        drop_capabilities(orders.capabilities)?;
    }
    prctl::set_no_new_privs()
}

/// Signals that ask for an end, which is ours to make, in order: `systemctl kill`
/// sends them to every process of a unit, and QEMU would pull the plug at once.
fn blocked() -> SigSet {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGINT);
    blocked.add(Signal::SIGHUP);
    blocked
}

fn drop_capabilities(keep: u64) -> nix::Result<()> {
    for capability in 0..CAPABILITIES {
        if keep & (1 << capability) == 0 {
            let capability = libc::c_ulong::from(capability);
            // SAFETY: plain system call on numbers.
            match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })
            {
                // Past the last capability of this kernel.
                Err(Errno::EINVAL) => break,
                other => other?,
            };
        }
    }
    if keep == 0 {
        // SAFETY: plain system call on numbers.
        let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS_LOCKED, 0, 0, 0) };
        Errno::result(result)?;
    }
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    // The two halves of a 64-bit set.
    let word = |bits: u32| CapabilityWord {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let [a, b, c, d, e, f, g, h] = keep.to_le_bytes();
    let words = [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
    .map(word);
    // SAFETY: header and words have the layout of capset(2), version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
    Errno::result(result).map(drop)
}
