/* SPDX-License-Identifier: MIT
 *
 * sqlite_open.c - borrowed and own connections, and the table of operations.
 *
 * An own connection never checkpoints passively and not on close: SQLite
 * 3.7.0 to 3.51.2 can lose commits or corrupt the file when one connection
 * checkpoints while another writes (sqlite.org/wal.html#walresetbug).  The
 * application's own connection checkpoints as it always did.
 *
 * Its busy handler asks again every 50 us to 1 ms.  The library's usual one
 * sleeps up to 100 ms, and beside a publisher that writes without a pause it
 * hardly ever finds the lock free.  It gives up after 3 ms, for nothing is
 * delivered while it waits, and after twice as long each time that it had to,
 * up to 100 ms, until it has had the lock again.
 */
#include "sqlite_store.h"

#include <stdio.h>
#include <time.h>

enum { BUSY_MOST_MS = 100, SHOWN_PATH_BYTES = 160 };

/* ---- the clock ------------------------------------------------------ */

/* The database's clock is its VFS's, the one that its date functions use. */
int64_t ob_sqlite_now_ms(outbox_store *s)
{
    const int64_t epoch = INT64_C(210866760000000);     /* of Julian days */
    sqlite3_vfs *vfs = ((ob_sqlite *)s)->vfs;
    sqlite3_int64 now = 0;
    double days = 0;

    if (vfs == NULL)
        return 0;
    if (vfs->iVersion >= 2 && vfs->xCurrentTimeInt64 != NULL) {
        vfs->xCurrentTimeInt64(vfs, &now);
        return now - epoch;
    }
    vfs->xCurrentTime(vfs, &days);
    return (int64_t)(days * 86400000.0) - epoch;
}

/* ---- opening -------------------------------------------------------- */

static const outbox_store_ops sqlite_ops;

static int prefix_set(ob_sqlite *st, const char *prefix, outbox_error *err)
{
    if (prefix == NULL)
        prefix = "outbox_";
    size_t n = strnlen(prefix, OB_PREFIX_MAX + 1);
    if (n == 0 || n > OB_PREFIX_MAX)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_options.prefix is empty or longer "
                                "than %d bytes", OB_PREFIX_MAX);
    for (size_t i = 0; i < n; i++) {
        char c = prefix[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
              (c >= '0' && c <= '9')))
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "outbox_options.prefix may hold letters, "
                                    "digits and _ only");
    }
    memcpy(st->prefix, prefix, n + 1);
    return OUTBOX_OK;
}

/* Two names of one file that SQLite resolves differently do not share wake-
 * ups; the relay's watch on the file is behind that. */
static uint64_t identity(const ob_sqlite *st)
{
    char name[4096 + OB_PREFIX_MAX + 2];
    const char *file = sqlite3_db_filename(st->db, "main");

    if (file == NULL || *file == '\0' || strlen(file) > 4096)
        return 0;
    size_t n = strlen(file) + 1, prefix = strlen(st->prefix);
    memcpy(name, file, n);
    memcpy(name + n, st->prefix, prefix);
    return outbox_hash(name, n + prefix);
}

static void adopt(ob_sqlite *st)
{
    st->vfs = NULL;
    sqlite3_file_control(st->db, "main", SQLITE_FCNTL_VFS_POINTER, &st->vfs);
    if (st->vfs == NULL)
        st->vfs = sqlite3_vfs_find(NULL);
    st->base.database = identity(st);
}

static int store_new(ob_sqlite **out, const outbox_options *opt,
                     outbox_error *err)
{
    outbox_options o;
    outbox_allocator mem;
    int rc = outbox_options_read(&o, opt, &mem, err);

    if (rc != OUTBOX_OK)
        return rc;
    ob_sqlite *st = mem.malloc(mem.arg, sizeof *st);
    if (st == NULL)
        return ob_nomem(err);
    memset(st, 0, sizeof *st);
    st->base.ops = &sqlite_ops;
    st->base.mem = mem;
    st->on_connect = o.on_connect;
    st->on_connect_arg = o.arg;
    st->notify_fd = st->notify_watch = -1;
    st->wait_version = st->synced_version = -1;
    rc = prefix_set(st, o.prefix, err);
    if (rc != OUTBOX_OK)
        mem.free(mem.arg, st);
    else
        *out = st;
    return rc;
}

