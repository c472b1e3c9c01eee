/* SPDX-License-Identifier: MIT
 *
 * pg_error.c - what the server, or the lack of one, says in our terms: a code
 * that tells what to do next, the SQLSTATE, and a sentence.
 */
#include "pg_store.h"

#include <stdio.h>

typedef struct pg_meaning {
    const char *sqlstate;               /* or its class, two characters */
    int         code;
    const char *advice;
} pg_meaning;

#define ROLL_BACK "roll back and run the transaction again"

/* Classes behind the states. */
static const pg_meaning pg_meanings[] = {
    { "25006", OUTBOX_EREADONLY, "use a transaction that can write, on the "
      "primary" },
    { "25P02", OUTBOX_EABORTED, "roll it back" },
    { "25P03", OUTBOX_EDB, "connect again" },
    { "3F000", OUTBOX_ESCHEMA, "run outbox_migrate()" },
    { "42P01", OUTBOX_ESCHEMA, "run outbox_migrate()" },
    { "42703", OUTBOX_ESCHEMA, "run outbox_migrate()" },
    { "42501", OUTBOX_EDB, "grant what outbox_pg(3) lists" },
    { "40001", OUTBOX_EBUSY, ROLL_BACK },
    { "40P01", OUTBOX_EBUSY, ROLL_BACK },
    { "55P03", OUTBOX_EBUSY, ROLL_BACK },
    { "26000", OUTBOX_EBUSY, ROLL_BACK "; if DISCARD ALL or a pooler is "
      "behind it, set OUTBOX_POOLED" },
    { "0A000", OUTBOX_EDB, "connect again" },
    { "57014", OUTBOX_ETIMEOUT, "raise the timeout, or see what it waited "
      "for" },
    { "53100", OUTBOX_EDB, "the server's disk is full: make room" },
    { "53200", OUTBOX_EDB, "the server is out of memory" },
    { "53300", OUTBOX_EDB, "raise max_connections, or connect less often" },
    { "57P03", OUTBOX_EDB, "wait until it is up" },
    { "28P01", OUTBOX_EDB, "check user and password" },
    { "28000", OUTBOX_EDB, "check user and pg_hba.conf" },
    { "3D000", OUTBOX_EDB, "create the database" },
    { "22021", OUTBOX_EINVAL, "text must be UTF-8 that the database's "
      "encoding can hold" },
    { "22P05", OUTBOX_EINVAL, "text must be UTF-8 that the database's "
      "encoding can hold" },
    { "54000", OUTBOX_EINVAL, "publish less at once" },
    { "08",    OUTBOX_EDB, NULL },
    { "40",    OUTBOX_EBUSY, ROLL_BACK },
};

static const pg_meaning *meaning_of(const char *sqlstate)
{
    static const pg_meaning other = { "", OUTBOX_EDB, NULL };

    for (size_t i = 0; i < sizeof pg_meanings / sizeof *pg_meanings; i++) {
        const pg_meaning *m = &pg_meanings[i];
        if (strncmp(m->sqlstate, sqlstate, strlen(m->sqlstate)) == 0)
            return m;
    }
    return &other;
}

/* Some of what was prepared is gone, or of no use any more. */
static bool forgets(const char *sqlstate)
{
    return strcmp(sqlstate, "0A000") == 0 || strcmp(sqlstate, "26000") == 0;
}

/* After these nothing more comes through a connection, or an own one is better
 * made anew. */
static bool says_goodbye(const char *sqlstate)
{
    return strncmp(sqlstate, "08", 2) == 0 ||
           strncmp(sqlstate, "57P0", 4) == 0 ||
           strcmp(sqlstate, "25P03") == 0 || forgets(sqlstate);
}

/* The log has refused a row for which it has no segment (see PG_SEG_NOW).  The
 * state alone may be that of a check of the caller's own. */
