/* SPDX-License-Identifier: MIT
 *
 * pg_statements_relay.h - statements of the relay's own connection.
 */
