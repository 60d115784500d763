/* A runtime with a few services on an abstract socket, for tests to attack, and a well-behaved peer
 * beside the attacker that must go on being served.
 *
 *   echo     the body back, with the fds that came
 *   hold     keeps the request until served_release(); counts cancels
 *   talk     counts the messages that come after the first; answers when the caller has ended
 *   deaf     like talk, but keeps each message, so that its credit does not come back
 *   listen   takes events
 *   take     keeps the fds that came until served_drop_fds()
 *   chat     takes the channels that came with the request and echoes on them */
#ifndef BEAM_TEST_SERVED_H
#define BEAM_TEST_SERVED_H

#include <stdatomic.h>

#include <beam/beam.h>

#include "tests/support/raw_peer.h"
#include "tests/support/test.h"

#define SERVED_HELD_MAX 8192

struct served {
    beam_runtime *runtime;
    char name[80];
    char url[100];
    atomic_uint echoes, held, cancels, messages, ends, events, fds, channels;
    struct raw_peer good; /* the peer beside the attacker */
    uint64_t good_id;
    unsigned reactors;
    /* Per reactor, its own. */
    beam_request *requests[2][SERVED_HELD_MAX];
    unsigned request_count[2];
    beam_message *kept[2][SERVED_HELD_MAX];
    unsigned kept_count[2];
};

/* options may be NULL; transports and reactors (0: 1) are filled in. One such runtime at a time. */
struct served *served_start(const struct beam_runtime_options *options);
/* Stops, checks that it still served, frees. */
void served_stop(struct served *served);

/* The good peer's echo is answered. */
void served_check(struct served *served);
/* Frees what is kept; then all that is left are the good peer's session and no channels. */
void served_check_clean(struct served *served);

void served_release(struct served *served); /* answers what `hold` holds */
void served_drop(struct served *served);    /* frees what `deaf` and `take` keep */

/* Read on the reactor, so that they are exact; the asking is a turn or two. */
struct beam_stats served_stats(const struct served *served, unsigned reactor);
struct beam_stats served_stats_of(beam_runtime *runtime, unsigned reactor);

/* Waits for a condition that another thread brings about; bounded. */
#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        for (unsigned wait_ms_ = 0; !(condition) && wait_ms_ < RAW_TIMEOUT_MS; wait_ms_++)         \
            served_nap();                                                                          \
        CHECK(condition);                                                                          \
    } while (0)
void served_nap(void); /* 1 ms */

/* Runs fn(arg) on a reactor and waits until it has. */
void served_run(beam_runtime *runtime, unsigned reactor, void (*fn)(void *arg), void *arg);

/* io_uring, or the case is skipped. */
void served_need_io_uring(void);

#endif
