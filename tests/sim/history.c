/* SPDX-License-Identifier: MIT
 *
 * history.c - what happened, in order: as a hash, and as text for people.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The four numbers of each mark.  Relays are named by their incarnation. */
static const char *const forms[MARKS] = {
    [M_BEGIN] = "publisher %lld begins",
    [M_COMMIT] = "event %lld is committed: key %lld, topic %lld, place %lld",
    [M_ROLLBACK] = "publisher %lld rolls %lld events back",
    [M_SEND] = "relay %lld sends %lld, attempt %lld (lease held: %lld)",
    [M_ARRIVE] = "subscription %lld: event %lld arrives, for the %lldth time",
    [M_SETTLE] = "relay %lld: verdict %lld for %lld, send %lld",
    [M_SETTLED] = "    outbox_settle() says %lld",
    [M_START] = "relay %lld starts: subscription %lld, process %lld",
    [M_CRASH] = "relay %lld crashes",
    [M_KILL] = "relay %lld is killed by event %lld",
    [M_HANG] = "relay %lld hangs for %lld ms",
    [M_STOP] = "relay %lld is told to stop, with %lld ms of patience",
    [M_STOPPED] = "relay %lld has stopped: %lld",
    [M_STEP] = "relay %lld has stepped: %lld",
    [M_ERROR] = "relay %lld: operation %lld fails with %lld",
    [M_FAULT] = "    by order, and %lld: 1 it was done all the same",
    [M_ACQUIRE] = "relay %lld takes lane %lld, token %lld, at %lld",
    [M_SAVE] = "relay %lld saves %lld lanes, %lld changes",
    [M_CURSOR] = "    lane %lld of subscription %lld: from %lld to %lld",
    [M_CHANGE] = "    change %lld of event %lld: attempts %lld, delay %lld",
    [M_TRIAL] = "relay %lld: trial in lane %lld, position %lld: %lld starts",
    [M_TRIM] = "%lld events are trimmed, %lld in all",
    [M_PROMOTE] = "%lld scheduled events go into the log",
    [M_PERSON] = "a person does %lld to subscription %lld: %lld (%lld)",
    [M_PHASE] = "phase %lld begins, patience %lld ms",
    [M_OPEN] = "relay %lld: the transport opens: %lld",
    [M_TIMEOUT] = "relay %lld: event %lld has had no verdict",
    [M_LEAVE] = "relay %lld says goodbye",
    [M_RELEASE] = "    lane %lld is given back",
    [M_END] = "the end: %lld events, %lld in the log",
};

const char *const tally_names[TALLIES] = {
    [T_EVENTS] = "events committed",
    [T_ROLLED_BACK] = "rolled back",
    [T_DELIVERED] = "deliveries",
    [T_DUPLICATES] = "of them duplicates",
    [T_STEPS] = "relay steps",
    [T_SAVES] = "saves",
    [T_STALE] = "saves refused as stale",
    [T_CRASHES] = "crashes",
    [T_KILLS] = "processes killed by an event",
    [T_HANGS] = "processes that hung",
    [T_STOPS] = "clean stops",
    [T_TAKEOVERS] = "lanes taken over",
    [T_ERRORS] = "store errors",
    [T_ANSWERS] = "answers lost",
    [T_BUSY] = "times busy",
    [T_RETRIES] = "RETRY verdicts",
    [T_TIMEOUTS] = "verdicts that never came",
    [T_LATE] = "verdicts refused",
    [T_TWICE] = "second verdicts",
    [T_PARKED] = "events parked",
    [T_AGAIN] = "failed again",
    [T_UNPARKED] = "unparked",
    [T_DEAD] = "dead",
    [T_REVIVED] = "revived",
    [T_DISCARDED] = "discarded",
    [T_BREAKER] = "breaker openings",
    [T_TRIALS] = "starts on trial",
    [T_CONDEMNED] = "condemned for killing",
    [T_EXPIRED] = "expired",
    [T_SCHEDULED] = "scheduled",
    [T_DEDUPED] = "deduplicated",
    [T_FULL] = "refused, backlog full",
    [T_PAUSED] = "pauses",
    [T_REPLAYED] = "replays",
    [T_UNSUBSCRIBED] = "unsubscribed",
    [T_OUTAGES] = "outages",
    [T_TRIMMED] = "events trimmed",
    [T_HOURS] = "outages of hours",
};

static void hash_in(sim *w, uint64_t x)
{
    w->hash = (w->hash ^ x) * 0x9e3779b97f4a7c15u;
    w->hash ^= w->hash >> 29;
}

void record(sim *w, enum mark m, int64_t a, int64_t b, int64_t c, int64_t d)
{
    hash_in(w, (uint64_t)w->now << 8 | (uint64_t)m);
    hash_in(w, (uint64_t)a << 40 ^ (uint64_t)b << 24 ^ (uint64_t)c << 12 ^
                   (uint64_t)d);
    if (!w->verbose)
        return;
    printf("%9lld  ", (long long)w->now);
    printf(forms[m], (long long)a, (long long)b, (long long)c, (long long)d);
    putchar('\n');
}

void record_line(sim *w, const process *p, const char *line)
{
    hash_in(w, outbox_hash(line, strlen(line)));
    if (w->verbose)
        printf("%9lld  relay %u logs: %s\n", (long long)w->now,
               (unsigned)p->incarnation, line);
}

void tally(sim *w, enum tally t)
{
    w->tallies[t]++;
}

void violation(sim *w, const char *rule, const char *format, ...)
{
    va_list ap;

    if (w->rule[0] != '\0')
        return;
    snprintf(w->rule, sizeof w->rule, "%s", rule);
    va_start(ap, format);
    vsnprintf(w->text, sizeof w->text, format, ap);
    va_end(ap);
    w->over = true;
    if (w->verbose)
        printf("%9lld  *** %s: %s\n", (long long)w->now, rule, w->text);
}
