/* SPDX-License-Identifier: MIT
 *
 * window.c - the events that a relay has read and not yet saved as settled.
 *
 *              show                        RETRY, or no verdict in time
 *               |                         +--------------------------+
 *       +-------+-------+                 |                          v
 *       v               v   next_ready    |                       WAITING
 *     BEHIND -------> READY ----------> SENT                      |     |
 *       |   head of     ^                 |                       |     |
 *       |  its chain    +-----------------)---------- when_ms ----+     |
 *       |                                 | ACK                         |
 *       | chain blocked                   v             failed while    |
 *       |                               DONE            others passed   |
 *       |        saved                    ^                             |
 *       +----------------> DOOMED --------+                             |
 *                            ^  REJECT, from SENT                       |
 *                            +------------------------------------------+
 *
 * From every state but DONE a slot becomes GONE when its lease is lost.  An
 * ACK that comes late finds WAITING or READY, and settles that too.
 *
 * Slots form a ring in the order of reading; the oldest are retired when they
 * are finished, and only then does a lane's cursor pass them.  That is the
 * contiguous prefix.
 *
 * Invariants (tests/unit/test_window.c; the contract suite shows 1 and 2 from
 * outside):
 *  1. At most one slot of a chain is SENT, unless the window is ordered; then
 *     a slot may be SENT only while all before it in its chain are SENT.
 *  2. A slot is retired only when every slot read before it is.
 *  3. A slot found by position is neither DONE nor GONE.
 *  4. Blocks in use never exceed max_bytes, unless one single event does.
 *
 * Text and payload live in blocks of 256 KiB that are used again when none of
 * their events is left: no allocation per event.
 */
#include "window.h"

enum { BLOCK_BYTES = 256 * 1024, SPARE_BLOCKS = 16 };

struct ob_block {
    ob_block *next;
    size_t    size, used;
    uint32_t  live;
    char      data[];
};

/* ---- blocks --------------------------------------------------------- */

static void block_free(ob_window *w, ob_block *b)
{
    w->bytes -= b->size;
    if (b->size == w->block_size && w->n_spare < SPARE_BLOCKS) {
        b->next = w->spare;
        w->spare = b;
        w->n_spare++;
    } else {
        ob_free(&w->mem, b);
    }
}

static ob_block *block_new(ob_window *w, size_t need)
{
    size_t size = need > w->block_size ? need : w->block_size;
    ob_block *b = NULL;

    if (w->bytes > 0 && w->bytes + size > w->max_bytes)
        return NULL;
    if (size == w->block_size && w->spare != NULL) {
        b = w->spare;
        w->spare = b->next;
        w->n_spare--;
    } else {
        b = w->mem.malloc(w->mem.arg, sizeof *b + size);
    }
    w->nomem = b == NULL;
    if (b == NULL)
        return NULL;
    b->next = NULL;
    b->size = size;
    b->used = 0;
    b->live = 0;
    w->bytes += size;
    return b;
}

/* The open block is the one being filled; it stays even when it is empty. */
static char *block_take(ob_window *w, size_t n, ob_block **from)
{
    ob_block *b = w->open;

    if (b != NULL && b->live == 0)
        b->used = 0;
    if (b == NULL || b->size - b->used < n) {
        if (b != NULL && b->live == 0)
            block_free(w, b);
        w->open = NULL;
        b = block_new(w, n);
        if (b == NULL)
            return NULL;
        w->open = b;
    }
    char *p = b->data + b->used;
    b->used += n;
    b->live++;
    *from = b;
    return p;
}

static void block_drop(ob_window *w, ob_block *b)
{
    if (--b->live == 0 && b != w->open)
        block_free(w, b);
}

/* ---- lists and tables ----------------------------------------------- */

static uint32_t mix(uint64_t x)
{
    return (uint32_t)((x * 0x9e3779b97f4a7c15u) >> 32);
}

int32_t ob_window_index(const ob_window *w, const ob_slot *s)
{
    return (int32_t)(s - w->slots);
}

ob_slot *ob_window_at(ob_window *w, int32_t index)
{
    return index == OB_NONE ? NULL : &w->slots[index];
}

ob_slot *ob_window_nth(ob_window *w, uint64_t nth)
{
    return &w->slots[(w->tail + nth) & w->mask];
}

ob_slot *ob_window_unshown(ob_window *w, uint64_t nth)
{
    uint64_t at = w->shown + nth;

    return at < w->head ? &w->slots[at & w->mask] : NULL;
}

