/* SPDX-License-Identifier: MIT
 *
 * options.c - what a relay was asked to do: defaults, limits, contradictions.
 */
#include "relay.h"

static void set_default(uint32_t *value, uint32_t to)
{
    if (*value == 0)
        *value = to;
}

static void options_defaults(outbox_relay_options *o)
{
    if (o->subscription == NULL)
        o->subscription = "default";
    if (o->max_inflight_bytes == 0)
        o->max_inflight_bytes = 64u << 20;
    set_default(&o->max_parked, 1000000);
    set_default(&o->batch, 1000);
    set_default(&o->max_inflight, 10000);
    set_default(&o->poll_ms, 1000);
    set_default(&o->lease_ms, 10000);
    set_default(&o->settle_ms, 30000);
    set_default(&o->flush_ms, 50);
    set_default(&o->retry_min_ms, 200);
    set_default(&o->retry_max_ms,
                o->retry_min_ms > 300000 ? o->retry_min_ms : 300000);
    set_default(&o->max_attempts, 20);
    set_default(&o->breaker_failures, 10);
    set_default(&o->breaker_ms, 1000);
}

typedef struct limit {
    const char *name;
    uint64_t    value, least, most;
} limit;

static int limits_check(const limit *limits, size_t n, outbox_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const limit *l = &limits[i];
        if (l->value < l->least || l->value > l->most)
            return outbox_error_set(err, OUTBOX_EINVAL,
                                    "%s is %llu: it must be between %llu "
                                    "and %llu", l->name,
                                    (unsigned long long)l->value,
                                    (unsigned long long)l->least,
                                    (unsigned long long)l->most);
    }
    return OUTBOX_OK;
}

enum { DAY_MS = 86400000, MAX_EVENTS = 1 << 20 };

static int options_limits(const outbox_relay_options *o, outbox_error *err)
{
    const limit limits[] = {
        { "max_lanes", o->max_lanes, 0, OUTBOX_MAX_LANES },
        { "batch", o->batch, 1, MAX_EVENTS },
        { "max_inflight", o->max_inflight, 1, MAX_EVENTS },
        { "max_inflight_bytes", o->max_inflight_bytes, 4096, SIZE_MAX / 4 },
        { "poll_ms", o->poll_ms, 1, DAY_MS },
        { "lease_ms", o->lease_ms, 20, DAY_MS },
        { "settle_ms", o->settle_ms, 1, DAY_MS },
        { "flush_ms", o->flush_ms, 1, o->lease_ms },
        { "retry_min_ms", o->retry_min_ms, 1, o->retry_max_ms },
        { "retry_max_ms", o->retry_max_ms, 1, DAY_MS },
        { "max_attempts", o->max_attempts, 1, INT32_MAX },
        { "breaker_failures", o->breaker_failures, 1, MAX_EVENTS },
        { "breaker_ms", o->breaker_ms, 1, DAY_MS },
        { "on_dead", (uint64_t)o->on_dead, 0, OUTBOX_DEAD_SKIPS },
        { "start", (uint64_t)o->start, 0, OUTBOX_START_NOW },
    };

    return limits_check(limits, OB_COUNT(limits), err);
}

static int options_check(const outbox_relay_t *r, outbox_error *err)
{
    const outbox_relay_options *o = &r->opt;
    size_t n;
    int rc = options_limits(o, err);

    if (rc == OUTBOX_OK)
        rc = ob_text_check(o->subscription, OUTBOX_MAX_TEXT_BYTES,
                           "subscription", &n, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (n == 0)
        return outbox_error_set(err, OUTBOX_EINVAL, "subscription is empty");
    if (o->keep_ms < 0)
        return outbox_error_set(err, OUTBOX_EINVAL, "keep_ms is negative");
    rc = ob_filter_check(o->topics, err);
    if (rc != OUTBOX_OK)
        return rc;
    if (o->max_inflight_bytes < r->ob->max_payload_bytes)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "max_inflight_bytes is %zu, less than one "
                                "event's max_payload_bytes, %zu",
                                o->max_inflight_bytes,
                                r->ob->max_payload_bytes);
    if (r->tp.max_inflight_ms >= o->lease_ms)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "lease_ms is %u, not above the transport's "
                                "max_inflight_ms, %u: a lease must outlast "
                                "what is in flight", (unsigned)o->lease_ms,
                                (unsigned)r->tp.max_inflight_ms);
    return OUTBOX_OK;
}

int ob_relay_options(outbox_relay_t *r, const outbox_transport *tp,
                     const outbox_relay_options *opt, outbox_error *err)
{
    static const outbox_relay_options none = { .size = sizeof none };
    int rc;

    if (tp == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL, "transport is NULL");
    rc = ob_struct_read(&r->tp, sizeof r->tp, sizeof r->tp, tp,
                        "outbox_transport", err);
    if (rc == OUTBOX_OK)
        rc = ob_struct_read(&r->opt, sizeof r->opt, sizeof r->opt,
                            opt != NULL ? opt : &none, "outbox_relay_options",
                            err);
    if (rc != OUTBOX_OK)
        return rc;
    if (r->tp.send == NULL)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_transport.send is NULL");
    if ((r->tp.flags & ~(uint32_t)OUTBOX_ORDERED) != 0)
        return outbox_error_set(err, OUTBOX_EINVAL,
                                "outbox_transport.flags has bits that this "
                                "library does not know: 0x%x",
                                (unsigned)r->tp.flags);
    if (r->tp.name == NULL)
        r->tp.name = "unnamed";
    options_defaults(&r->opt);
    return options_check(r, err);
}
