/* SPDX-License-Identifier: MIT
 *
 * sqlite_wait.c - noticing commits, and making them durable.
 *
 * Another connection's commit changes data_version; asking costs 3 us.  When
 * to ask is told by inotify on the file that commits write to, the -wal or
 * the database itself.  Watching opens no descriptor on it: closing one would
 * drop the process's locks (sqlite.org/howtocorrupt.html, 2.2).  The file is
 * written shortly before the commit becomes visible, so after a wake-up, or a
 * publisher's announcement, we ask in quick succession, then less and less.
 * A watch tells of one write and is gone, and a new one is set only where a
 * sleep is long: while it stands, each write(2) of a publisher pays for it,
 * which cost busy publishers a tenth of their rate.
 *
 * Without inotify the caller's growing poll is all there is.
 */
#include "sqlite_store.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/inotify.h>
#include <sys/vfs.h>
#endif

enum { ALERT_US = 1000000, ALERT_FIRST_US = 20, REST_US = 1000,
       WAL_LONG_BYTES = 64 << 20, WAL_CHECK_US = 10000000 };

int64_t ob_sqlite_data_version(ob_sqlite *st)
{
    outbox_error err;
    int64_t version = -1;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_DATA_VERSION, &rc, &err);

    if (stmt == NULL)
        return -1;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        version = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return version;
}

/* ---- durability ----------------------------------------------------- */

static sqlite3_file *file_of(ob_sqlite *st, int which)
{
    sqlite3_file *f = NULL;

    if (sqlite3_file_control(st->db, "main", which, &f) != SQLITE_OK)
        return NULL;
    return f != NULL && f->pMethods != NULL ? f : NULL;
}

/* In WAL mode the journal is the WAL; in the other modes a commit has been
 * written to the database file. */
int ob_sqlite_sync(ob_sqlite *st, outbox_error *err)
{
    sqlite3_file *wal = file_of(st, SQLITE_FCNTL_JOURNAL_POINTER);
    sqlite3_file *f = wal != NULL ? wal
                                  : file_of(st, SQLITE_FCNTL_FILE_POINTER);

    if (f == NULL || f->pMethods->xSync(f, SQLITE_SYNC_NORMAL) != SQLITE_OK)
        return outbox_error_set(err, OUTBOX_EDB,
                                "the file cannot be synced");
    return OUTBOX_OK;
}

/* Nobody may checkpoint if the application writes seldom, and then the WAL
 * grows with our own writes.  TRUNCATE locks writers out, which makes it the
 * one kind that is safe beside them in every SQLite. */
void ob_sqlite_keep_wal_short(ob_sqlite *st)
{
    int64_t now_us = outbox_monotonic_us();
    sqlite3_file *wal = file_of(st, SQLITE_FCNTL_JOURNAL_POINTER);
    sqlite3_int64 bytes = 0;

    if (wal == NULL || now_us < st->wal_check_us)
        return;
    bool first = st->wal_check_us == 0;
    st->wal_check_us = now_us + WAL_CHECK_US;
    if (first)                          /* not at once: there is work to do */
        return;
    if (wal->pMethods->xFileSize(wal, &bytes) == SQLITE_OK &&
        bytes > WAL_LONG_BYTES)
        sqlite3_wal_checkpoint_v2(st->db, "main", SQLITE_CHECKPOINT_TRUNCATE,
                                  NULL, NULL);
}

/* ---- what an operator should know ----------------------------------- */

enum { WAL_RESET_FIXED = 3051003 };

/* Where locks or shared memory between machines cannot work: NFS, SMB (three
 * of its numbers), 9P, AFS, FUSE (statfs(2)). */
static bool on_network(ob_sqlite *st)
{
#ifdef __linux__
    static const unsigned long magic[] = { 0x6969, 0x517b, 0xff534d42,
                                           0xfe534d42, 0x01021997,
                                           0x5346414f, 0x65735546 };
    const char *file = sqlite3_db_filename(st->db, "main");
    struct statfs fs;

    if (file == NULL || statfs(file, &fs) != 0)
        return false;
    for (size_t i = 0; i < sizeof magic / sizeof magic[0]; i++) {
        if (((unsigned long)fs.f_type & 0xffffffff) == magic[i])
            return true;
    }
#else
    (void)st;
#endif
    return false;
}

static bool in_wal_mode(ob_sqlite *st)
{
    outbox_error err;
    bool wal = false;
    int rc;
    sqlite3_stmt *stmt = ob_sqlite_stmt(st, SQ_JOURNAL, &rc, &err);

    if (stmt == NULL)
        return false;
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const unsigned char *mode = sqlite3_column_text(stmt, 0);
        wal = mode != NULL && strcmp((const char *)mode, "wal") == 0;
    }
    sqlite3_reset(stmt);
    return wal;
}

int ob_sqlite_notice(outbox_store *s, int nth, char *text, size_t size)
{
    ob_sqlite *st = (ob_sqlite *)s;
    bool wal = in_wal_mode(st);
    int n = 0;

    if (wal && sqlite3_libversion_number() < WAL_RESET_FIXED && n++ == nth) {
        snprintf(text, size, "SQLite %s may corrupt a WAL database when one "
                 "connection checkpoints while another writes: update to "
                 "3.51.3, or see outbox_sqlite(3)", sqlite3_libversion());
        return 1;
    }
    if (!wal && n++ == nth) {
        snprintf(text, size, "the database is not in WAL mode: publishers and "
                 "this relay shut each other out, see outbox_sqlite(3)");
        return 1;
    }
    if (on_network(st) && n++ == nth) {
        snprintf(text, size, "the database is on a network file system, where "
                 "SQLite's locks are not to be trusted");
        return 1;
    }
    return 0;
}

