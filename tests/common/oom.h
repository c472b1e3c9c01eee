/* SPDX-License-Identifier: MIT
 *
 * oom.h - a life of outbox, inbox and relay in which memory may run out at
 * any moment, and what must hold afterwards.
 */
#ifndef TESTS_OOM_H
#define TESTS_OOM_H

#include "sut.h"

typedef struct oom {
    int                     which;      /* of suts[] */
    const outbox_allocator *table;      /* for every handle under test */
    void                  (*arm)(bool on);      /* around each call; NULL */
    bool                    any_code;   /* the database may fail in its way */
    bool                    warm;       /* another relay has parked some */
} oom;

/* Live through it.  Checks that no call crashes or returns nonsense, that
 * what failed changed nothing, and that a relay with enough memory delivers
 * afterwards whatever was committed. */
void oom_live(const oom *o);

#endif
