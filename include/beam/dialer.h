/* Dialers: a dialer keeps a session to one peer. When it is lost, or cannot be had, it dials again: after
 * 100 ms, twice as long each time, up to 30 s, and each time a random part of that between a half and the
 * whole, so that many who lost the same peer do not come back at once (docs/spec/http.md L2).
 *
 *     static void on_up(beam_dialer *dialer, beam_session *session, void *arg) { ... }
 *     r = beam_dialer_new(rt, "https://db.example.org/", NULL, &handlers, arg, &dialer);
 *
 * Requests are not sent again: what was under way ends as the loss of a session ends it, UNAVAILABLE where it
 * has surely not run. A peer that drains is dialled anew at once, while what is under way with it finishes.
 *
 * Everything here is called on the reactor that made the dialer, and its handlers run there. */
#ifndef BEAM_DIALER_H
#define BEAM_DIALER_H

#include <beam/session.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_dialer beam_dialer;

#define BEAM_DIALER_RETRY_FIRST_NS (100 * BEAM_MS)
#define BEAM_DIALER_RETRY_LAST_NS (30 * BEAM_SEC)

/* Each slot may be NULL. A handler may free the dialer. */
struct beam_dialer_handlers {
    /* There is a session, and it is open. Borrowed, until on_down: it is not to be freed, but may be closed or
     * drained, which has another one dialled. */
    void (*on_up)(beam_dialer *dialer, beam_session *session, void *arg);
    /* As of struct beam_session_handlers, of the session that is up. */
    void (*on_writable)(beam_dialer *dialer, beam_session *session, void *arg);
    /* The session that was up has ended or drains, or an attempt has failed: status says why (OK: in order).
     * The next attempt begins in retry_ns; UINT64_MAX: there is none, as the runtime ends. */
    void (*on_down)(beam_dialer *dialer, const struct beam_status *status, uint64_t retry_ns,
                    void *arg);
};

/* Begins to dial; nothing is waited for. options, which may be NULL, are those of beam_connect for each
 * attempt; handlers and arg in them are not looked at; what `net` refers to is borrowed for the life of the
 * dialer. Errors that no time can mend are told here: -BEAM_EURL, -EPERM (not on a reactor of this runtime),
 * -EINVAL, -ESHUTDOWN, -ENOMEM, -BEAM_EFORKED, and what else beam_connect says of its arguments. */
BEAM_EXPORT int beam_dialer_new(beam_runtime *runtime, const char *url,
                                const struct beam_connect_options *options,
                                const struct beam_dialer_handlers *handlers, void *arg,
                                beam_dialer **ret_dialer);

/* The session that is up, borrowed; NULL: none is. */
BEAM_EXPORT beam_session *beam_dialer_session(const beam_dialer *dialer);

/* Frees it, and the session with it, as beam_session_free; no handler runs any more. What is left at the end of
 * the runtime is freed then. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_dialer *beam_dialer_free(beam_dialer *dialer);
static inline void beam_dialer_freep(beam_dialer **dialer)
{
    *dialer = beam_dialer_free(*dialer);
}

#ifdef __cplusplus
}
#endif

#endif
