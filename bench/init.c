/* The floor that guests are measured against: an init that does nothing.
 *
 * As /init it ends the guest at once. With the kernel argument "floor=echo" it
 * gives back what arrives on the first virtio-serial port, with "floor=pour" it
 * writes to that port without end, and with "floor=drain" it reads without end:
 * the raw port below the link.
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

static char buffer[65536];

static void carry(const char *mode)
{
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    int port = open("/dev/vport0p1", O_RDWR);
    if (port < 0)
        return;
    if (strcmp(mode, "pour") == 0) {
        while (write(port, buffer, sizeof buffer) > 0)
            ;
        return;
    }
    for (;;) {
        ssize_t count = read(port, buffer, sizeof buffer);
        if (count < 0)
            return;
        if (count == 0) /* the host has not connected yet */
            usleep(1000);
        if (strcmp(mode, "drain") == 0)
            continue;
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(port, buffer + done, count - done);
            if (written < 0)
                return;
            done += written;
        }
    }
}

int main(void)
{
    const char *mode = getenv("floor");
    if (mode)
        carry(mode);
    reboot(LINUX_REBOOT_CMD_RESTART);
    return 0;
}
