/* SPDX-License-Identifier: MIT
 *
 * server.c - the way to the server: what cannot be reached, refuses, is too
 * old, or goes away.  A few of these no server can be asked to do, so a
 * thread speaks the first messages of the protocol.
 */
#include "caller.h"

#include <outbox/store.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- a server of our own -------------------------------------------- */

typedef struct impostor {
    int         fd;
    pthread_t   thread;
    char        dir[200], path[230], conninfo[800];
    const char *says;                   /* after the first message */
    size_t      length;
    int         times;                  /* how many connections */
} impostor;

static void *pretend(void *arg)
{
    impostor *s = arg;
    char buffer[4000];

    for (int i = 0; i < s->times; i++) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            break;
        if (read(fd, buffer, sizeof buffer) > 0 &&
            write(fd, s->says, s->length) == (ssize_t)s->length)
            while (read(fd, buffer, sizeof buffer) > 0)
                continue;
        close(fd);
    }
    return NULL;
}

static void impostor_open(impostor *s, const char *says, size_t length)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };

    snprintf(s->dir, sizeof s->dir, "%s", tmp_new("impostor"));
    ck_ok(mkdir(s->dir, 0700));
    snprintf(s->path, sizeof s->path, "%s/.s.PGSQL.5432", s->dir);
    ck_assert_uint_lt(strlen(s->path), sizeof at.sun_path);
    memcpy(at.sun_path, s->path, strlen(s->path) + 1);
    snprintf(s->conninfo, sizeof s->conninfo,
             "host=%s port=5432 user=app dbname=app password=sesame", s->dir);
    s->says = says;
    s->length = length;
    s->times = 1;
    s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_ok(bind(s->fd, (struct sockaddr *)&at, sizeof at));
    ck_ok(listen(s->fd, 1));
    pthread_create(&s->thread, NULL, pretend, s);
}

static void impostor_close(impostor *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
    unlink(s->path);
    rmdir(s->dir);
}

/* A connect that fails, with words, and never with the password. */
static void connect_fails(const char *conninfo, int code, const char *state,
                          const char *words)
{
    outbox_error err;
    outbox_t *ob = (void *)&err;
    int rc = outbox_pg_connect(&ob, conninfo, NULL, &err);

    ck_says(&err, rc, code, state, words);
    ck_assert_ptr_null(ob);
    ck_assert_ptr_null(strstr(err.text, "sesame"));
}

static void impostor_fails(const char *says, size_t length, const char *state,
                           const char *words)
{
    impostor s;

    impostor_open(&s, says, length);
    connect_fails(s.conninfo, OUTBOX_EDB, state, words);
    impostor_close(&s);
}

#define SAYS(text) text, sizeof text - 1

/* Refused with ErrorResponse: fields, each a letter and a string. */
static void refused_with(const char *state, const char *text,
                         const char *words)
{
    char says[300] = "E";
    size_t n = 5;

    n += (size_t)snprintf(says + n, sizeof says - n, "SFATAL") + 1;
    n += (size_t)snprintf(says + n, sizeof says - n, "VFATAL") + 1;
    n += (size_t)snprintf(says + n, sizeof says - n, "C%s", state) + 1;
    n += (size_t)snprintf(says + n, sizeof says - n, "M%s", text) + 1;
    says[n++] = '\0';
    says[4] = (char)(n - 1);
    impostor_fails(says, n, state, words);
}

START_TEST(a_wrong_password)
{
    refused_with("28P01", "password authentication failed for user \"app\"",
                 "check user and password");
}
END_TEST

/* As pg-cluster sets it up, this role needs one. */
START_TEST(a_password_that_is_asked_for)
{
    place p;
    char conninfo[800];
    outbox_t *ob;

    place_open(&p, NULL);
    sql(p.conn, "SET password_encryption = 'scram-sha-256';"
                "CREATE ROLE sesame LOGIN PASSWORD 'open sesame'");
    snprintf(conninfo, sizeof conninfo, "%s user=sesame password='%s'",
             p.db->conninfo, "open sesame");
    ck_ok(outbox_pg_connect(&ob, conninfo, NULL, &p.err));
    outbox_close(ob);
    snprintf(conninfo, sizeof conninfo, "%s user=sesame password='%s'",
             p.db->conninfo, "shut your mouth");
    int rc = outbox_pg_connect(&ob, conninfo, NULL, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "28P01", "check user and password");
    ck_assert_ptr_null(strstr(p.err.text, "mouth"));
    snprintf(conninfo, sizeof conninfo, "%s user=sesame", p.db->conninfo);
    rc = outbox_pg_connect(&ob, conninfo, NULL, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "", "no password supplied");
    sql(p.conn, "DROP ROLE sesame");
    place_close(&p);
}
END_TEST

