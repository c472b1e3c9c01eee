/* SPDX-License-Identifier: MIT
 *
 * ops.c - the table of operations itself, as store.h describes it, asked
 * without a relay: leases, fencing, reading, parking, trials.
 */
#include "contract.h"

#include <core.h>
#include <string.h>
#include <unistd.h>

static const uint8_t me[16] = "relay number one";
static const uint8_t rival[16] = "relay number two";

typedef struct direct {                 /* a store with nothing above it */
    world               w;
    outbox_t           *ob;
    outbox_store       *st;
    const outbox_store_ops *ops;
    outbox_subscription sub;
    outbox_lane         lanes[OUTBOX_MAX_LANES];
    outbox_beat         relays[8];
    outbox_error        err;
} direct;

static void direct_open(direct *d, int which, uint32_t lanes)
{
    outbox_options opt = { .size = sizeof opt, .lanes = lanes };

    memset(d, 0, sizeof *d);
    world_open_bare(&d->w, which);
    outbox_close(d->w.ob);
    ck_ok(d->w.sut->outbox(&d->w.ob, d->w.app, &opt, &d->err));
    ck_ok(outbox_migrate(d->w.ob, &d->err));
    ck_ok(d->w.sut->connect(&d->ob, d->w.db, NULL, NULL, &d->err));
    d->st = d->ob->h.store;
    d->ops = d->st->ops;
    d->sub = (outbox_subscription){ .name = "s", .create = 1 };
    ck_ok(d->ops->attach(d->st, &d->sub, &d->err));
    ck_assert_uint_eq(d->sub.lanes, lanes);
}

static void direct_close(direct *d)
{
    outbox_close(d->ob);
    world_close(&d->w);
}

static int beat(direct *d, const uint8_t who[16], int want)
{
    return d->ops->beat(d->st, &d->sub, who, want, d->lanes, d->sub.lanes,
                        d->relays, 8, &d->err);
}

/* All lanes for who, as they were last seen; how many it got. */
static uint32_t acquire(direct *d, const uint8_t who[16])
{
    uint32_t held = 0;

    ck_ok(d->ops->acquire(d->st, d->sub.sub, who, d->lanes, d->sub.lanes,
                          &d->err));
    for (uint32_t i = 0; i < d->sub.lanes; i++)
        held += d->lanes[i].held != 0;
    return held;
}

static int save(direct *d, const uint8_t who[16],
                const outbox_change *changes, size_t n)
{
    return d->ops->save(d->st, d->sub.sub, who, d->lanes, d->sub.lanes,
                        changes, n, &d->err);
}

/* ---- subscriptions and leases --------------------------------------- */

START_TEST(a_subscription_is_made_once)
{
    direct d;
    outbox_subscription again, other;

    direct_open(&d, _i, 4);
    again = (outbox_subscription){ .name = "s" };
    ck_ok(d.ops->attach(d.st, &again, &d.err));
    ck_assert_int_eq(again.sub, d.sub.sub);
    ck_assert_uint_eq(again.lanes, 4);
    other = (outbox_subscription){ .name = "other" };
    ck_assert_int_eq(d.ops->attach(d.st, &other, &d.err), OUTBOX_ENOENT);
    other.create = 1;
    ck_ok(d.ops->attach(d.st, &other, &d.err));
    ck_assert_int_ne(other.sub, d.sub.sub);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_SUBSCRIPTIONS), 2);
    direct_close(&d);
}
END_TEST

START_TEST(beats_are_counted_and_looks_are_not)
{
    direct d;

    direct_open(&d, _i, 2);
    ck_assert_int_eq(beat(&d, me, -1), 0);      /* looking makes no row */
    ck_assert_int_eq(beat(&d, me, 2), 1);
    int64_t first = d.relays[0].beat;
    ck_assert_mem_eq(d.relays[0].id, me, 16);
    ck_assert_uint_eq(d.relays[0].want, 2);
    ck_assert_int_eq(beat(&d, me, -1), 1);
    ck_assert_int_eq(d.relays[0].beat, first);
    ck_assert_int_eq(beat(&d, me, 1), 1);
    ck_assert_int_eq(d.relays[0].beat, first + 1);
    ck_assert_int_eq(beat(&d, rival, 1), 2);
    ck_assert_mem_eq(d.relays[0].id, me, 16);   /* in the order of ids */
    ck_assert_mem_eq(d.relays[1].id, rival, 16);
    ck_ok(d.ops->leave(d.st, d.sub.sub, rival, &d.err));
    ck_assert_int_eq(beat(&d, me, -1), 1);
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_uint_eq(d.lanes[i].lane, i);
        ck_assert_int_eq(d.lanes[i].beat, -1);
        ck_assert(ob_uuid_is_zero(d.lanes[i].owner));
    }
    direct_close(&d);
}
END_TEST

