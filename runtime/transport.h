/* A transport: a scheme of URLs, and how sessions are connected and accepted under it. */
#ifndef BM_TRANSPORT_H
#define BM_TRANSPORT_H

#include <beam/session.h>

#include "base/list.h"

struct bm_core;

/* Somebody listens: made by a transport, kept by the runtime, run by core 0. */
struct bm_listener {
    struct bm_list node;
    const struct beam_transport *transport;
    beam_runtime *runtime;
    struct bm_core *core; /* once it runs */
    char *url;            /* as it was given; a block of url_len + 1 */
    size_t url_len;
    char *
        real_url; /* where it listens indeed, if that is not the same; a block of real_url_len + 1 */
    size_t real_url_len;
    bool closing; /* stop was called */
    bool running; /* start was called */
};

struct beam_transport {
    const char *scheme; /* with its colon, as URLs begin: "unix:" */
    /* Core's thread. A session that is CONNECTING or OPEN; the caller gets no reference (the carrier
     * has one). options: all of ours are there; the handlers are not its business. Else a negative
     * error; -EINVAL for options that it does not have. */
    int (*connect)(struct bm_core *core, const char *url,
                   const struct beam_connect_options *options, beam_session **ret_session);
    /* Any thread: makes the socket, so that errors are told at once; runs nothing yet. */
    int (*listen)(beam_runtime *runtime, const char *url, const struct beam_listen_options *options,
                  struct bm_listener **ret_listener);
    /* Core's thread: accept from now on. */
    void (*start)(struct bm_listener *listener, struct bm_core *core);
    /* Core's thread: stop. Frees the listener when its last op has ended. */
    void (*stop)(struct bm_listener *listener);
    /* Any thread, of a listener that never ran. */
    void (*free)(struct bm_listener *listener);
};

/* The transport of a URL among those the runtime was given; NULL. */
const struct beam_transport *bm_transport_find(const beam_runtime *runtime, const char *url);

#endif
