/* SPDX-License-Identifier: MIT
 *
 * grants.c - least privilege: the GRANTs of outbox_pg(3), as they are printed
 * there, are enough; and whichever is missing, the error says so.
 */
#include "caller.h"

#include <stdio.h>
#include <stdlib.h>

enum { GRANTS_MAX = 40, GRANT_BYTES = 400 };

typedef struct grants {
    char   text[GRANTS_MAX][GRANT_BYTES];
    size_t n;
} grants;

/* The statements for one role, of the literal text in the page. */
static void grants_read(grants *g, const char *role)
{
    char path[400], line[200], tail[40], text[GRANT_BYTES] = "";
    const char *top = getenv("TOP");

    snprintf(path, sizeof path, "%s/man/outbox_pg.3", top != NULL ? top : ".");
    snprintf(tail, sizeof tail, " TO %s;\n", role);
    FILE *page = fopen(path, "r");
    ck_assert_msg(page != NULL, "no %s: set TOP", path);
    g->n = 0;
    while (fgets(line, sizeof line, page) != NULL) {
        if (strncmp(line, "GRANT ", 6) == 0)
            text[0] = '\0';
        else if (text[0] == '\0')
            continue;
        ck_assert_uint_lt(strlen(text) + strlen(line), sizeof text);
        strcat(text, line);
        if (strchr(line, ';') == NULL)
            continue;
        if (strstr(text, tail) != NULL && g->n < GRANTS_MAX)
            strcpy(g->text[g->n++], text);
        text[0] = '\0';
    }
    fclose(page);
    ck_assert_msg(g->n > 1, "no GRANTs for %s in %s", role, path);
}

/* Roles belong to the cluster: each test has its own. */
static void role_name(const place *p, const char *role, char name[100])
{
    snprintf(name, 100, "%s_%s", p->db->name, role);
}

/* Run a statement of the page for this test's role: "GRANT ... TO app;", or
 * its opposite. */
static void grant(place *p, const char *text, const char *role, bool give)
{
    char name[100];
    const char *to = strstr(text, " TO ");

    role_name(p, role, name);
    ck_assert_ptr_nonnull(to);
    sql(p->db->conn, "%s%.*s %s %s", give ? "GRANT" : "REVOKE",
        (int)(to - text - 5), text + 5, give ? "TO" : "FROM", name);
}

static void grant_all(place *p, const grants *g, const char *role)
{
    for (size_t i = 0; i < g->n; i++)
        grant(p, g->text[i], role, true);
}

static void role_make(place *p, const char *role, char conninfo[800])
{
    char name[100];
    grants g;

    role_name(p, role, name);
    sql(p->db->conn, "CREATE ROLE %s LOGIN", name);
    grants_read(&g, role);
    grant_all(p, &g, role);
    snprintf(conninfo, 800, "%s user=%s", p->db->conninfo, name);
}

static void role_drop(place *p, const char *role)
{
    char name[100];

    role_name(p, role, name);
    sql(p->db->conn, "DROP OWNED BY %s; DROP ROLE %s", name, name);
}

/* ---- publishing ----------------------------------------------------- */

/* All that a publisher does, each in a transaction of its own. */
static int publish_all(const char *conninfo, outbox_error *err)
{
    outbox_options opt = { .size = sizeof opt, .max_backlog = 1000 };
    outbox_event ev = event("k"), due = event("k"), once = event("k");
    const outbox_event *at[] = { &ev, &due, &once };
    outbox_t *ob, *limited;
    PGconn *conn = PQconnectdb(conninfo);
    int rc;

    ck_assert_msg(PQstatus(conn) == CONNECTION_OK, "%s", PQerrorMessage(conn));
    due.due_ms = INT64_C(4000000000000);
    once.dedup_key = "d";
    ck_ok(outbox_pg_open(&ob, conn, NULL, err));
    ck_ok(outbox_pg_open(&limited, conn, &opt, err));
    rc = publish_alone(conn, ob, &ev, err);
    if (rc >= 0)
        rc = publish_alone(conn, limited, &ev, err);
    sql(conn, "BEGIN");
    if (rc >= 0)
        rc = outbox_publish_many(ob, at, 3, err);
    if (rc >= 0)
        rc = outbox_publish_commit(ob, at, 1, err);
    outbox_close(limited);
    outbox_close(ob);
    PQfinish(conn);
    return rc;
}

