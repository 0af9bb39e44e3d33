"""Writes a program that calls itself QEMU 4.2.1, whatever it is asked to do.

    old_qemu.py OUTPUT

It is a static ELF file (elf(5)), as a script would need an interpreter, which
the jail of a real QEMU does not have.
"""

import os
import struct
import sys

TEXT = b"QEMU emulator version 4.2.1 (Debian 1:4.2-3)\n"
BASE = 0x400000
HEADERS = 64 + 56

code = b"".join(
    [
        b"\xb8" + struct.pack("<I", 1),  # mov eax, 1: write
        b"\xbf" + struct.pack("<I", 1),  # mov edi, 1: standard output
        b"\x48\x8d\x35" + struct.pack("<i", 19),  # lea rsi, [rip + 19]: the text
        b"\xba" + struct.pack("<I", len(TEXT)),  # mov edx
        b"\x0f\x05",  # syscall
        b"\xb8" + struct.pack("<I", 60),  # mov eax, 60: exit
        b"\xbf" + struct.pack("<I", 0),  # mov edi, 0
        b"\x0f\x05",  # syscall
    ]
)
size = HEADERS + len(code) + len(TEXT)
identity = b"\x7fELF\x02\x01\x01" + bytes(9)
header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096)
with open(sys.argv[1], "wb") as file:
    file.write(identity + header + segment + code + TEXT)
os.chmod(sys.argv[1], 0o755)
