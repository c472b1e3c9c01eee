/* SPDX-License-Identifier: MIT
 *
 * suite.c - running a suite in a directory of its own.
 */
#include "suite.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char tmp_root[200];

static bool tmp_make(void)
{
    const char *dir = getenv("TMPDIR");

    snprintf(tmp_root, sizeof tmp_root, "%s/outbox-test-XXXXXX",
             dir != NULL && *dir != '\0' ? dir : "/tmp");
    return mkdtemp(tmp_root) != NULL;
}

static void tmp_remove(void)
{
    DIR *dir = opendir(tmp_root);
    struct dirent *entry;
    char path[512];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", tmp_root, entry->d_name);
        unlink(path);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(tmp_root);
}

const char *tmp_new(const char *name)
{
    static char paths[8][256];
    static unsigned count;
    char *path = paths[count % 8];

    snprintf(path, sizeof paths[0], "%s/%ld.%u.%s", tmp_root, (long)getpid(),
             count++, name);
    return path;
}

TCase *suite_case(Suite *s, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 180);
    suite_add_tcase(s, tc);
    return tc;
}

int suite_main(Suite *s)
{
    SRunner *runner;
    int failed;

    if (!tmp_make()) {
        perror(tmp_root);
        return EXIT_FAILURE;
    }
    runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    tmp_remove();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int64_t real_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool within(int ms, bool (*holds)(void *arg), void *arg)
{
    int64_t end = real_ms() + ms;

    while (!holds(arg)) {
        if (real_ms() > end)
            return false;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return true;
}
