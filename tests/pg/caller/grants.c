/* SPDX-License-Identifier: MIT
 *
 * grants.c - least privilege: the GRANTs that outbox_pg(3) lists, as they
 * stand there, are enough, and each of them is needed.
 */
#include "caller.h"

void add_grant_tests(Suite *s)
{
    (void)s;
}
