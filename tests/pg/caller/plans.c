/* SPDX-License-Identifier: MIT
 *
 * plans.c - how much the server reads for a statement, whatever it knows of
 * the tables.
 */
#include "caller.h"

/* 40,000 delivered events that are kept, and one that is not delivered. */
static void delivered(place *p)
{
    PGconn *conn = p->db->conn;

    sql(conn, "INSERT INTO outbox.subscription (name) VALUES ('s');"
              "INSERT INTO outbox.lane (sub, lane) SELECT sub, n FROM"
              " outbox.subscription, generate_series(0, 15) n");
    sql(conn, "INSERT INTO outbox.log (seg, lane, id, topic, payload)"
              " SELECT 0, n %% 16, gen_random_uuid(), 't', '' FROM"
              " generate_series(1, 40000) n");
    for (int i = 1; i < 3; i++)
        sql(conn,
            "INSERT INTO outbox.\"window\" (n, hi)"
            " VALUES (%d, pg_current_snapshot())",
            i);
    sql(conn, "INSERT INTO outbox.ack (aseg, sub, lane, token, \"window\","
              " position) SELECT 0, sub, lane, 0, 2, 9223372036854775807"
              " FROM outbox.lane");
    sql(conn, "INSERT INTO outbox.log (seg, lane, id, topic, payload)"
              " VALUES (0, 0, gen_random_uuid(), 't', '')");
}

/* Rows of the log that one publish has read. */
static int64_t reads(PGconn *conn, outbox_t *ob)
{
    outbox_event ev = event("k");
    outbox_error err;

    sql(conn, "BEGIN");
    ck_assert_msg(outbox_publish(ob, &ev, &err) >= 0, "%s", err.text);
    int64_t n = pg_number(conn, "SELECT sum(seq_tup_read) +"
                                " sum(coalesce(idx_tup_fetch, 0))"
                                " FROM pg_stat_xact_all_tables"
                                " WHERE schemaname = 'outbox'"
                                " AND relname LIKE 'log%'");
    sql(conn, "ROLLBACK");
    return n;
}

/* Beside a transaction that was open when they were delivered. */
START_TEST(max_backlog_does_not_read_what_is_delivered)
{
    static const char *const plans[] = {"auto", "force_generic_plan"};
    outbox_options opt = {.size = sizeof opt, .max_backlog = 1000};
    outbox_t *ob;
    place p;

    place_open(&p, NULL);
    PGconn *open = pg_open(p.db, NULL);
    sql(open, "BEGIN; SELECT pg_current_xact_id()");
    delivered(&p);
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            sql(p.db->conn, "ANALYZE");
        sql(p.conn, "SET plan_cache_mode = %s", plans[i % 2]);
        ck_ok(outbox_pg_open(&ob, p.conn, &opt, &p.err));
        int64_t n = reads(p.conn, ob);
        ck_assert_msg(n < 100, "%lld rows, %s, %d", (long long)n, plans[i % 2],
                      i);
        outbox_close(ob);
    }
    PQfinish(open);
    place_close(&p);
}
END_TEST

/* Of a backlog as much as may be there is counted. */
START_TEST(max_backlog_stops_where_it_is_reached)
{
    outbox_options opt = {.size = sizeof opt, .max_backlog = 39000};
    outbox_event ev = event("k");
    outbox_t *ob;
    place p;

    place_open(&p, NULL);
    delivered(&p);
    sql(p.db->conn, "UPDATE outbox.ack SET \"window\" = 0, position = 0");
    ck_ok(outbox_pg_open(&ob, p.conn, &opt, &p.err));
    ck_assert_int_eq(publish_alone(p.conn, ob, &ev, &p.err), OUTBOX_EFULL);
    outbox_close(ob);
    opt.max_backlog = 40002;
    ck_ok(outbox_pg_open(&ob, p.conn, &opt, &p.err));
    ck_ok(publish_alone(p.conn, ob, &ev, &p.err));
    outbox_close(ob);
    ck_ok(outbox_pg_open(&ob, p.conn, &opt, &p.err));
    ck_assert_int_eq(publish_alone(p.conn, ob, &ev, &p.err), OUTBOX_EFULL);
    outbox_close(ob);
    place_close(&p);
}
END_TEST

void add_plan_tests(Suite *s)
{
    TCase *tc = suite_case(s, "plans");

    tcase_add_test(tc, max_backlog_does_not_read_what_is_delivered);
    tcase_add_test(tc, max_backlog_stops_where_it_is_reached);
}
