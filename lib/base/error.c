/* SPDX-License-Identifier: MIT
 *
 * error.c - codes, their texts, and filling the caller's outbox_error.
 */
#include "base.h"

#include <stdarg.h>
#include <stdio.h>

_Static_assert(sizeof(outbox_error) == 256, "outbox_error is 256 bytes");

int outbox_version(void)
{
    return OUTBOX_VERSION;
}

static const struct {
    int         code;
    const char *text;
} error_texts[] = {
    { OUTBOX_OK, "no error" },
    { OUTBOX_ENOMEM, "out of memory" },
    { OUTBOX_EINVAL, "invalid argument" },
    { OUTBOX_ENOTX, "no transaction is open" },
    { OUTBOX_EABORTED, "the transaction is lost: roll it back" },
    { OUTBOX_EREADONLY, "the transaction or database is read-only" },
    { OUTBOX_EBUSY, "conflict with another user: run it again" },
    { OUTBOX_ESCHEMA, "tables missing or of another version" },
    { OUTBOX_EFULL, "the backlog is at its limit" },
    { OUTBOX_EDB, "the database reported an error" },
    { OUTBOX_ESTALE, "settled before, the lease lost, or the log replaced" },
    { OUTBOX_ETIMEOUT, "not done within the time given" },
    { OUTBOX_EFORK, "the handle was made in another process" },
    { OUTBOX_ENOENT, "no such subscription or dead event" },
    { OUTBOX_EINDOUBT, "COMMIT was sent, its answer never came" },
};

const char *outbox_strerror(int code)
{
    for (size_t i = 0; i < OB_COUNT(error_texts); i++) {
        if (error_texts[i].code == code)
            return error_texts[i].text;
    }
    return code > 0 ? "no error" : "unknown error";
}

/* A text cut in the middle of a character would not be UTF-8 any more. */
static void error_cut(char *text, size_t len)
{
    while (len > 0 && !ob_utf8_valid(text, len))
        len--;
    text[len] = '\0';
}

int outbox_error_set(outbox_error *err, int code, const char *format, ...)
{
    va_list ap;

    if (err == NULL)
        return code;
    memset(err, 0, sizeof *err);
    err->code = code;
    va_start(ap, format);
    int n = vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    if (n >= (int)sizeof err->text)
        error_cut(err->text, sizeof err->text - 1);
    for (char *c = err->text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    return code;
}