START_TEST(a_publisher_needs_each_grant)
{
    place p;
    grants g;
    char conninfo[800];
    outbox_error err;

    place_open(&p, NULL);
    role_make(&p, "app", conninfo);
    int rc = publish_all(conninfo, &err);
    ck_assert_msg(rc >= 0, "%d %s", rc, err.text);
    ck_assert_int_eq(logged(&p), 5);
    grants_read(&g, "app");
    for (size_t i = 0; i < g.n; i++) {
        grant(&p, g.text[i], "app", false);
        rc = publish_all(conninfo, &err);
        ck_assert_msg(rc < 0, "not needed: %s", g.text[i]);
        ck_says(&err, rc, rc, "42501", "permission denied");
        ck_assert_msg(strstr(err.text, "GRANT") != NULL ||
                      strstr(err.text, "outbox_pg(3)") != NULL, "%s",
                      err.text);
        grant_all(&p, &g, "app");
    }
    role_drop(&p, "app");
    place_close(&p);
}
END_TEST

/* Position, transaction and time are what the server says. */
START_TEST(a_publisher_cannot_forge)
{
    static const char *const columns[][2] = {
        { "position", "1" }, { "xid", "'3'" }, { "tick", "'1:1:'" },
        { "published_ms", "0" }
    };
    place p;
    char conninfo[800], insert[300];

    place_open(&p, NULL);
    role_make(&p, "app", conninfo);
    PGconn *conn = PQconnectdb(conninfo);
    ck_ok(pg_exec(conn, "INSERT INTO outbox.log (seg, lane, id, topic,"
                        " payload) VALUES (0, 0, gen_random_uuid(), 't',"
                        " '')"));
    for (size_t i = 0; i < 8; i++) {
        snprintf(insert, sizeof insert,
                 "INSERT INTO outbox.log%s (seg, lane, id, topic, payload, %s)"
                 " VALUES (0, 0, gen_random_uuid(), 't', '', %s)",
                 i < 4 ? "" : "_0", columns[i % 4][0], columns[i % 4][1]);
        ck_assert_int_eq(pg_exec(conn, insert), -1);
    }
    ck_assert_int_eq(pg_exec(conn, "SELECT payload FROM outbox.log"), -1);
    ck_assert_int_eq(pg_exec(conn, "SELECT payload FROM outbox.log_0"), -1);
    ck_assert_int_eq(pg_exec(conn, "DELETE FROM outbox.log"), -1);
    ck_assert_int_eq(pg_exec(conn, "DELETE FROM outbox.log_0"), -1);
    ck_assert_int_eq(pg_exec(conn, "TRUNCATE outbox.log_0"), -1);
    PQfinish(conn);
    role_drop(&p, "app");
    place_close(&p);
}
END_TEST

/* With tables that are there, as each service does when it starts. */
START_TEST(a_publisher_may_ask_to_migrate)
{
    place p;
    char conninfo[800];
    outbox_t *ob;

    place_open(&p, NULL);
    role_make(&p, "app", conninfo);
    PGconn *conn = PQconnectdb(conninfo);
    ck_ok(outbox_pg_open(&ob, conn, NULL, &p.err));
    ck_ok(outbox_migrate(ob, &p.err));
    sql(p.db->conn, "UPDATE outbox.meta SET version = version - 1");
    int rc = outbox_migrate(ob, &p.err);
    ck_says(&p.err, rc, rc, "42501", "permission denied");
    outbox_close(ob);
    PQfinish(conn);
    role_drop(&p, "app");
    place_close(&p);
}
END_TEST

