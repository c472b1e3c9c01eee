/* SPDX-License-Identifier: MIT
 *
 * judge.c - decides from the business rows, the history and the effects what
 * was lost, invented, turned around or done twice.
 */
#include <stdlib.h>
#include <string.h>

#include "storm.h"

enum { EXAMPLES = 5 };

typedef struct story {          /* of one key */
    uint32_t *nonce;            /* of version i + 1; 0: there is none */
    uint8_t  *seen;
    uint32_t  n, high;          /* high: the highest version seen so far */
} story;

typedef struct court {
    story     key[KEYS];
    verdicts *out;
} court;

static void accuse(int64_t *count, const char *what, uint32_t key,
                   uint32_t version, const char *more)
{
    if ((*count)++ < EXAMPLES)
        fprintf(stderr, "violation: %s: key %u version %u%s\n", what, key,
                version, more);
}

/* ---- what is true ------------------------------------------------------- */

static void story_grow(story *s, uint32_t n)
{
    if (n <= s->n)
        return;
    s->nonce = realloc(s->nonce, n * sizeof *s->nonce);
    s->seen = realloc(s->seen, n);
    if (s->nonce == NULL || s->seen == NULL)
        die("judge", "no memory");
    memset(s->nonce + s->n, 0, (n - s->n) * sizeof *s->nonce);
    memset(s->seen + s->n, 0, n - s->n);
    s->n = n;
}

static void enter(court *c, uint32_t key, uint32_t first, uint32_t last,
                  uint32_t nonce)
{
    if (key >= KEYS)
        die("judge", "no such key");
    story *s = &c->key[key];
    story_grow(s, last);
    for (uint32_t v = first; v <= last; v++) {
        if (s->nonce[v - 1] != 0)
            accuse(&c->out->broken, "a version twice", key, v, "");
        s->nonce[v - 1] = nonce != 0 ? nonce : 1;
        c->out->events++;
    }
}

static uint32_t number(const PGresult *res, int row, int col)
{
    return (uint32_t)strtoul(PQgetvalue(res, row, col), NULL, 10);
}

static void load_business(court *c, PGconn *conn)
{
    PGresult *res = NULL;

    if (!PQsendQuery(conn, "SELECT key, first, last, nonce FROM business") ||
        !PQsetSingleRowMode(conn))
        die("judge", PQerrorMessage(conn));
    while ((res = PQgetResult(conn)) != NULL) {
        if (PQresultStatus(res) == PGRES_FATAL_ERROR)
            die("judge", PQerrorMessage(conn));
        for (int i = 0; i < PQntuples(res); i++)
            enter(c, number(res, i, 0), number(res, i, 1), number(res, i, 2),
                  number(res, i, 3));
        PQclear(res);
    }
    for (uint32_t k = 0; k < KEYS; k++) {
        for (uint32_t v = 1; v <= c->key[k].n; v++) {
            if (c->key[k].nonce[v - 1] == 0)
                accuse(&c->out->broken, "a gap", k, v, "");
        }
    }
}

/* ---- what was seen ------------------------------------------------------ */

static void hear(court *c, const record *rec)
{
    story *s = rec->key < KEYS ? &c->key[rec->key] : NULL;
    char more[60];

    c->out->deliveries++;
    snprintf(more, sizeof more, " (run %u, attempt %u)", rec->run,
             rec->attempt);
    if (s == NULL || rec->version == 0 || rec->version > s->n ||
        s->nonce[rec->version - 1] != (rec->nonce != 0 ? rec->nonce : 1)) {
        accuse(&c->out->phantom, "phantom", rec->key, rec->version, more);
        return;
    }
    if (s->seen[rec->version - 1]) {
        c->out->duplicates++;
        return;
    }
    s->seen[rec->version - 1] = 1;
    if (rec->version < s->high)
        accuse(&c->out->inversions, "out of order", rec->key, rec->version,
               more);
    else
        s->high = rec->version;
}

static void hear_all(court *c, const char *dir)
{
    FILE *file = file_open(dir, "history", "re");
    record rec;

    while (file != NULL && fread(&rec, sizeof rec, 1, file) == 1)
        hear(c, &rec);
    if (file != NULL)
        fclose(file);
    for (uint32_t k = 0; k < KEYS; k++) {
        for (uint32_t v = 1; v <= c->key[k].n; v++) {
            if (!c->key[k].seen[v - 1])
                accuse(&c->out->lost, "lost", k, v, "");
        }
    }
}

/* ---- what came of it ---------------------------------------------------- */

static void judge_effects(court *c, PGconn *conn)
{
    PGresult *res = PQexec(conn, "SELECT key, version, count(*) FROM effect"
                                 " GROUP BY 1, 2");
    int64_t want = 0;

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        die("judge", PQerrorMessage(conn));
    for (int i = 0; i < PQntuples(res); i++) {
        uint32_t key = number(res, i, 0), version = number(res, i, 1);
        c->out->effects++;
        if (number(res, i, 2) != 1)
            accuse(&c->out->twice, "effect twice", key, version, "");
        if (key >= KEYS || version > c->key[key].n)
            accuse(&c->out->effect_phantom, "effect phantom", key, version,
                   "");
    }
    for (uint32_t k = 0; k < KEYS; k += EFFECT_EVERY)
        want += c->key[k].n / 8;
    if (c->out->effects < want)
        c->out->effect_lost = want - c->out->effects;
    PQclear(res);
}

void judge(const char *dir, PGconn *conn, verdicts *out)
{
    court c = { .out = out };

    memset(out, 0, sizeof *out);
    load_business(&c, conn);
    hear_all(&c, dir);
    judge_effects(&c, conn);
    for (int k = 0; k < KEYS; k++) {
        free(c.key[k].nonce);
        free(c.key[k].seen);
    }
}
