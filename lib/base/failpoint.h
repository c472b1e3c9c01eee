/* SPDX-License-Identifier: MIT
 *
 * failpoint.h - named places where a torture test may kill the process.
 * Nothing at all unless the library is built with -DOUTBOX_FAILPOINTS; then
 * the test program defines ob_failpoint().
 */
#ifndef OB_FAILPOINT_H
#define OB_FAILPOINT_H

#ifdef OUTBOX_FAILPOINTS
void ob_failpoint(const char *name);
#define OB_FAILPOINT(name) ob_failpoint(name)
#else
#define OB_FAILPOINT(name) ((void)0)
#endif

#endif
