/* SPDX-License-Identifier: MIT
 *
 * pg_statements.h - the PostgreSQL store's SQL, each statement once: its name
 * for the code, its text.  "outbox" stands for the schema.  Included where
 * OB_PG_STATEMENT says what becomes of it.
 */
#include "pg_statements_caller.h"
#include "pg_statements_relay.h"