static void place_insert(ob_window *w, ob_slot *s)
{
    int32_t *bucket = &w->places[mix((uint64_t)s->cursor.position) & w->mask];

    s->next_place = *bucket;
    *bucket = ob_window_index(w, s);
}

static void place_remove(ob_window *w, ob_slot *s)
{
    int32_t *at = &w->places[mix((uint64_t)s->cursor.position) & w->mask];
    int32_t self = ob_window_index(w, s);

    while (*at != OB_NONE && *at != self)
        at = &w->slots[*at].next_place;
    if (*at == self)
        *at = s->next_place;
}

static bool is_send_of(const ob_slot *s, int64_t position, int64_t serial)
{
    return s->cursor.position == position && s->first_send != 0 &&
           serial >= s->first_send && serial <= s->last_send;
}

ob_slot *ob_window_find(ob_window *w, int64_t position, int64_t serial)
{
    int32_t i = w->places[mix((uint64_t)position) & w->mask];

    while (i != OB_NONE && !is_send_of(&w->slots[i], position, serial))
        i = w->slots[i].next_place;
    return ob_window_at(w, i);
}

/* Where the index of the chain's last slot is kept, or the end of its list. */
static int32_t *tail_of(ob_window *w, uint64_t chain)
{
    int32_t *at = &w->tails[mix(chain) & w->mask];

    while (*at != OB_NONE && w->slots[*at].chain != chain)
        at = &w->slots[*at].next_tail;
    return at;
}

bool ob_window_chain_has(ob_window *w, uint64_t chain, ob_state state)
{
    ob_slot *s = ob_window_at(w, *tail_of(w, chain));

    while (s != NULL && s->state != state)
        s = ob_window_at(w, s->prev);
    return s != NULL;
}

/* Parked rows make a chain of their own, which is not in the table: they are
 * loaded in order, all at once. */
static void chain_append(ob_window *w, ob_slot *s)
{
    int32_t *at = tail_of(w, s->chain);
    int32_t self = ob_window_index(w, s);

    s->prev = *at;
    s->next_tail = OB_NONE;
    if (s->prev != OB_NONE) {
        ob_slot *before = &w->slots[s->prev];
        before->next = self;
        s->next_tail = before->next_tail;
    }
    *at = self;
}

static void chain_remove(ob_window *w, ob_slot *s)
{
    ob_slot *before = ob_window_at(w, s->prev);
    ob_slot *after = ob_window_at(w, s->next);

    if (s->next == OB_NONE && s->seq == 0) {
        int32_t *at = tail_of(w, s->chain);
        if (before != NULL)
            before->next_tail = s->next_tail;
        *at = before != NULL ? s->prev : s->next_tail;
    }
    if (before != NULL)
        before->next = s->next;
    if (after != NULL)
        after->prev = s->prev;
    s->next = s->prev = OB_NONE;
}

/* ---- life of the window --------------------------------------------- */

static uint32_t ring_size(uint32_t count)
{
    uint32_t n = 16;

    while (n < count)
        n *= 2;
    return n;
}

int ob_window_init(ob_window *w, const outbox_allocator *mem, uint32_t count,
                   size_t bytes)
{
    uint32_t n = ring_size(count);

    memset(w, 0, sizeof *w);
    w->mem = *mem;
    w->mask = n - 1;
    w->max_count = count;
    w->max_bytes = bytes;
    w->block_size = BLOCK_BYTES;
    while (w->block_size > 4096 && w->block_size > bytes / 8)
        w->block_size /= 2;
    w->slots = ob_alloc(mem, n * sizeof *w->slots);
    w->tails = ob_alloc(mem, n * sizeof *w->tails);
    w->places = ob_alloc(mem, n * sizeof *w->places);
    if (w->slots == NULL || w->tails == NULL || w->places == NULL) {
        ob_window_free(w);
        return OUTBOX_ENOMEM;
    }
    ob_window_clear(w);
    return OUTBOX_OK;
}

static void slot_release(ob_window *w, ob_slot *s)
{
    block_drop(w, s->block);
    ob_free(&w->mem, s->why);
    s->why = NULL;
}

void ob_window_clear(ob_window *w)
{
    for (uint64_t i = w->tail; i < w->head; i++)
        slot_release(w, &w->slots[i & w->mask]);
    w->head = w->shown = w->tail = 0;
    for (uint32_t i = 0; i <= w->mask; i++)
        w->tails[i] = w->places[i] = OB_NONE;
    w->ready = w->judged = (ob_list){ OB_NONE, OB_NONE };
    w->inflight = w->suspects = w->doomed = 0;
}

