//! The guest's program of a trial start: it writes a line and reboots.
//!
//! It is made here, as a few instructions in an ELF file in an initramfs, so that a
//! trial needs no file but the kernel.

use aegis_core::platform::Platform;

/// What it writes.
pub(super) const LINE: &[u8] = b"aegis-probe\n";

/// Position-independent, for x86-64 (syscalls of its syscall_64.tbl):
///
/// ```text
///   mov eax, 1 (write);     mov edi, 1;           lea rsi, [rip+text]; mov edx, 12; syscall
///   mov eax, 169 (reboot);  mov edi, 0xfee1dead;  mov esi, 0x28121969; mov edx, 0x01234567; syscall
///   jmp itself
/// text:
/// ```
const AMD64: [u8; 48] = [
    0xb8, 0x01, 0x00, 0x00, 0x00, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x35, 0x1f, 0x00, 0x00,
    0x00, 0xba, 0x0c, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xb8, 0xa9, 0x00, 0x00, 0x00, 0xbf, 0xad, 0xde,
    0xe1, 0xfe, 0xbe, 0x69, 0x19, 0x12, 0x28, 0xba, 0x67, 0x45, 0x23, 0x01, 0x0f, 0x05, 0xeb, 0xfe,
];

/// The same for AArch64 (syscalls of include/uapi/asm-generic/unistd.h):
///
/// ```text
///   mov x8, 64 (write);     mov x0, 1;           adr x1, text;        mov x2, 12;          svc 0
///   mov x8, 142 (reboot);   mov w0, 0xfee1dead;  mov w1, 0x28121969;  mov w2, 0x01234567;  svc 0
///   b itself
/// text:
/// ```
///
/// The three numbers take two instructions each, `mov` and `movk`.
const ARM64: [u32; 14] = [
    0xd280_0808,
    0xd280_0020,
    0x1000_0181,
    0xd280_0182,
    0xd400_0001,
    0xd280_11c8,
    0x529b_d5a0,
    0x72bf_dc20,
    0x5283_2d21,
    0x72a5_0241,
    0x5288_ace2,
    0x72a0_2462,
    0xd400_0001,
    0x1400_0000,
];

/// Sizes of an ELF header and of one program header (elf(5), 64 bit).
const ELF_HEADERS: u16 = 64 + 56;
/// Where the program is loaded: below it nothing is mapped.
const LOAD_ADDRESS: u64 = 0x40_0000;
/// Alignment of the segment, the largest page of either architecture's kernels.
const ALIGNMENT: u64 = 0x1_0000;

/// The instructions, and the machine of the ELF header (`EM_X86_64`, `EM_AARCH64`).
fn code(platform: Platform) -> (Vec<u8>, u16) {
    match platform {
        Platform::Amd64 => (AMD64.to_vec(), 62),
        Platform::Arm64 => (
            ARM64.iter().flat_map(|word| word.to_le_bytes()).collect(),
            183,
        ),
    }
}

/// The program as an ELF executable (elf(5)) of one segment.
fn executable(platform: Platform) -> Vec<u8> {
    let (code, machine) = code(platform);
    let content = [&code[..], LINE].concat();
    let size = u64::from(ELF_HEADERS) + content.len() as u64;
    let entry = LOAD_ADDRESS + u64::from(ELF_HEADERS);
    // 64 bit, little endian, version 1.
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2_u16, machine] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for address in [entry, 64, 0] {
        file.extend(address.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes());
    }
    for value in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, ALIGNMENT] {
        file.extend(value.to_le_bytes());
    }
    file.extend(content);
    file
}

/// An initramfs with the program as `/init` and the console it writes to, in the
/// kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
pub(super) fn archive(platform: Platform) -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "dev", 0o040_755, (0, 0), &[]);
    entry(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    let program = executable(platform);
    entry(&mut archive, "init", 0o100_755, (0, 0), &program);
    entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    // inode, mode, uid, gid, links, mtime, size, device, special device, name size, checksum
    let fields: [usize; 13] = [
        archive.len(),
        mode as usize,
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        device.0 as usize,
        device.1 as usize,
        name.len() + 1,
        0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// The one for Arm runs in the trials of `tests/hypervisor.rs`.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_program_runs_and_writes_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe");
        // Run here it may not reboot the machine: the call is made invalid.
        let mut program = executable(Platform::Amd64);
        let magic = program
            .windows(4)
            .position(|w| w == 0xfee1_dead_u32.to_le_bytes())
            .unwrap();
        program[magic..magic + 4].fill(0);
        // and the endless loop after it becomes an illegal instruction.
        let end = program.windows(2).position(|w| w == [0xeb, 0xfe]).unwrap();
        program[end..end + 2].copy_from_slice(&[0x0f, 0x0b]);
        fs::write(&path, &program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&path).output().unwrap();
        assert_eq!(output.stdout, LINE);
    }

    #[test]
    fn it_is_small() {
        for platform in Platform::ALL {
            assert!(executable(platform).len() < 192, "{platform}");
        }
    }
}
