/* SPDX-License-Identifier: MIT
 *
 * driver.c - starts everything, makes the weather, and asks the judge.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

enum { STOP_MS = 20000, STILL_MS = 30000, TICK_MS = 20 };

typedef struct child {
    pid_t   pid;                /* 0: none */
    int64_t resume;             /* it is stopped until then */
} child;

typedef struct storm {
    task    job;
    rng     rnd;
    char    dir[300];
    child   slots[SLOTS];
    int     runs;
    int64_t violations;
    int     kills, stops, ended, crashes;
    int64_t next_ended, next_crash, next_kill, next_stop;
} storm;

/* ---- children ----------------------------------------------------------- */

static void become(const storm *s, int slot)
{
    char run[16], at[16], seed[24], events[24];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(at, sizeof at, "%d", slot);
    snprintf(run, sizeof run, "%d", s->runs);
    snprintf(seed, sizeof seed, "%" PRIu64,
             s->job.seed + (uint64_t)s->runs * 7919);
    snprintf(events, sizeof events, "%" PRId64, s->job.events);
    execl("/proc/self/exe", "storm", slot < WRITERS ? "writer" : "relay",
          s->dir, at, run, seed, events, (char *)NULL);
    die("storm", "cannot execute myself");
}

static void start(storm *s, int slot)
{
    s->runs++;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        die("storm", "no process");
    if (pid == 0)
        become(s, slot);
    s->slots[slot] = (child){ .pid = pid };
}

static void reap(storm *s, child *c, int status)
{
    c->pid = 0;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    fprintf(stderr, "violation: a process ended with status 0x%x\n",
            (unsigned)status);
    s->violations++;
}

static void look_after(storm *s)
{
    int status;

    for (int i = 0; i < SLOTS; i++) {
        child *c = &s->slots[i];
        if (c->resume != 0 && now_ms() >= c->resume) {
            kill(c->pid, SIGCONT);
            c->resume = 0;
        }
        if (c->pid != 0 && waitpid(c->pid, &status, WNOHANG) == c->pid) {
            reap(s, c, status);
            start(s, i);
        }
    }
}

static void stop(storm *s, int from, int to)
{
    int64_t end = now_ms() + STOP_MS;
    int status;

    for (int i = from; i < to; i++) {
        kill(s->slots[i].pid, SIGCONT);
        kill(s->slots[i].pid, SIGTERM);
    }
    for (int i = from; i < to; i++) {
        child *c = &s->slots[i];
        while (waitpid(c->pid, &status, WNOHANG) == 0) {
            if (now_ms() > end) {
                fprintf(stderr, "violation: slot %d does not end\n", i);
                s->violations++;
                kill(c->pid, SIGKILL);
                end = INT64_MAX;
            }
            pause_ms(2);
        }
        reap(s, c, status);
    }
}

/* ---- weather ------------------------------------------------------------ */

static void cluster(const char *verb)
{
    const char *script = getenv("OUTBOX_PG_CLUSTER");
    char command[600];

    snprintf(command, sizeof command, "sh '%s' %s '%s'",
             script != NULL ? script : "tests/bin/pg-cluster", verb,
             getenv("OUTBOX_TEST_PGDIR"));
    if (system(command) != 0)
        die(command, "failed");
}

static void end_connections(storm *s, PGconn *conn)
{
    db_exec(conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                  " WHERE backend_type = 'client backend'"
                  " AND pid <> pg_backend_pid() AND random() < 0.4");
    s->ended++;
}

/* The connection of the driver goes, too. */
static PGconn *crash(storm *s, PGconn *conn)
{
    PQfinish(conn);
    cluster("crash");
    pause_ms(rng_below(&s->rnd, 300));
    cluster("start");
    s->crashes++;
    return db_open();
}

static PGconn *weather(storm *s, PGconn *conn)
{
    int64_t now = now_ms();
    child *c = &s->slots[rng_below(&s->rnd, SLOTS)];

    if (now >= s->next_kill) {
        kill(c->pid, SIGKILL);
        c->resume = 0;
        s->kills++;
        s->next_kill = now + 100 + rng_below(&s->rnd, 800);
    } else if (now >= s->next_stop && c->resume == 0) {
        kill(c->pid, SIGSTOP);
        c->resume = now + 100 + rng_below(&s->rnd, 2000);
        s->stops++;
        s->next_stop = now + 500 + rng_below(&s->rnd, 1500);
    }
    if (now >= s->next_ended) {
        end_connections(s, conn);
        s->next_ended = now + 1000 + rng_below(&s->rnd, 4000);
    }
    if (now >= s->next_crash) {
        conn = crash(s, conn);
        s->next_crash = now_ms() + 4000 + rng_below(&s->rnd, 12000);
    }
    return conn;
}

/* ---- the run ------------------------------------------------------------ */