void ob_window_free(ob_window *w)
{
    if (w->slots != NULL && w->places != NULL && w->tails != NULL)
        ob_window_clear(w);
    ob_free(&w->mem, w->open);
    while (w->spare != NULL) {
        ob_block *b = w->spare;
        w->spare = b->next;
        ob_free(&w->mem, b);
    }
    ob_free(&w->mem, w->slots);
    ob_free(&w->mem, w->tails);
    ob_free(&w->mem, w->places);
    memset(w, 0, sizeof *w);
}

/* ---- adding --------------------------------------------------------- */

uint32_t ob_window_room(const ob_window *w)
{
    return w->max_count - (uint32_t)(w->head - w->tail);
}

static char *text_put(char *p, const outbox_bytes *text)
{
    if (text->len > 0)
        memcpy(p, text->ptr, text->len);
    p[text->len] = '\0';
    return p + text->len + 1;
}

static uint32_t text_len(const outbox_bytes *text)
{
    return text->ptr == NULL ? OB_NO_TEXT : (uint32_t)text->len;
}

static bool slot_fill(ob_window *w, ob_slot *s, const outbox_row *row)
{
    const outbox_bytes *text[] = { &row->topic, &row->type, &row->key,
                                   &row->content_type };
    size_t n = row->headers.len + 1 + row->payload.len;

    for (size_t i = 0; i < OB_COUNT(text); i++)
        n += text[i]->len + 1;
    char *p = block_take(w, n, &s->block);
    if (p == NULL)
        return false;
    s->text = p;
    for (size_t i = 0; i < OB_COUNT(text); i++) {
        s->len[i] = text_len(text[i]);
        p = text_put(p, text[i]);
    }
    p = text_put(p, &row->headers);
    if (row->payload.len > 0)
        memcpy(p, row->payload.ptr, row->payload.len);
    s->headers_len = (uint32_t)row->headers.len;
    s->payload_len = row->payload.len;
    return true;
}

/* NULL: no room, in slots or in bytes, or no memory.  An empty window always
 * has room for one event, however large. */
ob_slot *ob_window_add(ob_window *w, const outbox_row *row, uint64_t chain,
                       uint32_t lane, uint32_t lease)
{
    ob_slot *s = &w->slots[w->head & w->mask];

    if (ob_window_room(w) == 0)
        return NULL;
    memset(s, 0, sizeof *s);
    if (!slot_fill(w, s, row))
        return NULL;
    s->cursor.window = row->window;
    s->cursor.position = row->position;
    memcpy(s->cursor.id, row->id, 16);
    s->chain = chain;
    s->lane = lane;
    s->lease = lease;
    s->seq = row->seq;
    s->published_ms = row->published_ms;
    s->expires_ms = row->expires_ms;
    s->attempts = row->attempts;
    s->next = s->prev = s->next_judged = OB_NONE;
    s->next_ready = s->prev_ready = OB_NONE;
    s->next_tail = s->next_place = OB_NONE;
    w->head++;
    return s;
}

void ob_window_drop_unshown(ob_window *w)
{
    while (w->head > w->shown)
        slot_release(w, &w->slots[--w->head & w->mask]);
}

static void slot_head_of_chain(ob_window *w, ob_slot *s, bool parks)
{
    if (parks && s->seq == 0)
        ob_window_doom(w, s, OUTBOX_PARK);
    else
        ob_window_ready(w, s);
}

/* A parked row follows the one shown before it when that is of its chain. */
static void chain_parked(ob_window *w, ob_slot *s)
{
    ob_slot *before = w->shown == w->tail ? NULL
                    : &w->slots[(w->shown - 1) & w->mask];

    if (before != NULL && before->seq != 0 && before->chain == s->chain &&
        before->state < OB_DOOMED) {
        s->prev = ob_window_index(w, before);
        before->next = ob_window_index(w, s);
    }
}

static bool may_send(ob_window *w, const ob_slot *s)
{
    const ob_slot *before = ob_window_at(w, s->prev);

    return before == NULL || (w->ordered && before->state == OB_SENT);
}

void ob_window_show(ob_window *w, ob_slot *s, bool parks)
{
    place_insert(w, s);
    if (s->seq != 0)
        chain_parked(w, s);
    else
        chain_append(w, s);
    w->shown++;
    s->state = OB_BEHIND;
    if (s->prev == OB_NONE)
        slot_head_of_chain(w, s, parks);
    else if (!parks && may_send(w, s))
        ob_window_ready(w, s);
}

