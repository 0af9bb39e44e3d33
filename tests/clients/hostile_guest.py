"""Makes an initramfs whose /init attacks the host by the guest link.

    hostile_guest.py ATTACK BUSYBOX OUTPUT

ATTACK is `garbage` (random bytes without end), `oversized` (a well-formed header
that announces 2 GiB, then zeroes without end) or `silent` (nothing at all).
"""

import struct
import sys
import zlib

INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
for name in /sys/class/virtio-ports/*/name; do
    [ "$(/bin/busybox cat "$name")" = org.aegisvm.link ] || continue
    port=${name%/name}
    port=/dev/${port##*/}
done
"""

ATTACKS = {
    "garbage": b'exec /bin/busybox cat /dev/urandom >"$port"\n',
    "oversized": b'exec /bin/busybox cat /header /dev/zero >"$port"\n',
    "silent": b"exec /bin/busybox sleep 100000\n",
}


def oversized_header():
    """Layout and checksums as in aegis-link's `frame` module."""
    magic, version, data = b"\xa6AVL", 1, 4
    body = magic + struct.pack("<BBHIIII", version, data, 0, 0x7FFFFFFF, 0, 1, 0)
    return body + struct.pack("<I", zlib.crc32(body))


def cpio(entries):
    """An archive in the `newc` format (cpio(5))."""
    archive = b""
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        archive += b"070701" + b"".join(b"%08x" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return archive


attack, busybox, output = sys.argv[1:]
directory, program = 0o040755, 0o100755
with open(busybox, "rb") as file:
    shell = file.read()
with open(output, "wb") as file:
    file.write(
        cpio(
            [
                ("dev", directory, b""),
                ("sys", directory, b""),
                ("bin", directory, b""),
                ("bin/busybox", program, shell),
                ("header", 0o100644, oversized_header()),
                ("init", program, INIT + ATTACKS[attack]),
            ]
        )
    )