/* ---- watching ------------------------------------------------------- */

#ifdef __linux__

void ob_sqlite_unwatch(ob_sqlite *st)
{
    if (st->notify_fd >= 0)
        close(st->notify_fd);
    st->notify_fd = st->notify_watch = -1;
}

/* True: the WAL was not watched until now; look once more. */
static bool watch_wal(ob_sqlite *st)
{
    const char *file = sqlite3_db_filename(st->db, "main");
    const char *wal = file != NULL ? sqlite3_filename_wal(file) : NULL;
    uint32_t what = IN_MODIFY | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONESHOT;

    if (st->notify_fd < 0)
        st->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (st->notify_fd < 0 || st->notify_watch >= 0 || wal == NULL)
        return false;
    st->notify_watch = inotify_add_watch(st->notify_fd, wal, what);
    if (st->notify_watch < 0)           /* no WAL yet: look again next time */
        inotify_add_watch(st->notify_fd, file, what);
    return st->notify_watch >= 0;
}

/* The watch ends with what it told of, and says so; that may come later than
 * the event, and is none. */
static bool watch_drain(ob_sqlite *st)
{
    union {
        struct inotify_event event;
        char bytes[4096];
    } u;
    bool any = false;
    ssize_t n;

    while ((n = read(st->notify_fd, &u, sizeof u)) > 0) {
        for (char *p = u.bytes; p < u.bytes + n;) {
            struct inotify_event e;
            memcpy(&e, p, sizeof e);
            if ((e.mask & IN_IGNORED) == 0)
                any = true;
            else if (e.wd == st->notify_watch)
                st->notify_watch = -1;
            p += sizeof e + e.len;
        }
    }
    return any;
}

#else

void ob_sqlite_unwatch(ob_sqlite *st)
{
    (void)st;
}

static bool watch_wal(ob_sqlite *st)
{
    (void)st;
    return false;
}

static bool watch_drain(ob_sqlite *st)
{
    (void)st;
    return false;
}

#endif

/* ---- waiting -------------------------------------------------------- */

static bool committed(ob_sqlite *st)
{
    int64_t version = ob_sqlite_data_version(st);

    if (version == st->wait_version)
        return false;
    st->wait_version = version;
    return true;
}

/* Something is coming.  The file is written before the commit is visible,
 * by as long as the disk takes to sync, so ask often at first, then after
 * each quarter of the time that has passed. */
static bool alert(ob_sqlite *st, int wake_fd, int64_t until_us)
{
    while (!committed(st)) {
        int64_t now_us = outbox_monotonic_us();
        int64_t age_us = now_us - st->alert_us;
        int64_t pause_us = age_us / 4 > ALERT_FIRST_US ? age_us / 4
                                                       : ALERT_FIRST_US;
        struct pollfd p[2] = { { .fd = wake_fd, .events = POLLIN },
                               { .fd = st->notify_fd, .events = POLLIN } };

        if (age_us > ALERT_US) {
            st->alert_us = 0;
            return false;
        }
        if (now_us >= until_us)
            return false;
        if (pause_us >= REST_US && watch_wal(st))
            continue;
        if (pause_us > until_us - now_us)
            pause_us = until_us - now_us;
        struct timespec pause = { 0, pause_us * 1000 };
        if (ppoll(p, 2, &pause, NULL) > 0 && p[0].revents != 0)
            return false;
        if (p[1].revents != 0 && watch_drain(st))
            st->alert_us = outbox_monotonic_us();
    }
    st->alert_us = 0;
    return true;
}

static int wait_commit(ob_sqlite *st, int wake_fd, int hint, int timeout_ms)
{
    int64_t until_us = outbox_monotonic_us() + (int64_t)timeout_ms * 1000;

    if (st->db == NULL) {
        struct pollfd p = { .fd = wake_fd, .events = POLLIN };
        poll(&p, 1, timeout_ms);
        return 0;
    }
    if (hint)
        st->alert_us = outbox_monotonic_us();
    if (st->alert_us != 0 ? alert(st, wake_fd, until_us) : committed(st))
        return 1;
    int64_t left_us = until_us - outbox_monotonic_us();
    if (left_us <= 0)
        return 0;
    watch_wal(st);
    if (committed(st))
        return 1;
    struct pollfd p[2] = { { .fd = wake_fd, .events = POLLIN },
                           { .fd = st->notify_fd, .events = POLLIN } };
    if (poll(p, 2, (int)((left_us + 999) / 1000)) <= 0)
        return 0;
    if (p[1].revents == 0 || !watch_drain(st))
        return 0;
    st->alert_us = outbox_monotonic_us();
    return alert(st, wake_fd, until_us);
}

/* Beside a publisher that writes without a pause, each look costs it more
 * than it gains us: one in a millisecond is enough. */
static void rest(ob_sqlite *st)
{
    int64_t now_us = outbox_monotonic_us();
    int64_t left_us = st->found_us + REST_US - now_us;

    if (left_us > 0) {
        struct timespec pause = { 0, left_us * 1000 };
        nanosleep(&pause, NULL);
    }
    st->found_us = outbox_monotonic_us();
}

int ob_sqlite_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms)
{
    ob_sqlite *st = (ob_sqlite *)s;
    int found = wait_commit(st, wake_fd, hint, timeout_ms);

    if (found)
        rest(st);
    return found;
}
