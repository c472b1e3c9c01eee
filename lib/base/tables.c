/* SPDX-License-Identifier: MIT
 *
 * tables.c - what a store may find in its tables, and another library may
 * have put there.
 */
#include "base.h"

#include <stdio.h>

void ob_migration_sum(const char *sql, char out[OB_SUM_TEXT])
{
    snprintf(out, OB_SUM_TEXT, "%016llx",
             (unsigned long long)outbox_hash(sql, strlen(sql)));
}

static int too_new(int version, int known, outbox_error *err)
{
    return outbox_error_set(err, OUTBOX_ESCHEMA,
                            "the tables are of version %d, this library "
                            "knows %d: use a newer library", version, known);
}

int ob_migration_check(const char *const *migrations, int n, int version,
                       const char *sum, bool by_hand, outbox_error *err)
{
    char ours[OB_SUM_TEXT];

    if (version < 1 || version > n)
        return too_new(version, n, err);
    ob_migration_sum(migrations[version - 1], ours);
    if (sum != NULL && (strcmp(sum, ours) == 0 ||
                        (by_hand && strcmp(sum, "by hand") == 0)))
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_ESCHEMA,
                            "migration %d in the database is not this "
                            "library's: its checksum differs", version);
}

int ob_version_check(int version, int known, outbox_error *err)
{
    if (version > known)
        return too_new(version, known, err);
    if (version == known)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_ESCHEMA,
                            "the tables are of version %d, not %d: run "
                            "outbox_migrate()", version, known);
}

int ob_lanes_check(int64_t lanes, outbox_error *err)
{
    if (lanes >= 1 && lanes <= OUTBOX_MAX_LANES)
        return OUTBOX_OK;
    return outbox_error_set(err, OUTBOX_ESCHEMA,
                            "the log has %lld lanes: this library knows 1 "
                            "to %d", (long long)lanes, OUTBOX_MAX_LANES);
}
