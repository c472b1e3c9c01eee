/* SPDX-License-Identifier: MIT
 *
 * main.c - the contract suite: what the public headers promise, shown of
 * every store in the table.  With POOLED=all in the environment also the tests
 * that have little to do with who publishes run behind a pooler.
 */
#include "contract.h"

#include <stdlib.h>
#include <string.h>

int main(void)
{
    Suite *s = suite_create("contract");
    const char *pooled = getenv("POOLED");

    if (pooled != NULL && strcmp(pooled, "all") == 0)
        n_suts = n_ways;

    add_publish_tests(s);
    add_refusal_tests(s);
    add_event_tests(s);
    add_delivery_tests(s);
    add_settle_tests(s);
    add_window_tests(s);
    add_progress_tests(s);
    add_retry_tests(s);
    add_breaker_tests(s);
    add_lease_tests(s);
    add_log_tests(s);
    add_inbox_tests(s);
    add_thread_tests(s);
    add_fork_tests(s);
    add_schema_tests(s);
    add_fault_tests(s);
    add_ops_tests(s);
    add_file_tests(s);
    add_sqlite_tests(s);
    add_kinds_tests(s);
    add_letters_tests(s);
    add_admin_tests(s);
    add_order_tests(s);
    add_schedule_tests(s);
    add_dedup_tests(s);
    add_expiry_tests(s);
    add_backlog_tests(s);
    add_causality_tests(s);
    add_filter_tests(s);
    add_fanout_tests(s);
    add_replay_tests(s);
    add_sharing_tests(s);
    add_nonsense_tests(s);
    add_trial_tests(s);
    return suite_main(s);
}