/* ---- from ready to judged ------------------------------------------- */

static void ready_push(ob_window *w, ob_slot *s)
{
    int32_t self = ob_window_index(w, s);

    if (s->queued)
        return;
    s->queued = 1;
    s->next_ready = OB_NONE;
    s->prev_ready = w->ready.last;
    if (w->ready.first == OB_NONE)
        w->ready.first = self;
    else
        w->slots[w->ready.last].next_ready = self;
    w->ready.last = self;
}

static void ready_remove(ob_window *w, ob_slot *s)
{
    ob_slot *before = ob_window_at(w, s->prev_ready);
    ob_slot *after = ob_window_at(w, s->next_ready);

    if (!s->queued)
        return;
    *(before != NULL ? &before->next_ready : &w->ready.first) = s->next_ready;
    *(after != NULL ? &after->prev_ready : &w->ready.last) = s->prev_ready;
    s->next_ready = s->prev_ready = OB_NONE;
    s->queued = 0;
}

static void leave_state(ob_window *w, ob_slot *s)
{
    if (s->state == OB_READY)
        ready_remove(w, s);
    if (s->state == OB_SENT)
        w->inflight--;
    if (s->state == OB_DOOMED)
        w->doomed--;
}

void ob_window_ready(ob_window *w, ob_slot *s)
{
    s->state = OB_READY;
    ready_push(w, s);
}

/* In an ordered window the next of the chain may follow at once. */
static void send_on(ob_window *w, ob_slot *s)
{
    ob_slot *after = ob_window_at(w, s->next);

    leave_state(w, s);
    s->state = OB_SENT;
    w->inflight++;
    if (w->ordered && after != NULL && after->state == OB_BEHIND)
        ob_window_ready(w, after);
}

ob_slot *ob_window_next_ready(ob_window *w)
{
    ob_slot *s;

    while ((s = ob_window_at(w, w->ready.first)) != NULL) {
        if (may_send(w, s)) {
            send_on(w, s);
            return s;
        }
        leave_state(w, s);
        s->state = OB_BEHIND;
    }
    return NULL;
}

bool ob_window_still_in_order(ob_window *w, const ob_slot *s)
{
    while ((s = ob_window_at(w, s->prev)) != NULL) {
        if (s->state != OB_SENT || s->verdict == OUTBOX_RETRY ||
            s->verdict == OUTBOX_REJECT)
            return false;
    }
    return true;
}

/* Out of turn: the breaker's probe. */
void ob_window_send_now(ob_window *w, ob_slot *s)
{
    send_on(w, s);
}

void ob_window_set_back(ob_window *w, ob_slot *s)
{
    w->inflight--;
    s->state = OB_READY;
}

void ob_window_requeue(ob_window *w)
{
    for (uint64_t i = 0; i < ob_window_used(w); i++) {
        ob_slot *s = ob_window_nth(w, i);
        if (s->state == OB_READY)
            ready_push(w, s);
    }
}

/* Back to the front: the batch was cut short. */
void ob_window_unsend(ob_window *w, ob_slot *s)
{
    if (s->state != OB_SENT)
        return;
    w->inflight--;
    s->state = OB_READY;
    s->queued = 1;
    s->next_ready = w->ready.first;
    w->ready.first = ob_window_index(w, s);
    if (s->next_ready == OB_NONE)
        w->ready.last = w->ready.first;
    else
        w->slots[s->next_ready].prev_ready = w->ready.first;
}

void ob_window_judge(ob_window *w, ob_slot *s, outbox_verdict verdict)
{
    int32_t self = ob_window_index(w, s);

    s->verdict = (uint8_t)verdict;
    s->next_judged = OB_NONE;
    if (w->judged.first == OB_NONE)
        w->judged.first = self;
    else
        w->slots[w->judged.last].next_judged = self;
    w->judged.last = self;
}

ob_slot *ob_window_next_judged(ob_window *w, outbox_verdict *verdict)
{
    ob_slot *s = ob_window_at(w, w->judged.first);

    if (s == NULL)
        return NULL;
    w->judged.first = s->next_judged;
    *verdict = (outbox_verdict)s->verdict;
    s->verdict = 0;
    return s;
}

/* ---- the ways on ---------------------------------------------------- */

