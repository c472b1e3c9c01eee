/* SPDX-License-Identifier: MIT
 *
 * main.c - the directed tests of the PostgreSQL store.
 */
#include "pg.h"

int main(void)
{
    Suite *s = suite_create("pg");

    add_order_tests(s);
    add_tick_tests(s);
    add_slice_tests(s);
    add_trim_tests(s);
    add_durable_tests(s);
    add_restore_tests(s);
    add_silence_tests(s);
    add_encoding_tests(s);
    return suite_main(s);
}
