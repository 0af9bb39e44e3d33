/* The floor that guests are measured against: an init that does nothing.
 *
 * As /init it ends the guest at once. With the kernel argument "floor=echo" it
 * gives back what arrives on the first virtio-serial port, with "floor=pour" it
 * writes to that port without end, and with "floor=drain" it reads without end:
 * the raw port below the link.
 *
 * In a guest of ours it is a program of the network. With a number as its argument it
 * is a server that gives back what arrives on that port of TCP, one client after the
 * other; with an address before it, a client that says how many bytes it got there.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
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

static void echo(int from, int to)
{
    ssize_t count;
    while ((count = read(from, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(to, buffer + done, count - done);
            if (written < 0)
                return;
            done += written;
        }
}

static int serve(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        return 1;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            return 1;
        echo(client, client);
        close(client);
    }
}

static int fetch(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 20};
    int server = socket(AF_INET, SOCK_STREAM, 0);
    ssize_t count;
    long total = 0;

    inet_pton(AF_INET, host, &address.sin_addr);
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(server, (struct sockaddr *)&address, sizeof address)) {
        perror("connecting");
        return 1;
    }
    while ((count = read(server, buffer, sizeof buffer)) > 0)
        total += count;
    if (count < 0)
        perror("reading");
    printf("%ld\n", total);
    return count < 0;
}

int main(int count, char **words)
{
    if (count > 2)
        return fetch(words[1], atoi(words[2]));
    if (count > 1)
        return serve(atoi(words[1]));
    const char *mode = getenv("floor");
    if (mode)
        carry(mode);
    reboot(LINUX_REBOOT_CMD_RESTART);
    return 0;
}
