/*
 * Prints what a tree of files is, one line for each but the root, in the order of
 * their names as bytes:
 *
 *     tree_facts ROOT [LEFT_OUT...]
 *
 *     NAME TYPE MODE UID GID MTIME [size=N hash=H|to=TARGET|device=M,N] [same=NAME] [XATTR=HEX...]
 *
 * Names are relative to ROOT, with what is not printable as \xHH. `same` is the first
 * name of the same file. LEFT_OUT and what is below it are not listed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct file {
    char *name;
    struct stat stat;
};

/* Of a larger file a block each MIB is read: one of gigabytes is mostly a hole. */
enum { MIB = 1 << 20, WHOLE = 16 * MIB, BLOCK = 4096 };

static struct file *files;
static size_t count, room;
static char **left_out;

static void print(const char *text, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        unsigned char byte = text[at];
        if (byte > ' ' && byte < 127 && byte != '\\')
            putchar(byte);
        else
            printf("\\x%02x", byte);
    }
}

static void note(const char *name)
{
    if (count == room) {
        room = room ? 2 * room : 1024;
        files = realloc(files, room * sizeof *files);
        if (!files)
            err(1, "memory");
    }
    files[count].name = strdup(name);
    if (lstat(name, &files[count].stat) < 0)
        err(1, "lstat %s", name);
    count++;
}

static int is_left_out(const char *name)
{
    for (char **one = left_out; *one; one++)
        if (!strcmp(*one, name))
            return 1;
    return 0;
}

static void list(const char *folder)
{
    DIR *open = opendir(*folder ? folder : ".");
    if (!open)
        err(1, "opendir %s", folder);
    for (struct dirent *entry; (entry = readdir(open));) {
        char *name;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (asprintf(&name, "%s%s%s", folder, *folder ? "/" : "", entry->d_name) < 0)
            err(1, "memory");
        if (!is_left_out(name)) {
            note(name);
            if (S_ISDIR(files[count - 1].stat.st_mode))
                list(name);
        }
        free(name);
    }
    closedir(open);
}

/* FNV-1a over words of eight bytes. */
static uint64_t hash(uint64_t so_far, const unsigned char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, length - at < 8 ? length - at : 8);
        so_far = (so_far ^ word) * 0x100000001b3;
    }
    return so_far;
}

static void print_content(const struct file *file)
{
    static unsigned char buffer[MIB];
    uint64_t sum = 0xcbf29ce484222325;
    off_t size = file->stat.st_size, step = size > WHOLE ? BLOCK : MIB;
    int open_file = open(file->name, O_RDONLY);
    if (open_file < 0)
        err(1, "open %s", file->name);
    for (off_t at = 0; at < size; at += MIB) {
        ssize_t want = size - at < step ? size - at : step;
        if (pread(open_file, buffer, want, at) != want)
            err(1, "read %s", file->name);
        sum = hash(sum, buffer, want);
    }
    close(open_file);
    printf(" size=%lld hash=%016llx", (long long)size, (unsigned long long)sum);
}

static int by_text(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static void print_attributes(const char *name)
{
    static char keys[1 << 16], value[1 << 16];
    char *sorted[256];
    size_t found = 0;
    ssize_t length = llistxattr(name, keys, sizeof keys);
    for (char *key = keys; key < keys + length && found < 256; key += strlen(key) + 1)
        sorted[found++] = key;
    qsort(sorted, found, sizeof *sorted, by_text);
    for (size_t at = 0; at < found; at++) {
        ssize_t got = lgetxattr(name, sorted[at], value, sizeof value);
        putchar(' ');
        print(sorted[at], strlen(sorted[at]));
        putchar('=');
        for (ssize_t byte = 0; byte < got; byte++)
            printf("%02x", (unsigned char)value[byte]);
    }
}

static void print_file(size_t number)
{
    const struct file *file = files + number;
    const struct stat *stat = &file->stat;
    print(file->name, strlen(file->name));
    const char *type = S_ISDIR(stat->st_mode)    ? "dir"
                       : S_ISREG(stat->st_mode)  ? "file"
                       : S_ISLNK(stat->st_mode)  ? "link"
                       : S_ISCHR(stat->st_mode)  ? "char"
                       : S_ISBLK(stat->st_mode)  ? "block"
                       : S_ISFIFO(stat->st_mode) ? "fifo"
                                                 : "socket";
    printf(" %s %04o %u %u %lld", type, stat->st_mode & 07777, stat->st_uid, stat->st_gid,
           (long long)stat->st_mtime);
    if (S_ISREG(stat->st_mode)) {
        print_content(file);
    } else if (S_ISLNK(stat->st_mode)) {
        char target[4097];
        ssize_t length = readlink(file->name, target, sizeof target);
        printf(" to=");
        print(target, length < 0 ? 0 : length);
    } else if (S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode)) {
        printf(" device=%u,%u", major(stat->st_rdev), minor(stat->st_rdev));
    }
    /* Several names are seldom, so looking through all before is no loss. */
    for (size_t other = 0; !S_ISDIR(stat->st_mode) && stat->st_nlink > 1 && other < number; other++) {
        if (files[other].stat.st_ino == stat->st_ino && files[other].stat.st_dev == stat->st_dev) {
            printf(" same=");
            print(files[other].name, strlen(files[other].name));
            break;
        }
    }
    print_attributes(file->name);
    putchar('\n');
}

static int by_name(const void *one, const void *other)
{
    return strcmp(((const struct file *)one)->name, ((const struct file *)other)->name);
}

int main(int argc, char **argv)
{
    static char *none[] = {NULL};
    if (argc < 2)
        errx(2, "usage: tree_facts ROOT [LEFT_OUT...]");
    left_out = argc > 2 ? argv + 2 : none;
    if (chdir(argv[1]) < 0)
        err(1, "chdir %s", argv[1]);
    list("");
    qsort(files, count, sizeof *files, by_name);
    for (size_t number = 0; number < count; number++)
        print_file(number);
    return 0;
}