START_TEST(taking_compares_token_and_beat)
{
    direct d;

    direct_open(&d, _i, 2);
    beat(&d, me, 2);
    int64_t token = d.lanes[0].token;
    d.lanes[1].token++;                 /* seen wrongly */
    ck_assert_uint_eq(acquire(&d, me), 1);
    ck_assert(d.lanes[0].held && !d.lanes[1].held);
    ck_assert_int_eq(d.lanes[0].token, token + 1);
    beat(&d, rival, 2);
    ck_assert_mem_eq(d.lanes[0].owner, me, 16);
    int64_t seen = d.lanes[0].beat;
    beat(&d, me, 2);                    /* it lives */
    d.lanes[0].beat = seen;
    memcpy(d.lanes[0].owner, me, 16);
    ck_assert_uint_eq(acquire(&d, rival), 1);   /* the free one only */
    ck_assert(!d.lanes[0].held && d.lanes[1].held);
    beat(&d, rival, -1);                /* seen again, and still there */
    ck_assert_mem_eq(d.lanes[0].owner, me, 16);
    ck_assert_uint_eq(acquire(&d, rival), 2);
    ck_assert_int_eq(d.lanes[0].token, token + 2);
    direct_close(&d);
}
END_TEST

/* One that seemed dead may have come back and taken a lane. */
START_TEST(an_owner_is_not_removed)
{
    direct d;

    direct_open(&d, _i, 1);
    beat(&d, me, 1);
    ck_assert_uint_eq(acquire(&d, me), 1);
    ck_ok(d.ops->leave(d.st, d.sub.sub, me, &d.err));
    ck_assert_int_eq(beat(&d, rival, 1), 2);
    ck_assert_int_ge(d.lanes[0].beat, 0);
    ck_assert_mem_eq(d.lanes[0].owner, me, 16);
    ck_assert_uint_eq(acquire(&d, rival), 1);
    ck_ok(d.ops->leave(d.st, d.sub.sub, me, &d.err));
    ck_assert_int_eq(beat(&d, rival, 1), 1);
    direct_close(&d);
}
END_TEST

START_TEST(crashes_are_counted_until_progress)
{
    direct d;

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 1);
    beat(&d, me, 1);
    ck_assert_uint_eq(acquire(&d, me), 1);
    ck_assert_int_eq(d.lanes[0].crashes, 0);
    beat(&d, rival, 1);
    ck_assert_uint_eq(acquire(&d, rival), 1);
    ck_assert_int_eq(d.lanes[0].crashes, 1);
    beat(&d, me, 1);
    ck_assert_uint_eq(acquire(&d, me), 1);
    ck_assert_int_eq(d.lanes[0].crashes, 2);
    d.lanes[0].release = 1;             /* goodbye */
    ck_ok(save(&d, me, NULL, 0));
    beat(&d, rival, 1);
    ck_assert_uint_eq(acquire(&d, rival), 1);
    ck_assert_int_eq(d.lanes[0].crashes, 0);
    direct_close(&d);
}
END_TEST

/* ---- reading -------------------------------------------------------- */

typedef struct taken {
    int64_t positions[64];
    size_t  n, most;                    /* refuses the row after most */
} taken;

static int take(void *arg, const outbox_row *row)
{
    taken *t = arg;

    if (t->n == t->most)
        return 1;
    t->positions[t->n++] = row->position;
    return 0;
}

static int read_rows(direct *d, int limit, taken *t)
{
    return d->ops->read(d->st, d->sub.sub, d->lanes, d->sub.lanes, limit,
                        take, t, &d->err);
}

