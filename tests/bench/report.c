/* SPDX-License-Identifier: MIT
 *
 * report.c - the table: a head with the facts of the machine, rows with a
 *            figure, a ratio and a goal, and a foot that counts the misses.
 */
#include "bench.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static double started;
static int goals, misses;

static char *next_text(size_t *size)
{
    static char ring[8][128];
    static unsigned turn;

    *size = sizeof ring[0];
    return ring[turn++ % 8];
}

const char *bench_text(const char *format, ...)
{
    size_t size;
    char *text = next_text(&size);
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, size, format, ap);
    va_end(ap);
    return text;
}

const char *bench_count(double n, const char *unit)
{
    char digits[32], grouped[48];
    int len = snprintf(digits, sizeof digits, "%.0f", n), at = 0;

    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0 && digits[i - 1] != '-')
            grouped[at++] = ',';
        grouped[at++] = digits[i];
    }
    grouped[at] = '\0';
    return bench_text("%s %s", grouped, unit);
}

const char *bench_time(double seconds)
{
    if (seconds < 1e-3)
        return bench_text("%.0f us", seconds * 1e6);
    if (seconds < 1)
        return bench_text("%.1f ms", seconds * 1e3);
    return bench_text("%.1f s", seconds);
}

/* The processor's name, as Linux tells it. */
static void read_processor(char *name, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");

    snprintf(name, size, "unknown processor");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        for (colon++; isspace((unsigned char)*colon); colon++)
            ;
        snprintf(name, size, "%s", colon);
        break;
    }
    fclose(f);
}

void bench_head(void)
{
    struct utsname os;
    char processor[64];
    int version = outbox_version();
    double dirty, clean;

    bench_place_sync(&dirty, &clean);
    started = bench_now();
    uname(&os);
    read_processor(processor, sizeof processor);
    printf("liboutbox %d.%d.%d, SQLite %s, %s %s\n", version >> 16,
           version >> 8 & 255, version & 255, sqlite3_libversion(),
           os.sysname, os.release);
    printf("%ld cores, %s\n", sysconf(_SC_NPROCESSORS_ONLN), processor);
    printf("%s on %s, fdatasync %s\n", bench_place(), bench_place_kind(),
           bench_time(dirty));
    if (bench_quick)
        puts("Quick: rough figures.");
    if (!strcmp(bench_place_kind(), "tmpfs"))
        puts("A file system in memory: set BENCH_DIR to a real disk.");
    printf("\n%-30s %16s  %-16s  %s\n", "", "median", "ratio (range)",
           "goal");
    fflush(stdout);
}

void bench_title(const char *title)
{
    printf("%s\n", title);
}

/* Without the blanks that an empty last column leaves. */
static void put_line(char *line)
{
    size_t len = strlen(line);

    while (len > 0 && line[len - 1] == ' ')
        line[--len] = '\0';
    puts(line);
    fflush(stdout);
}

void bench_row(const char *what, const char *figure, const char *ratio,
               const char *goal, enum bench_result result)
{
    static const char *const verdict[] = { "", "ok", "MISS" };
    char line[160];

    goals += result != BENCH_INFO;
    misses += result == BENCH_MISS;
    snprintf(line, sizeof line, "  %-28s %16s  %-16s  %-8s %s", what, figure,
             ratio, goal, verdict[result]);
    put_line(line);
}

void bench_rate_row(const char *what, const char *unit, const bench_side *side,
                    const bench_side *base, int rounds, double goal)
{
    bench_ratio r = bench_compare(side, base, rounds);
    enum bench_result result = r.median >= goal ? BENCH_OK : BENCH_MISS;

    bench_row(what, bench_count(bench_rate(side, rounds), unit),
              side == base ? "1"
                           : bench_text("%.2f (%.2f-%.2f)", r.median, r.min,
                                        r.max),
              goal > 0 ? bench_text(">= %.2f", goal) : "",
              goal > 0 ? result : BENCH_INFO);
}

void bench_foot(void)
{
    printf("\n%d goals, %d missed; %.0f s\n", goals, misses,
           bench_now() - started);
}