/* ---- consuming ------------------------------------------------------ */

static int accept_as(const char *conninfo, outbox_error *err)
{
    PGconn *conn = PQconnectdb(conninfo);
    inbox_t *ib;

    ck_ok(inbox_pg_open(&ib, conn, NULL, err));
    sql(conn, "BEGIN");
    int rc = inbox_accept(ib, "c", "i", err);
    if (rc >= 0)
        rc = inbox_commit(ib, err);
    inbox_close(ib);
    PQfinish(conn);
    return rc;
}

static int prune_as(const char *conninfo, outbox_error *err)
{
    PGconn *conn = PQconnectdb(conninfo);
    inbox_t *ib;

    ck_ok(inbox_pg_open(&ib, conn, NULL, err));
    int rc = inbox_prune(ib, 0, 10, err);
    inbox_close(ib);
    PQfinish(conn);
    return rc;
}

static void each_needed(place *p, const char *role,
                        int (*act)(const char *conninfo, outbox_error *err))
{
    grants g;
    char conninfo[800];
    outbox_error err;

    role_make(p, role, conninfo);
    int rc = act(conninfo, &err);
    ck_assert_msg(rc >= 0, "%d %s", rc, err.text);
    grants_read(&g, role);
    for (size_t i = 0; i < g.n; i++) {
        grant(p, g.text[i], role, false);
        rc = act(conninfo, &err);
        ck_assert_msg(rc < 0, "not needed: %s", g.text[i]);
        ck_says(&err, rc, rc, "42501", "permission denied");
        grant_all(p, &g, role);
    }
    role_drop(p, role);
}

START_TEST(a_consumer_and_a_pruner)
{
    place p;

    place_open(&p, NULL);
    each_needed(&p, "handler", accept_as);
    each_needed(&p, "pruner", prune_as);
    place_close(&p);
}
END_TEST

/* ---- relaying and looking ------------------------------------------- */

static outbox_verdict odd_ones(void *ctx, const outbox_event *ev,
                               outbox_token token, outbox_error *why)
{
    (void)token;
    (void)why;
    ++*(int *)ctx;
    return strcmp(ev->topic, "bad") == 0 ? OUTBOX_REJECT : OUTBOX_ACK;
}

static void relay_as(place *p, const char *conninfo)
{
    int times = 0;
    outbox_transport t = { .size = sizeof t, .send = odd_ones, .ctx = &times };
    outbox_relay_t *r;
    outbox_t *ob;

    ck_ok(outbox_pg_connect(&ob, conninfo, NULL, &p->err));
    ck_ok(outbox_relay_new(&r, ob, &t, NULL, &p->err));
    for (int i = 0; i < 40; i++) {
        int rc = outbox_relay_step(r, 5, &p->err);
        ck_assert_msg(rc >= 0 || rc == OUTBOX_EBUSY, "%s", p->err.text);
    }
    ck_assert_int_eq(times, 2);
    ck_ok(outbox_relay_stop(r, 1000, &p->err));
    outbox_relay_free(r);
}

static void count_letter(void *arg, const outbox_event *ev, const char *why,
                         int64_t died_ms)
{
    (void)ev;
    (void)why;
    (void)died_ms;
    ++*(int *)arg;
}

