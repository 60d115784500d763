/* A client runtime of one reactor with one session, whose server is a raw peer in the hands of the
 * test. */
#ifndef BEAM_TEST_ASKER_H
#define BEAM_TEST_ASKER_H

#include <stdatomic.h>

#include <beam/beam.h>

#include "tests/support/raw_peer.h"

#define ASKER_PENDING (-1)

struct asker {
    beam_runtime *runtime;
    beam_session *session;
    int listener;
    struct raw_peer peer; /* the server */
    uint64_t last_id;     /* the highest that came: asker_next checks M4 */
    atomic_bool opened;
    atomic_int closed;    /* ASKER_PENDING, or the code it ended with */
    char closed_text[64]; /* valid once it is closed */
    atomic_uint writable;
};

/* One thing asked for, and what became of it. */
struct asked {
    struct asker *asker;
    const char *service;
    const void *body;
    size_t body_len;
    int fds[16]; /* taken */
    unsigned fd_count;
    unsigned channel_count; /* attached, one message "first" sent on each */
    uint64_t timeout_ns;
    bool open; /* beam_open instead of beam_call */
    beam_channel *channel;
    beam_channel *channels[4];
    int result;      /* of beam_call or beam_open */
    atomic_int code; /* ASKER_PENDING, or how it ended */
    atomic_uint replies, fds_back, messages;
    atomic_int channel_codes[4];
};

/* Up to the exchange of HELLOs when greet is true; else the peer has only accepted. */
void asker_start(struct asker *asker, bool greet);
void asker_start_with(struct asker *asker, const struct beam_runtime_options *options,
                      const struct bm_hello *hello);
/* Towards somebody else's socket of this abstract name: without a raw peer, up to its HELLO; or only
 * begun, for the raw peer to be accepted and greeted by the test. */
void asker_start_at(struct asker *asker, const struct beam_runtime_options *options,
                    const char *name);
void asker_start_towards(struct asker *asker, const struct beam_runtime_options *options,
                         const char *name);
void asker_stop(struct asker *asker);
/* The peer's HELLO, and the client's. */
void asker_greet(struct asker *asker, const struct bm_hello *hello);

/* Asks on the reactor; returns when it has been asked. */
void asker_ask(struct asker *asker, struct asked *asked);
/* Sends a message on asked->channel: body, and fds (taken). */
int asker_send(struct asked *asked, const void *body, size_t len, const int *fds, unsigned count,
               bool last);
void asker_free_channel(struct asked *asked);  /* beam_channel_free */
void asker_free_channels(struct asked *asked); /* of the attached ones */

/* The peer's next MSG frame with a first part of a message; others are passed over. false: the end. */
bool asker_next(struct asker *asker, struct bm_message_head *ret_head);
/* The peer answers the channel with OK and no body. */
void asker_answer(struct asker *asker, uint64_t id);

#endif
