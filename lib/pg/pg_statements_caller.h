/* SPDX-License-Identifier: MIT
 *
 * pg_statements_caller.h - statements on the caller's connection, and those
 * with which a handle finds its tables.
 */
