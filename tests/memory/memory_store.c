/* SPDX-License-Identifier: MIT
 *
 * memory_store.c - the operations of store.h over the tables in memory.
 *
 * Every operation begins with enter(), which takes the lock and lets a fault
 * strike, and ends with mem_exit(), which may still lose the answer.
 */
#include "memory_db.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

mem_db *mem_db_of(outbox_store *st)
{
    return ((mem_store *)st)->conn->db;
}

mem_conn *mem_conn_of(outbox_store *st)
{
    return ((mem_store *)st)->conn;
}

/* ---- entering and leaving ------------------------------------------- */

static bool fault_strikes(mem_fault *f, bool after)
{
    if (f->times == 0 || f->after != after)
        return false;
    if (f->skip > 0) {
        f->skip--;
        return false;
    }
    f->times--;
    return true;
}

static int struck(mem_db *db, enum mem_op op, bool after, outbox_error *err)
{
    mem_fault *f = &db->faults[op];

    if (!fault_strikes(f, after))
        return OUTBOX_OK;
    return outbox_error_set(err, f->code, "a fault, as ordered");
}

/* With the lock held on OUTBOX_OK, without it otherwise. */
static int enter(outbox_store *st, enum mem_op op, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc;

    pthread_mutex_lock(&db->lock);
    db->calls[op]++;
    if (mem_conn_of(st)->severed)
        rc = outbox_error_set(err, OUTBOX_EDB, "the connection is gone");
    else
        rc = struck(db, op, false, err);
    if (rc != OUTBOX_OK)
        pthread_mutex_unlock(&db->lock);
    return rc;
}

int mem_exit(outbox_store *st, enum mem_op op, int rc, outbox_error *err)
{
    mem_db *db = mem_db_of(st);

    if (rc >= 0) {
        int lost = struck(db, op, true, err);
        rc = lost != OUTBOX_OK ? lost : rc;
    }
    pthread_mutex_unlock(&db->lock);
    return rc;
}

static int check_schema(const mem_db *db, outbox_error *err)
{
    if (db->version == 0)
        return outbox_error_set(err, OUTBOX_ESCHEMA, "no tables: migrate");
    if (db->version != MEM_VERSION)
        return outbox_error_set(err, OUTBOX_ESCHEMA,
                                "tables of version %d, not %d", db->version,
                                MEM_VERSION);
    return OUTBOX_OK;
}

/* For what runs in the caller's transaction. */
static int enter_theirs(outbox_store *st, enum mem_op op, outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);
    int rc = enter(st, op, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (!c->open)
        rc = outbox_error_set(err, OUTBOX_ENOTX, "no transaction is open");
    else if (c->aborted)
        rc = outbox_error_set(err, OUTBOX_EABORTED, "roll back first");
    else if (c->read_only)
        rc = outbox_error_set(err, OUTBOX_EREADONLY, "read-only");
    else
        rc = check_schema(c->db, err);
    if (rc != OUTBOX_OK)
        mem_exit(st, op, rc, err);
    return rc;
}

/* For what runs in a transaction of its own. */
int mem_enter_ours(outbox_store *st, enum mem_op op, bool writes,
                      outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);
    int rc = enter(st, op, err);

    if (rc != OUTBOX_OK)
        return rc;
    if (c->open)
        rc = outbox_error_set(err, OUTBOX_EINVAL, "a transaction is open");
    else if (writes && c->db->writer != NULL)
        rc = outbox_error_set(err, OUTBOX_EBUSY, "another one is writing");
    else if (writes && c->read_only)
        rc = outbox_error_set(err, OUTBOX_EREADONLY, "read-only");
    else if (op != MEM_MIGRATE)
        rc = check_schema(c->db, err);
    if (rc != OUTBOX_OK)
        mem_exit(st, op, rc, err);
    return rc;
}

int mem_nomem(outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ENOMEM, "out of memory");
}

/* ---- publishing ----------------------------------------------------- */

int mem_log_push(mem_db *db, const outbox_row *row)
{
    const outbox_bytes *k = &row->key;
    mem_record *r = mem_push(&db->log, sizeof *r);

    if (r == NULL || !mem_record_copy(r, row)) {
        db->log.n -= r != NULL;
        return OUTBOX_ENOMEM;
    }
    r->row.window = 0;
    r->row.position = ++db->last_position;
    r->row.chain = k->ptr != NULL ? outbox_hash(k->ptr, k->len)
                                  : outbox_hash(row->id, sizeof row->id);
    r->row.lane = (uint32_t)(r->row.chain % db->lanes);
    return OUTBOX_OK;
}

