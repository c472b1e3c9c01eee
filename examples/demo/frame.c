/* SPDX-License-Identifier: MIT
 *
 * frame.c - events as length-prefixed frames on a stream socket.
 */
#include "demo.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

static int append(struct frame *f, const void *bytes, size_t len)
{
    if (len >= FRAME_MAX - f->len)
        return -1;
    if (len > 0)
        memcpy(f->bytes + f->len, bytes, len);
    f->len += (uint32_t)len;
    f->bytes[f->len++] = '\0';
    return 0;
}

static int append_text(struct frame *f, const char *text)
{
    return text ? append(f, text, strlen(text)) : append(f, "", 0);
}

int frame_pack(struct frame *f, const outbox_event *ev)
{
    f->len = 0;
    if (append_text(f, ev->id) < 0 || append_text(f, ev->type) < 0 ||
        append_text(f, ev->key) < 0)
        return -1;
    return append(f, ev->payload, ev->payload_len);
}

/* The text at *at, which is moved behind it; NULL: it does not end. */
static const char *take(const struct frame *f, size_t *at)
{
    const char *text = f->bytes + *at;
    const char *end = memchr(text, '\0', f->len - *at);

    if (end == NULL)
        return NULL;
    *at += (size_t)(end - text) + 1;
    return text;
}

int frame_unpack(const struct frame *f, outbox_event *ev)
{
    size_t at = 0;

    *ev = (outbox_event){.size = sizeof *ev};
    ev->id = take(f, &at);
    ev->type = take(f, &at);
    ev->key = take(f, &at);
    if (!ev->id || !ev->type || !ev->key || at >= f->len ||
        f->bytes[f->len - 1] != '\0') {
        errno = EPROTO;
        return -1;
    }
    ev->payload = f->bytes + at;
    ev->payload_len = f->len - at - 1;
    return 0;
}

int frame_write(int fd, const struct frame *f)
{
    const char *bytes = (const char *)f;
    size_t left = sizeof f->len + f->len;

    while (left > 0) {
        ssize_t n = send(fd, bytes, left, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        left -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, void *into, size_t len)
{
    char *at = into;
    size_t got = 0;

    while (got < len) {
        ssize_t n = recv(fd, at + got, len - got, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            return 0;
        got += (size_t)n;
    }
    return 1;
}

int frame_read(int fd, struct frame *f)
{
    int r = read_all(fd, &f->len, sizeof f->len);

    if (r <= 0)
        return r;
    if (f->len > FRAME_MAX) {
        errno = EPROTO;
        return -1;
    }
    return read_all(fd, f->bytes, f->len);
}
