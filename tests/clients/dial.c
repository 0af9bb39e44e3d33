// What a guest's root can try, without names, proxies or anything else that it could be
// asked to use: a line of result for each attempt.
//
//   dial tcp ADDRESS PORT     connects and reads: "reached: WORDS", or what went wrong
//   dial hold ADDRESS PORT    connects, says "held", reads until the end and says how
//   dial udp FROM TO PORT     a datagram of IPv4 with any source address
//   dial udp6 FROM TO PORT    the same of IPv6
//   dial odd DEVICE TO PORT   datagrams of IPv4 in frames of another hardware address, with
//                             options, as fragments, and of IPv6 behind an extension header
//   dial name SERVER NAME     asks for an address by TCP: "ADDRESS"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int connected(const char *address, const char *port, int patience) {
    struct sockaddr_storage to = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&to;
    socklen_t length = sizeof *v4;
    v4->sin_port = htons(atoi(port));
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        length = sizeof *v6;
    } else {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(to.ss_family, SOCK_STREAM, 0);
    struct timeval limit = {patience, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return connect(fd, (struct sockaddr *)&to, length) == 0 ? fd : -1;
}

static int tcp(const char *address, const char *port) {
    char words[64];
    int fd = connected(address, port, 10);
    if (fd < 0) return fail("not reached");
    ssize_t got = read(fd, words, sizeof words - 1);
    if (got < 0) return fail("connected, then");
    words[got] = 0;
    printf("reached: %s\n", words);
    return 0;
}

static int hold(const char *address, const char *port) {
    char byte;
    int fd = connected(address, port, 100);
    if (fd < 0) return fail("not reached");
    printf("held\n");
    fflush(stdout);
    ssize_t got = read(fd, &byte, 1);
    if (got < 0) return fail("broken off");
    printf("ended\n");
    return 0;
}

// A datagram that names the way it came, in a packet of IPv4 with `options` bytes of
// options; the kernel fills in checksums of raw packets.
static size_t datagram(char *packet, const char *from, const char *to, int port, int options,
                       int fragment, const char *words) {
    struct iphdr *ip = (struct iphdr *)packet;
    size_t head = sizeof *ip + options;
    struct udphdr *udp = (struct udphdr *)(packet + head);
    size_t length = head + sizeof *udp + strlen(words);
    memset(packet, 0, head + sizeof *udp);
    memset(packet + sizeof *ip, 1, options);
    ip->version = 4;
    ip->ihl = head / 4;
    ip->tot_len = htons(length);
    ip->frag_off = htons(fragment);
    ip->ttl = 64;
    ip->protocol = IPPROTO_UDP;
    inet_pton(AF_INET, from, &ip->saddr);
    inet_pton(AF_INET, to, &ip->daddr);
    unsigned sum = 0;
    for (size_t at = 0; at < head; at += 2) sum += *(unsigned short *)(packet + at);
    sum = (sum & 0xffff) + (sum >> 16);
    ip->check = ~(sum + (sum >> 16));
    udp->source = htons(4000);
    udp->dest = htons(port);
    udp->len = htons(sizeof *udp + strlen(words));
    memcpy(packet + head + sizeof *udp, words, strlen(words));
    return length;
}

static int udp(const char *from, const char *to, int port) {
    char packet[256], words[64];
    snprintf(words, sizeof words, "from %s", from);
    size_t length = datagram(packet, from, to, port, 0, 0, words);
    struct sockaddr_in out = {.sin_family = AF_INET};
    inet_pton(AF_INET, to, &out.sin_addr);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (sendto(fd, packet, length, 0, (struct sockaddr *)&out, sizeof out) < 0)
        return fail("not sent");
    printf("sent\n");
    return 0;
}

static int frames(const char *device, int type, const char *packet, size_t length, int spoofed) {
    struct ifreq request = {0};
    // The gateway's hardware address.
    char frame[512] = {2, (char)0xaf, 0, 0, 0, 1};
    struct sockaddr_ll out = {.sll_family = AF_PACKET, .sll_halen = 6};
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0) return fail("no device");
    memcpy(frame + 6, request.ifr_hwaddr.sa_data, 6);
    frame[11] ^= spoofed;
    frame[12] = type >> 8;
    frame[13] = type & 0xff;
    memcpy(frame + 14, packet, length);
    if (ioctl(fd, SIOCGIFINDEX, &request) < 0) return fail("no device");
    out.sll_ifindex = request.ifr_ifindex;
    if (sendto(fd, frame, 14 + length, 0, (struct sockaddr *)&out, sizeof out) < 0)
        return fail("not sent");
    return 0;
}