/* Rows that are due later have no place in the log yet. */
static int write_row(mem_db *db, outbox_row *row)
{
    bool later = row->due_ms > db->now_ms;
    mem_undo *u = mem_note(db, later ? MEM_UNDO_SCHEDULED : MEM_UNDO_EVENT);
    mem_record *r = NULL;

    if (u == NULL)
        return OUTBOX_ENOMEM;
    row->position = 0;
    row->published_ms = db->now_ms;
    if (!later && mem_log_push(db, row) == OUTBOX_OK) {
        row->position = db->last_position;
        return OUTBOX_OK;
    }
    if (later)
        r = mem_push(&db->scheduled, sizeof *r);
    if (r != NULL && mem_record_copy(r, row)) {
        row->position = -1;             /* not left out */
        return OUTBOX_OK;
    }
    db->scheduled.n -= r != NULL;
    db->undo.n--;
    return OUTBOX_ENOMEM;
}

/* 1: the key is new, and taken.  0: it was published before. */
static int take_dedup_key(mem_db *db, const outbox_bytes *key)
{
    for (size_t i = 0; i < db->dedups.n; i++) {
        if (strcmp(MEM_AT(&db->dedups, mem_dedup, i)->key, key->ptr) == 0)
            return 0;
    }
    mem_undo *u = mem_note(db, MEM_UNDO_DEDUP);
    mem_dedup *d = u != NULL ? mem_push(&db->dedups, sizeof *d) : NULL;
    if (d != NULL && (d->key = strdup(key->ptr)) != NULL) {
        d->published_ms = db->now_ms;
        return 1;
    }
    db->dedups.n -= d != NULL;
    db->undo.n -= u != NULL;
    return OUTBOX_ENOMEM;
}

static int append_row(mem_db *db, outbox_row *row, outbox_error *err)
{
    int rc = 1;

    if (row->dedup_key.ptr != NULL)
        rc = take_dedup_key(db, &row->dedup_key);
    if (rc == 0)
        return OUTBOX_DUPLICATE;
    if (rc > 0)
        rc = write_row(db, row);
    return rc == OUTBOX_OK ? rc : mem_nomem(err);
}

/* COMMIT may fail and leave the transaction open (EBUSY, EDB), or end it
 * with the work gone (EABORTED, EINDOUBT); or only its answer is lost. */
static int commit_now(mem_conn *c, outbox_error *err)
{
    int rc = struck(c->db, MEM_COMMIT, false, err);

    if (rc == OUTBOX_EABORTED || rc == OUTBOX_EINDOUBT)
        mem_end(c, false);
    if (rc != OUTBOX_OK)
        return rc;
    if (mem_end(c, true) != OUTBOX_OK)
        return outbox_error_set(err, OUTBOX_EABORTED, "it was a rollback");
    return struck(c->db, MEM_COMMIT, true, err);
}

static int mem_append(outbox_store *st, outbox_row *rows, size_t n, int commit,
                      outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);
    int rc = enter_theirs(st, MEM_APPEND, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = mem_take_write_lock(c, err);
    if (rc != OUTBOX_OK)
        return mem_exit(st, MEM_APPEND, rc, err);
    size_t before = c->db->undo.n;
    bool duplicate = false;
    for (size_t i = 0; i < n && rc >= 0; i++) {
        rc = append_row(c->db, &rows[i], err);
        duplicate = duplicate || rc == OUTBOX_DUPLICATE;
    }
    if (rc >= 0)
        rc = commit ? commit_now(c, err) : OUTBOX_OK;
    if (rc < 0 && c->db->writer == c)
        mem_undo_to(c->db, before);
    if (rc == OUTBOX_OK && duplicate)
        rc = OUTBOX_DUPLICATE;
    return mem_exit(st, MEM_APPEND, rc, err);
}

static int mem_backlog(outbox_store *st, int64_t *events, outbox_error *err)
{
    mem_db *db = mem_db_of(st);
    int rc = enter_theirs(st, MEM_BACKLOG, err);

    if (rc != OUTBOX_OK)
        return rc;
    int64_t least = db->subs.n > 0 ? mem_hindmost(db, 0) : 0;
    *events = (int64_t)(db->log.n - mem_first_past(db, least)
                        + db->scheduled.n);
    return mem_exit(st, MEM_BACKLOG, OUTBOX_OK, err);
}

/* ---- the inbox ------------------------------------------------------ */

static bool same_mark(const mem_mark *m, const char *consumer,
                      const outbox_bytes *id, int is_uuid)
{
    return m->is_uuid == is_uuid && m->id_len == id->len
        && memcmp(m->id, id->ptr, id->len) == 0
        && strcmp(m->consumer, consumer) == 0;
}

