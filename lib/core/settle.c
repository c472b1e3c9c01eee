/* SPDX-License-Identifier: MIT
 *
 * settle.c - what any thread may call while a relay runs: settle, wake, stats.
 *
 * A verdict is noted under the lock and applied by the next turn.  Of one send
 * the first is accepted (tests/contract: settle; tests/sim: mutants
 * second-verdict-wins, late-retry-counts).
 */
#include "relay.h"

static bool may_settle(const ob_slot *s, outbox_token token, outbox_verdict v)
{
    if (s == NULL || s->verdict != 0)
        return false;
    if (s->state == OB_SENT && token.serial == s->last_send)
        return true;
    return v == OUTBOX_ACK && (s->state == OB_SENT || s->state == OB_WAITING ||
            s->state == OB_READY || s->state == OB_BEHIND);
}

int outbox_settle(outbox_relay_t *relay, outbox_token token,
                  outbox_verdict verdict, const char *why)
{
    int rc = ob_relay_check(relay, NULL);

    if (rc != OUTBOX_OK)
        return rc;
    if (verdict != OUTBOX_ACK && verdict != OUTBOX_RETRY &&
        verdict != OUTBOX_REJECT)
        return OUTBOX_EINVAL;
    pthread_mutex_lock(&relay->lock);
    ob_slot *s = ob_window_find(&relay->win, token.position, token.serial);
    if (!may_settle(s, token, verdict)) {
        rc = OUTBOX_ESTALE;
    } else {
        if (verdict != OUTBOX_ACK)
            ob_slot_why(&relay->win, s, why);
        ob_window_judge(&relay->win, s, verdict);
    }
    pthread_mutex_unlock(&relay->lock);
    if (rc == OUTBOX_OK)
        ob_waker_signal(&relay->waker, OB_WAKE_VERDICT);
    return rc;
}

void outbox_relay_wake(outbox_relay_t *r)
{
    if (r != NULL)
        ob_waker_signal(&r->waker, OB_WAKE_NOW);
}

int outbox_relay_stats(outbox_relay_t *r, outbox_stats *st)
{
    int rc = ob_relay_check(r, NULL);

    if (rc != OUTBOX_OK)
        return rc;
    pthread_mutex_lock(&r->lock);
    outbox_stats now = r->stats;
    now.inflight = r->win.inflight;
    pthread_mutex_unlock(&r->lock);
    return ob_stats_copy(st, &now, NULL);
}
