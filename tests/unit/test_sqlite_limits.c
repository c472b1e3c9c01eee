/* SPDX-License-Identifier: MIT
 *
 * test_sqlite_limits.c - what a connection with SQLITE_LIMIT_LENGTH lowered,
 * as its own hardening guide advises, does to publishing: what does not fit is
 * refused, never left out of the row.  And which file an open was about.
 */
#include "common/suite.h"
#include "common/sut_sqlite.h"

#include <outbox/sqlite.h>
#include <stdio.h>
#include <string.h>

enum { SHORT = 300, LONG = 400 };

static char long_text[LONG + 1];

typedef struct shop {
    sqlite3  *db;
    outbox_t *ob;
    inbox_t  *ib;
} shop;

static void shop_open(shop *s)
{
    memset(long_text, 'x', LONG);
    s->db = sqlite_open(tmp_new("limits"));
    ck_assert_int_eq(outbox_sqlite_open(&s->ob, s->db, NULL, NULL), 0);
    ck_assert_int_eq(inbox_sqlite_open(&s->ib, s->db, NULL, NULL), 0);
    ck_assert_int_eq(outbox_migrate(s->ob, NULL), 0);
    ck_assert_int_eq(sqlite_exec(s->db, "BEGIN IMMEDIATE"), SQLITE_OK);
}

static void shop_close(shop *s)
{
    inbox_close(s->ib);
    outbox_close(s->ob);
    sqlite3_close(s->db);
}

static void refused(shop *s, const outbox_event *ev)
{
    const outbox_event fits = { .size = sizeof fits, .topic = "t" };
    const outbox_event *both[] = { &fits, ev };
    outbox_error err = { 0 };
    int old = sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, SHORT);

    ck_assert_int_eq(outbox_publish(s->ob, ev, &err), OUTBOX_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "SQLITE_LIMIT_LENGTH is 300"));
    ck_assert_int_eq(err.native & 0xff, SQLITE_TOOBIG);
    ck_assert_int_eq(outbox_publish_many(s->ob, both, 2, &err),
                     OUTBOX_EINVAL);
    ck_assert_int_eq(outbox_publish_commit(s->ob, both, 2, &err),
                     OUTBOX_EINVAL);
    ck_assert_int_eq(sqlite3_get_autocommit(s->db), 0);
    ck_assert_int_eq(sqlite_number(s->db, "SELECT count(*) FROM outbox_log"),
                     0);
    ck_assert_int_eq(sqlite_number(s->db, "SELECT count(*) FROM outbox_dedup"),
                     0);
    ck_assert_int_eq(outbox_publish(s->ob, &fits, &err), OUTBOX_OK);
    sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, old);
    sqlite_exec(s->db, "ROLLBACK; BEGIN IMMEDIATE");
}

START_TEST(no_value_is_left_out)
{
    const outbox_header header = { "h", long_text };
    outbox_event ev[] = {
        { .key = long_text },
        { .type = long_text },
        { .content_type = long_text },
        { .headers = &header, .n_headers = 1 },
        { .payload = long_text, .payload_len = LONG },
        { .dedup_key = long_text },
        { .key = long_text, .dedup_key = "d" },
        { .key = long_text, .due_ms = INT64_C(1) << 50 },
    };
    shop s;

    shop_open(&s);
    for (size_t i = 0; i < sizeof ev / sizeof *ev; i++) {
        ev[i].size = sizeof *ev;
        ev[i].topic = "t";
        refused(&s, &ev[i]);
    }
    shop_close(&s);
}
END_TEST

START_TEST(no_mark_of_half_an_id)
{
    outbox_error err;
    shop s;

    shop_open(&s);
    sqlite3_limit(s.db, SQLITE_LIMIT_LENGTH, SHORT);
    ck_assert_int_eq(inbox_accept(s.ib, "c", long_text, &err), OUTBOX_EINVAL);
    ck_assert_int_eq(inbox_accept(s.ib, "c", "fits", &err), 1);
    ck_assert_int_eq(inbox_accept(s.ib, "c", "fits", &err), 0);
    shop_close(&s);
}
END_TEST

START_TEST(an_open_that_fails_names_the_file)
{
    char uri[200], *path = uri + 5;
    outbox_error err;
    outbox_t *ob;

    snprintf(uri, sizeof uri, "file:%s?key=secret", tmp_new("missing"));
    ck_assert_int_eq(outbox_sqlite_connect(&ob, uri, NULL, &err), OUTBOX_EDB);
    ck_assert_ptr_null(strstr(err.text, "secret"));
    *strchr(path, '?') = '\0';
    ck_assert_ptr_nonnull(strstr(err.text, path));
    ck_assert_int_eq(outbox_sqlite_connect(&ob, path, NULL, &err),
                     OUTBOX_EDB);
    ck_assert_ptr_nonnull(strstr(err.text, path));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sqlite limits");
    TCase *tc = suite_case(s, "limits");

    tcase_add_test(tc, no_value_is_left_out);
    tcase_add_test(tc, no_mark_of_half_an_id);
    tcase_add_test(tc, an_open_that_fails_names_the_file);
    return suite_main(s);
}