void ob_sqlite_disconnect(ob_sqlite *st)
{
    ob_sqlite_unwatch(st);
    for (int i = 0; i < SQ_COUNT_STMTS; i++) {
        sqlite3_finalize(st->stmts[i]);
        st->stmts[i] = NULL;
    }
    /* A statement that on_connect made may be left, and outlives us. */
    if (st->own && st->db != NULL) {
        sqlite3_busy_handler(st->db, NULL, NULL);
        sqlite3_close_v2(st->db);
    }
    st->db = NULL;
    st->checked = false;
}

static void store_close(outbox_store *s)
{
    ob_sqlite *st = (ob_sqlite *)s;
    outbox_allocator mem = st->base.mem;

    ob_sqlite_disconnect(st);
    if (st->path != NULL)
        mem.free(mem.arg, st->path);
    mem.free(mem.arg, st);
}

static int borrow(ob_sqlite **out, struct sqlite3 *db,
                  const outbox_options *opt, outbox_error *err)
{
    if (db == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "db is NULL");
    int rc = store_new(out, opt, err);
    if (rc != OUTBOX_OK)
        return rc;
    (*out)->db = db;
    adopt(*out);
    return OUTBOX_OK;
}

int outbox_sqlite_open(outbox_t **out, struct sqlite3 *db,
                       const outbox_options *opt, outbox_error *err)
{
    ob_sqlite *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    int rc = borrow(&st, db, opt, err);
    return rc == OUTBOX_OK ? outbox_from_store(out, &st->base, opt, err) : rc;
}

int inbox_sqlite_open(inbox_t **out, struct sqlite3 *db,
                      const outbox_options *opt, outbox_error *err)
{
    ob_sqlite *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    int rc = borrow(&st, db, opt, err);
    return rc == OUTBOX_OK ? inbox_from_store(out, &st->base, opt, err) : rc;
}

/* ---- a connection of our own ---------------------------------------- */

static int busy_handler(void *arg, int times)
{
    ob_sqlite *st = arg;
    int64_t now_us = outbox_monotonic_us();
    long pause_us = times < 20 ? 50L * (times + 1) : 1000L;
    struct timespec pause = { 0, pause_us * 1000 };

    if (times == 0)
        st->busy_until_us = now_us + st->busy_ms * 1000;
    if (now_us >= st->busy_until_us) {
        if (st->busy_ms < BUSY_MOST_MS)
            st->busy_ms = st->busy_ms * 2 < BUSY_MOST_MS ? st->busy_ms * 2
                                                         : BUSY_MOST_MS;
        return 0;
    }
    nanosleep(&pause, NULL);
    return 1;
}

/* Which of a program's files it is, is what its operator asks first.  After
 * the question mark of a URI there may be a key. */
static int open_failed(ob_sqlite *st, outbox_error *err)
{
    char doing[SHOWN_PATH_BYTES + 8] = "open";
    size_t n = strcspn(st->path, "?");

    if (n <= SHOWN_PATH_BYTES)
        snprintf(doing, sizeof doing, "open %.*s", (int)n, st->path);
    return ob_sqlite_error(st, doing, err);
}

