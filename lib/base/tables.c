/* SPDX-License-Identifier: MIT
 *
 * tables.c - what a store may find in its tables, and another library may
 * have put there.
 */
#include "base.h"

int ob_lanes_check(int64_t lanes, outbox_error *err)
{
    if (lanes >= 1 && lanes <= OUTBOX_MAX_LANES)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_ESCHEMA,
                            "the log has %lld lanes: this library knows 1 "
                            "to %d", (long long)lanes, OUTBOX_MAX_LANES);
}