START_TEST(reading_goes_on_where_it_ended)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 10);
    beat(&d, me, 1);
    acquire(&d, me);
    ck_assert_int_eq(read_rows(&d, 4, &t), 4);
    ck_assert_uint_eq(t.n, 4);
    ck_assert_int_eq(d.lanes[0].cursor.position, t.positions[3]);
    ck_assert_int_eq(read_rows(&d, 20, &t), 6);
    ck_assert_uint_eq(t.n, 10);
    for (size_t i = 1; i < 10; i++)
        ck_assert_int_gt(t.positions[i], t.positions[i - 1]);
    ck_assert_int_eq(read_rows(&d, 20, &t), 0);
    if (!d.w.sut->by_segments)          /* else it is past a window's end */
        ck_assert_int_eq(d.lanes[0].cursor.position, t.positions[9]);
    direct_close(&d);
}
END_TEST

START_TEST(a_row_that_was_not_taken_comes_again)
{
    direct d;
    taken t = { .most = 3 };

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 5);
    beat(&d, me, 1);
    acquire(&d, me);
    ck_assert_int_ge(read_rows(&d, 10, &t), 3);
    ck_assert_int_eq(d.lanes[0].cursor.position, t.positions[2]);
    t.most = 64;
    ck_assert_int_eq(read_rows(&d, 10, &t), 2);
    ck_assert_uint_eq(t.n, 5);
    direct_close(&d);
}
END_TEST

START_TEST(reading_from_a_wrong_anchor_is_stale)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 5);
    beat(&d, me, 1);
    acquire(&d, me);
    ck_assert_int_eq(read_rows(&d, 3, &t), 3);
    d.lanes[0].cursor.id[5] ^= 1;
    ck_assert_int_eq(read_rows(&d, 3, &t), OUTBOX_ESTALE);
    d.lanes[0].cursor.id[5] ^= 1;
    d.lanes[0].cursor.position += 1000;
    ck_assert_int_eq(read_rows(&d, 3, &t), OUTBOX_ESTALE);
    d.lanes[0].cursor.position -= 1000;
    ck_assert_int_eq(read_rows(&d, 3, &t), 2);
    ck_assert_uint_eq(t.n, 5);
    direct_close(&d);
}
END_TEST

/* The lanes stand at different places, and it is the farther one whose anchor
 * is gone. */
START_TEST(reading_checks_every_anchor)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 2);
    publish_numbers(&d.w, NULL, 0, 10);
    beat(&d, me, 2);
    acquire(&d, me);
    read_rows(&d, 3, &t);
    outbox_cursor near = d.lanes[0].cursor;
    read_rows(&d, 3, &t);
    d.lanes[0].cursor = near;
    d.lanes[1].cursor.id[7] ^= 1;
    ck_assert_int_eq(read_rows(&d, 10, &t), OUTBOX_ESTALE);
    d.lanes[1].cursor.id[7] ^= 1;
    ck_assert_int_ge(read_rows(&d, 10, &t), 4);
    direct_close(&d);
}
END_TEST

START_TEST(taking_a_lane_with_a_lost_anchor_starts_over)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 5);
    beat(&d, me, 1);
    acquire(&d, me);
    read_rows(&d, 5, &t);
    d.lanes[0].release = 1;
    ck_ok(save(&d, me, NULL, 0));
    beat(&d, me, 1);
    ck_assert_uint_eq(acquire(&d, me), 1);
    ck_assert_int_eq(d.lanes[0].cursor.position, t.positions[4]);
    ck_assert_int_eq(d.lanes[0].rescan, 0);
    d.w.sut->empty_log(d.w.db);
    publish_numbers(&d.w, NULL, 5, 2);
    beat(&d, rival, 1);
    ck_assert_uint_eq(acquire(&d, rival), 1);
    ck_assert_int_eq(d.lanes[0].cursor.position, 0);
    ck_assert_int_ne(d.lanes[0].rescan, 0);
    direct_close(&d);
}
END_TEST

/* ---- saving --------------------------------------------------------- */

static outbox_row row_of(const direct *d, uint64_t chain, int64_t position)
{
    outbox_row row = { .position = position,
                       .chain = chain,
                       .lane = (uint32_t)(chain % d->sub.lanes),
                       .topic = { "t", 1 },
                       .key = { "k", 1 },
                       .payload = { "p", 1 },
                       .attempts = 1,
                       .delay_ms = 500,
                       .why = "it failed" };

    row.id[0] = (uint8_t)position;
    return row;
}