static void looks(place *p, const char *conninfo, bool may_write)
{
    outbox_t *ob;
    outbox_stats st = { .size = sizeof st };
    int letters = 0;

    ck_ok(outbox_pg_connect(&ob, conninfo, NULL, &p->err));
    int rc = outbox_subscription_stats(ob, "default", &st, &p->err);
    ck_assert_msg(rc == OUTBOX_OK, "%s", p->err.text);
    ck_assert_uint_eq(st.dead, 1);
    ck_assert_uint_ge(st.lag, 10000);
    rc = outbox_dead_each(ob, "default", 10, count_letter, &letters, &p->err);
    ck_assert_msg(rc == 1 && letters == 1, "%s", p->err.text);
    rc = outbox_dead_discard(ob, "default", NULL, &p->err);
    if (may_write)
        ck_assert_msg(rc == 1, "%s", p->err.text);
    else
        ck_says(&p->err, rc, OUTBOX_EDB, "42501", "permission denied");
    outbox_close(ob);
}

/* More than are counted one by one. */
static void pile_up(place *p)
{
    sql(p->db->conn,
        "INSERT INTO outbox.log (seg, lane, id, topic, payload)"
        " SELECT seg, 0, gen_random_uuid(), 't', '' FROM outbox.meta,"
        " generate_series(1, 10050)");
}

START_TEST(a_relay_and_a_reader)
{
    place p;
    char conninfo[800];
    outbox_event ev = event("k"), bad = event("bad");

    bad.topic = "bad";
    place_open(&p, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_ok(publish_alone(p.conn, p.ob, &bad, &p.err));
    role_make(&p, "relay", conninfo);
    relay_as(&p, conninfo);
    role_drop(&p, "relay");
    pile_up(&p);
    role_make(&p, "reader", conninfo);
    looks(&p, conninfo, false);
    role_drop(&p, "reader");
    role_make(&p, "relay", conninfo);
    looks(&p, conninfo, true);
    role_drop(&p, "relay");
    place_close(&p);
}
END_TEST

/* Where nobody may make temporary tables, either. */
START_TEST(a_relay_in_another_cluster)
{
    place p;
    char conninfo[800];
    outbox_event ev = event("k"), bad = event("bad");

    bad.topic = "bad";
    place_open(&p, NULL);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_ok(publish_alone(p.conn, p.ob, &bad, &p.err));
    sql(p.db->conn, "UPDATE outbox.meta SET system = system + 1");
    sql(p.db->conn, "REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC",
        p.db->name);
    role_make(&p, "relay", conninfo);
    relay_as(&p, conninfo);
    role_drop(&p, "relay");
    place_close(&p);
}
END_TEST

/* A schema that somebody else has made, on a database where this role may
 * make none. */
START_TEST(migrating_into_a_schema_of_another)
{
    place p;
    outbox_options opt = { .size = sizeof opt, .schema = "theirs" };
    outbox_t *ob;
    char name[100], conninfo[800];

    place_open(&p, NULL);
    role_name(&p, "owner", name);
    sql(p.db->conn, "CREATE ROLE %s LOGIN", name);
    snprintf(conninfo, sizeof conninfo, "%s user=%s", p.db->conninfo, name);
    ck_ok(outbox_pg_connect(&ob, conninfo, &opt, &p.err));
    int rc = outbox_migrate(ob, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "42501", "permission denied");
    sql(p.db->conn, "CREATE SCHEMA theirs AUTHORIZATION %s", name);
    rc = outbox_migrate(ob, &p.err);
    ck_assert_msg(rc == OUTBOX_OK, "%s", p.err.text);
    ck_ok(outbox_migrate(ob, &p.err));
    outbox_close(ob);
    role_drop(&p, "owner");
    place_close(&p);
}
END_TEST

void add_grant_tests(Suite *s)
{
    TCase *tc = suite_case(s, "grants");

    tcase_add_test(tc, a_publisher_needs_each_grant);
    tcase_add_test(tc, a_publisher_cannot_forge);
    tcase_add_test(tc, a_publisher_may_ask_to_migrate);
    tcase_add_test(tc, a_consumer_and_a_pruner);
    tcase_add_test(tc, a_relay_and_a_reader);
    tcase_add_test(tc, a_relay_in_another_cluster);
    tcase_add_test(tc, migrating_into_a_schema_of_another);
}
