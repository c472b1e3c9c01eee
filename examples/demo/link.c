/* SPDX-License-Identifier: MIT
 *
 * link.c - the service's transport: frames over a Unix socket, and answers
 *          that come back later.
 *
 * The relay calls everything here from its own thread, and so do we settle.
 * Up to LINK_WINDOW events are under way; when the line breaks, nobody knows
 * which of them arrived, so all of them are tried again.
 */
#include "demo.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static void settle_oldest(struct link *l, outbox_verdict verdict,
                          const char *why)
{
    outbox_token token = l->waiting[l->head];

    l->head = (l->head + 1) % LINK_WINDOW;
    l->count--;
    outbox_settle(l->relay, token, verdict, why);
}

static void hang_up(struct link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    while (l->count > 0)
        settle_oldest(l, OUTBOX_RETRY, "the consumer hung up");
}

static int dial(struct link *l)
{
    const struct timeval patience = {.tv_sec = 5};
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    if (strlen(l->path) >= sizeof to.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(to.sun_path, l->path, strlen(l->path) + 1);
    l->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (l->fd < 0)
        return -1;
    if (connect(l->fd, (const struct sockaddr *)&to, sizeof to) == 0 &&
        setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
                   sizeof patience) == 0)
        return 0;
    close(l->fd);
    l->fd = -1;
    return -1;
}

static int transmit(struct link *l)
{
    if (l->count == LINK_WINDOW) {      /* some were given up by the relay */
        errno = EBUSY;
        return -1;
    }
    if (l->fd < 0 && dial(l) < 0)
        return -1;
    return frame_write(l->fd, &l->frame);
}

static int link_open(void *ctx, outbox_relay_t *relay, outbox_error *err)
{
    struct link *l = ctx;

    (void)err;                          /* dialling comes with the first send */
    l->relay = relay;
    return OUTBOX_OK;
}

static outbox_verdict link_send(void *ctx, const outbox_event *ev,
                                outbox_token token, outbox_error *why)
{
    struct link *l = ctx;

    if (frame_pack(&l->frame, ev) < 0) {
        snprintf(why->text, sizeof why->text, "does not fit into a frame");
        return OUTBOX_REJECT;
    }
    if (transmit(l) < 0) {
        snprintf(why->text, sizeof why->text, "consumer: %s", strerror(errno));
        hang_up(l);
        return OUTBOX_RETRY;
    }
    l->waiting[(l->head + l->count++) % LINK_WINDOW] = token;
    return OUTBOX_PENDING;
}

static void take_answers(struct link *l)
{
    unsigned char verdicts[LINK_WINDOW];
    ssize_t i, n = recv(l->fd, verdicts, l->count, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(l);
        return;
    }
    for (i = 0; i < n; i++)
        settle_oldest(l, (outbox_verdict)verdicts[i], "the consumer said no");
}

static void link_poll(void *ctx, int timeout_ms)
{
    struct link *l = ctx;
    struct pollfd line = {.fd = l->fd, .events = POLLIN};

    if (poll(&line, 1, timeout_ms) == 1)    /* no line: it only sleeps */
        take_answers(l);
}

static void link_close(void *ctx)
{
    struct link *l = ctx;

    hang_up(l);
}

outbox_transport link_transport(struct link *l, const char *path)
{
    *l = (struct link){.path = path, .fd = -1};
    return (outbox_transport){
        .size = sizeof(outbox_transport),
        .name = "link",
        .ctx = l,
        .max_inflight_ms = 900,
        .open = link_open,
        .send = link_send,
        .poll = link_poll,
        .close = link_close,
    };
}
