/* SPDX-License-Identifier: MIT
 *
 * plug.c - what plug.h promises.  A cluster lives in the folder of the one
 * that the tests run in, which takes it away in any case.
 */
#include "plug.h"

#include "common/suite.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *setting(const char *name)
{
    const char *value = getenv(name);

    ck_assert_msg(value != NULL, "no %s in the environment: run this inside "
                                 "tests/bin/pg-cluster", name);
    return value;
}

void plug_run(const char *format, ...)
{
    char command[1600];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    ck_assert_msg(system(command) == 0, "%s", command);
}

static void cluster(const char *verb, const plug *p, const char *more)
{
    const char *bin = p->bin != NULL ? p->bin : getenv("OUTBOX_PG_BIN");

    plug_run("OUTBOX_PG_BIN='%s' sh '%s' %s '%s' %s", bin != NULL ? bin : "",
             setting("OUTBOX_PG_CLUSTER"), verb, p->dir, more);
}

static void name(plug *p)
{
    static int count;

    p->bin = NULL;
    snprintf(p->dir, sizeof p->dir, "%s/plug%d_%d",
             setting("OUTBOX_TEST_PGDIR"), (int)getpid(), count++);
    snprintf(p->conninfo, sizeof p->conninfo,
             "host=%s user=postgres dbname=postgres", p->dir);
}

static void make(plug *p, const char *settings)
{
    cluster("make", p, settings);
    plug_start(p);
    setenv("OUTBOX_TEST_PG", p->conninfo, 1);
}

void plug_in(plug *p, const char *settings)
{
    name(p);
    make(p, settings);
}

void plug_in_old(plug *p, const char *settings)
{
    name(p);
    p->bin = getenv("OUTBOX_PG_OLD_BIN");
    make(p, settings);
}

void plug_start(plug *p)
{
    cluster("start", p, "");
}

void plug_stop(plug *p)
{
    cluster("stop", p, "");
}

void plug_crash(plug *p)
{
    cluster("crash", p, "");
}

void plug_pull(plug *p)
{
    plug_crash(p);
    plug_run("rm -rf '%s'", p->dir);
}

void plug_save(plug *p)
{
    plug_run("cp -a '%s/data' '%s/saved'", p->dir, p->dir);
}

void plug_restore(plug *p)
{
    plug_run("rm -rf '%s/data' && mv '%s/saved' '%s/data'", p->dir, p->dir,
             p->dir);
}

void plug_standby(plug *standby, const plug *primary)
{
    char command[600];

    name(standby);
    plug_run("mkdir '%s' && chown --reference='%s' '%s'", standby->dir,
             primary->dir, standby->dir);
    snprintf(command, sizeof command,
             "'%s' -h '%s' -U postgres -D '%s/data' -R -c fast -X stream",
             "pg_basebackup", primary->dir, standby->dir);
    plug_run("cd / && PATH=\"$(sh '%s' bin):$PATH\" && sh '%s' as '%s' %s",
             setting("OUTBOX_PG_CLUSTER"), setting("OUTBOX_PG_CLUSTER"),
             standby->dir, command);
    plug_run("sed -i 's|%s|%s|' '%s/data/postgresql.conf'", primary->dir,
             standby->dir, standby->dir);
    plug_start(standby);
}

void plug_upgrade(plug *to, plug *from, const char *settings)
{
    char command[900];

    plug_stop(from);
    name(to);
    cluster("make", to, settings);
    snprintf(command, sizeof command,
             "pg_upgrade -b \"${old:-$bin}\" -B \"$bin\" -d '%s/data'"
             " -D '%s/data' -s '%s' -U postgres", from->dir, to->dir, to->dir);
    plug_run("cd '%s' && old='%s' bin=$(sh '%s' bin) && PATH=\"$bin:$PATH\""
             " HOME=$PWD sh '%s' as . %s >upgrade.log 2>&1 ||"
             " { cat upgrade.log >&2; false; }", to->dir,
             from->bin != NULL ? from->bin : "", setting("OUTBOX_PG_CLUSTER"),
             setting("OUTBOX_PG_CLUSTER"), command);
    plug_start(to);
    setenv("OUTBOX_TEST_PG", to->conninfo, 1);
}

void plug_promote(plug *p)
{
    plug_run("psql -q -h '%s' -c 'SELECT pg_promote()' >/dev/null", p->dir);
}
