//! QEMU's command line: the machine, its devices and their descriptors.
//!
//! Everything that is not a number or a fixed name comes as a descriptor or lies
//! at a fixed path of the jail, so the command line, which every user of the host
//! may read, tells nothing about the instance.
//!
//! A microvm without ACPI has eight virtio-mmio slots; the ninth device fails.
//! The budget:
//!
//! | slot | device | method |
//! |---|---|---|
//! | 1 | virtio-serial, the link | [`Invocation::link`] |
//! | 2 | virtio-blk `base`, read-only: the base image | [`Invocation::disk`] |
//! |   | or up to 128 layers of an image as its partitions | [`Invocation::layers`] |
//! | 3 | virtio-blk `upper` | [`Invocation::disk`] |
//! | 4 | the share: virtiofs or 9p | [`Invocation::share`] |
//! | 5 | virtio-rng | [`Invocation::entropy`] |
//! | 6 | virtio-blk `kit`, read-only, where a kit adds programs | [`Invocation::disk`] |
//! | 7 | virtio-net, where the guest has a network | [`Invocation::network`] |
//! | 8 | balloon, which gives back what the guest has freed | [`Invocation::balloon`] |
//!
//! The console is a serial port of the machine's own and takes no slot. q35 has PCI
//! slots enough and gets the same devices in their PCI form; virt has 32 virtio-mmio
//! slots and gets those of a microvm.
//!
//! On macOS the line is another one in three places, and nothing of it was tried there:
//!
//! | | Linux | macOS |
//! |---|---|---|
//! | `-sandbox` | QEMU's own filter of system calls | not an option of QEMU there |
//! | `-machine` | guest memory stays out of core files | QEMU refuses to promise it; there are no core files at all |
//! | `-fsdev` | a path of the jail, or a descriptor | the folder's own path, with `security_model=none` as on Linux |

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use aegis_core::network::hardware_text;
use aegis_core::spec::Accel;

use super::layers::{Extents, LayerDisk, LayerNode};
use super::system::System;
use super::{DiskSerial, MachineType, SHARE_TAG};
use crate::jail::FIRST_DESCRIPTOR;
use crate::share::Carrier;
use crate::snapshot::stamp::Stamp;

/// The name under which the guest finds the link, `/sys/class/virtio-ports/*/name`.
pub const LINK_PORT: &str = "org.aegisvm.link";

/// Ports of the virtio-serial device: the link's, and the first, which QEMU keeps for
/// consoles. Each has two queues that the guest's kernel and QEMU set up, at each boot
/// and each restore; of QEMU's default, 31 ports, that took 10 ms and more.
const PORTS: u8 = 2;

/// Size of TCG's buffer of translated code in MiB. QEMU's default is an eighth of
/// the host's memory up to 1 GiB, which would count against the VM's limit; boot
/// and busy guests were measured within noise of it.
pub const TCG_BUFFER_MIB: u32 = 128;

/// The machine itself.
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    pub system: System,
    pub machine: MachineType,
    /// Not [`Accel::Auto`].
    pub accel: Accel,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Guest memory that the file server can map: needed by virtiofs.
    pub shared_memory: bool,
    /// As QEMU sees them.
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub cmdline: &'a str,
}

/// Arguments and the descriptors they speak of.
#[derive(Debug)]
pub struct Invocation {
    machine: MachineType,
    pub args: Vec<String>,
    pub descriptors: Vec<OwnedFd>,
    pub layers: Vec<LayerNode>,
}

