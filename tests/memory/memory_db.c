/* SPDX-License-Identifier: MIT
 *
 * memory_db.c - the tables in memory, the caller's transactions, faults.
 *
 * What a transaction appends stands at the end of the arrays at once; only
 * the writer sees it, and rolling back takes it away again, entry by entry.
 */
#include "memory_db.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- arrays --------------------------------------------------------- */

void *mem_push(mem_array *a, size_t size)
{
    if (a->n == a->cap) {
        size_t cap = a->cap != 0 ? 2 * a->cap : 16;
        void *at = realloc(a->at, cap * size);
        if (at == NULL)
            return NULL;
        a->at = at;
        a->cap = cap;
    }
    return memset((char *)a->at + a->n++ * size, 0, size);
}

void mem_remove(mem_array *a, size_t size, size_t i)
{
    char *at = (char *)a->at + i * size;

    memmove(at, at + size, (--a->n - i) * size);
}

/* ---- records -------------------------------------------------------- */

static char *put_bytes(char *to, outbox_bytes *b)
{
    if (b->ptr == NULL)
        return to;
    if (b->len != 0)
        memcpy(to, b->ptr, b->len);
    to[b->len] = '\0';
    b->ptr = to;
    return to + b->len + 1;
}

static size_t bytes_room(const outbox_row *row)
{
    return row->topic.len + row->type.len + row->key.len
         + row->content_type.len + row->headers.len + row->payload.len
         + (row->why != NULL ? strlen(row->why) : 0) + 7;
}

bool mem_record_copy(mem_record *to, const outbox_row *row)
{
    char *p = malloc(bytes_room(row));

    if (p == NULL)
        return false;
    to->row = *row;
    to->row.dedup_key = (outbox_bytes){ NULL, 0 };      /* kept elsewhere */
    to->block = p;
    p = put_bytes(p, &to->row.topic);
    p = put_bytes(p, &to->row.type);
    p = put_bytes(p, &to->row.key);
    p = put_bytes(p, &to->row.content_type);
    p = put_bytes(p, &to->row.headers);
    p = put_bytes(p, &to->row.payload);
    if (row->why != NULL)
        to->row.why = strcpy(p, row->why);
    return true;
}

void mem_record_free(mem_record *r)
{
    free(r->block);
}

void mem_mark_free(mem_mark *m)
{
    free(m->consumer);
    free(m->id);
}

/* ---- databases and connections -------------------------------------- */

mem_db *mem_db_new(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t count;
    mem_db *db = calloc(1, sizeof *db);

    if (db == NULL)
        return NULL;
    pthread_mutex_init(&db->lock, NULL);
    db->now_ms = 1700000000000;
    db->first_seq = db->last_seq = INT64_C(1) << 32;
    pthread_mutex_lock(&lock);
    count++;
    db->number = outbox_hash(&count, sizeof count);
    db->chance = count;
    pthread_mutex_unlock(&lock);
    return db;
}

static void free_records(mem_array *a)
{
    for (size_t i = 0; i < a->n; i++)
        mem_record_free(MEM_AT(a, mem_record, i));
    free(a->at);
}

void mem_db_free(mem_db *db)
{
    if (db == NULL)
        return;
    free_records(&db->log);
    free_records(&db->scheduled);
    free_records(&db->parked);
    free_records(&db->dead);
    free_records(&db->discarded);
    for (size_t i = 0; i < db->subs.n; i++)
        free(MEM_AT(&db->subs, mem_sub, i)->name);
    for (size_t i = 0; i < db->marks.n; i++)
        mem_mark_free(MEM_AT(&db->marks, mem_mark, i));
    for (size_t i = 0; i < db->dedups.n; i++)
        free(MEM_AT(&db->dedups, mem_dedup, i)->key);
    free(db->dedups.at);
    free(db->subs.at);
    free(db->marks.at);
    free(db->lane_rows.at);
    free(db->relays.at);
    free(db->conns.at);
    free(db->undo.at);
    pthread_mutex_destroy(&db->lock);
    free(db);
}

