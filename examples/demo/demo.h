/* SPDX-License-Identifier: MIT
 *
 * demo.h - what the parts of the demo share.
 *
 * One program, three roles.  The service takes orders and owns one database;
 * the consumer keeps the accounts in another; a Unix socket is all that
 * connects them.  The driver starts both, kills both, and compares the two
 * databases at the end.
 */
#ifndef DEMO_H
#define DEMO_H

#include <outbox/outbox.h>
#include <stdio.h>

/* ---- the roles; each returns an exit status -------------------------- */

int driver_main(char *self, const char *orders, int keep);
int service_main(const char *db, const char *socket, const char *orders);
int consumer_main(const char *db, const char *socket);

/* What the consumer says about itself on its standard output. */
enum {
    CONSUMER_READY     = 'r',
    CONSUMER_APPLIED   = '+',
    CONSUMER_DUPLICATE = '='
};

/* ---- db_sqlite.c or db_pg.c ------------------------------------------ */

/* 0 or -1, where nothing else is said: see db_error(). */
typedef struct db db_t;

enum { DB_NAME = 160 };

/* Give the owner a database, in dir if it is a file; and take it away. */
int  db_make(char name[DB_NAME], const char *dir, const char *owner);
void db_remove(const char *name);
/* Each COMMIT is durable.  *db is to be closed in any case. */
int  db_open(db_t **db, const char *name, const char *tables);
/* With the library's tables as views: event (position, id, key, type), and
 * mark (id) for those of the inbox; ids in hexadecimal. */
int  db_inspect(db_t **db, const char *name);
void db_close(db_t *db);
const char *db_error(db_t *db);         /* "": the last statement was good */

/* These return what the library's functions return. */
int db_outbox(db_t *db, outbox_t **ob, outbox_error *err);
int db_inbox(db_t *db, inbox_t **inbox, outbox_error *err);
int db_relay_outbox(const char *name, outbox_t **ob, outbox_error *err);

int  db_begin(db_t *db);
int  db_commit(db_t *db);
void db_rollback(db_t *db);
/* Run one statement with texts for its parameters $1, $2 ..., up to a NULL;
 * more texts than it takes are ignored.  Returns the number of rows changed,
 * or -1. */
int db_run(db_t *db, const char *sql, ...);
/* The same for a query of one integer: no row gives 0, an error -1. */
int64_t db_int(db_t *db, const char *sql, ...);
/* A line for each row. */
int db_print(db_t *db, const char *sql, FILE *out);

/* ---- check.c --------------------------------------------------------- */

struct glance {
    int64_t shipped;                    /* orders */
    int64_t committed, unacknowledged;  /* events */
    int64_t applied;                    /* effects */
};

int check_glance(const char *service_db, const char *consumer_db,
                 struct glance *g);
/* Compare the databases and print what they say.  0: they agree on
 * everything, and all n orders are in them; else the number of faults. */
int check_databases(const char *service_db, const char *consumer_db, long n);

/* ---- frame.c: events on the wire ------------------------------------- */

/* A frame is its length and four texts: id, type, key, payload.  Both ends
 * are on one machine, so the length goes in its byte order.  The answer to
 * each frame, in turn, is one byte: an outbox_verdict. */
enum { FRAME_MAX = 64 * 1024 };

struct frame {
    uint32_t len;
    char     bytes[FRAME_MAX];
};

int frame_pack(struct frame *f, const outbox_event *ev);
/* The event points into the frame; its payload has a NUL behind it. */
int frame_unpack(const struct frame *f, outbox_event *ev);
int frame_write(int fd, const struct frame *f);
/* 1: a frame.  0: the other end has closed.  -1: see errno. */
int frame_read(int fd, struct frame *f);

/* ---- link.c: the service's transport --------------------------------- */

enum { LINK_WINDOW = 64 };              /* frames without an answer */

struct link {
    const char     *path;               /* of the socket */
    int             fd;                 /* -1: not connected */
    outbox_relay_t *relay;
    outbox_token    waiting[LINK_WINDOW];   /* answers come in this order */
    unsigned        head, count;
    struct frame    frame;
};

outbox_transport link_transport(struct link *l, const char *path);

#endif
