/* SPDX-License-Identifier: MIT
 *
 * cloudevents_json.c - JSON as text: is it any, and where does a value end.
 *
 * An event's data goes through here as it was written.  A tree would change
 * it: numbers lose digits, and beyond 64 bits are refused.  Nor would the
 * reader of jansson do for the rest: in 2.14, when an allocation fails, it
 * drops bytes of the token that it is in, or reads on past its end.
 *
 * JSON is RFC 8259 with surrogates in pairs, not deeper than OB_CE_JSON_DEPTH.
 * That the text is UTF-8 has been seen to before, for all of it at once.
 */
#include "cloudevents_impl.h"

#include <string.h>

static void js_blanks(ob_ce_span *t)
{
    while (t->at < t->end && *t->at != '\0' && strchr(" \t\r\n", *t->at))
        t->at++;
}

/* Step over c if it is next. */
static bool js_is(ob_ce_span *t, char c)
{
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

static bool js_word(ob_ce_span *t, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0)
        return false;
    t->at += n;
    return true;
}

static bool js_digits(ob_ce_span *t)
{
    const char *from = t->at;

    while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
        t->at++;
    return t->at > from;
}

static bool js_number(ob_ce_span *t)
{
    (void)js_is(t, '-');
    if (!js_is(t, '0') && !js_digits(t))
        return false;
    if (js_is(t, '.') && !js_digits(t))
        return false;
    if (js_is(t, 'e') || js_is(t, 'E')) {
        if (!js_is(t, '+'))
            (void)js_is(t, '-');
        return js_digits(t);
    }
    return true;
}

/* ---- strings ------------------------------------------------------------ */

/* The four digits of \uXXXX; -1: they are not there. */
static int32_t js_unit(ob_ce_span *t)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    int32_t unit = 0;

    for (int i = 0; i < 4; i++, t->at++) {
        const char *d = t->at < t->end && *t->at != '\0'
                      ? strchr(digits, *t->at) : NULL;
        if (d == NULL)
            return -1;
        int digit = (int)(d - digits);
        unit = unit << 4 | (digit < 16 ? digit : digit - 6);
    }
    return unit;
}

/* The character that an escape stands for, behind its backslash; -1. */
static int32_t js_escape(ob_ce_span *t)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = t->at < t->end && *t->at != '\0'
                     ? strchr(names, *t->at) : NULL;
    int32_t high, low;

    if (name != NULL) {
        t->at++;
        return values[name - names];
    }
    if (!js_is(t, 'u'))
        return -1;
    high = js_unit(t);
    if (high < 0xd800 || high > 0xdfff)
        return high;
    if (high > 0xdbff || !js_word(t, "\\u"))
        return -1;
    low = js_unit(t);
    if (low < 0xdc00 || low > 0xdfff)
        return -1;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static bool js_string(ob_ce_span *t)
{
    if (!js_is(t, '"'))
        return false;
    while (t->at < t->end && (unsigned char)*t->at >= ' ') {
        char c = *t->at++;
        if (c == '"')
            return true;
        if (c == '\\' && js_escape(t) < 0)
            return false;
    }
    return false;
}

static char *js_put(char *out, int32_t c)
{
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char head[] = { 0, 0xc0, 0xe0, 0xf0 };

    *out++ = (char)(head[more] | c >> 6 * more);
    while (more-- > 0)
        *out++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    return out;
}

char *ob_ce_json_unquote(char *out, ob_ce_span s)
{
    s.at++;
    while (*s.at != '"') {
        char c = *s.at++;
        if (c == '\\')
            out = js_put(out, js_escape(&s));
        else
            *out++ = c;
    }
    return out;
}

/* ---- values ------------------------------------------------------------- */

static bool js_scalar(ob_ce_span *t)
{
    if (t->at == t->end)
        return false;
    switch (*t->at) {
    case '"':
        return js_string(t);
    case 't':
        return js_word(t, "true");
    case 'f':
        return js_word(t, "false");
    case 'n':
        return js_word(t, "null");
    default:
        return js_number(t);
    }
}

static bool js_name(ob_ce_span *t)
{
    js_blanks(t);
    if (!js_string(t))
        return false;
    js_blanks(t);
    return js_is(t, ':');
}

/* Close what ends here, up to the next value: 1; 0: all is closed; -1. */
static int js_after(ob_ce_span *t, const char *open, int *depth)
{
    for (; *depth > 0; --*depth) {
        char kind = open[*depth - 1];
        js_blanks(t);
        if (js_is(t, ','))
            return kind != '{' || js_name(t) ? 1 : -1;
        if (!js_is(t, kind == '{' ? '}' : ']'))
            return -1;
    }
    return 0;
}

/* One value; what is open is kept in a stack of ours, so that a hostile text
 * costs no deep recursion. */
static bool js_value(ob_ce_span *t)
{
    char open[OB_CE_JSON_DEPTH];
    int depth = 0, more = 1;

    while (more > 0) {
        js_blanks(t);
        if (js_is(t, '[') || js_is(t, '{')) {
            char kind = t->at[-1];
            if (depth == OB_CE_JSON_DEPTH)
                return false;
            open[depth++] = kind;
            js_blanks(t);
            if (js_is(t, kind == '{' ? '}' : ']'))
                depth--;
            else if (kind == '[' || js_name(t))
                continue;
            else
                return false;
        } else if (!js_scalar(t))
            return false;
        more = js_after(t, open, &depth);
    }
    return more == 0;
}

bool ob_ce_json_value(ob_ce_span *text, ob_ce_span *value)
{
    js_blanks(text);
    value->at = text->at;
    if (!js_value(text))
        return false;
    value->end = text->at;
    js_blanks(text);
    return true;
}

bool ob_ce_json_valid(const char *s, size_t len)
{
    ob_ce_span text = { s, s + len }, value;

    return ob_ce_utf8_ok(s, len) && ob_ce_json_value(&text, &value)
        && text.at == text.end;
}

int ob_ce_json_member(ob_ce_span *text, bool *first, ob_ce_span *name,
                      ob_ce_span *value)
{
    js_blanks(text);
    if (*first && !js_is(text, '{'))
        return -1;
    js_blanks(text);
    if (js_is(text, '}')) {
        js_blanks(text);
        return text->at == text->end ? 0 : -1;
    }
    if (!*first && !js_is(text, ','))
        return -1;
    *first = false;
    js_blanks(text);
    name->at = text->at;
    if (!js_string(text))
        return -1;
    name->end = text->at;
    js_blanks(text);
    return js_is(text, ':') && ob_ce_json_value(text, value) ? 1 : -1;
}