/* The first wait makes it: many connections never wait. */
bool mem_bell_open(mem_conn *c)
{
    if (pipe(c->bell) != 0) {
        c->bell[0] = c->bell[1] = -1;
        return false;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(c->bell[i], F_SETFL, O_NONBLOCK);
        fcntl(c->bell[i], F_SETFD, FD_CLOEXEC);
    }
    return true;
}

static void bell_close(mem_conn *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->bell[i] >= 0)
            close(c->bell[i]);
    }
}

mem_conn *mem_conn_new(mem_db *db)
{
    mem_conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->db = db;
    c->bell[0] = c->bell[1] = -1;
    pthread_mutex_lock(&db->lock);
    mem_conn **slot = mem_push(&db->conns, sizeof *slot);
    if (slot != NULL)
        *slot = c;
    pthread_mutex_unlock(&db->lock);
    if (slot == NULL) {
        free(c);
        return NULL;
    }
    return c;
}

void mem_conn_free(mem_conn *c)
{
    mem_db *db;

    if (c == NULL)
        return;
    mem_rollback(c);
    db = c->db;
    pthread_mutex_lock(&db->lock);
    for (size_t i = 0; i < db->conns.n; i++) {
        if (*MEM_AT(&db->conns, mem_conn *, i) == c) {
            mem_remove(&db->conns, sizeof c, i);
            break;
        }
    }
    pthread_mutex_unlock(&db->lock);
    bell_close(c);
    free(c);
}

/* ---- transactions --------------------------------------------------- */

size_t mem_pending(const mem_db *db, enum mem_undo_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < db->undo.n; i++)
        n += MEM_AT(&db->undo, mem_undo, i)->kind == kind;
    return n;
}

size_t mem_log_visible(const mem_db *db)
{
    return db->log.n - mem_pending(db, MEM_UNDO_EVENT);
}

bool mem_mark_visible(const mem_db *db, const mem_mark *m)
{
    for (size_t i = 0; i < db->undo.n; i++) {
        const mem_undo *u = MEM_AT(&db->undo, mem_undo, i);
        if (u->kind == MEM_UNDO_MARK && u->mark.number == m->number)
            return false;
    }
    return true;
}

int mem_take_write_lock(mem_conn *c, outbox_error *err)
{
    mem_db *db = c->db;

    if (db->writer != NULL && db->writer != c)
        return outbox_error_set(err, OUTBOX_EBUSY, "another one is writing");
    db->writer = c;
    return OUTBOX_OK;
}

mem_undo *mem_note(mem_db *db, enum mem_undo_kind kind)
{
    mem_undo *u = mem_push(&db->undo, sizeof *u);

    if (u != NULL)
        u->kind = kind;
    return u;
}

static void undo_mark(mem_db *db, int64_t number)
{
    for (size_t i = 0; i < db->marks.n; i++) {
        mem_mark *m = MEM_AT(&db->marks, mem_mark, i);
        if (m->number == number) {
            mem_mark_free(m);
            mem_remove(&db->marks, sizeof *m, i);
            return;
        }
    }
}

static void undo_one(mem_db *db, const mem_undo *u)
{
    switch (u->kind) {
    case MEM_UNDO_EVENT:
        mem_record_free(MEM_AT(&db->log, mem_record, --db->log.n));
        break;
    case MEM_UNDO_SCHEDULED:
        mem_record_free(
            MEM_AT(&db->scheduled, mem_record, --db->scheduled.n));
        break;
    case MEM_UNDO_DEDUP:
        free(MEM_AT(&db->dedups, mem_dedup, --db->dedups.n)->key);
        break;
    case MEM_UNDO_WORK:
        db->work--;
        break;
    case MEM_UNDO_MARK:
        undo_mark(db, u->mark.number);
        break;
    case MEM_UNDO_PRUNE:                /* the room is there: it was in it */
        *(mem_mark *)mem_push(&db->marks, sizeof u->mark) = u->mark;
        break;
    }
}

void mem_undo_to(mem_db *db, size_t n)
{
    while (db->undo.n > n)
        undo_one(db, MEM_AT(&db->undo, mem_undo, --db->undo.n));
}