impl Invocation {
    /// A machine with a kernel and no devices.
    pub fn new(board: &Board<'_>) -> Self {
        let mut this = Self {
            machine: board.machine,
            args: Vec::new(),
            descriptors: Vec::new(),
            layers: Vec::new(),
        };
        this.add("-no-user-config", None);
        this.add("-nodefaults", None);
        this.add("-no-reboot", None);
        this.add("-display", Some("none"));
        this.add("-name", Some("microvm,debug-threads=on"));
        if board.system == System::Linux {
            this.add(
                "-sandbox",
                Some("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            );
        }
        let machine = match board.machine {
            // A clock, timer and interrupt controller of old: without the first the
            // kernel spins for seconds, and TCG has no others that work at once.
            MachineType::Microvm => "microvm,acpi=off,rtc=on,pit=on,pic=on",
            MachineType::Q35 => "q35,usb=off,vmport=off,smm=off",
            // The newest interrupt controller that there is on the host: the default
            // has eight CPUs. Nothing here sends interrupts as messages.
            MachineType::Virt => "virt,acpi=off,gic-version=max,its=off",
        };
        let backend = if board.shared_memory {
            ",memory-backend=ram"
        } else {
            ""
        };
        let memory = match board.system {
            // It stays out of core files and is not merged with other guests'.
            System::Linux => ",dump-guest-core=off,mem-merge=off",
            // Where madvise(2) cannot do that QEMU ends at the words.
            System::Darwin => "",
        };
        this.add("-machine", Some(&format!("{machine}{memory}{backend}")));
        this.add(
            "-accel",
            Some(&match board.accel {
                Accel::Tcg | Accel::Auto => format!("tcg,tb-size={TCG_BUFFER_MIB}"),
                Accel::Kvm => "kvm".to_owned(),
                Accel::Hvf => "hvf".to_owned(),
            }),
        );
        this.add(
            "-cpu",
            Some(match board.accel {
                // Hypervisor.framework has the host's processor and no other one.
                Accel::Hvf => "host",
                Accel::Tcg | Accel::Auto | Accel::Kvm => "max",
            }),
        );
        this.add("-smp", Some(&board.cpus.to_string()));
        this.add("-m", Some(&board.memory_mib.to_string()));
        if board.shared_memory {
            let size = board.memory_mib;
            this.add(
                "-object",
                Some(&format!(
                    "memory-backend-memfd,id=ram,size={size}M,share=on"
                )),
            );
        }
        this.add("-kernel", Some(&board.kernel.display().to_string()));
        this.add("-initrd", Some(&board.initramfs.display().to_string()));
        this.add("-append", Some(board.cmdline));
        // The modern register layout of virtio 1.0; virtiofs has no other.
        this.add("-global", Some("virtio-mmio.force-legacy=false"));
        this
    }

    /// The machine protocol, on one end of a connected socket pair.
    pub fn qmp(&mut self, socket: OwnedFd) {
        let fd = self.pass(socket);
        self.add("-chardev", Some(&format!("socket,id=qmp,fd={fd}")));
        self.add("-mon", Some("chardev=qmp,mode=control"));
    }

    /// The serial console, into a pipe or file that is open for writing only.
    pub fn console(&mut self, sink: OwnedFd) {
        let set = self.pass_set(sink);
        self.add(
            "-chardev",
            Some(&format!("file,id=console,path={set},append=on")),
        );
        self.add("-serial", Some("chardev:console"));
    }

    /// The link to the guest, on one end of a connected socket pair.
    pub fn link(&mut self, socket: OwnedFd) {
        let fd = self.pass(socket);
        self.add("-chardev", Some(&format!("socket,id=link,fd={fd}")));
        self.device("virtio-serial", &format!(",max_ports={PORTS}"));
        self.add(
            "-device",
            Some(&format!("virtserialport,chardev=link,name={LINK_PORT}")),
        );
    }

    /// A raw disk image, open for reading or for both to fit `read_only`.
    pub fn disk(&mut self, image: File, serial: DiskSerial, read_only: bool) {
        let set = self.pass_set(image.into());
        let read_only = if read_only { "on" } else { "off" };
        self.add(
            "-blockdev",
            Some(&format!(
                "driver=raw,node-name={serial},read-only={read_only},discard=unmap,\
                 file.driver=file,file.filename={set}"
            )),
        );
        self.device("virtio-blk", &format!(",drive={serial},serial={serial}"));
    }

    /// The layers of an image, read-only, as partitions of one disk.
    ///
    /// # Errors
    /// There is no memory for the description of the disk.
    pub fn layers(&mut self, disk: LayerDisk, serial: DiskSerial) -> io::Result<()> {
        let Extents {
            frame,
            layers,
            plan,
        } = disk.extents()?;
        let frame = self.pass_set(frame.into());
        let layers: Vec<String> = layers
            .into_iter()
            .map(|layer| self.pass_set(layer.into()))
            .collect();
        let description = self.pass_set(plan.describe(&frame, &layers)?.into());
        let node = LayerNode::new(serial, &description, plan.length());
        self.add("-blockdev", Some(&node.source().to_string()));
        self.add("-blockdev", Some(&node.on_source().to_string()));
        self.layers.push(node);
        self.device("virtio-blk", &format!(",drive={serial},serial={serial}"));
        Ok(())
    }

    /// What is shared of the host.
    pub fn share(&mut self, carrier: Carrier) {
        match carrier {
            Carrier::Virtiofs { socket } => {
                let fd = self.pass(socket);
                self.add("-chardev", Some(&format!("socket,id=share,fd={fd}")));
                self.device("vhost-user-fs", &format!(",chardev=share,tag={SHARE_TAG}"));
            }
            Carrier::NineP { folder, read_only } => {
                let read_only = if read_only { ",readonly=on" } else { "" };
                let path = match folder {
                    crate::share::Folder::Jailed(path) => path.to_owned(),
                    crate::share::Folder::Open(directory) => {
                        format!("/proc/self/fd/{}", self.pass(directory))
                    }
                    // A comma would end the path; two of them are one of it.
                    crate::share::Folder::Named(path) => {
                        path.display().to_string().replace(',', ",,")
                    }
                };
                self.add(
                    "-fsdev",
                    Some(&format!(
                        "local,id=share,path={path},security_model=none,multidevs=remap{read_only}"
                    )),
                );
                self.device("virtio-9p", &format!(",fsdev=share,mount_tag={SHARE_TAG}"));
            }
        }
    }

    /// A machine that waits for the state of another one, which comes from a pipe,
    /// and runs nothing by itself. The number of the descriptor.
    pub fn incoming(&mut self, state: OwnedFd) -> RawFd {
        let fd = self.pass(state);
        self.add("-S", None);
        self.add("-incoming", Some("defer"));
        fd
    }

    /// Everything that the state of the machine depends on, each option by its name:
    /// all but the kernel's command line, which names a frequency that was measured
    /// and which a guest in a state has read long ago.
    pub fn stamp(&self, stamp: Stamp) -> Stamp {
        let mut counts = HashMap::new();
        let mut stamp = stamp;
        let mut args = self.args.iter().peekable();
        while let Some(option) = args.next() {
            let value = args.next_if(|value| !value.starts_with('-'));
            let count = counts.entry(option).or_insert(0_u32);
            *count += 1;
            if option != "-append" {
                let value = value.map_or("there", String::as_str);
                stamp = stamp.with(format!("QEMU's option {option} ({count})"), value);
            }
        }
        stamp
    }

    /// The network, on one end of a socket pair of datagrams.
    pub fn network(&mut self, socket: OwnedFd, hardware: [u8; 6]) {
        let fd = self.pass(socket);
        self.add(
            "-netdev",
            Some(&format!("dgram,id=network,local.type=fd,local.str={fd}")),
        );
        let hardware = hardware_text(hardware);
        // A PC would boot from it if it had a program for that.
        let boot = match self.machine {
            MachineType::Microvm | MachineType::Virt => "",
            MachineType::Q35 => ",romfile=",
        };
        self.device(
            "virtio-net",
            &format!(",netdev=network,mac={hardware}{boot}"),
        );
    }

    /// Random numbers of the host's kernel.
    pub fn entropy(&mut self) {
        self.add("-object", Some("rng-builtin,id=entropy"));
        self.device("virtio-rng", ",rng=entropy");
    }

    /// Memory that the guest has freed goes back to the host, some seconds later
    /// (free page reporting of the balloon device, virtio 1.2, section 5.5.6.6).
    pub fn balloon(&mut self) {
        self.device("virtio-balloon", ",free-page-reporting=on");
    }

    fn add(&mut self, option: &str, value: Option<&str>) {
        self.args.push(option.to_owned());
        self.args.extend(value.map(str::to_owned));
    }

    /// A virtio device in the form that fits the machine's bus.
    fn device(&mut self, name: &str, properties: &str) {
        let bus = match self.machine {
            MachineType::Microvm | MachineType::Virt => "device",
            MachineType::Q35 => "pci",
        };
        self.add("-device", Some(&format!("{name}-{bus}{properties}")));
    }

    /// Passes a descriptor on and says which number it will have.
    fn pass(&mut self, descriptor: OwnedFd) -> RawFd {
        // The count is small: one descriptor per device or layer.
        let index = RawFd::try_from(self.descriptors.len()).unwrap_or(RawFd::MAX);
        self.descriptors.push(descriptor);
        FIRST_DESCRIPTOR + index
    }

    /// Passes a descriptor on where QEMU wants the name of a file.
    fn pass_set(&mut self, descriptor: OwnedFd) -> String {
        let fd = self.pass(descriptor);
        self.add("-add-fd", Some(&format!("fd={fd},set={fd}")));
        format!("/dev/fdset/{fd}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Folder;

    fn board(machine: MachineType) -> Board<'static> {
        Board {
            system: System::Linux,
            machine,
            accel: Accel::Tcg,
            memory_mib: 256,
            cpus: 1,
            shared_memory: false,
            kernel: Path::new("/boot/kernel"),
            initramfs: Path::new("/boot/initramfs"),
            cmdline: "console=ttyS0",
        }
    }

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    fn full(machine: MachineType) -> Invocation {
        let mut invocation = Invocation::new(&board(machine));
        invocation.qmp(null().into());
        invocation.console(null().into());
        invocation.link(null().into());
        invocation.disk(null(), DiskSerial::Base, true);
        invocation.disk(null(), DiskSerial::Kit, true);
        invocation.disk(null(), DiskSerial::Upper, false);
        invocation.share(Carrier::NineP {
            folder: Folder::Jailed("/share"),
            read_only: false,
        });
        invocation.network(null().into(), [2, 0, 0, 0, 0, 1]);
        invocation.entropy();
        invocation.balloon();
        invocation
    }

    /// The values of an option, in their order.
    fn values<'a>(invocation: &'a Invocation, option: &str) -> Vec<&'a str> {
        let args = &invocation.args;
        let pairs = args.iter().zip(args.iter().skip(1));
        pairs
            .filter(|(name, _)| *name == option)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    #[test]
    fn descriptors_are_numbered_in_the_order_they_are_passed() {
        let invocation = full(MachineType::Microvm);
        assert_eq!(invocation.descriptors.len(), 7);
        assert_eq!(
            values(&invocation, "-netdev"),
            ["dgram,id=network,local.type=fd,local.str=9"]
        );
        assert_eq!(
            values(&invocation, "-chardev"),
            [
                "socket,id=qmp,fd=3",
                "file,id=console,path=/dev/fdset/4,append=on",
                "socket,id=link,fd=5"
            ]
        );
        assert_eq!(
            values(&invocation, "-add-fd"),
            ["fd=4,set=4", "fd=6,set=6", "fd=7,set=7", "fd=8,set=8"]
        );
    }

    #[test]
    fn a_full_microvm_keeps_within_the_slots() {
        let invocation = full(MachineType::Microvm);
        let slots = values(&invocation, "-device")
            .iter()
            .filter(|d| d.contains("-device"))
            .count();
        assert_eq!(slots, 8);
        assert!(
            values(&invocation, "-device")
                .iter()
                .all(|device| !device.contains("-pci"))
        );
    }

    #[test]
    fn the_layers_of_an_image_are_one_device_and_a_description_of_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["low", "top"].map(|name| dir.path().join(name));
        for path in &paths {
            std::fs::write(path, vec![1; 5000]).unwrap();
        }
        let mut invocation = Invocation::new(&board(MachineType::Microvm));
        invocation
            .layers(LayerDisk::open(&paths).unwrap(), DiskSerial::Base)
            .unwrap();
        assert_eq!(
            values(&invocation, "-blockdev"),
            [
                "{\"driver\":\"vmdk\",\"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/6\"},\
                 \"node-name\":\"base-layers\",\"read-only\":true}",
                "{\"driver\":\"raw\",\"file\":\"base-layers\",\"node-name\":\"base\",\"read-only\":true}",
            ]
        );
        assert_eq!(
            values(&invocation, "-device"),
            ["virtio-blk-device,drive=base,serial=base"]
        );
        let description = invocation.descriptors.pop().unwrap();
        let text = io::read_to_string(File::from(description)).unwrap();
        let extents: Vec<&str> = text.lines().filter(|line| line.contains("FLAT")).collect();
        assert_eq!(
            extents,
            [
                "RW 40 FLAT \"/dev/fdset/3\" 0",
                "RW 10 FLAT \"/dev/fdset/4\" 0",
                "RW 6 FLAT \"/dev/fdset/3\" 40",
                "RW 10 FLAT \"/dev/fdset/5\" 0",
                "RW 6 FLAT \"/dev/fdset/3\" 40",
                "RW 33 FLAT \"/dev/fdset/3\" 48",
            ]
        );
    }

    #[test]
    fn q35_has_the_same_devices_on_pci() {
        let names = |machine| -> Vec<String> {
            values(&full(machine), "-device")
                .iter()
                .map(|d| d.split(',').next().unwrap().replace("-device", "-pci"))
                .collect()
        };
        assert_eq!(names(MachineType::Microvm), names(MachineType::Q35));
    }

    #[test]
    fn virt_has_the_very_devices_of_a_microvm() {
        let devices = |machine| -> Vec<String> {
            let invocation = full(machine);
            let devices = values(&invocation, "-device");
            devices.into_iter().map(str::to_owned).collect()
        };
        assert_eq!(devices(MachineType::Microvm), devices(MachineType::Virt));
    }

    #[test]
    fn virtiofs_needs_memory_that_can_be_shared() {
        let board = Board {
            shared_memory: true,
            ..board(MachineType::Microvm)
        };
        let mut invocation = Invocation::new(&board);
        invocation.share(Carrier::Virtiofs {
            socket: null().into(),
        });
        assert_eq!(
            values(&invocation, "-object"),
            ["memory-backend-memfd,id=ram,size=256M,share=on"]
        );
        assert!(values(&invocation, "-machine")[0].ends_with(",memory-backend=ram"));
        assert_eq!(
            values(&invocation, "-device"),
            ["vhost-user-fs-device,chardev=share,tag=share"]
        );
    }

    #[test]
    fn a_read_only_share_is_so_in_qemu_too() {
        let mut invocation = Invocation::new(&board(MachineType::Microvm));
        invocation.share(Carrier::NineP {
            folder: Folder::Open(null().into()),
            read_only: true,
        });
        assert_eq!(
            values(&invocation, "-fsdev"),
            ["local,id=share,path=/proc/self/fd/3,security_model=none,multidevs=remap,readonly=on"]
        );
    }
    #[test]
    fn on_macos_nothing_is_asked_of_qemu_that_only_linux_has() {
        let here = |system, accel| {
            let board = Board {
                system,
                accel,
                ..board(MachineType::Virt)
            };
            let mut invocation = Invocation::new(&board);
            invocation.link(null().into());
            invocation.disk(null(), DiskSerial::Base, true);
            invocation.share(match system {
                System::Linux => Carrier::NineP {
                    folder: Folder::Jailed("/share"),
                    read_only: false,
                },
                System::Darwin => Carrier::NineP {
                    folder: Folder::Named("/Users/alice/a, b".into()),
                    read_only: false,
                },
            });
            invocation
        };
        let mac = here(System::Darwin, Accel::Hvf);
        assert_eq!(values(&mac, "-sandbox"), [""; 0]);
        assert_eq!(
            values(&mac, "-machine"),
            ["virt,acpi=off,gic-version=max,its=off"]
        );
        assert_eq!(values(&mac, "-accel"), ["hvf"]);
        assert_eq!(values(&mac, "-cpu"), ["host"]);
        assert_eq!(
            values(&mac, "-fsdev"),
            ["local,id=share,path=/Users/alice/a,, b,security_model=none,multidevs=remap"]
        );
        assert!(mac.args.iter().all(|arg| !arg.contains("/proc/")));
        let translated = here(System::Darwin, Accel::Tcg);
        assert_eq!(values(&translated, "-cpu"), ["max"]);
        // The guest sees the same devices.
        let linux = here(System::Linux, Accel::Kvm);
        assert_eq!(values(&mac, "-device"), values(&linux, "-device"));
        assert_eq!(values(&linux, "-sandbox").len(), 1);
    }
}
