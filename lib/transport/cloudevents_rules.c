/* SPDX-License-Identifier: MIT
 *
 * cloudevents_rules.c - strings, names, URIs, media types, times, Base64 and
 * percent-encoding, as CloudEvents 1.0.2 wants them.
 */
#include "cloudevents_impl.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static bool ce_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool ce_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int ce_hex(char c)
{
    if (ce_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ---- strings and names -------------------------------------------------- */

/* The character at *at, which moves past it; -1: that is no UTF-8. */
static int32_t ce_character(const unsigned char **at,
                            const unsigned char *end)
{
    static const int32_t least[] = { 0, 0x80, 0x800, 0x10000 };
    const unsigned char *p = *at;
    int32_t c = *p++;
    int more = c < 0x80 ? 0 : c < 0xc0 ? -1 : c < 0xe0 ? 1 : c < 0xf0 ? 2
             : c < 0xf8 ? 3 : -1;

    if (more < 0 || end - p < more)
        return -1;
    if (more > 0)
        c &= 0x3f >> more;
    for (int i = 0; i < more; i++, p++) {
        if ((*p & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (*p & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -1;
    *at = p;
    return c;
}

const char *ob_ce_string_fault(const char *s, size_t len)
{
    const unsigned char *at = (const unsigned char *)s;
    const unsigned char *end = at + len;

    while (at < end) {
        int32_t c = ce_character(&at, end);
        if (c < 0)
            return "is not UTF-8";
        if (c < 0x20 || (c >= 0x7f && c <= 0x9f))
            return "has a control character";
        if ((c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef))
            return "has a noncharacter of Unicode";
    }
    return NULL;
}

bool ob_ce_utf8_ok(const char *s, size_t len)
{
    const unsigned char *at = (const unsigned char *)s;
    const unsigned char *end = at + len;

    while (at < end) {
        if (*at < 0x80)
            at++;
        else if (ce_character(&at, end) < 0)
            return false;
    }
    return true;
}

bool ob_ce_name_ok(const char *name)
{
    static const char legal[] = "abcdefghijklmnopqrstuvwxyz0123456789";

    return *name != '\0' && name[strspn(name, legal)] == '\0';
}

const char *ob_ce_after(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncasecmp(s, prefix, n) == 0 ? s + n : NULL;
}

/* ---- URIs, media types -------------------------------------------------- */

/* Characters of RFC 3986, and two hexadecimal digits behind each '%'. */
static bool ce_uri_characters(const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '%' && (ce_hex(s[1]) < 0 || ce_hex(s[2]) < 0))
            return false;
        if (!ce_alpha(*s) && !ce_digit(*s)
            && strchr("-._~:/?#[]@!$&'()*+,;=%", *s) == NULL)
            return false;
    }
    return true;
}

/* What follows "scheme:"; s itself when it has no scheme; NULL: a first
 * segment with a colon that is no scheme. */
static const char *ce_uri_rest(const char *s)
{
    size_t n = strcspn(s, ":/?#");

    if (s[n] != ':')
        return s;
    if (!ce_alpha(*s))
        return NULL;
    for (size_t i = 1; i < n; i++) {
        if (!ce_alpha(s[i]) && !ce_digit(s[i])
            && strchr("+-.", s[i]) == NULL)
            return NULL;
    }
    return s + n + 1;
}

bool ob_ce_uri_ok(const char *s, bool absolute)
{
    const char *rest = ce_uri_rest(s);
    const char *fragment = strchr(s, '#');

    if (rest == NULL || *s == '\0' || !ce_uri_characters(s))
        return false;
    if (fragment != NULL && (absolute || strchr(fragment + 1, '#') != NULL))
        return false;
    if (absolute && rest == s)
        return false;
    /* Brackets belong to an address of IPv6, in the authority. */
    if (strncmp(rest, "//", 2) == 0)
        rest += 2 + strcspn(rest + 2, "/?#");
    return strpbrk(rest, "[]") == NULL;
}

static const char *ce_token_end(const char *s)
{
    while (ce_alpha(*s) || ce_digit(*s)
           || (*s != '\0' && strchr("!#$%&'*+-.^_`|~", *s) != NULL))
        s++;
    return s;
}

bool ob_ce_media_type_ok(const char *s)
{
    const char *slash = ce_token_end(s);
    const char *end;

    if (slash == s || *slash != '/')
        return false;
    end = ce_token_end(slash + 1);
    if (end == slash + 1)
        return false;
    s = end + strspn(end, " ");
    if (*s != ';')
        return *end == '\0';
    while (*s >= ' ' && *s <= '~')
        s++;
    return *s == '\0';
}

bool ob_ce_media_type_is_json(const char *s)
{
    const char *sub = s + strcspn(s, "/");
    size_t n;

    sub += *sub == '/';
    n = (size_t)(ce_token_end(sub) - sub);
    return (n == 4 && strncasecmp(sub, "json", 4) == 0)
        || (n > 5 && strncasecmp(sub + n - 5, "+json", 5) == 0);
}

/* ---- times -------------------------------------------------------------- */

enum { CE_DAY = 86400 };

bool ob_ce_time_format(int64_t ms, char out[OB_CE_TIME])
{
    int part = (int)(ms % 1000);
    struct tm tm;

    part += part < 0 ? 1000 : 0;
    int64_t s = (ms - part) / 1000;
    time_t t = (time_t)s;
    if (t != s || gmtime_r(&t, &tm) == NULL || tm.tm_year < -1900
        || tm.tm_year > 9999 - 1900)
        return false;
    int year = tm.tm_year + 1900;
    int n = snprintf(out, OB_CE_TIME, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                     year, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                     tm.tm_sec, part);
    return n > 0 && n < OB_CE_TIME;
}

/* The number at *s with exactly n digits and then the character that follows;
 * 0: whatever.  *s moves behind it.  -1: it is not there. */
static int ce_number(const char **s, int n, char then)
{
    int value = 0;

    for (; n > 0; n--, (*s)++) {
        if (!ce_digit(**s))
            return -1;
        value = value * 10 + (**s - '0');
    }
    if (then == '\0')
        return value;
    if (**s != then && !(then == 'T' && **s == 't'))
        return -1;
    (*s)++;
    return value;
}

/* Days from 1970 to a day of the Gregorian calendar; false: there is no such
 * day.  Years are counted from 400 before the first, so that each quotient
 * is of positive numbers. */
static bool ce_days(int year, int month, int day, int64_t *days)
{
    static const int before[] = { 0,   31,  59,  90,  120, 151, 181,
                                  212, 243, 273, 304, 334, 365 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int past = year + 399;

    if (year < 0 || month < 1 || month > 12 || day < 1
        || day > before[month] - before[month - 1] + (leap && month == 2))
        return false;
    *days = (int64_t)past * 365 + past / 4 - past / 100 + past / 400 - 865259
          + before[month - 1] + (leap && month > 2) + day - 1;
    return true;
}

/* Seconds east of Greenwich, at the end of a time. */
static bool ce_offset(const char *s, int *seconds)
{
    int sign = *s == '-' ? -1 : 1;
    int hours, minutes;

    *seconds = 0;
    if (*s == 'Z' || *s == 'z')
        return s[1] == '\0';
    if (*s != '+' && *s != '-')
        return false;
    s++;
    hours = ce_number(&s, 2, ':');
    minutes = hours < 0 ? -1 : ce_number(&s, 2, '\0');
    *seconds = sign * (hours * 3600 + minutes * 60);
    return hours >= 0 && hours < 24 && minutes >= 0 && minutes < 60
        && *s == '\0';
}

/* Milliseconds; what is finer is cut off. */
static bool ce_fraction(const char **s, int *ms)
{
    int weight = 100;

    *ms = 0;
    if (**s != '.')
        return true;
    if (!ce_digit(*++*s))
        return false;
    for (; ce_digit(**s); (*s)++, weight /= 10)
        *ms += (**s - '0') * weight;
    return true;
}

bool ob_ce_time_parse(const char *s, int64_t *ms)
{
    static const struct {
        int  digits;
        char then;
        int  below;
    } parts[] = { { 4, '-', 10000 }, { 2, '-', 13 }, { 2, 'T', 32 },
                  { 2, ':', 24 },    { 2, ':', 60 }, { 2, '\0', 61 } };
    int v[6], fraction, offset;
    int64_t days, t;

    for (int i = 0; i < 6; i++) {
        v[i] = ce_number(&s, parts[i].digits, parts[i].then);
        if (v[i] < 0 || v[i] >= parts[i].below)
            return false;
    }
    if (!ce_days(v[0], v[1], v[2], &days) || !ce_fraction(&s, &fraction)
        || !ce_offset(s, &offset))
        return false;
    t = days * CE_DAY + v[3] * 3600 + v[4] * 60 + v[5] - offset;
    /* A leap second is the last of a day in UTC, and so it is 0:00 here. */
    if (v[5] == 60 && t % CE_DAY != 0)
        return false;
    *ms = t * 1000 + fraction;
    return true;
}

/* ---- Base64 ------------------------------------------------------------- */

char *ob_ce_base64_encode(char *out, const void *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = bytes;

    for (; len > 0; p += 3) {
        size_t n = len < 3 ? len : 3;
        unsigned v = (unsigned)p[0] << 16 | (n > 1 ? (unsigned)p[1] << 8 : 0)
                   | (n > 2 ? p[2] : 0u);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = '=';
        *out++ = '=';
        if (n > 1)
            out[-2] = digits[v >> 6 & 63];
        if (n > 2)
            out[-1] = digits[v & 63];
        len -= n;
    }
    return out;
}

static int ce_base64_digit(char c)
{
    if (ce_alpha(c))
        return c >= 'a' ? c - 'a' + 26 : c - 'A';
    if (ce_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* With its padding, and with zeros in the bits that are left over: one text
 * for each value (RFC 4648, 3.5). */
char *ob_ce_base64_decode(char *out, const char *s, size_t len)
{
    unsigned v = 0;
    int bits = 0;

    if (len % 4 != 0)
        return NULL;
    for (int i = 0; i < 2 && len > 0 && s[len - 1] == '='; i++)
        len--;
    for (size_t i = 0; i < len; i++) {
        int digit = ce_base64_digit(s[i]);
        if (digit < 0)
            return NULL;
        v = v << 6 | (unsigned)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (char)(v >> bits);
            v &= (1u << bits) - 1;
        }
    }
    return v == 0 ? out : NULL;
}

/* ---- header values ------------------------------------------------------ */

char *ob_ce_percent_encode(char *out, const char *s)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c > 0x20 && c < 0x7f && c != '"' && c != '%') {
            *out++ = (char)c;
            continue;
        }
        *out++ = '%';
        *out++ = digits[c >> 4];
        *out++ = digits[c & 15];
    }
    return out;
}

/* The value without blanks around it, and without quotes. */
static char *ce_unquoted(char *out, const char *s)
{
    size_t len = strlen(s += strspn(s, " \t"));
    bool quoted = false;

    while (len > 0 && strchr(" \t", s[len - 1]) != NULL)
        len--;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"') {
            quoted = !quoted;
            continue;
        }
        if (quoted && s[i] == '\\' && ++i == len)
            return NULL;
        *out++ = s[i];
    }
    return quoted ? NULL : out;
}

const char *ob_ce_percent_decode(char **out, const char *s)
{
    char *to = *out;
    char *end = ce_unquoted(*out, s);

    if (end == NULL)
        return "has a quote that is not closed";
    for (const char *from = *out; from < end; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = end - from > 2 ? ce_hex(from[1]) : -1;
        int low = high < 0 ? -1 : ce_hex(from[2]);
        if (low < 0)
            return "has a % without two hexadecimal digits";
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *out = to;
    return NULL;
}
