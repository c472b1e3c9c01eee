/* SPDX-License-Identifier: MIT
 *
 * pg_save.c - progress and the fate of events, fenced.
 *
 * Progress alone is one statement: it locks the lanes by owner and token and,
 * only if it got them all, adds a row for each to a log of cursors.  With
 * anything else to write there is a transaction around it.
 *
 * Invariants, and the tests that show them:
 *  1. Nothing is written unless every lane in it still has its owner's token
 *     (tests/contract: one_lost_lease_saves_nothing,
 *     one_that_slept_cannot_save; tests/pg: mutant no-fence).
 *  2. A cursor passes an event in the transaction that parks or buries it, or
 *     after its delivery (tests/pg/storm).
 *  3. The reason of a failure can be held by any database
 *     (tests/pg/encoding.c: a_reason_that_the_database_cannot_hold).
 */
#include "pg_store.h"

#include "failpoint.h"

typedef struct save_arrays {
    ob_pg_array lane, token, window, position;
} save_arrays;

static void lanes_fill(ob_pg *st, save_arrays *a, const outbox_lane *lanes,
                       uint32_t n)
{
    ob_pg_array_begin(&a->lane, OB_PG_INT2);
    ob_pg_array_begin(&a->token, OB_PG_INT8);
    ob_pg_array_begin(&a->window, OB_PG_INT8);
    ob_pg_array_begin(&a->position, OB_PG_INT8);
    for (uint32_t i = 0; i < n; i++) {
        ob_pg_array_int(st, &a->lane, lanes[i].lane);
        ob_pg_array_int(st, &a->token, lanes[i].token);
        ob_pg_array_int(st, &a->window, lanes[i].cursor.window);
        ob_pg_array_int(st, &a->position, lanes[i].cursor.position);
    }
}

static int lanes_held(const PGresult *res, outbox_lane *lanes, uint32_t n,
                      outbox_error *err)
{
    uint32_t ours = 0;

    for (uint32_t i = 0; i < n; i++) {
        lanes[i].held = 0;
        for (int k = 0; k < PQntuples(res) && !lanes[i].held; k++)
            lanes[i].held = ob_pg_get_int(res, k, 0) == (int)lanes[i].lane;
        ours += lanes[i].held != 0;
    }
    return ours == n ? OUTBOX_OK
                     : outbox_error_set(err, OUTBOX_ESTALE,
                                        "a lease is lost");
}

static int lanes_save(ob_pg *st, int64_t sub, const uint8_t me[16],
                      outbox_lane *lanes, uint32_t n, outbox_error *err)
{
    save_arrays a = { 0 };
    ob_pg_params p = { 0 };
    PGresult *res = NULL;
    int rc;

    lanes_fill(st, &a, lanes, n);
    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    if ((rc = ob_pg_param_array(st, &p, &a.lane, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &a.token, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &a.window, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &a.position, err)) == OUTBOX_OK)
        res = ob_pg_run(st, PG_SAVE, &p, "save progress", &rc, err);
    if (res != NULL)
        rc = lanes_held(res, lanes, n, err);
    PQclear(res);
    ob_pg_array_free(st, &a.lane);
    ob_pg_array_free(st, &a.token);
    ob_pg_array_free(st, &a.window);
    ob_pg_array_free(st, &a.position);
    return rc;
}

/* Relays that sleep would find what is free at their next look only. */
static int64_t ring(ob_pg *st, outbox_error *err)
{
    ob_pg_params p = { 0 };

    if (st->quiet)
        return 0;
    ob_pg_text(&p, st->channel);
    return ob_pg_do(st, PG_RING, &p, "wake the others", err);
}

static int lanes_let_go(ob_pg *st, int64_t sub, const uint8_t me[16],
                        const outbox_lane *lanes, uint32_t n,
                        outbox_error *err)
{
    ob_pg_array leave = { 0 }, over = { 0 };
    ob_pg_params p = { 0 };
    int rc;
    int64_t done = 0;

    ob_pg_array_begin(&leave, OB_PG_INT2);
    ob_pg_array_begin(&over, OB_PG_INT2);
    for (uint32_t i = 0; i < n; i++) {
        if (lanes[i].release)
            ob_pg_array_int(st, &leave, lanes[i].lane);
        if (lanes[i].on_trial)
            ob_pg_array_int(st, &over, lanes[i].lane);
    }
    ob_pg_int8(&p, sub);
    ob_pg_uuid(&p, me);
    if ((rc = ob_pg_param_array(st, &p, &leave, err)) == OUTBOX_OK &&
        (rc = ob_pg_param_array(st, &p, &over, err)) == OUTBOX_OK)
        done = ob_pg_do(st, PG_LET_GO, &p, "let a lane go", err);
    if (done > 0 && leave.n > 0)
        done = ring(st, err);
    ob_pg_array_free(st, &leave);
    ob_pg_array_free(st, &over);
    return done < 0 ? (int)done : rc;
}

/* ---- events --------------------------------------------------------- */