static int mark_now(mem_db *db, const char *consumer, const outbox_bytes *id,
                    int is_uuid, outbox_error *err)
{
    mem_undo *u = mem_note(db, MEM_UNDO_MARK);
    mem_mark *m = u != NULL ? mem_push(&db->marks, sizeof *m) : NULL;

    if (m == NULL) {
        db->undo.n -= u != NULL;
        return mem_nomem(err);
    }
    m->number = u->mark.number = ++db->last_mark;
    m->accepted_ms = db->now_ms;
    m->consumer = strdup(consumer);
    m->id = malloc(id->len + 1);
    m->id_len = id->len;
    m->is_uuid = is_uuid;
    if (m->consumer == NULL || m->id == NULL) {
        mem_undo_to(db, db->undo.n - 1);
        return mem_nomem(err);
    }
    memcpy(m->id, id->ptr, id->len);
    return 1;
}

static int mem_accept(outbox_store *st, const char *consumer,
                      const outbox_bytes *id, int is_uuid, outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);
    int rc = enter_theirs(st, MEM_ACCEPT, err);

    if (rc != OUTBOX_OK)
        return rc;
    rc = mem_take_write_lock(c, err);
    if (rc != OUTBOX_OK)
        return mem_exit(st, MEM_ACCEPT, rc, err);
    for (size_t i = 0; i < c->db->marks.n; i++) {
        if (same_mark(MEM_AT(&c->db->marks, mem_mark, i), consumer, id,
                      is_uuid))
            return mem_exit(st, MEM_ACCEPT, 0, err);
    }
    rc = mark_now(c->db, consumer, id, is_uuid, err);
    return mem_exit(st, MEM_ACCEPT, rc, err);
}

static int mem_commit_op(outbox_store *st, outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);

    pthread_mutex_lock(&c->db->lock);
    c->db->calls[MEM_COMMIT]++;
    int rc = c->severed
           ? outbox_error_set(err, OUTBOX_EDB, "the connection is gone")
           : !c->open
           ? outbox_error_set(err, OUTBOX_ENOTX, "no transaction is open")
           : commit_now(c, err);
    pthread_mutex_unlock(&c->db->lock);
    return rc;
}

static size_t oldest_mark(const mem_db *db)
{
    size_t best = db->marks.n;

    for (size_t i = 0; i < db->marks.n; i++) {
        const mem_mark *m = MEM_AT(&db->marks, mem_mark, i);
        if (mem_mark_visible(db, m)
            && (best == db->marks.n
                || m->number < MEM_AT(&db->marks, mem_mark, best)->number))
            best = i;
    }
    return best;
}

static int prune_marks(mem_db *db, int64_t keep_ms, int limit)
{
    int n = 0;

    while (n < limit) {
        size_t i = oldest_mark(db);
        mem_mark *m = MEM_AT(&db->marks, mem_mark, i);
        if (i == db->marks.n || db->now_ms - m->accepted_ms <= keep_ms)
            break;
        mem_undo *u = mem_note(db, MEM_UNDO_PRUNE);
        if (u == NULL)
            break;
        u->mark = *m;
        mem_remove(&db->marks, sizeof *m, i);
        n++;
    }
    return n;
}

static int mem_prune(outbox_store *st, int64_t keep_ms, int limit,
                     outbox_error *err)
{
    mem_conn *c = mem_conn_of(st);
    bool alone = !c->open;
    int rc;

    c->open = true;
    rc = enter_theirs(st, MEM_PRUNE, err);
    if (rc != OUTBOX_OK) {
        c->open = !alone;
        return rc;
    }
    rc = mem_take_write_lock(c, err);
    if (rc == OUTBOX_OK)
        rc = prune_marks(c->db, keep_ms, limit);
    if (alone && rc >= 0)
        mem_end(c, true);
    c->open = !alone;
    return mem_exit(st, MEM_PRUNE, rc, err);
}

/* ---- without a transaction ------------------------------------------ */

static int mem_wait(outbox_store *st, int wake_fd, int hint, int timeout_ms)
{
    mem_conn *c = mem_conn_of(st);
    char sink[64];

    (void)hint;                         /* every commit rings */
    pthread_mutex_lock(&c->db->lock);
    bool fresh = c->bell[0] < 0 && mem_bell_open(c);
    pthread_mutex_unlock(&c->db->lock);
    if (fresh)
        return 1;                       /* nobody rang it before this */
    int bell = c->bell[0];
    struct pollfd fds[2] = { { .fd = bell, .events = POLLIN },
                             { .fd = wake_fd, .events = POLLIN } };
    poll(fds, wake_fd >= 0 ? 2 : 1, timeout_ms);
    while (read(bell, sink, sizeof sink) > 0)
        continue;
    return fds[0].revents != 0 || fds[1].revents != 0;
}

