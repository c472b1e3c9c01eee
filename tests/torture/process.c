/* SPDX-License-Identifier: MIT
 *
 * process.c - the driver's children, and the ground they work on.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "torture.h"

enum { STOP_MS = 15000, DRAIN_MS = 30000, MIGRATE_MS = 15000 };

static int runs;

int child_runs(void)
{
    return runs;
}

static void child_become(const char *role, const task *job)
{
    char run[24], seed[24], text[PLAN_BYTES];

    snprintf(run, sizeof run, "%d", job->run);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)job->seed);
    plan_format(&job->plan, text);
    execl("/proc/self/exe", "torture", role, job->dir, run, seed, text,
          (char *)NULL);
    die(role, "cannot execute myself");
}

static void put_variable(const char *name, const char *value)
{
    if (value == NULL)
        unsetenv(name);
    else
        setenv(name, value, 1);
}

void child_start(child *c, const char *role, const task *job,
                 const char *kill_at, const char *stop_at)
{
    task own = *job;
    sigset_t term;

    own.run = c->run = ++runs;
    c->doomed = kill_at != NULL;
    own.seed = job->seed + (uint64_t)own.run * 7919;
    /* Blocked until it has a handler: see main(). */
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    fflush(NULL);
    c->pid = fork();
    if (c->pid < 0)
        die(role, "no process");
    if (c->pid > 0) {
        sigprocmask(SIG_UNBLOCK, &term, NULL);
        return;
    }
    put_variable("TORTURE_KILL", kill_at);
    put_variable("TORTURE_STOP", stop_at);
    child_become(role, &own);
}

fate child_wait(child *c, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    int status;

    for (;;) {
        pid_t got = waitpid(c->pid, &status, WNOHANG | WUNTRACED);

        if (got == c->pid)
            break;
        if (got < 0)
            die("waitpid", "no such child");
        if (now_ms() >= end)
            return RUNNING;
        pause_us(500);
    }
    if (WIFSTOPPED(status))
        return STOPPED;
    c->pid = 0;
    c->status = status;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGKILL ? KILLED : CRASHED;
    return WEXITSTATUS(status) == 0 ? ENDED : CRASHED;
}

void child_kill(child *c)
{
    if (c->pid == 0)
        return;
    kill(c->pid, SIGKILL);
    while (c->pid != 0)
        child_wait(c, 1000);
}

void child_accuse(const child *c, const char *role, fate f)
{
    fprintf(stderr, "violation: %s (run %d) ", role, c->run);
    if (f == RUNNING)
        fprintf(stderr, "does not end\n");
    else if (WIFSIGNALED(c->status))
        fprintf(stderr, "ended by signal %d\n", WTERMSIG(c->status));
    else
        fprintf(stderr, "ended with status %d\n", WEXITSTATUS(c->status));
}

static bool child_ends(child *c, const char *role, int timeout_ms)
{
    fate f = child_wait(c, timeout_ms);

    if (f == ENDED || (f == KILLED && c->doomed))
        return true;
    child_accuse(c, role, f);
    child_kill(c);
    return false;
}

bool child_stop(child *c, const char *role)
{
    if (c->pid == 0)
        return true;
    kill(c->pid, SIGCONT);
    kill(c->pid, SIGTERM);
    return child_ends(c, role, STOP_MS);
}

bool child_complete(const char *role, const task *job, int timeout_ms)
{
    child c;

    child_start(&c, role, job, NULL, NULL);
    return child_ends(&c, role, timeout_ms);
}

/* ---- the ground ---- */

bool drain(const task *job)
{
    task calm = *job;
    child relay, other = { 0 };
    bool ok;

    calm.plan.drain = 1;
    child_start(&relay, "relay", &calm, NULL, NULL);
    if (job->plan.sinks > 0)
        child_start(&other, "sink", &calm, NULL, NULL);
    ok = child_ends(&relay, "relay, draining", DRAIN_MS);
    if (other.pid != 0)
        ok = child_ends(&other, "sink, draining", DRAIN_MS) && ok;
    return ok;
}

static void mark_history(const task *job, const char *name)
{
    record rec = { .kind = QUIET, .run = runs };
    int fd = record_open(job->dir, name);

    record_append(fd, &rec);
    close(fd);
}

void quiet_mark(const task *job)
{
    mark_history(job, "history.relay");
    if (job->plan.sinks > 0)
        mark_history(job, "history.sink");
}

/* Migrate: killed in the middle, alone; killed with a second one beside it;
 * and once more, whatever those have left. */
static int migrate(const task *job)
{
    int killed = 0;
    child a, b;

    child_start(&a, "migrate", job, "sqlite.migrate.mid:1", NULL);
    killed += child_wait(&a, MIGRATE_MS) == KILLED;
    child_kill(&a);
    child_start(&a, "migrate", job, "sqlite.migrate.mid:2", NULL);
    child_start(&b, "migrate", job, NULL, NULL);
    killed += child_wait(&a, MIGRATE_MS) == KILLED;
    child_kill(&a);
    if (!child_ends(&b, "migrate", MIGRATE_MS))
        return -1;
    return child_complete("migrate", job, MIGRATE_MS) ? killed : -1;
}

int ground_make(char dir[PATH_BYTES], task *job)
{
    const char *tmp = getenv("TMPDIR");
    int killed;

    path_join(dir, tmp != NULL && *tmp != '\0' ? tmp : "/tmp",
              "torture.XXXXXX");
    if (mkdtemp(dir) == NULL)
        die(dir, "cannot make a directory");
    job->dir = dir;
    killed = migrate(job);
    /* The subscriptions exist before the first event: what was published
     * before it, a subscription may or may not get. */
    return killed < 0 || !drain(job) ? -1 : killed;
}

void ground_clear(const char *dir)
{
    DIR *list = opendir(dir);
    struct dirent *entry;

    while (list != NULL && (entry = readdir(list)) != NULL) {
        char path[PATH_BYTES];

        path_join(path, dir, entry->d_name);
        unlink(path);
    }
    if (list != NULL)
        closedir(list);
    rmdir(dir);
}