START_TEST(no_slot_left)
{
    refused_with("53300", "sorry, too many clients already",
                 "max_connections");
}
END_TEST

START_TEST(a_server_that_starts)
{
    refused_with("57P03", "the database system is starting up",
                 "wait until it is up");
}
END_TEST

START_TEST(a_server_that_is_too_old)
{
    impostor_fails(SAYS("R\0\0\0\x08\0\0\0\0"
                        "S\0\0\0\x18server_version\0" "12.9\0"
                        "Z\0\0\0\x05I"),
                   "", "PostgreSQL 12, older than 13: upgrade it");
}
END_TEST

START_TEST(something_else_that_listens)
{
    impostor_fails(SAYS("HTTP/1.1 400 Bad Request\r\n\r\n"), "", "connect:");
}
END_TEST

/* ---- the way -------------------------------------------------------- */

START_TEST(a_conninfo_that_is_none)
{
    static const char *const wrong[] = {
        "sesame", "host=localhost password=open sesame",
        "postgresql://app:sesame@host:port:x/db?what=sesame", "host",
        "colour=sesame"
    };
    outbox_error err;
    outbox_t *ob;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        connect_fails(wrong[i], OUTBOX_EINVAL, "", "conninfo");
    int rc = outbox_pg_connect(&ob, NULL, NULL, &err);
    ck_says(&err, rc, OUTBOX_EINVAL, "", "conninfo is NULL");
}
END_TEST

START_TEST(nobody_there)
{
    char conninfo[800];

    snprintf(conninfo, sizeof conninfo, "host=%s password=sesame",
             tmp_new("nobody"));
    connect_fails(conninfo, OUTBOX_EDB, "", "connect:");
    connect_fails("host=127.0.0.1 port=1 password=sesame", OUTBOX_EDB, "",
                  "refused");
}
END_TEST

START_TEST(a_database_or_role_that_is_not_there)
{
    char conninfo[800];

    snprintf(conninfo, sizeof conninfo, "%s dbname=nowhere password=sesame",
             getenv("OUTBOX_TEST_PG"));
    connect_fails(conninfo, OUTBOX_EDB, "3D000", "create the database");
    snprintf(conninfo, sizeof conninfo, "%s user=nobody password=sesame",
             getenv("OUTBOX_TEST_PG"));
    connect_fails(conninfo, OUTBOX_EDB, "28000", "check user");
}
END_TEST

START_TEST(a_role_at_its_limit)
{
    place p;
    char conninfo[800];

    place_open(&p, NULL);
    sql(p.conn, "CREATE ROLE %s_few LOGIN CONNECTION LIMIT 0", p.db->name);
    snprintf(conninfo, sizeof conninfo, "%s user=%s_few", p.db->conninfo,
             p.db->name);
    connect_fails(conninfo, OUTBOX_EDB, "53300", "too many connections");
    sql(p.conn, "DROP ROLE %s_few", p.db->name);
    place_close(&p);
}
END_TEST

/* All that max_connections allows.  A publisher that is connected goes on, and
 * the next to come gets the slot that one leaves. */
START_TEST(all_slots_taken)
{
    enum { MOST = 300 };
    static PGconn *taken[MOST];
    place p;
    outbox_t *ob;
    outbox_event ev = event("k");
    int n = 0;

    place_open(&p, NULL);
    do {
        ck_assert_int_lt(n, MOST);
        taken[n] = PQconnectdb(p.db->conninfo);
    } while (PQstatus(taken[n++]) == CONNECTION_OK);
    connect_fails(p.db->conninfo, OUTBOX_EDB, "53300", "max_connections");
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    ck_assert_int_gt(n, 20);
    for (int i = 0; i < n - 20; i++)
        PQfinish(taken[i]);
    for (int i = 0; outbox_pg_connect(&ob, p.db->conninfo, NULL, &p.err); i++)
        ck_assert_msg(i < 1000 && strcmp(p.err.sqlstate, "53300") == 0, "%s",
                      p.err.text);         /* they take a moment to go */
    outbox_close(ob);
    for (int i = n - 20; i < n; i++)
        PQfinish(taken[i]);
    place_close(&p);
}
END_TEST

