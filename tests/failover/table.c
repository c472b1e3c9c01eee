/* SPDX-License-Identifier: MIT
 *
 * table.c - figures, limits, and whether the one is within the other.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failover.h"

static int failed;

int rows_failed(void)
{
    return failed;
}

void row_failed(void)
{
    failed++;
}

void table_head(void)
{
    printf("%-56s %12s %12s\n", "what", "figure", "limit");
}

static void print_row(const char *what, double figure, const char *limit,
                      const char *unit, bool ok)
{
    bool whole = figure == (double)(int64_t)figure;
    char text[64];

    snprintf(text, sizeof text, whole ? "%.0f%s%s" : "%.1f%s%s", figure,
             *unit ? " " : "", unit);
    printf("%-56s %12s %12s  %s\n", what, text, limit, ok ? "ok" : "FAIL");
    failed += !ok;
}

void row_most(const char *what, double figure, const char *unit, double limit)
{
    char text[64] = "-";

    if (limit >= 0)
        snprintf(text, sizeof text, "%.4g%s%s", limit, *unit ? " " : "", unit);
    print_row(what, figure, text, unit, limit < 0 || figure <= limit);
}

void row_just(const char *what, double figure, const char *unit,
              double expected)
{
    char text[64];

    snprintf(text, sizeof text, "= %.0f", expected);
    print_row(what, figure, text, unit, figure == expected);
}

/* ---- samples ---- */

void samples_add(samples *s, int64_t v)
{
    if (s->n == s->size) {
        s->size = s->size ? 2 * s->size : 1024;
        s->v = realloc(s->v, s->size * sizeof *s->v);
        if (s->v == NULL)
            die("samples", "no memory");
    }
    s->v[s->n++] = v;
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

int64_t samples_at(samples *s, int permille)
{
    size_t i;

    if (s->n == 0)
        return 0;
    qsort(s->v, s->n, sizeof *s->v, by_size);
    i = (s->n * (size_t)permille + 999) / 1000;
    return s->v[i > 0 ? i - 1 : 0];
}

void samples_free(samples *s)
{
    free(s->v);
    memset(s, 0, sizeof *s);
}

/* ---- time and memory ---- */

int64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t status_bytes(const char *name)
{
    char line[256];
    int64_t kib = 0;
    size_t len = strlen(name);
    FILE *file = fopen("/proc/self/status", "re");

    if (file == NULL)
        die("/proc/self/status", "cannot be read");
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, len) == 0)
            kib = strtoll(line + len, NULL, 10);
    fclose(file);
    return kib * 1024;
}

int64_t memory_now(void)
{
    return status_bytes("VmRSS:");
}

int64_t memory_peak(void)
{
    return status_bytes("VmHWM:");
}

/* From here on the peak is counted anew. */
void memory_peak_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");

    if (file == NULL || fputs("5", file) == EOF || fclose(file) != 0)
        die("/proc/self/clear_refs", "cannot be written");
}