START_TEST(one_lost_lease_saves_nothing)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 2);
    publish_numbers(&d.w, NULL, 0, 10);
    beat(&d, me, 2);
    ck_assert_uint_eq(acquire(&d, me), 2);
    read_rows(&d, 10, &t);
    outbox_change c = { .kind = OUTBOX_PARK, .row = row_of(&d, 6, 1) };
    d.lanes[1].token--;                 /* somebody else has taken it */
    ck_assert_int_eq(save(&d, me, &c, 1), OUTBOX_ESTALE);
    ck_assert(d.lanes[0].held && !d.lanes[1].held);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_PARKED), 0);
    d.lanes[1].token++;
    ck_assert_int_eq(save(&d, rival, &c, 1), OUTBOX_ESTALE);
    ck_assert(!d.lanes[0].held && !d.lanes[1].held);
    beat(&d, me, 2);
    ck_assert_uint_eq(acquire(&d, me), 2);
    ck_assert_int_eq(d.lanes[0].cursor.position, 0);    /* nothing moved */
    ck_assert_int_eq(d.lanes[1].cursor.position, 0);
    direct_close(&d);
}
END_TEST

static int note_row(void *arg, const outbox_row *row)
{
    outbox_row *to = arg;

    while (to->chain != 0 || to->seq != 0)
        to++;
    *to = *row;
    return 0;
}

START_TEST(parked_rows_of_a_chain_are_in_order)
{
    direct d;
    outbox_row rows[8] = { { .seq = 0 } };
    outbox_change c[3];

    direct_open(&d, _i, 4);
    beat(&d, me, 4);
    acquire(&d, me);
    for (int i = 0; i < 3; i++)
        c[i] = (outbox_change){ .kind = OUTBOX_PARK,
                                .row = row_of(&d, i == 1 ? 9 : 5, 10 + i) };
    ck_ok(save(&d, me, c, 3));
    ck_assert_int_eq(d.ops->parked(d.st, d.sub.sub, 5, 10, note_row, rows,
                                   &d.err), 2);
    ck_assert_int_eq(rows[0].position, 10);
    ck_assert_int_eq(rows[1].position, 12);
    ck_assert_int_lt(rows[0].seq, rows[1].seq);
    ck_assert_uint_eq(rows[0].attempts, 1);
    ck_assert_int_eq(rows[0].delay_ms, 500);
    ck_assert_int_eq(d.ops->parked(d.st, d.sub.sub, 5, 1, note_row, rows + 4,
                                   &d.err), 1);
    c[0] = (outbox_change){ .kind = OUTBOX_AGAIN, .row = rows[0] };
    c[0].row.attempts = 2;
    c[0].row.delay_ms = 900;
    ck_ok(save(&d, me, c, 1));
    memset(rows, 0, sizeof rows);
    ck_assert_int_ge(d.ops->blocked(d.st, d.sub.sub, 1, note_row, rows,
                                    &d.err), 0);
    ck_assert(rows[0].chain + rows[1].chain == 14);     /* 5 and 9, once */
    const outbox_row *five = rows[0].chain == 5 ? &rows[0] : &rows[1];
    ck_assert_uint_eq(five->attempts, 2);
    ck_assert_int_eq(five->delay_ms, 900);
    ck_assert_uint_eq(rows[2].chain, 0);
    direct_close(&d);
}
END_TEST

START_TEST(the_dead_block_their_chain_if_so_wished)
{
    direct d;
    outbox_row rows[8] = { { .seq = 0 } };
    outbox_change c[3];

    direct_open(&d, _i, 1);
    beat(&d, me, 1);
    acquire(&d, me);
    c[0] = (outbox_change){ .kind = OUTBOX_BURY, .blocks = 1,
                            .row = row_of(&d, 5, 10) };
    c[1] = (outbox_change){ .kind = OUTBOX_BURY, .row = row_of(&d, 7, 11) };
    c[2] = (outbox_change){ .kind = OUTBOX_PARK, .row = row_of(&d, 9, 12) };
    ck_ok(save(&d, me, c, 3));
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_DEAD), 2);
    d.ops->blocked(d.st, d.sub.sub, 0, note_row, rows, &d.err);
    ck_assert(rows[0].chain + rows[1].chain == 14);     /* 5 and 9, not 7 */
    ck_assert_int_eq((rows[0].chain == 5 ? rows[0] : rows[1]).delay_ms, -1);
    memset(rows, 0, sizeof rows);
    d.ops->parked(d.st, d.sub.sub, 9, 1, note_row, rows, &d.err);
    c[0] = (outbox_change){ .kind = OUTBOX_BURY, .row = row_of(&d, 9, 12) };
    c[0].row.seq = rows[0].seq;         /* from parked to dead */
    ck_ok(save(&d, me, c, 1));
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_DEAD), 3);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_PARKED), 0);
    direct_close(&d);
}
END_TEST