static void forget_undo(mem_db *db)
{
    for (size_t i = 0; i < db->undo.n; i++) {
        mem_undo *u = MEM_AT(&db->undo, mem_undo, i);
        if (u->kind == MEM_UNDO_PRUNE)
            mem_mark_free(&u->mark);
    }
    db->undo.n = 0;
}

void mem_ring_bells(mem_db *db)
{
    for (size_t i = 0; i < db->conns.n; i++) {
        const mem_conn *c = *MEM_AT(&db->conns, mem_conn *, i);
        ssize_t n = c->bell[1] >= 0 ? write(c->bell[1], "", 1) : 0;
        (void)n;                        /* full: it rings already */
    }
}

int mem_end(mem_conn *c, bool commit)
{
    mem_db *db = c->db;
    bool aborted = c->aborted;

    if (db->writer == c) {
        if (commit && !aborted)
            forget_undo(db);
        else
            mem_undo_to(db, 0);
        db->writer = NULL;
        mem_ring_bells(db);
    }
    c->open = c->aborted = false;
    return aborted ? OUTBOX_EABORTED : OUTBOX_OK;
}

int mem_begin(mem_conn *c)
{
    if (c->open)
        return OUTBOX_EINVAL;
    c->open = true;
    return OUTBOX_OK;
}

int mem_commit(mem_conn *c)
{
    if (!c->open)
        return OUTBOX_ENOTX;
    pthread_mutex_lock(&c->db->lock);
    int rc = mem_end(c, true);
    pthread_mutex_unlock(&c->db->lock);
    return rc;
}

void mem_rollback(mem_conn *c)
{
    pthread_mutex_lock(&c->db->lock);
    mem_end(c, false);
    pthread_mutex_unlock(&c->db->lock);
}

size_t mem_savepoint(mem_conn *c)
{
    pthread_mutex_lock(&c->db->lock);
    size_t n = c->db->writer == c ? c->db->undo.n : 0;
    pthread_mutex_unlock(&c->db->lock);
    return n;
}

void mem_rollback_to(mem_conn *c, size_t savepoint)
{
    pthread_mutex_lock(&c->db->lock);
    if (c->db->writer == c)
        mem_undo_to(c->db, savepoint);
    c->aborted = false;
    pthread_mutex_unlock(&c->db->lock);
}

int mem_in_transaction(mem_conn *c)
{
    return c->open;
}

int mem_work(mem_conn *c)
{
    pthread_mutex_lock(&c->db->lock);
    int rc = c->aborted ? OUTBOX_EABORTED : mem_take_write_lock(c, NULL);
    if (rc == OUTBOX_OK && mem_note(c->db, MEM_UNDO_WORK) == NULL)
        rc = OUTBOX_ENOMEM;
    if (rc == OUTBOX_OK)
        c->db->work++;
    pthread_mutex_unlock(&c->db->lock);
    return rc;
}

void mem_abort(mem_conn *c)
{
    c->aborted = true;
}

void mem_abort_silently(mem_conn *c)
{
    mem_rollback(c);
}

void mem_read_only(mem_conn *c, int on)
{
    c->read_only = on;
}

/* ---- faults --------------------------------------------------------- */

static void set_fault(mem_db *db, enum mem_op op, mem_fault fault)
{
    pthread_mutex_lock(&db->lock);
    db->faults[op] = fault;
    pthread_mutex_unlock(&db->lock);
}

void mem_fail(mem_db *db, enum mem_op op, unsigned skip, unsigned times,
              int code)
{
    set_fault(db, op, (mem_fault){ skip, times, code, false });
}

void mem_lose_answer(mem_db *db, enum mem_op op, unsigned skip,
                     unsigned times, int code)
{
    set_fault(db, op, (mem_fault){ skip, times, code, true });
}

unsigned mem_calls(mem_db *db, enum mem_op op)
{
    pthread_mutex_lock(&db->lock);
    unsigned n = db->calls[op];
    pthread_mutex_unlock(&db->lock);
    return n;
}

void mem_sever(mem_conn *c)
{
    pthread_mutex_lock(&c->db->lock);
    c->severed = true;
    pthread_mutex_unlock(&c->db->lock);
}

