/* SPDX-License-Identifier: MIT
 *
 * suite.h - what every test program begins with: libcheck, a directory for
 * files, and a main that leaves nothing behind.
 */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

/* Run s and return the exit code of main. */
int suite_main(Suite *s);

/* A test case with a timeout that a sanitizer build can keep. */
TCase *suite_case(Suite *s, const char *name);

/* A path that no other test uses, removed at the end together with what
 * SQLite puts beside it.  Good for the next seven calls. */
const char *tmp_new(const char *name);

/* Is holds(arg) true within ms?  Looks every millisecond. */
bool within(int ms, bool (*holds)(void *arg), void *arg);
/* Real time that passes, for bounds on how long a call may take. */
int64_t real_ms(void);

#endif
