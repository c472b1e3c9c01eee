/* SPDX-License-Identifier: MIT
 *
 * pg_wait.c - sleeping until something may have been committed.
 */
#include "pg_window.h"

#include <poll.h>

int ob_pg_notice(outbox_store *s, int nth, char *text, size_t size)
{
    (void)s;
    (void)nth;
    (void)text;
    (void)size;
    return 0;
}

int ob_pg_wait(outbox_store *s, int wake_fd, int hint, int timeout_ms)
{
    struct pollfd p = { .fd = wake_fd, .events = POLLIN };

    (void)s;
    (void)hint;
    poll(&p, 1, timeout_ms);
    return 0;
}
