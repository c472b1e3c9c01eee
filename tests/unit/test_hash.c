/* SPDX-License-Identifier: MIT
 *
 * test_hash.c - the golden vectors of outbox_hash().  Lanes are stored in
 * databases: if one of these changes, so must the version of the tables.
 *
 * They were computed apart from the library: FNV-1a of 64 bits (whose own
 * vector for "foobar" is 85944171f73967e8), then MurmurHash3's fmix64.
 */
#include "common/suite.h"

#include <outbox/store.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *bytes;
    size_t      len;
    uint64_t    hash;
} vectors[] = {
    { "", 0, 0xefd01f60ba992926 },
    { "\0", 1, 0xb9034ad37056f5fb },
    { "a", 1, 0x82a2a958a9bece5b },
    { "foobar", 6, 0x2c22194922d1672b },
    { "order-42", 8, 0x8e47543c313c6386 },
    { "customer/1", 10, 0x2416238eee405739 },
    { "caf\xc3\xa9", 5, 0xf50b1f8e2c0682e6 },
    { "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, 0xa5e0dba6c385580a },
    { "\x01\x90\xc2\xa8\x7b\x1c\x7c\xc3\x98\xc4\xdc\x0c\x0c\x07\x39\x8f", 16,
      0x7608afead1a80e54 }
};

START_TEST(golden_vectors)
{
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        ck_assert_uint_eq(outbox_hash(vectors[i].bytes, vectors[i].len),
                          vectors[i].hash);
}
END_TEST

START_TEST(long_input)
{
    unsigned char bytes[256];
    char x[1024];

    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    ck_assert_uint_eq(outbox_hash(bytes, 256), 0x2067db6dbd4efa06);
    memset(x, 'x', sizeof x);
    ck_assert_uint_eq(outbox_hash(x, sizeof x), 0xaa923e73b74b0f2e);
}
END_TEST

/* Keys that differ only in a number spread evenly over any count of lanes. */
START_TEST(even_over_lanes)
{
    static const unsigned counts[] = { 2, 3, 7, 16, 64 };
    char key[32];

    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        unsigned lanes = counts[c], hits[64] = { 0 };
        for (int i = 0; i < 64000; i++) {
            int n = snprintf(key, sizeof key, "customer-%d", i);
            hits[outbox_hash(key, (size_t)n) % lanes]++;
        }
        for (unsigned i = 0; i < lanes; i++) {
            ck_assert_uint_gt(hits[i], 64000 / lanes * 85 / 100);
            ck_assert_uint_lt(hits[i], 64000 / lanes * 115 / 100);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hash");
    TCase *tc = suite_case(s, "hash");

    tcase_add_test(tc, golden_vectors);
    tcase_add_test(tc, long_input);
    tcase_add_test(tc, even_over_lanes);
    return suite_main(s);
}