static int64_t mem_now_ms(outbox_store *st)
{
    mem_db *db = mem_db_of(st);

    pthread_mutex_lock(&db->lock);
    int64_t now = db->now_ms;
    pthread_mutex_unlock(&db->lock);
    return now;
}

/* splitmix64: what is drawn depends on nothing but the seed. */
static int mem_entropy(outbox_store *st, void *out, size_t n)
{
    mem_db *db = mem_db_of(st);
    unsigned char *to = out;

    pthread_mutex_lock(&db->lock);
    for (size_t i = 0; i < n; i++) {
        uint64_t z = (db->chance += 0x9e3779b97f4a7c15u);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        to[i] = (unsigned char)(z >> 56);
    }
    pthread_mutex_unlock(&db->lock);
    return 0;
}

static void mem_close(outbox_store *st)
{
    mem_store *s = (mem_store *)st;
    outbox_allocator mem = st->mem;

    if (s->owns)
        mem_conn_free(s->conn);
    mem.free(mem.arg, s);
}

static const outbox_store_ops mem_ops = {
    .size = sizeof mem_ops,
    .name = "memory",
    .append = mem_append,
    .accept = mem_accept,
    .backlog = mem_backlog,
    .commit = mem_commit_op,
    .prune = mem_prune,
    .migrate = mem_op_migrate,
    .attach = mem_op_attach,
    .beat = mem_op_beat,
    .acquire = mem_op_acquire,
    .read = mem_op_read,
    .save = mem_op_save,
    .trial = mem_op_trial,
    .parked = mem_op_parked,
    .blocked = mem_op_blocked,
    .trim = mem_op_trim,
    .promote = mem_op_promote,
    .count = mem_op_count,
    .leave = mem_op_leave,
    .find = mem_op_find,
    .dead = mem_op_dead,
    .admin = mem_op_admin,
    .wait = mem_wait,
    .now_ms = mem_now_ms,
    .entropy = mem_entropy,
    .close = mem_close,
};

/* ---- handles -------------------------------------------------------- */

static int make_store(mem_store **out, mem_conn *c, bool owns,
                      outbox_options *o, const outbox_options *opt,
                      outbox_error *err)
{
    outbox_allocator mem;
    int rc = outbox_options_read(o, opt, &mem, err);

    if (rc != OUTBOX_OK)
        return rc;
    mem_store *s = mem.malloc(mem.arg, sizeof *s);
    if (s == NULL)
        return mem_nomem(err);
    *s = (mem_store){ .conn = c, .owns = owns };
    s->base.ops = &mem_ops;
    s->base.mem = mem;
    s->base.database = c->db->number;
    s->base.relayable = owns;
    *out = s;
    return OUTBOX_OK;
}

static int open_outbox(outbox_t **out, mem_conn *c, bool owns,
                       const outbox_options *opt, outbox_error *err)
{
    outbox_options o;
    mem_store *s = NULL;
    int rc = make_store(&s, c, owns, &o, opt, err);

    if (rc == OUTBOX_OK)
        return outbox_from_store(out, &s->base, &o, err);
    if (owns)
        mem_conn_free(c);
    return rc;
}

int mem_outbox_open(outbox_t **out, mem_conn *c, const outbox_options *opt,
                    outbox_error *err)
{
    *out = NULL;
    return open_outbox(out, c, false, opt, err);
}

int mem_inbox_open(inbox_t **out, mem_conn *c, const outbox_options *opt,
                   outbox_error *err)
{
    outbox_options o;
    mem_store *s = NULL;
    int rc = make_store(&s, c, false, &o, opt, err);

    *out = NULL;
    return rc == OUTBOX_OK ? inbox_from_store(out, &s->base, &o, err) : rc;
}

int mem_outbox_connect(outbox_t **out, mem_db *db, const outbox_options *opt,
                       mem_conn **link, outbox_error *err)
{
    mem_conn *c = mem_conn_new(db);
    int rc;

    *out = NULL;
    if (c == NULL)
        return outbox_error_set(err, OUTBOX_ENOMEM, "out of memory");
    rc = open_outbox(out, c, true, opt, err);
    if (rc == OUTBOX_OK && link != NULL)
        *link = c;
    return rc;
}
