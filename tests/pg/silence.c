/* SPDX-License-Identifier: MIT
 *
 * silence.c - a server that does not answer: a statement on a connection of our
 * own is given up, but not because its answer is long.
 */
#include "pg.h"

#include "core.h"
#include "pg_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 1000 };

static int note_pid(void *arg, void *conn)
{
    *(int *)arg = PQbackendPID(conn);
    return 0;
}

static ob_pg *connect_briefly(outbox_t **ob, world *w, int *pid)
{
    outbox_options opt = { .size = sizeof opt, .on_connect = note_pid,
                           .arg = pid };
    outbox_error err;

    ck_ok(outbox_pg_connect(ob, ((pg_db *)w->db)->conninfo, &opt, &err));
    ob_pg *st = (ob_pg *)(*ob)->h.store;
    st->deadline_ms = DEADLINE_MS;
    return st;
}

/* To a process of the server. */
static void send_signal(const char *name, int pid)
{
    char command[200];

    snprintf(command, sizeof command,
             "sh \"$OUTBOX_PG_CLUSTER\" as \"$OUTBOX_TEST_PGDIR\""
             " kill -s %s %d", name, pid);
    ck_assert_msg(system(command) == 0, "%s", command);
}

START_TEST(a_server_that_falls_silent)
{
    world w;
    outbox_t *ob;
    outbox_error err;
    int pid = 0;

    world_open(&w, WHICH);
    ob_pg *st = connect_briefly(&ob, &w, &pid);
    send_signal("STOP", pid);
    int64_t before = real_ms();
    int rc = ob_pg_exec(st, "SELECT 1", "ask", &err);
    int64_t took = real_ms() - before;
    send_signal("CONT", pid);
    ck_assert_int_eq(rc, OUTBOX_EDB);
    ck_assert_msg(strstr(err.text, "ask: no answer") != NULL, "%s", err.text);
    ck_assert_int_ge(took, DEADLINE_MS);
    ck_assert_int_lt(took, 10 * DEADLINE_MS);
    ck_ok(outbox_migrate(ob, &err));            /* and connects again */
    outbox_close(ob);
    world_close(&w);
}
END_TEST

/* Ten parts, each long before the deadline, all long after it. */
START_TEST(an_answer_that_takes_its_time)
{
    world w;
    outbox_t *ob;
    outbox_error err;
    int pid = 0;

    world_open(&w, WHICH);
    ob_pg *st = connect_briefly(&ob, &w, &pid);
    int64_t before = real_ms();
    int rc = ob_pg_exec(st, "DO $$BEGIN FOR i IN 1..10 LOOP RAISE NOTICE 'on';"
                            " PERFORM pg_sleep(0.15); END LOOP; END$$",
                        "ask", &err);
    ck_assert_msg(rc == OUTBOX_OK, "%s", err.text);
    ck_assert_int_gt(real_ms() - before, DEADLINE_MS);
    outbox_close(ob);
    world_close(&w);
}
END_TEST

void add_silence_tests(Suite *s)
{
    TCase *tc = suite_case(s, "silence");

    tcase_add_test(tc, a_server_that_falls_silent);
    tcase_add_test(tc, an_answer_that_takes_its_time);
}
