/* SPDX-License-Identifier: MIT
 *
 * contract.h - the parts of the contract suite.
 */
#ifndef TESTS_CONTRACT_H
#define TESTS_CONTRACT_H

#include "common/sut.h"

void add_publish_tests(Suite *s);
void add_refusal_tests(Suite *s);
void add_event_tests(Suite *s);
void add_delivery_tests(Suite *s);
void add_settle_tests(Suite *s);
void add_window_tests(Suite *s);
void add_progress_tests(Suite *s);
void add_retry_tests(Suite *s);
void add_breaker_tests(Suite *s);
void add_lease_tests(Suite *s);
void add_log_tests(Suite *s);
void add_inbox_tests(Suite *s);
void add_thread_tests(Suite *s);
void add_fork_tests(Suite *s);
void add_schema_tests(Suite *s);
void add_fault_tests(Suite *s);
void add_ops_tests(Suite *s);
void add_file_tests(Suite *s);
void add_sqlite_tests(Suite *s);

void add_kinds_tests(Suite *s);
void add_letters_tests(Suite *s);
void add_admin_tests(Suite *s);
void add_order_tests(Suite *s);
void add_schedule_tests(Suite *s);
void add_dedup_tests(Suite *s);
void add_expiry_tests(Suite *s);
void add_backlog_tests(Suite *s);
void add_causality_tests(Suite *s);
void add_filter_tests(Suite *s);
void add_fanout_tests(Suite *s);
void add_replay_tests(Suite *s);
void add_sharing_tests(Suite *s);
void add_nonsense_tests(Suite *s);
void add_trial_tests(Suite *s);

#endif
