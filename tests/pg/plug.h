/* SPDX-License-Identifier: MIT
 *
 * plug.h - clusters of a test's own, which it may crash, copy and promote.
 */
#ifndef TESTS_PG_PLUG_H
#define TESTS_PG_PLUG_H

typedef struct plug {
    char dir[160];
    char conninfo[240];         /* to its database postgres */
    const char *bin;            /* its programs, or NULL: as all others */
} plug;

/* Makes and starts one, and has sut_pg make databases there.  settings:
 * "name=value name=value". */
void plug_in(plug *p, const char *settings);
/* The same, of the programs in OUTBOX_PG_OLD_BIN if that is set. */
void plug_in_old(plug *p, const char *settings);
void plug_start(plug *p);
void plug_stop(plug *p);
void plug_crash(plug *p);
void plug_pull(plug *p);                /* crash, and remove it */
/* Copies the data of one that does not run, and puts it back. */
void plug_save(plug *p);
void plug_restore(plug *p);
/* A standby of it that has all that it has, and runs. */
void plug_standby(plug *standby, const plug *primary);
void plug_promote(plug *p);
/* Stops one, and starts another that pg_upgrade made of it.  If it is of the
 * same version, it still gets the files and numbers of the old and an
 * identifier of its own. */
void plug_upgrade(plug *to, plug *from, const char *settings);
/* Runs a command with sh, which must succeed. */
void plug_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
