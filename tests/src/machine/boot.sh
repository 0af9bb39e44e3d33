# Runs as PID 1 of new pid, mount, uts, ipc, net and cgroup namespaces: builds
# the machine's file system view, moves into it and becomes systemd.
#
#   $1 the machine's name
#   $2 the directory that becomes /
#   $3 options of an overlay to mount there, or nothing if the tree is there
#   $4 the file on the host that is the machine's console
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
name=$1 root=$2 overlay=$3 console=$4

mount --make-rprivate /
if [ -n "$overlay" ]; then
    mount -t overlay -o "$overlay" aegisvm "$root"
else
    mount --bind "$root" "$root"
fi
cd "$root"

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for device in null zero full random urandom tty kvm net/tun fuse; do
    [ -e "/dev/$device" ] || continue
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
: >dev/console
mount --bind "$console" dev/console

echo "$name" >/proc/sys/kernel/hostname
echo "$name" >etc/hostname
echo "127.0.0.1 localhost $name" >etc/hosts
[ -s etc/machine-id ] || tr -d - <proc/sys/kernel/random/uuid >etc/machine-id

pivot_root . mnt
umount -l /mnt
ip link set lo up
# Without shared propagation the credentials of system units stay empty.
mount --make-rshared /
exec env -i container=aegisvm PATH="$PATH" /lib/systemd/systemd --system