static size_t datagram6(char *packet, const char *from, const char *to, int port, int extension,
                        const char *words) {
    struct ip6_hdr *ip = (struct ip6_hdr *)packet;
    memset(packet, 0, 256);
    size_t head = sizeof *ip + extension;
    struct udphdr *udp = (struct udphdr *)(packet + head);
    size_t body = sizeof *udp + strlen(words);
    ip->ip6_vfc = 0x60;
    ip->ip6_plen = htons(extension + body);
    ip->ip6_nxt = extension ? IPPROTO_DSTOPTS : IPPROTO_UDP;
    ip->ip6_hlim = 64;
    inet_pton(AF_INET6, from, &ip->ip6_src);
    inet_pton(AF_INET6, to, &ip->ip6_dst);
    if (extension) {
        // The next header, and one option that fills the eight bytes.
        char *options = packet + sizeof *ip;
        options[0] = IPPROTO_UDP;
        options[2] = 1;
        options[3] = 4;
    }
    udp->source = htons(4000);
    udp->dest = htons(port);
    udp->len = htons(body);
    memcpy(packet + head + sizeof *udp, words, strlen(words));
    // The checksum of the pseudo-header and the datagram.
    unsigned sum = htons(IPPROTO_UDP) + htons(body);
    for (size_t at = 8; at < 40; at += 2) sum += *(unsigned short *)(packet + at);
    for (size_t at = head; at < head + body; at += 2) sum += *(unsigned short *)(packet + at);
    sum = (sum & 0xffff) + (sum >> 16);
    udp->check = ~(sum + (sum >> 16));
    return head + body;
}

static int udp6(const char *device, const char *from, const char *to, int port) {
    char packet[256], words[64];
    snprintf(words, sizeof words, "from %s", from);
    size_t length = datagram6(packet, from, to, port, 0, words);
    if (frames(device, ETH_P_IPV6, packet, length, 0)) return 1;
    printf("sent\n");
    return 0;
}

static int odd(const char *device, const char *to, const char *to6, int port) {
    char packet[256];
    const char *own = "192.0.0.2", *own6 = "fd61:6567:6973::2";
    size_t length = datagram(packet, own, to, port, 0, 0, "another hardware address");
    if (frames(device, ETH_P_IP, packet, length, 1)) return 1;
    length = datagram(packet, own, to, port, 4, 0, "with options");
    if (frames(device, ETH_P_IP, packet, length, 0)) return 1;
    length = datagram(packet, own, to, port, 0, 0x2000, "a first fragment");
    if (frames(device, ETH_P_IP, packet, length, 0)) return 1;
    length = datagram(packet, own, to, port, 0, 1, "a later fragment");
    if (frames(device, ETH_P_IP, packet, length, 0)) return 1;
    length = datagram6(packet, own6, to6, port, 8, "behind an extension header");
    if (frames(device, ETH_P_IPV6, packet, length, 0)) return 1;
    // What is as it should be, in the same way: the frames themselves are right.
    length = datagram(packet, own, to, port, 0, 0, "plain of IPv4");
    if (frames(device, ETH_P_IP, packet, length, 0)) return 1;
    length = datagram6(packet, own6, to6, port, 0, "plain of IPv6 ");
    if (frames(device, ETH_P_IPV6, packet, length, 0)) return 1;
    printf("sent\n");
    return 0;
}

static int name(const char *server, const char *asked) {
    unsigned char message[512] = {0, 0, 7, 7, 1, 0, 0, 1};
    size_t at = 14;
    while (*asked) {
        size_t part = strcspn(asked, ".");
        message[at++] = part;
        memcpy(message + at, asked, part);
        at += part;
        asked += part + (asked[part] == '.');
    }
    at++;
    message[at + 1] = message[at + 3] = 1;
    at += 4;
    message[1] = at - 2;
    int fd = connected(server, "53", 20);
    if (fd < 0) return fail("not reached");
    if (write(fd, message, at) < 0) return fail("not asked");
    size_t got = 0;
    unsigned char answer[4096];
    while (got < 2 || got < 2u + answer[0] * 256 + answer[1]) {
        ssize_t some = read(fd, answer + got, sizeof answer - got);
        if (some <= 0) return fail("no answer");
        got += some;
    }
    // The address is the last of the answer.
    printf("%d.%d.%d.%d\n", answer[got - 4], answer[got - 3], answer[got - 2], answer[got - 1]);
    return 0;
}

int main(int count, char **words) {
    if (count == 4 && !strcmp(words[1], "tcp")) return tcp(words[2], words[3]);
    if (count == 4 && !strcmp(words[1], "hold")) return hold(words[2], words[3]);
    if (count == 5 && !strcmp(words[1], "udp")) return udp(words[2], words[3], atoi(words[4]));
    if (count == 5 && !strcmp(words[1], "udp6")) return udp6("eth0", words[2], words[3], atoi(words[4]));
    if (count == 6 && !strcmp(words[1], "odd")) return odd(words[2], words[3], words[4], atoi(words[5]));
    if (count == 4 && !strcmp(words[1], "name")) return name(words[2], words[3]);
    return 2;
}