static void ground(PGconn *conn)
{
    outbox_error err;
    outbox_t *ob;
    char sql[400];

    snprintf(sql, sizeof sql,
             "CREATE TABLE counter (key int PRIMARY KEY, version int NOT NULL)"
             " WITH (fillfactor = 50);"
             "CREATE TABLE business (key int, first int, last int,"
             " nonce bigint);"
             "CREATE TABLE effect (key int, version int);"
             "INSERT INTO counter SELECT k, 0 FROM generate_series(0, %d) k",
             KEYS - 1);
    if (!db_exec(conn, sql))
        die("ground", PQerrorMessage(conn));
    if (outbox_pg_open(&ob, conn, NULL, &err) < 0 ||
        outbox_migrate(ob, &err) < 0)
        die("migrate", err.text);
    outbox_close(ob);
}

static PGconn *rage(storm *s, PGconn *conn)
{
    int64_t shown = now_ms(), look = 0, n = 0;

    s->next_kill = s->next_stop = s->next_ended = now_ms() + 1000;
    s->next_crash = now_ms() + 4000;
    while (n < s->job.events && s->violations == 0 && conn != NULL) {
        look_after(s);
        conn = weather(s, conn);
        if (now_ms() - look >= 500) {
            n = db_number(conn, "SELECT sum(last - first + 1) FROM business",
                          n);
            look = now_ms();
        }
        if (now_ms() - shown >= 60000) {
            printf("%" PRId64 " events, %d kills, %d crashes\n", n, s->kills,
                   s->crashes);
            shown = now_ms();
        }
        pause_ms(TICK_MS);
    }
    return conn;
}

static int64_t history_size(const storm *s)
{
    char path[400];
    struct stat st;

    snprintf(path, sizeof path, "%s/history", s->dir);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

/* Until all is delivered, or nothing moves any more. */
static void calm(storm *s, PGconn *conn)
{
    outbox_stats st = { .size = sizeof st };
    int64_t size = -1, moved = now_ms();
    outbox_error err;
    outbox_t *ob;

    if (outbox_pg_open(&ob, conn, NULL, &err) < 0)
        die("calm", err.text);
    while (now_ms() - moved < STILL_MS) {
        look_after(s);
        if (outbox_subscription_stats(ob, SUBSCRIPTION, &st, &err) < 0)
            die("stats", err.text);
        if (st.lag == 0 && st.parked == 0)
            break;
        if (history_size(s) != size) {
            size = history_size(s);
            moved = now_ms();
        }
        pause_ms(200);
    }
    outbox_close(ob);
}

static void print(const storm *s, const verdicts *v, int64_t took)
{
    printf("events        %" PRId64 " in %.1f s\n", v->events,
           (double)took / 1000);
    printf("deliveries    %" PRId64 ", of these %" PRId64 " duplicates\n",
           v->deliveries, v->duplicates);
    printf("effects       %" PRId64 "\n", v->effects);
    printf("weather       %d kills, %d stops, %d storms of ended "
           "connections, %d crashes\n", s->kills, s->stops, s->ended,
           s->crashes);
    printf("lost          %" PRId64 "\n", v->lost);
    printf("phantom       %" PRId64 "\n", v->phantom);
    printf("out of order  %" PRId64 "\n", v->inversions);
    printf("effects twice %" PRId64 ", lost %" PRId64 ", phantom %" PRId64
           "\n", v->twice, v->effect_lost, v->effect_phantom);
}

int driver_main(int64_t events, uint64_t seed)
{
    storm s = { .job = { .events = events, .seed = seed }, .rnd = { seed } };
    const char *tmp = getenv("TMPDIR");
    int64_t started = now_ms();
    verdicts v;

    snprintf(s.dir, sizeof s.dir, "%s/storm.XXXXXX",
             tmp != NULL && *tmp != '\0' ? tmp : "/tmp");
    if (mkdtemp(s.dir) == NULL)
        die(s.dir, "cannot make a directory");
    PGconn *conn = db_open();
    ground(conn);
    for (int i = 0; i < SLOTS; i++)
        start(&s, i);
    conn = rage(&s, conn);
    stop(&s, 0, WRITERS);
    for (int i = 0; i < WRITERS; i++)
        s.slots[i] = (child){ 0 };
    db_settle_prepared(conn, "w", &s.rnd);
    calm(&s, conn);
    stop(&s, WRITERS, SLOTS);
    judge(s.dir, conn, &v);
    PQfinish(conn);
    print(&s, &v, now_ms() - started);
    s.violations += v.lost + v.phantom + v.inversions + v.twice +
                    v.effect_lost + v.effect_phantom + v.broken;
    printf("violations    %" PRId64 "\n", s.violations);
    if (s.violations != 0) {
        fprintf(stderr, "kept in %s\n", s.dir);
        return 1;
    }
    snprintf(s.dir + strlen(s.dir), 10, "/history");
    unlink(s.dir);
    strcpy(strrchr(s.dir, '/'), "/log");
    unlink(s.dir);
    *strrchr(s.dir, '/') = '\0';
    rmdir(s.dir);
    return 0;
}
