/* SPDX-License-Identifier: MIT
 *
 * place.c - where the files are: a directory of our own on a real disk, made
 *           at the start and removed at the end, also after an interrupt.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { MAX_FILES = 24, PATH_BYTES = 512 };

static char place[PATH_BYTES - 64];
/* Plain arrays, for a signal handler unlinks by them. */
static char files[MAX_FILES][3][PATH_BYTES];
static int n_files;

static void remove_all(void)
{
    for (int i = 0; i < n_files; i++) {
        for (int k = 0; k < 3; k++)
            unlink(files[i][k]);
    }
    rmdir(place);
}

static void on_signal(int sig)
{
    remove_all();
    _exit(128 + sig);
}

static const char *kind_of(const char *path)
{
    static const struct { unsigned long magic; const char *name; } kinds[] = {
        { 0xef53, "ext4" }, { 0x01021994, "tmpfs" }, { 0x58465342, "xfs" },
        { 0x9123683e, "btrfs" }, { 0x794c7630, "overlayfs" },
        { 0x2fc12fc1, "zfs" }, { 0xf2f52010, "f2fs" }, { 0x6969, "nfs" },
    };
    struct statfs fs;

    if (statfs(path, &fs) != 0)
        return "nothing";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].magic == (unsigned long)fs.f_type)
            return kinds[i].name;
    }
    return "another file system";
}

static int try_place(const char *base)
{
    snprintf(place, sizeof place, "%s/outbox-bench-XXXXXX", base);
    return mkdtemp(place) ? 0 : -1;
}

static int choose_place(void)
{
    const char *base[] = { "/var/tmp", getenv("TMPDIR"), "/tmp", "." };
    const char *wanted = getenv("BENCH_DIR");

    if (wanted && *wanted)
        return try_place(wanted);
    for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
        if (base[i] && strcmp(kind_of(base[i]), "tmpfs") != 0
            && try_place(base[i]) == 0)
            return 0;
    }
    return try_place(".");
}

void bench_place_open(void)
{
    if (choose_place() != 0)
        bench_die("no directory for the files: %s", strerror(errno));
    atexit(remove_all);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

const char *bench_place(void)
{
    return place;
}

const char *bench_place_kind(void)
{
    return kind_of(place);
}

const char *bench_file(const char *name)
{
    static const char *const suffix[] = { "", "-wal", "-shm" };
    char path[PATH_BYTES - 8];

    snprintf(path, sizeof path, "%s/%s", place, name);
    for (int i = 0; i < n_files; i++) {
        if (!strcmp(files[i][0], path))
            return files[i][0];
    }
    if (n_files == MAX_FILES)
        bench_die("more than %d files", MAX_FILES);
    for (int k = 0; k < 3; k++)
        snprintf(files[n_files][k], PATH_BYTES, "%s%s", path, suffix[k]);
    return files[n_files++][0];
}

void bench_remove(const char *path)
{
    char other[PATH_BYTES];

    unlink(path);
    snprintf(other, sizeof other, "%s-wal", path);
    unlink(other);
    snprintf(other, sizeof other, "%s-shm", path);
    unlink(other);
}

static double timed_sync(int fd)
{
    double from = bench_now();

    if (fdatasync(fd) != 0)
        bench_die("fdatasync: %s", strerror(errno));
    return bench_now() - from;
}

void bench_place_sync(double *dirty, double *clean)
{
    enum { N = 200 };
    static char page[4096];
    double d[N], c[N];
    const char *path = bench_file("sync");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    if (fd < 0)
        bench_die("%s: %s", path, strerror(errno));
    for (int i = 0; i < N; i++) {
        if (pwrite(fd, page, sizeof page, (off_t)(i % 16) * 4096) < 0)
            bench_die("pwrite: %s", strerror(errno));
        d[i] = timed_sync(fd);
        c[i] = timed_sync(fd);
    }
    close(fd);
    bench_remove(path);
    *dirty = bench_median(d, N);
    *clean = bench_median(c, N);
}

static void copy_bytes(int in, int out)
{
    static char buffer[1 << 16];
    ssize_t n;

    while ((n = read(in, buffer, sizeof buffer)) > 0) {
        if (write(out, buffer, (size_t)n) != n)
            bench_die("write: %s", strerror(errno));
    }
    if (n < 0)
        bench_die("read: %s", strerror(errno));
}

/* Only while nobody has from open through SQLite: closing a descriptor drops
 * the POSIX locks that this process has on the file. */
void bench_copy(const char *from, const char *to)
{
    int in = open(from, O_RDONLY);
    int out;

    bench_remove(to);
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || out < 0)
        bench_die("copy of %s: %s", from, strerror(errno));
    copy_bytes(in, out);
    /* On the disk now, rather than during what is measured next. */
    if (fdatasync(out) != 0)
        bench_die("fdatasync: %s", strerror(errno));
    close(in);
    close(out);
}