/* Or a hand-over would last until the next look. */
START_TEST(a_lane_given_back_wakes_who_sleeps)
{
    outbox_subscription sub = { .name = "s" };
    int fd[2], found = 1;
    outbox_t *other;
    direct d;

    direct_open(&d, _i, 2);
    ck_ok(pipe(fd));
    beat(&d, me, 2);
    ck_assert_uint_eq(acquire(&d, me), 2);
    ck_ok(d.w.sut->connect(&other, d.w.db, NULL, NULL, &d.err));
    outbox_store *st = other->h.store;
    ck_ok(st->ops->attach(st, &sub, &d.err));
    for (int i = 0; i < 100 && found > 0; i++)
        found = st->ops->wait(st, fd[0], 0, 1);
    ck_assert_int_eq(found, 0);
    d.lanes[1].release = 1;
    ck_ok(save(&d, me, NULL, 0));
    ck_assert_int_eq(st->ops->wait(st, fd[0], 0, 10000), 1);
    outbox_close(other);
    close(fd[0]);
    close(fd[1]);
    direct_close(&d);
}
END_TEST

/* ---- trials and trimming -------------------------------------------- */

START_TEST(starts_are_counted_until_the_trial_ends)
{
    direct d;
    outbox_lane *l = d.lanes;

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 3);
    beat(&d, me, 1);
    acquire(&d, me);
    int64_t sub = d.sub.sub;
    ck_assert_int_eq(d.ops->trial(d.st, sub, me, l, 2, &d.err), 1);
    beat(&d, me, -1);
    acquire(&d, me);                    /* its answer was lost: no death */
    ck_assert_int_ne(l->on_trial, 0);
    ck_assert_int_eq(d.ops->trial(d.st, sub, me, l, 2, &d.err), 1);
    beat(&d, rival, 1);
    acquire(&d, rival);
    ck_assert_int_eq(d.ops->trial(d.st, sub, rival, l, 2, &d.err), 2);
    ck_assert_int_eq(d.ops->trial(d.st, sub, rival, l, 3, &d.err), 1);
    ck_assert_int_eq(d.ops->trial(d.st, sub, me, l, 3, &d.err),
                     OUTBOX_ESTALE);
    l->token--;
    ck_assert_int_eq(d.ops->trial(d.st, sub, rival, l, 3, &d.err),
                     OUTBOX_ESTALE);
    l->token++;
    l->on_trial = 1;
    ck_ok(save(&d, rival, NULL, 0));    /* it ends well */
    ck_assert_int_eq(d.ops->trial(d.st, sub, rival, l, 3, &d.err), 1);
    l->on_trial = 0;
    l->release = 1;
    ck_ok(save(&d, rival, NULL, 0));    /* a goodbye is no death */
    beat(&d, me, 1);
    acquire(&d, me);
    ck_assert_int_eq(l->on_trial, 0);
    ck_assert_int_eq(d.ops->trial(d.st, sub, me, l, 3, &d.err), 1);
    direct_close(&d);
}
END_TEST

START_TEST(trimming_spares_cursors_and_the_newest)
{
    direct d;
    taken t = { .most = 64 };

    direct_open(&d, _i, 1);
    publish_numbers(&d.w, NULL, 0, 10);
    beat(&d, me, 1);
    acquire(&d, me);
    ck_assert_int_eq(d.ops->trim(d.st, 100, &d.err), 0);
    read_rows(&d, 6, &t);
    ck_assert_int_eq(d.ops->trim(d.st, 100, &d.err), 0);        /* not saved */
    ck_ok(save(&d, me, NULL, 0));
    ck_assert_int_eq(d.ops->trim(d.st, 2, &d.err), 2);
    ck_assert_int_eq(d.ops->trim(d.st, 100, &d.err), 3);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_LOG), 5);
    read_rows(&d, 10, &t);
    ck_ok(save(&d, me, NULL, 0));
    ck_assert_int_eq(d.ops->trim(d.st, 100, &d.err), 4);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_LOG), 1);
    direct_close(&d);
}
END_TEST