/* Parameters 1 to 16, which parked and dead rows share. */
static void row_params(ob_pg_params *p, int64_t sub, const outbox_row *row)
{
    outbox_bytes payload = row->payload;

    if (payload.ptr == NULL)
        payload.ptr = "";
    ob_pg_int8(p, row->window);
    ob_pg_int8(p, row->position);
    ob_pg_uuid(p, row->id);
    ob_pg_bytes(p, &row->topic);
    ob_pg_bytes(p, &row->type);
    ob_pg_bytes(p, &row->key);
    ob_pg_bytes(p, &row->content_type);
    ob_pg_bytes(p, &row->headers);
    ob_pg_bytes(p, &payload);
    ob_pg_int8(p, row->published_ms);
    ob_pg_int8_or_null(p, row->expires_ms);
    ob_pg_int2(p, (int)row->lane);
    ob_pg_int8(p, sub);
    ob_pg_int8(p, (int64_t)row->chain);
    ob_pg_int4(p, (int)row->attempts);
    ob_pg_text(p, row->why);
}

static void parked_params(ob_pg_params *p, int64_t sub, const outbox_row *row)
{
    ob_pg_int8(p, sub);
    ob_pg_int2(p, (int)row->lane);
    ob_pg_int8(p, (int64_t)row->chain);
    ob_pg_int8(p, row->seq);
}

static int64_t row_park(ob_pg *st, int64_t sub, const outbox_row *row,
                        outbox_error *err)
{
    ob_pg_params p = { 0 };

    row_params(&p, sub, row);
    ob_pg_int8(&p, row->delay_ms);
    return ob_pg_do(st, PG_PARK, &p, "park", err);
}

static int64_t row_unpark(ob_pg *st, int64_t sub, const outbox_row *row,
                          outbox_error *err)
{
    ob_pg_params p = { 0 };

    parked_params(&p, sub, row);
    return ob_pg_do(st, PG_UNPARK, &p, "unpark", err);
}

static int64_t row_again(ob_pg *st, int64_t sub, const outbox_row *row,
                         outbox_error *err)
{
    ob_pg_params p = { 0 };

    parked_params(&p, sub, row);
    ob_pg_int4(&p, (int)row->attempts);
    ob_pg_int8(&p, row->delay_ms);
    ob_pg_text(&p, row->why);
    return ob_pg_do(st, PG_AGAIN, &p, "note a failure", err);
}

static int64_t row_bury(ob_pg *st, int64_t sub, const outbox_change *c,
                        outbox_error *err)
{
    ob_pg_params p = { 0 };

    row_params(&p, sub, &c->row);
    ob_pg_bool(&p, c->blocks != 0);
    int64_t rc = ob_pg_do(st, PG_BURY, &p, "bury", err);
    if (rc >= 0 && c->row.seq != 0)
        rc = row_unpark(st, sub, &c->row, err);
    return rc;
}

/* The rest of a row was in this database before; the reason comes from
 * outside, and may have what an encoding other than UTF-8 lacks. */
static const char *why_fit(ob_pg *st, const char *why, char *out, size_t max)
{
    const char *encoding = PQparameterStatus(st->conn, "server_encoding");
    size_t n = 0;

    if (why == NULL || (encoding != NULL && strcmp(encoding, "UTF8") == 0))
        return why;
    for (; *why != '\0' && n + 1 < max; why++) {
        if (((unsigned char)*why & 0xc0) != 0x80)       /* one '?' each */
            out[n++] = (unsigned char)*why < 0x80 ? *why : '?';
    }
    out[n] = '\0';
    return out;
}

static int change_write(ob_pg *st, int64_t sub, const outbox_change *change,
                        outbox_error *err)
{
    outbox_change own = *change;
    const outbox_change *c = &own;
    char why[OB_WHY_MAX + 1];
    int64_t rc = OUTBOX_EINVAL;

    own.row.why = why_fit(st, change->row.why, why, sizeof why);
    switch (c->kind) {
    case OUTBOX_PARK:
        rc = row_park(st, sub, &c->row, err);
        break;
    case OUTBOX_AGAIN:
        rc = row_again(st, sub, &c->row, err);
        break;
    case OUTBOX_UNPARK:
        rc = row_unpark(st, sub, &c->row, err);
        break;
    case OUTBOX_BURY:
        rc = row_bury(st, sub, c, err);
        break;
    }
    return rc < 0 ? (int)rc : OUTBOX_OK;
}

/* ---- both ----------------------------------------------------------- */

static bool lets_go(const outbox_lane *lanes, uint32_t n)
{
    bool any = false;

    for (uint32_t i = 0; i < n; i++)
        any = any || lanes[i].release || lanes[i].on_trial;
    return any;
}

int ob_pg_save(outbox_store *s, int64_t sub, const uint8_t me[16],
               outbox_lane *lanes, uint32_t n, const outbox_change *changes,
               size_t n_changes, outbox_error *err)
{
    ob_pg *st = (ob_pg *)s;
    bool lets = lets_go(lanes, n);
    int rc = ob_pg_alone(st, err);

    if (rc == OUTBOX_OK && n_changes == 0 && !lets)
        return lanes_save(st, sub, me, lanes, n, err);
    if (rc == OUTBOX_OK)
        rc = ob_pg_begin(st, err);
    if (rc != OUTBOX_OK)
        return rc;
    rc = lanes_save(st, sub, me, lanes, n, err);
    OB_FAILPOINT("pg.save.mid");
    for (size_t i = 0; i < n_changes && rc == OUTBOX_OK; i++)
        rc = change_write(st, sub, &changes[i], err);
    if (rc == OUTBOX_OK && lets)
        rc = lanes_let_go(st, sub, me, lanes, n, err);
    return ob_pg_end(st, rc, err);
}
