/* SPDX-License-Identifier: MIT
 *
 * window.h - the events that a relay has read and not yet saved as settled.
 */
#ifndef OB_WINDOW_H
#define OB_WINDOW_H

#include "base.h"

enum { OB_NONE = -1 };

/* The life of a slot.  window.c draws the arrows. */
typedef enum ob_state {
    OB_READY,           /* may be sent now */
    OB_BEHIND,          /* an earlier event of its chain comes first */
    OB_SENT,            /* with the transport, no verdict yet */
    OB_WAITING,         /* failed; to be sent again at when_ms */
    OB_DOOMED,          /* its fate is known; the next save carries it out */
    OB_DONE,            /* settled; its lane's cursor may pass it */
    OB_GONE             /* its lease was lost: no longer ours to judge */
} ob_state;

typedef struct ob_block ob_block;

typedef struct ob_slot {
    outbox_cursor cursor;
    uint64_t      chain;
    int64_t       seq;          /* parked row; 0: from the log */
    int64_t       published_ms, expires_ms;
    int64_t       when_ms;      /* SENT: give up at (0: send() has it);
                                   WAITING: try again at; DOOMED: delay */
    ob_block     *block;
    const char   *text;         /* topic, type, key, content type, headers */
    char         *why;          /* of the last failure, or NULL */
    size_t        payload_len;
    uint32_t      headers_len;
    uint32_t      len[4];       /* of the first four texts; OB_NO_TEXT */
    uint32_t      lane, lease;  /* whose lane, in which lease of it */
    uint32_t      attempts;     /* failures that counted */
    uint32_t      tries;        /* sends that did not count */
    uint32_t      others;       /* answered before it failed last */
    int64_t       first_send, last_send;    /* serials; 0: not sent yet */
    int32_t       next, prev;   /* in its chain */
    int32_t       next_ready, prev_ready;   /* READY: in a list, but while
                                               on trial */
    int32_t       next_judged;
    int32_t       next_tail;    /* in a bucket of chain tails */
    int32_t       next_place;   /* in a bucket of positions */
    uint8_t       state;
    uint8_t       verdict;      /* outbox_verdict, not applied yet */
    uint8_t       queued;       /* is in the list of the ready */
    uint8_t       suspect;      /* failed, and nothing has passed since */
    uint8_t       precounted;   /* its row says one attempt more than it has */
    uint8_t       forgiven;     /* a failure, for the sake of an outage */
    uint8_t       fate;         /* DOOMED: an outbox_change_kind */
} ob_slot;

#define OB_NO_TEXT UINT32_MAX

typedef struct ob_list { int32_t first, last; } ob_list;

typedef struct ob_window {
    outbox_allocator mem;
    ob_slot  *slots;            /* a ring */
    uint32_t  mask;
    uint32_t  max_count;
    uint64_t  head, shown, tail;    /* added, linked, retired: counts */
    size_t    max_bytes, bytes;     /* blocks in use */
    size_t    block_size;
    ob_block *open, *spare;
    unsigned  n_spare;
    int32_t  *tails, *places;
    ob_list   ready, judged;
    uint32_t  inflight, suspects, doomed;
    bool      ordered;          /* the transport keeps chains in order */
    bool      nomem;            /* the last add failed for want of memory */
} ob_window;

int  ob_window_init(ob_window *w, const outbox_allocator *mem, uint32_t count,
                    size_t bytes);
void ob_window_free(ob_window *w);
void ob_window_clear(ob_window *w);     /* forget everything */

/* Adding has two halves, so that reading the database needs no lock: add
 * fills slots that nobody sees; show links them, and drop takes them back. */
ob_slot *ob_window_add(ob_window *w, const outbox_row *row, uint64_t chain,
                       uint32_t lane, uint32_t lease);
ob_slot *ob_window_unshown(ob_window *w, uint64_t nth);
/* parks: the chain is blocked, its events go to the parked rows. */
void ob_window_show(ob_window *w, ob_slot *s, bool parks);
void ob_window_drop_unshown(ob_window *w);
uint32_t ob_window_room(const ob_window *w);

/* By a token: an event may be there twice, from the log and parked. */
ob_slot *ob_window_find(ob_window *w, int64_t position, int64_t serial);
ob_slot *ob_window_at(ob_window *w, int32_t index);
int32_t  ob_window_index(const ob_window *w, const ob_slot *s);
static inline uint64_t ob_window_used(const ob_window *w)
{
    return w->shown - w->tail;
}
/* Is one of the chain's slots that came from the log in this state? */
bool ob_window_chain_has(ob_window *w, uint64_t chain, ob_state state);
/* The nth slot from the tail, in the order of reading. */
ob_slot *ob_window_nth(ob_window *w, uint64_t nth);

ob_slot *ob_window_next_ready(ob_window *w);        /* READY to SENT */
/* In an ordered window: nothing before it in its chain has failed. */
bool ob_window_still_in_order(ob_window *w, const ob_slot *s);
void ob_window_send_now(ob_window *w, ob_slot *s);
/* SENT to READY, but not in the list of the ready: until requeue. */
void ob_window_set_back(ob_window *w, ob_slot *s);
void ob_window_requeue(ob_window *w);
void ob_window_unsend(ob_window *w, ob_slot *s);    /* it was not sent */
void ob_window_judge(ob_window *w, ob_slot *s, outbox_verdict verdict);
ob_slot *ob_window_next_judged(ob_window *w, outbox_verdict *verdict);
void ob_window_ready(ob_window *w, ob_slot *s);
void ob_window_wait(ob_window *w, ob_slot *s, int64_t when_ms);
/* SENT to BEHIND: it failed because one before it did.  And those behind one
 * that failed wait for it. */
void ob_window_behind(ob_window *w, ob_slot *s);
void ob_window_halt(ob_window *w, ob_slot *s);
void ob_window_set_suspect(ob_window *w, ob_slot *s, bool suspect);
/* The save will park, bury or forget it.  The chain waits for that, unless
 * the event was delivered (OUTBOX_UNPARK). */
void ob_window_doom(ob_window *w, ob_slot *s, enum outbox_change_kind fate);
/* DONE or GONE.  The chain goes on: its next event becomes READY, or is
 * doomed to be parked when parks says that the chain is blocked. */
void ob_window_finish(ob_window *w, ob_slot *s, ob_state end, bool parks);
/* The oldest slot if it is finished, to be retired by the next call. */
ob_slot *ob_window_oldest_finished(ob_window *w);
void ob_window_retire(ob_window *w);

void ob_slot_why(ob_window *w, ob_slot *s, const char *why);
const char *ob_slot_reason(const ob_slot *s);   /* never NULL */
bool ob_slot_has_key(const ob_slot *s);
void ob_slot_row(const ob_slot *s, outbox_row *row);

#endif