static int settings(ob_sqlite *st, outbox_error *err)
{
    sqlite3 *db = st->db;

    /* First of all: it may have a key to set. */
    if (st->on_connect != NULL && st->on_connect(st->on_connect_arg, db) != 0)
        return outbox_error_set(err, OUTBOX_EDB, "on_connect refused");
    st->busy_ms = OB_SQLITE_PATIENT_MS; /* another may be recovering it */
    sqlite3_busy_handler(db, busy_handler, st);
    sqlite3_extended_result_codes(db, 1);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (sqlite3_exec(db, "PRAGMA wal_autocheckpoint = 0;"
                     "PRAGMA synchronous = NORMAL;"
                     "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL)
        != SQLITE_OK)
        return open_failed(st, err);
    st->busy_ms = OB_SQLITE_BUSY_MS;
    return OUTBOX_OK;
}

static int has_file(ob_sqlite *st, outbox_error *err)
{
    const char *file = sqlite3_db_filename(st->db, "main");

    if (file != NULL && *file != '\0')
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_EINVAL,
                            "an in-memory or temporary database is seen by "
                            "one connection only: give a file");
}

static int reconnect(ob_sqlite *st, outbox_error *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI |
                SQLITE_OPEN_NOMUTEX;

    ob_sqlite_disconnect(st);
    int rc = sqlite3_open_v2(st->path, &st->db, flags, NULL);
    if (st->db == NULL)
        return ob_nomem(err);
    rc = rc != SQLITE_OK ? open_failed(st, err) : has_file(st, err);
    if (rc == OUTBOX_OK)
        rc = settings(st, err);
    if (rc != OUTBOX_OK) {
        ob_sqlite_disconnect(st);
        return rc;
    }
    st->broken = false;
    st->wait_version = st->synced_version = -1;
    adopt(st);
    return OUTBOX_OK;
}

int ob_sqlite_connected(ob_sqlite *st, outbox_error *err)
{
    return st->own && (st->broken || st->db == NULL) ? reconnect(st, err)
                                                     : OUTBOX_OK;
}

static int own_path(ob_sqlite *st, const char *path, outbox_error *err)
{
    const outbox_allocator *mem = &st->base.mem;
    size_t n = strlen(path) + 1;

    st->path = mem->malloc(mem->arg, n);
    if (st->path == NULL)
        return ob_nomem(err);
    memcpy(st->path, path, n);
    return OUTBOX_OK;
}

int outbox_sqlite_connect(outbox_t **out, const char *path,
                          const outbox_options *opt, outbox_error *err)
{
    ob_sqlite *st = NULL;

    if (out == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "out is NULL");
    *out = NULL;
    if (path == NULL || *path == '\0' || strcmp(path, ":memory:") == 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "path is empty or :memory:, which no second "
                                "connection can see: give a file");
    if (sqlite3_threadsafe() == 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "this SQLite was built without threads");
    int rc = store_new(&st, opt, err);
    if (rc != OUTBOX_OK)
        return rc;
    st->own = true;
    st->base.relayable = 1;
    rc = own_path(st, path, err);
    if (rc == OUTBOX_OK)
        rc = reconnect(st, err);
    if (rc == OUTBOX_OK)
        return outbox_from_store(out, &st->base, opt, err);
    store_close(&st->base);
    return rc;
}

static const outbox_store_ops sqlite_ops = {
    .size = sizeof sqlite_ops,
    .name = "sqlite",
    .append = ob_sqlite_append,
    .accept = ob_sqlite_accept,
    .backlog = ob_sqlite_backlog,
    .commit = ob_sqlite_commit,
    .prune = ob_sqlite_prune,
    .migrate = ob_sqlite_migrate,
    .attach = ob_sqlite_attach,
    .beat = ob_sqlite_beat,
    .acquire = ob_sqlite_acquire,
    .read = ob_sqlite_read,
    .save = ob_sqlite_save,
    .trial = ob_sqlite_trial,
    .parked = ob_sqlite_parked,
    .blocked = ob_sqlite_blocked,
    .trim = ob_sqlite_trim,
    .promote = ob_sqlite_promote,
    .count = ob_sqlite_count,
    .leave = ob_sqlite_leave,
    .find = ob_sqlite_find,
    .dead = ob_sqlite_dead,
    .admin = ob_sqlite_admin,
    .wait = ob_sqlite_wait,
    .now_ms = ob_sqlite_now_ms,
    .notice = ob_sqlite_notice,
    .close = store_close,
};