static int refuse_it(void *arg, void *db)
{
    (void)arg;
    return PQserverVersion(db) > 0;
}

START_TEST(on_connect_may_refuse)
{
    outbox_options opt = { .size = sizeof opt, .on_connect = refuse_it };
    outbox_error err;
    outbox_t *ob;
    int rc = outbox_pg_connect(&ob, getenv("OUTBOX_TEST_PG"), &opt, &err);

    ck_says(&err, rc, OUTBOX_EDB, "", "on_connect refused");
}
END_TEST

/* ---- going away ----------------------------------------------------- */

static void terminate(place *p)
{
    pg_ask(p->db, "SELECT count(pg_terminate_backend(pid)) FROM"
                  " pg_stat_activity WHERE datname = current_database()"
                  " AND pid <> pg_backend_pid()");
}

START_TEST(gone_before_the_publish)
{
    place p;
    outbox_event ev = event("k");

    place_open(&p, NULL);
    sql(p.conn, "BEGIN; INSERT INTO work VALUES (1)");
    terminate(&p);
    int rc = outbox_publish(p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "57P01", "connect again");
    rc = outbox_publish(p.ob, &ev, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "", "connect again");
    rc = inbox_commit(p.ib, &p.err);
    ck_says(&p.err, rc, OUTBOX_EABORTED, "", "connect again");
    ck_assert_int_eq(logged(&p), 0);
    PQreset(p.conn);
    ck_ok(publish_alone(p.conn, p.ob, &ev, &p.err));
    place_close(&p);
}
END_TEST

/* Nobody can tell whether the COMMIT was carried out. */
START_TEST(gone_with_the_commit)
{
    place p;
    outbox_event ev = event("k");
    const outbox_event *at = &ev;

    place_open(&p, NULL);
    for (int i = 0; i < 2; i++) {       /* prepares what is to be prepared */
        sql(p.conn, "BEGIN");
        ck_ok(outbox_publish_commit(p.ob, &at, 1, &p.err));
    }
    sql(p.conn, "BEGIN");
    shutdown(PQsocket(p.conn), SHUT_RDWR);
    int rc = outbox_publish_commit(p.ob, &at, 1, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "pg_xact_status()");
    PQreset(p.conn);
    sql(p.conn, "BEGIN");
    ck_assert_int_eq(inbox_accept(p.ib, "c", "i", &p.err), 1);
    shutdown(PQsocket(p.conn), SHUT_RDWR);
    rc = inbox_commit(p.ib, &p.err);
    ck_says(&p.err, rc, OUTBOX_EINDOUBT, "", "pg_xact_status()");
    PQreset(p.conn);
    sql(p.conn, "BEGIN");
    ck_ok(outbox_publish_commit(p.ob, &at, 1, &p.err));
    ck_assert_int_eq(logged(&p), 3);
    place_close(&p);
}
END_TEST

/* A handle of our own comes back by itself, when it is asked again. */
START_TEST(our_own_connection_comes_back)
{
    place p;
    outbox_t *ob;

    place_open(&p, NULL);
    ck_ok(outbox_pg_connect(&ob, p.db->conninfo, NULL, &p.err));
    ck_ok(outbox_migrate(ob, &p.err));
    terminate(&p);
    int rc = outbox_migrate(ob, &p.err);
    ck_says(&p.err, rc, OUTBOX_EDB, "57P01", "connection is lost");
    ck_ok(outbox_migrate(ob, &p.err));
    outbox_close(ob);
    place_close(&p);
}
END_TEST

void add_server_tests(Suite *s)
{
    TCase *tc = suite_case(s, "server");

    tcase_add_test(tc, a_wrong_password);
    tcase_add_test(tc, a_password_that_is_asked_for);
    tcase_add_test(tc, no_slot_left);
    tcase_add_test(tc, all_slots_taken);
    tcase_add_test(tc, a_server_that_starts);
    tcase_add_test(tc, a_server_that_is_too_old);
    tcase_add_test(tc, something_else_that_listens);
    tcase_add_test(tc, a_conninfo_that_is_none);
    tcase_add_test(tc, nobody_there);
    tcase_add_test(tc, a_database_or_role_that_is_not_there);
    tcase_add_test(tc, a_role_at_its_limit);
    tcase_add_test(tc, on_connect_may_refuse);
    tcase_add_test(tc, gone_before_the_publish);
    tcase_add_test(tc, gone_with_the_commit);
    tcase_add_test(tc, our_own_connection_comes_back);
}
