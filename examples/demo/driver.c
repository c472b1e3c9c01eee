/* SPDX-License-Identifier: MIT
 *
 * driver.c - the story: a service, a consumer, and kill -9 for both.
 *
 * The driver takes no part in the work; it hears from the consumer's output
 * how far things are.  The standard input of each child is a leash: when it
 * ends, the child stops in good order, also when the driver has died.
 */
#include "demo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* PATIENCE_MS without anything new, and the driver gives up. */
enum { TURN_MS = 10, PATIENCE_MS = 10000, PATHS = 128 };

extern char **environ;                  /* POSIX has it in no header */

struct child {
    char  name[12];                     /* its role */
    pid_t pid;                          /* 0: not running */
    int   leash;                        /* writing end of its stdin, or -1 */
};

struct driver {
    char        *self;
    char         dir[PATHS], orders[PATHS], log[PATHS], socket[PATHS];
    char         service_db[DB_NAME], consumer_db[DB_NAME];
    struct child service, consumer;
    int          news[2];               /* the consumer's standard output */
    long         n_orders;
    long         ready, applied, duplicates;    /* what it told us */
    int64_t      start_ms, last_news_ms;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void say(const struct driver *d, const char *format, ...)
{
    va_list args;

    printf("%6.2f s  ", (double)(now_ms() - d->start_ms) / 1000);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static int complain(const char *what)
{
    fprintf(stderr, "demo: %s: %s\n", what, strerror(errno));
    return -1;
}

/* ---- children -------------------------------------------------------- */

/* Children get neither end, or one would hold the other's leash. */
static int make_pipe(int fds[2])
{
    if (pipe(fds) == 0 && fcntl(fds[0], F_SETFD, FD_CLOEXEC) == 0 &&
        fcntl(fds[1], F_SETFD, FD_CLOEXEC) == 0)
        return 0;
    return complain("pipe");
}

static int spawn(struct driver *d, struct child *c, char *const argv[])
{
    posix_spawn_file_actions_t files;
    int stdin_pipe[2], error;

    if (make_pipe(stdin_pipe) < 0)
        return -1;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, stdin_pipe[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, d->news[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, d->log,
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    error = posix_spawnp(&c->pid, d->self, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(stdin_pipe[0]);
    c->leash = stdin_pipe[1];
    if (error == 0)
        return 0;
    c->pid = 0;
    errno = error;
    return complain(d->self);
}

static int start_consumer(struct driver *d)
{
    struct child *c = &d->consumer;
    char *argv[] = {d->self, c->name, d->consumer_db, d->socket, NULL};

    return spawn(d, c, argv);
}

static int start_service(struct driver *d)
{
    struct child *c = &d->service;
    char *argv[] = {d->self,   c->name,   d->service_db,
                    d->socket, d->orders, NULL};

    return spawn(d, c, argv);
}

static void let_go(struct child *c)
{
    if (c->leash >= 0)
        close(c->leash);
    c->leash = -1;
}

/* SIGKILL cannot be caught, so the wait is short. */
static void kill_child(struct child *c)
{
    let_go(c);
    if (c->pid == 0)
        return;
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    c->pid = 0;
}

/* -1: it ended, and not well. */
static int reap(struct child *c)
{
    int status;

    if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
        return 0;
    c->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status))
        fprintf(stderr, "demo: the %s failed, exit status %d\n", c->name,
                WEXITSTATUS(status));
    else
        fprintf(stderr, "demo: the %s died of signal %d\n", c->name,
                WTERMSIG(status));
    return -1;
}

/* ---- waiting --------------------------------------------------------- */

static void hear(struct driver *d)
{
    char news[4096];
    ssize_t i, n = read(d->news[0], news, sizeof news);

    for (i = 0; i < n; i++) {
        d->ready += news[i] == CONSUMER_READY;
        d->applied += news[i] == CONSUMER_APPLIED;
        d->duplicates += news[i] == CONSUMER_DUPLICATE;
    }
    if (n > 0)
        d->last_news_ms = now_ms();
}

/* Wait a moment for something to happen; -1: the story cannot go on. */
static int turn(struct driver *d)
{
    struct pollfd news = {.fd = d->news[0], .events = POLLIN};

    if (poll(&news, 1, TURN_MS) == 1)
        hear(d);
    if (interrupted) {
        fputs("demo: interrupted\n", stderr);
        return -1;
    }
    if (now_ms() - d->last_news_ms > PATIENCE_MS) {
        fprintf(stderr, "demo: nothing new for %d ms\n", PATIENCE_MS);
        return -1;
    }
    return reap(&d->service) < 0 || reap(&d->consumer) < 0 ? -1 : 0;
}

static int await_count(struct driver *d, const long *count, long at_least)
{
    while (*count < at_least)
        if (turn(d) < 0)
            return -1;
    return 0;
}

/* The consumer has everything, and the relay knows it and has saved it. */
static int await_drained(struct driver *d)
{
    struct glance g = {0};

    while (g.shipped < d->n_orders || g.unacknowledged > 0)
        if (turn(d) < 0 || check_glance(d->service_db, d->consumer_db, &g) < 0)
            return -1;
    return 0;
}

static int stop(struct driver *d, struct child *c)
{
    let_go(c);
    while (c->pid != 0)
        if (turn(d) < 0)
            return -1;
    return 0;
}

/* ---- the story ------------------------------------------------------- */

static int call_consumer(struct driver *d, const char *words)
{
    if (start_consumer(d) < 0 || await_count(d, &d->ready, d->ready + 1) < 0)
        return -1;
    say(d, "consumer %s", words);
    return 0;
}

static int tell_databases(struct driver *d)
{
    struct glance g;

    if (check_glance(d->service_db, d->consumer_db, &g) < 0)
        return -1;
    printf("          %lld orders shipped, %lld events committed, "
           "%lld applied\n",
           (long long)g.shipped, (long long)g.committed,
           (long long)g.applied);
    return 0;
}

static int kill_service_midway(struct driver *d)
{
    if (call_consumer(d, "up: accounts and inbox in its database") < 0 ||
        start_service(d) < 0)
        return -1;
    say(d, "service up: orders and outbox in its own");
    if (await_count(d, &d->applied, d->n_orders) < 0)
        return -1;
    kill_child(&d->service);
    say(d, "kill -9 service, while it takes orders and delivers events");
    return tell_databases(d);
}

static int kill_consumer_midway(struct driver *d)
{
    if (start_service(d) < 0)
        return -1;
    say(d, "service up: takes orders; the dead one's lease still runs");
    while (d->duplicates == 0 && d->applied < 2 * d->n_orders)
        if (turn(d) < 0)
            return -1;
    say(d, "lease over: it delivers from the last saved progress on");
    if (await_count(d, &d->applied, 2 * d->n_orders) < 0)
        return -1;
    kill_child(&d->consumer);
    say(d, "kill -9 consumer, while it applies events");
    return tell_databases(d);
}

static int finish(struct driver *d)
{
    if (call_consumer(d, "up: the service tries again by itself") < 0 ||
        await_drained(d) < 0)
        return -1;
    say(d, "everything is delivered: both may stop");
    return stop(d, &d->service) < 0 || stop(d, &d->consumer) < 0 ? -1 : 0;
}

static int tell_story(struct driver *d)
{
    int faults;

    printf("%ld orders: each is placed, paid and shipped, in a transaction of "
           "its own that\nalso publishes the event about it: %ld events to "
           "deliver\n\n", d->n_orders, 3 * d->n_orders);
    if (kill_service_midway(d) < 0 || kill_consumer_midway(d) < 0 ||
        finish(d) < 0)
        return -1;
    faults = check_databases(d->service_db, d->consumer_db, d->n_orders);
    if (faults != 0)
        return -1;
    printf("\norders, events and effects agree; %.1f seconds\n",
           (double)(now_ms() - d->start_ms) / 1000);
    return 0;
}

/* ---- before and after ------------------------------------------------ */

static int make_path(char path[PATHS], const char *dir, const char *name)
{
    int n = snprintf(path, PATHS, "%s/%s", dir, name);

    if (n > 0 && n < PATHS)
        return 0;
    errno = ENAMETOOLONG;
    return complain(name);
}

static int make_directory(struct driver *d)
{
    const char *tmp = getenv("TMPDIR");

    if (make_path(d->dir, tmp && tmp[0] ? tmp : "/tmp", "demo-XXXXXX") < 0)
        return -1;
    if (mkdtemp(d->dir) == NULL) {
        complain(d->dir);
        d->dir[0] = '\0';
        return -1;
    }
    if (make_path(d->orders, d->dir, "orders.jsonl") < 0 ||
        make_path(d->log, d->dir, "log") < 0 ||
        make_path(d->socket, d->dir, "socket") < 0)
        return -1;
    return 0;
}

static int make_databases(struct driver *d)
{
    if (db_make(d->service_db, d->dir, "service") == 0 &&
        db_make(d->consumer_db, d->dir, "consumer") == 0)
        return 0;
    fputs("demo: no database\n", stderr);
    return -1;
}

static void remove_databases(struct driver *d)
{
    if (d->service_db[0] != '\0')
        db_remove(d->service_db);
    if (d->consumer_db[0] != '\0')
        db_remove(d->consumer_db);
}

/* A copy: the service reads it twice, and standard input can be read once. */
static int copy_orders(struct driver *d, const char *path)
{
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    FILE *out = in ? fopen(d->orders, "w") : NULL;
    char *line = NULL;
    size_t size = 0;
    int rc = 0;

    if (out == NULL)
        rc = complain(in ? d->orders : path);
    while (rc == 0 && getline(&line, &size, in) > 0)
        if (line[0] != '\n') {
            d->n_orders++;
            if (fputs(line, out) < 0)
                rc = complain(d->orders);
        }
    free(line);
    if (in && in != stdin)
        fclose(in);
    if (out && fclose(out) != 0)
        rc = complain(d->orders);
    if (rc == 0 && d->n_orders == 0) {
        fprintf(stderr, "demo: %s: no orders\n", path);
        rc = -1;
    }
    return rc;
}

static void catch_signals(void)
{
    struct sigaction catch = {.sa_handler = interrupt};

    sigemptyset(&catch.sa_mask);
    sigaction(SIGINT, &catch, NULL);
    sigaction(SIGTERM, &catch, NULL);
    sigaction(SIGHUP, &catch, NULL);
}

static void show_log(const struct driver *d)
{
    FILE *log = fopen(d->log, "r");
    char line[256];
    int n;

    if (log == NULL)
        return;
    for (n = 0; n < 20 && fgets(line, sizeof line, log); n++)
        fputs(line, stderr);
    fclose(log);
}

static void remove_directory(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), entry->d_name, 0);     /* not . and .. */
    closedir(dir);
    rmdir(path);
}

int driver_main(char *self, const char *orders, int keep)
{
    struct driver d = {
        .self = self,
        .service = {.name = "service", .leash = -1},
        .consumer = {.name = "consumer", .leash = -1},
        .news = {-1, -1},
        .start_ms = now_ms(),
        .last_news_ms = now_ms(),
    };
    int rc;

    catch_signals();
    rc = make_directory(&d);
    if (rc == 0)
        rc = copy_orders(&d, orders) < 0 || make_pipe(d.news) < 0 ||
            make_databases(&d) < 0 || tell_story(&d) < 0;
    kill_child(&d.service);
    kill_child(&d.consumer);
    if (rc != 0)
        show_log(&d);
    close(d.news[0]);
    close(d.news[1]);
    if (keep) {
        printf("kept: %s, %s and %s\n", d.dir, d.service_db, d.consumer_db);
    } else {
        remove_databases(&d);
        if (d.dir[0] != '\0')
            remove_directory(d.dir);
    }
    return rc != 0;
}