START_TEST(trimming_waits_for_the_slowest_lane)
{
    direct d;
    taken t = { .most = 3 };

    direct_open(&d, _i, 2);
    publish_numbers(&d.w, NULL, 0, 20);
    beat(&d, me, 2);
    acquire(&d, me);
    read_rows(&d, 3, &t);               /* both lanes after the third row */
    ck_ok(save(&d, me, NULL, 0));
    outbox_cursor slow = d.lanes[0].cursor;
    t.most = 64;
    read_rows(&d, 9, &t);
    d.lanes[0].cursor = slow;
    ck_ok(save(&d, me, NULL, 0));       /* one of them after the twelfth */
    ck_assert_int_eq(d.ops->trim(d.st, 100, &d.err), 2);
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_LOG), 18);
    direct_close(&d);
}
END_TEST

START_TEST(own_transactions_refuse_an_open_one)
{
    direct d;
    outbox_store *st;
    outbox_counts counts;
    outbox_error err;

    direct_open(&d, _i, 1);
    st = d.w.ob->h.store;               /* through the application */
    ck_ok(d.w.sut->begin(d.w.app));
    ck_ok(d.w.sut->work(d.w.app));
    ck_assert_int_eq(st->ops->migrate(st, 1, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(st->ops->beat(st, &d.sub, me, 1, d.lanes, 1, d.relays, 8,
                                   &err), OUTBOX_EINVAL);
    ck_assert_int_eq(st->ops->leave(st, d.sub.sub, me, &err), OUTBOX_EINVAL);
    ck_ok(d.w.sut->commit(d.w.app));
    ck_assert_int_eq(d.w.sut->count(d.w.db, SUT_WORK), 1);
    ck_ok(d.ops->count(d.st, d.sub.sub, &counts, &err));
    ck_assert_int_eq(counts.behind, 0);
    direct_close(&d);
}
END_TEST

void add_ops_tests(Suite *s)
{
    TCase *tc = suite_case(s, "ops");

    tcase_add_loop_test(tc, a_subscription_is_made_once, 0, n_suts);
    tcase_add_loop_test(tc, beats_are_counted_and_looks_are_not, 0, n_suts);
    tcase_add_loop_test(tc, taking_compares_token_and_beat, 0, n_suts);
    tcase_add_loop_test(tc, an_owner_is_not_removed, 0, n_suts);
    tcase_add_loop_test(tc, crashes_are_counted_until_progress, 0, n_suts);
    tcase_add_loop_test(tc, reading_goes_on_where_it_ended, 0, n_suts);
    tcase_add_loop_test(tc, a_row_that_was_not_taken_comes_again, 0, n_suts);
    tcase_add_loop_test(tc, reading_from_a_wrong_anchor_is_stale, 0,
                        SUTS_BY_ROW);
    tcase_add_loop_test(tc, taking_a_lane_with_a_lost_anchor_starts_over, 0,
                        SUTS_BY_ROW);
    tcase_add_loop_test(tc, one_lost_lease_saves_nothing, 0, n_suts);
    tcase_add_loop_test(tc, parked_rows_of_a_chain_are_in_order, 0, n_suts);
    tcase_add_loop_test(tc, the_dead_block_their_chain_if_so_wished, 0,
                        n_suts);
    tcase_add_loop_test(tc, starts_are_counted_until_the_trial_ends, 0,
                        n_suts);
    tcase_add_loop_test(tc, trimming_spares_cursors_and_the_newest, 0,
                        SUTS_BY_ROW);
    tcase_add_loop_test(tc, a_lane_given_back_wakes_who_sleeps, 0, n_suts);
    tcase_add_loop_test(tc, trimming_waits_for_the_slowest_lane, 0,
                        SUTS_BY_ROW);
    tcase_add_loop_test(tc, reading_checks_every_anchor, 0, SUTS_BY_ROW);
    tcase_add_loop_test(tc, own_transactions_refuse_an_open_one, 0, n_suts);
}
