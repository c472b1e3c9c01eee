/* SPDX-License-Identifier: MIT
 *
 * main.c - torture ROLE ...: which one this process plays.
 *
 *   torture chaos KILLS SEED         kill, restart, check
 *   torture directed NAME SEED       one scenario, or "all"
 *   torture check DIR                judge what such a run has left behind
 *
 * The driver starts the others itself: ROLE DIR RUN SEED PLAN.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "torture.h"

volatile sig_atomic_t told_to_stop;

static void on_term(int sig)
{
    (void)sig;
    told_to_stop = 1;
}

static void listen_to_term(void)
{
    struct sigaction act = { .sa_handler = on_term };
    sigset_t term;

    sigaction(SIGTERM, &act, NULL);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_UNBLOCK, &term, NULL);
}

/* ---- small roles ---- */

static void migrate_file(const task *job, const char *name, const char *tables)
{
    sqlite3 *db = db_open(job->dir, name, true, false);
    outbox_error err;
    outbox_t *ob;
    int rc;

    if (db_exec(db, tables) != SQLITE_OK)
        die(name, sqlite3_errmsg(db));
    if (outbox_sqlite_open(&ob, db, NULL, &err) < 0)
        die("outbox_sqlite_open", err.text);
    while ((rc = outbox_migrate(ob, &err)) == OUTBOX_EBUSY)
        pause_us(1000);
    if (rc < 0)
        die("outbox_migrate", err.text);
    outbox_close(ob);
    sqlite3_close(db);
}

static int migrate_main(const task *job)
{
    migrate_file(job, "app.db",
                 "BEGIN IMMEDIATE;"
                 "CREATE TABLE IF NOT EXISTS counter(key PRIMARY KEY,"
                 " version INTEGER NOT NULL);"
                 "CREATE TABLE IF NOT EXISTS business(n INTEGER PRIMARY KEY,"
                 " key TEXT NOT NULL, version INTEGER NOT NULL,"
                 " id TEXT NOT NULL UNIQUE, UNIQUE(key, version));"
                 "CREATE TABLE IF NOT EXISTS taken(one INTEGER PRIMARY KEY);"
                 "INSERT OR IGNORE INTO taken VALUES(1);"
                 "COMMIT");
    migrate_file(job, "effects.db",
                 "CREATE TABLE IF NOT EXISTS effect(n INTEGER PRIMARY KEY,"
                 " id TEXT NOT NULL, key TEXT NOT NULL,"
                 " version INTEGER NOT NULL, run INTEGER)");
    return 0;
}

/* An administrator's mistake. */
static int empty_main(const task *job)
{
    sqlite3 *db = db_open(job->dir, "app.db", true, false);
    int rc = db_exec(db, "DELETE FROM outbox_log");

    sqlite3_close(db);
    return rc == SQLITE_OK ? 0 : 1;
}

static int check_main(const char *dir)
{
    totals t;

    check(dir, 0, &t);
    printf("%lld events, %lld deliveries, %lld effects, %lld violations\n",
           (long long)t.events, (long long)t.deliveries, (long long)t.effects,
           (long long)t.violations);
    return t.violations == 0 ? 0 : 1;
}

/* ---- all roles ---- */

static int play_role(const char *role, const task *job)
{
    if (strcmp(role, "publisher") == 0)
        return publisher_main(job, false);
    if (strcmp(role, "both") == 0)
        return publisher_main(job, true);
    if (strcmp(role, "relay") == 0)
        return relay_main(job, true);
    if (strcmp(role, "sink") == 0)
        return relay_main(job, false);
    if (strcmp(role, "migrate") == 0)
        return migrate_main(job);
    if (strcmp(role, "empty") == 0)
        return empty_main(job);
    die(role, "no such role");
    return 2;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4 && strcmp(argv[1], "chaos") == 0)
        return chaos_main(atoi(argv[2]), strtoull(argv[3], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "directed") == 0)
        return directed_main(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "check") == 0)
        return check_main(argv[2]);
    if (argc == 6) {
        task job = { .dir = argv[2],
                     .run = atoi(argv[3]),
                     .seed = strtoull(argv[4], NULL, 10) };

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        listen_to_term();
        plan_default(&job.plan);
        if (plan_parse(&job.plan, argv[5]))
            return play_role(argv[1], &job);
    }
    fprintf(stderr, "usage: torture chaos KILLS SEED | directed NAME SEED |"
                    " check DIR\n");
    return 2;
}