static bool is_of_the_log(const ob_pg *st, const PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *schema = PQresultErrorField(res, PG_DIAG_SCHEMA_NAME);
    const char *table = PQresultErrorField(res, PG_DIAG_TABLE_NAME);

    return state != NULL && schema != NULL && table != NULL &&
           strcmp(state, "23514") == 0 && strcmp(schema, st->name) == 0 &&
           strcmp(table, "log") == 0;
}

static void state_set(outbox_error *err, const char *sqlstate)
{
    if (err != NULL)
        memcpy(err->sqlstate, sqlstate,
               strnlen(sqlstate, sizeof err->sqlstate - 1));
}

/* The caller's transaction is lost with the statement, whatever it was. */
static int in_transaction(ob_pg *st, int code, const char **also)
{
    *also = "";
    if (st->own || st->in_tx || st->conn == NULL ||
        PQtransactionStatus(st->conn) != PQTRANS_INERROR)
        return code;
    if (code != OUTBOX_EBUSY)
        *also = "; then roll back";
    return code == OUTBOX_EDB || code == OUTBOX_ETIMEOUT ? OUTBOX_EABORTED
                                                         : code;
}

static int error_state(ob_pg *st, const PGresult *res, const char *sqlstate,
                       const char *text, const char *doing, outbox_error *err)
{
    static const pg_meaning anew = {
        "23514", OUTBOX_EBUSY, "the tables were made anew: " ROLL_BACK
    };
    const pg_meaning *m = is_of_the_log(st, res) ? &anew
                                                 : meaning_of(sqlstate);
    const char *also;
    int code = in_transaction(st, m->code, &also);

    outbox_error_set(err, code, "%s: %.*s%s%s%s", doing,
                     (int)strcspn(text, "\n"), text,
                     m->advice != NULL ? ": " : "",
                     m->advice != NULL ? m->advice : "", also);
    state_set(err, sqlstate);
    if (says_goodbye(sqlstate))
        st->broken = st->own;
    if (st->session != NULL && forgets(sqlstate))
        ob_pg_session_renew(st->session);
    if (st->session != NULL && (m->code == OUTBOX_ESCHEMA || m == &anew))
        st->session->checked = false;   /* look at the tables again */
    return code;
}

int ob_pg_lost(ob_pg *st, outbox_error *err)
{
    if (st->own) {
        st->broken = true;
        return outbox_error_set(err, OUTBOX_EDB,
                                "the connection to the server is lost");
    }
    return outbox_error_set(err, OUTBOX_EABORTED,
                            "the connection to the server is lost, and the "
                            "transaction with it: connect again");
}

int ob_pg_error(ob_pg *st, const PGresult *res, const char *doing,
                outbox_error *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

    if (state == NULL)
        state = "";
    if (text == NULL)
        text = res != NULL ? PQresultErrorMessage(res)
                           : PQerrorMessage(st->conn);
    if (PQstatus(st->conn) == CONNECTION_BAD) {
        int code = ob_pg_lost(st, NULL);
        outbox_error_set(err, code, "%s: %.*s: the connection is lost%s",
                         doing, (int)strcspn(text, "\n"), text,
                         st->own ? "" : ": connect again");
        state_set(err, state);
        return code;
    }
    return error_state(st, res, state, text, doing, err);
}

/* "FATAL:  28P01: password ...": libpq gives a state of its own only for
 * results, but with verbosity it is in the text. */
static bool state_in(const char *text, char state[6], const char **rest)
{
    for (const char *p = text; (p = strstr(p, ":  ")) != NULL; p++) {
        if (strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
            p[8] == ':' && p[9] == ' ') {
            memcpy(state, p + 3, 5);
            state[5] = '\0';
            *rest = p + 10;
            return true;
        }
    }
    return false;
}

int ob_pg_connect_error(ob_pg *st, outbox_error *err)
{
    const char *text = PQerrorMessage(st->conn);
    char state[6] = "";

    state_in(text, state, &text);
    return error_state(st, NULL, state, text, "connect", err);
}
