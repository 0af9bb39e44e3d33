#!/bin/busybox sh
# PID 1 of a machine with a kernel of its own, until it becomes systemd: mounts
# the Debian tree, installs AegisVM in it and puts what only this machine needs
# into /run.
set -eu
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /tree /software
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for block in /sys/block/vd*; do
    mount -t ext4 "/dev/${block##*/}" "/$(cat "$block/serial")"
done
cp -a /software/usr /tree/
umount /software
mount -t tmpfs -o mode=755 tmpfs /tree/run

name=$(cat /name)
echo "$name" >/proc/sys/kernel/hostname
echo "$name" >/tree/etc/hostname
echo "127.0.0.1 localhost $name" >/tree/etc/hosts
tr -d - </proc/sys/kernel/random/uuid >/tree/etc/machine-id

units=/tree/run/systemd/system
mkdir -p "$units/sysinit.target.wants"
# The first waits for a device that only udev could announce, the others for
# modules that this kernel does not have.
for unit in serial-getty@ttyS0.service proc-sys-fs-binfmt_misc.automount \
    modprobe@configfs.service modprobe@drm.service modprobe@fuse.service; do
    ln -s /dev/null "$units/$unit"
done
cp /doors.py /tree/run/doors.py
cp /doors.service "$units/"
ln -s ../doors.service "$units/sysinit.target.wants/"

umount /proc /sys
exec switch_root /tree /lib/systemd/systemd
