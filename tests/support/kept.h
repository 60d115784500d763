/* A store at the server of a flow test, and what is said to it and by it, as JSON with ' in place of ",
 * so that it can be written in C. The epoch of the store is written EPOCH, any other one OTHER. */
#ifndef BEAM_TEST_KEPT_H
#define BEAM_TEST_KEPT_H

#include <beam/beam.h>

#include "tests/support/flow.h"

#define KEPT_TEXT_MAX 4096

/* In flow_share(): both ends see it, one at a time. What is done at the server begins and ends with a
 * step of `hand`, and so does asking for it here: the one that has it may use all of it. */
struct kept {
    _Atomic unsigned hand;
    void (*fn)(beam_request *request, void *arg);
    beam_store *store; /* the server's own */
    struct beam_store_options options;
    char path[256];
    char prefix[32];
    bool in_memory, at_home;
    _Atomic int result;
    _Atomic unsigned closes;
    struct beam_store_info info; /* as of kept_info() */
    /* For what is done there: kept_commit, kept_fill. */
    unsigned from, count, len;
    _Atomic unsigned done;
    _Atomic int last_error;
};

extern struct kept *kept;

/* Before flow_start. */
void kept_share(void);
/* Opens and serves it; options may be NULL, path is a name in the test's directory or NULL. Returns
 * what beam_store_open said. */
int kept_try_open(const struct beam_store_options *options, const char *name);
/* The same; it has to succeed. */
void kept_open(const struct beam_store_options *options, const char *name);
/* kept_share, flow_start, kept_open. */
void kept_start(const struct beam_store_options *options);
void kept_close(void);
/* A look at it. */
const struct beam_store_info *kept_info(void);
/* Puts keys "PREFIXn" with n from `from`, each a value of len bytes, one transaction each, from the
 * store's own side, and waits for them. */
void kept_fill(const char *prefix, unsigned from, unsigned count, unsigned len);

/* Around what a case has done at the server by a function of its own. */
void kept_at(void (*fn)(beam_request *request, void *arg));

/* A document from such text; aborts the case if it is none. Returns the length. */
size_t kept_document(const char *text, void *buf, size_t cap);
/* The text of a document. */
void kept_text(const void *document, size_t len, char *text, size_t size);

/* Asks and waits; what comes back is the body of the answer, or "NAME details" of the error, without
 * its message. Valid until the next. */
const char *kept_ask(const char *service, const char *argument);
#define CHECK_ASK(service, argument, expected) CHECK_STR(kept_ask(service, argument), expected)
/* Only asks: the answer goes to a count. */
void kept_ask_later(const char *service, const char *argument, struct flow_answer *answer);

/* --- a follower that writes down what it is told --- */

#define KEPT_LINES_MAX 64
#define KEPT_LINE_MAX 1024
struct kept_watch {
    beam_channel *channel;
    beam_message *held[1024]; /* with hold: so that their credit does not come back */
    unsigned held_count;
    bool hold;
    unsigned count, heads, snaps, lives, deltas, marks; /* of all that came */
    unsigned snap_keys;                                 /* since the last head */
    uint64_t rev, skipped; /* of the last head, live, delta or mark; of all heads */
    unsigned bad;          /* breaks of the order of revisions */
    unsigned ends;
    enum beam_code code;
    char lines[KEPT_LINES_MAX][KEPT_LINE_MAX]; /* of the first */
};

void kept_watch(struct kept_watch *watch, const char *argument);
void kept_watch_on(struct kept_watch *watch, beam_session *session, const char *argument);
/* Gives back what it holds, and holds no more. */
void kept_watch_release(struct kept_watch *watch);
void kept_watch_end(struct kept_watch *watch);

#endif