void ob_window_wait(ob_window *w, ob_slot *s, int64_t when_ms)
{
    leave_state(w, s);
    s->state = OB_WAITING;
    s->when_ms = when_ms;
}

void ob_window_set_suspect(ob_window *w, ob_slot *s, bool suspect)
{
    if (s->suspect != suspect)
        w->suspects += suspect ? 1 : -1u;
    s->suspect = suspect;
}

void ob_window_behind(ob_window *w, ob_slot *s)
{
    leave_state(w, s);
    ob_window_set_suspect(w, s, false);
    s->state = OB_BEHIND;
}

void ob_window_halt(ob_window *w, ob_slot *s)
{
    while ((s = ob_window_at(w, s->next)) != NULL) {
        if (s->state == OB_READY || s->state == OB_WAITING)
            ob_window_behind(w, s);
    }
}

/* What follows in the chain: the next may go, or none of them.  One with a
 * verdict waits for that: it is an ACK, late but accepted. */
static void chain_go_on(ob_window *w, ob_slot *after, bool parks)
{
    if (after != NULL && after->prev == OB_NONE && after->state == OB_BEHIND &&
        after->verdict == 0)
        slot_head_of_chain(w, after, parks);
}

void ob_window_doom(ob_window *w, ob_slot *s, enum outbox_change_kind fate)
{
    leave_state(w, s);
    ob_window_set_suspect(w, s, false);
    s->state = OB_DOOMED;
    s->when_ms = 0;
    s->fate = (uint8_t)fate;
    w->doomed++;
    if (fate == OUTBOX_UNPARK) {
        ob_slot *after = ob_window_at(w, s->next);
        chain_remove(w, s);
        chain_go_on(w, after, false);
    } else {
        ob_window_halt(w, s);
    }
}

void ob_window_finish(ob_window *w, ob_slot *s, ob_state end, bool parks)
{
    ob_slot *after = ob_window_at(w, s->next);

    leave_state(w, s);
    ob_window_set_suspect(w, s, false);
    s->state = (uint8_t)end;
    place_remove(w, s);
    chain_remove(w, s);
    chain_go_on(w, after, parks);
}

ob_slot *ob_window_oldest_finished(ob_window *w)
{
    ob_slot *s = &w->slots[w->tail & w->mask];

    if (w->tail == w->shown || s->state < OB_DONE || s->verdict != 0)
        return NULL;                    /* with a verdict: still listed */
    return s;
}

void ob_window_retire(ob_window *w)
{
    slot_release(w, &w->slots[w->tail & w->mask]);
    w->tail++;
    if (w->tail == w->head)             /* the first slots are in the cache */
        w->tail = w->head = w->shown = 0;
}

/* ---- slots ---------------------------------------------------------- */

/* Transports say what strerror() or their broker says, in whatever encoding.
 * Without memory the reason is lost, not the event. */
void ob_slot_why(ob_window *w, ob_slot *s, const char *why)
{
    ob_free(&w->mem, s->why);
    s->why = NULL;
    if (why != NULL && *why != '\0')
        s->why = ob_text_tame(&w->mem, why, OB_WHY_MAX);
}

const char *ob_slot_reason(const ob_slot *s)
{
    return s->why != NULL ? s->why : "no reason given";
}

bool ob_slot_has_key(const ob_slot *s)
{
    return s->len[2] != OB_NO_TEXT;
}

void ob_slot_row(const ob_slot *s, outbox_row *row)
{
    outbox_bytes *text[] = { &row->topic, &row->type, &row->key,
                             &row->content_type };
    const char *p = s->text;

    memset(row, 0, sizeof *row);
    row->window = s->cursor.window;
    row->position = s->cursor.position;
    memcpy(row->id, s->cursor.id, 16);
    row->chain = s->chain;
    row->lane = s->lane;
    row->seq = s->seq;
    row->attempts = s->attempts;
    row->published_ms = s->published_ms;
    row->expires_ms = s->expires_ms;
    row->why = s->why;
    for (size_t i = 0; i < OB_COUNT(text); i++) {
        size_t n = s->len[i] == OB_NO_TEXT ? 0 : s->len[i];
        if (s->len[i] != OB_NO_TEXT)
            *text[i] = (outbox_bytes){ p, n };
        p += n + 1;
    }
    if (s->headers_len > 0)
        row->headers = (outbox_bytes){ p, s->headers_len };
    row->payload = (outbox_bytes){ p + s->headers_len + 1, s->payload_len };
}