void mem_freeze_beats(mem_conn *c, int on)
{
    pthread_mutex_lock(&c->db->lock);
    c->frozen = on;
    pthread_mutex_unlock(&c->db->lock);
}

/* ---- looking in ----------------------------------------------------- */

static int64_t visible_marks(const mem_db *db)
{
    int64_t n = (int64_t)mem_pending(db, MEM_UNDO_PRUNE);

    for (size_t i = 0; i < db->marks.n; i++)
        n += mem_mark_visible(db, MEM_AT(&db->marks, mem_mark, i));
    return n;
}

static int64_t count_rows(const mem_db *db, enum mem_table table)
{
    switch (table) {
    case MEM_LOG:
        return (int64_t)mem_log_visible(db);
    case MEM_SCHEDULED_ROWS:
        return (int64_t)(db->scheduled.n
                         - mem_pending(db, MEM_UNDO_SCHEDULED));
    case MEM_DEDUP_KEYS:
        return (int64_t)(db->dedups.n - mem_pending(db, MEM_UNDO_DEDUP));
    case MEM_PARKED_ROWS:
        return (int64_t)db->parked.n;
    case MEM_DEAD_ROWS:
        return (int64_t)db->dead.n;
    case MEM_MARKS:
        return visible_marks(db);
    case MEM_WORK:
        return db->work - (int64_t)mem_pending(db, MEM_UNDO_WORK);
    case MEM_RELAYS:
        return (int64_t)db->relays.n;
    case MEM_SUBSCRIPTIONS:
        return (int64_t)db->subs.n;
    }
    return -1;
}

int64_t mem_count(mem_db *db, enum mem_table table)
{
    pthread_mutex_lock(&db->lock);
    int64_t n = count_rows(db, table);
    pthread_mutex_unlock(&db->lock);
    return n;
}

int64_t mem_last_position(mem_db *db)
{
    pthread_mutex_lock(&db->lock);
    int64_t position = db->last_position;
    pthread_mutex_unlock(&db->lock);
    return position;
}

void mem_set_now(mem_db *db, int64_t ms)
{
    pthread_mutex_lock(&db->lock);
    db->now_ms = ms;
    pthread_mutex_unlock(&db->lock);
}

void mem_set_seed(mem_db *db, uint64_t seed)
{
    pthread_mutex_lock(&db->lock);
    db->chance = seed;
    pthread_mutex_unlock(&db->lock);
}

void mem_age(mem_db *db, int64_t ms)
{
    pthread_mutex_lock(&db->lock);
    for (size_t i = 0; i < db->log.n; i++)
        MEM_AT(&db->log, mem_record, i)->row.published_ms -= ms;
    for (size_t i = 0; i < db->marks.n; i++)
        MEM_AT(&db->marks, mem_mark, i)->accepted_ms -= ms;
    for (size_t i = 0; i < db->dedups.n; i++)
        MEM_AT(&db->dedups, mem_dedup, i)->published_ms -= ms;
    for (size_t i = 0; i < db->scheduled.n; i++)
        MEM_AT(&db->scheduled, mem_record, i)->row.due_ms -= ms;
    pthread_mutex_unlock(&db->lock);
}

void mem_empty_log(mem_db *db)
{
    pthread_mutex_lock(&db->lock);
    while (db->log.n > 0)
        mem_record_free(MEM_AT(&db->log, mem_record, --db->log.n));
    db->last_position = 0;
    pthread_mutex_unlock(&db->lock);
}

void mem_set_version(mem_db *db, int version)
{
    pthread_mutex_lock(&db->lock);
    db->version = version;
    pthread_mutex_unlock(&db->lock);
}

void mem_set_lanes(mem_db *db, uint32_t lanes)
{
    pthread_mutex_lock(&db->lock);
    db->lanes = lanes;
    pthread_mutex_unlock(&db->lock);
}

void mem_change_checksum(mem_db *db)
{
    pthread_mutex_lock(&db->lock);
    db->changed_checksum = true;
    pthread_mutex_unlock(&db->lock);
}
