/* Sessions: one authenticated link to one peer, and what is asked over it: requests, events, channels.
 *
 * URLs: unix:/path · unix:@abstract · unix:fd:N (an inherited socket) · ring:N (reactor N of this
 * very runtime). */
#ifndef BEAM_SESSION_H
#define BEAM_SESSION_H

#include <beam/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_session beam_session;
typedef struct beam_request beam_request;

/* Who is at the other end, as the kernel says, never as the peer says. */
struct beam_peer {
    enum { BEAM_PEER_SELF = 1, BEAM_PEER_UNIX = 2 } kind;
    uint32_t uid,
        gid; /* SCM_CREDENTIALS of the HELLO packet (unix(7)); of SELF this process's own */
    int32_t pid;
};

/* Each slot may be NULL. */
struct beam_session_handlers {
    void (*on_open)(beam_session *session, void *arg);     /* the peer's HELLO has come */
    void (*on_writable)(beam_session *session, void *arg); /* after -EAGAIN of a call or an open */
    void (*on_close)(beam_session *session, const struct beam_status *status, void *arg);
};

struct beam_connect_options {
    size_t size;
    uint64_t timeout_ns;                          /* for connecting and HELLO; 0: 10 s */
    unsigned reactor;                             /* beam_connect_wait: which reactor owns it */
    const struct beam_session_handlers *handlers; /* borrowed for the session's life */
    void *arg;
};
#define BEAM_CONNECT_OPTIONS(...)                                                                  \
    ((struct beam_connect_options){.size = sizeof(struct beam_connect_options), __VA_ARGS__})

/* Opens a session from the calling reactor. It can be used at once: what is sent waits for the peer.
 * Failure to connect ends it: calls end UNAVAILABLE, on_close tells why. The caller owns the handle
 * (beam_session_free). Errors: -BEAM_EURL, -EPERM off a reactor, -EMFILE, -ENOMEM. */
BEAM_EXPORT int beam_connect(beam_runtime *runtime, const char *url,
                             const struct beam_connect_options *options,
                             beam_session **ret_session);

/* The same from any thread that is not a reactor (-EDEADLK there), waiting until the peer's HELLO
 * has come. -ETIMEDOUT, -ECONNREFUSED, -ENOENT, …: what the transport said. */
BEAM_EXPORT int beam_connect_wait(beam_runtime *runtime, const char *url,
                                  const struct beam_connect_options *options,
                                  beam_session **ret_session);

/* Listens. Sessions are dealt out over the reactors in turn. A stale socket file of a dead server is
 * replaced, a live one is -EADDRINUSE. The file goes with beam_unlisten or the runtime. Any thread,
 * before or after the start; before it, errors of the socket still come from here. */
struct beam_listen_options {
    size_t size;
    unsigned mode; /* of the socket file, 0: 0600 */
};
#define BEAM_LISTEN_OPTIONS(...)                                                                   \
    ((struct beam_listen_options){.size = sizeof(struct beam_listen_options), __VA_ARGS__})
BEAM_EXPORT int beam_listen(beam_runtime *runtime, const char *url,
                            const struct beam_listen_options *options);
BEAM_EXPORT int beam_unlisten(beam_runtime *runtime, const char *url);

/* Ends a session in order: GOAWAY, what is under way finishes, then it closes. */
BEAM_EXPORT void beam_session_drain(beam_session *session);

/* Ends it now; channels without status end UNAVAILABLE or UNKNOWN. */
BEAM_EXPORT void beam_session_close(beam_session *session);

/* Gives the handle of beam_connect back, closing the session if it is open; no callback follows.
 * Also from a foreign thread for the handle of beam_connect_wait. NULL is fine; returns NULL. */
BEAM_EXPORT beam_session *beam_session_free(beam_session *session);
static inline void beam_session_freep(beam_session **session)
{
    *session = beam_session_free(*session);
}

BEAM_EXPORT const struct beam_peer *beam_session_peer(const beam_session *session);
BEAM_EXPORT beam_str beam_session_peer_name(const beam_session *session); /* a label only */
BEAM_EXPORT bool beam_session_is_open(const beam_session *session);

/* What a session holds of this process just now. Each number has its limit in struct beam_limits. */
struct beam_session_stats {
    uint64_t memory_len;   /* bytes: everything below, and the session's own tables and packet */
    uint64_t queue_len;    /* bytes accepted and not yet sent */
    uint64_t large_len;    /* large messages of the peer that the application is not done with */
    uint32_t channels;     /* open now, by whomever */
    uint32_t fds_received; /* fds of the peer that nobody has taken or closed yet */
};
BEAM_EXPORT void beam_session_stats(const beam_session *session,
                                    struct beam_session_stats *ret_stats);

/* A pidfd for the peer of a unix session (SO_PEERPIDFD, Linux 6.5), the caller's to close. It names the
 * process that called connect(2) or socketpair(2). -ENOTSUP elsewhere. */
BEAM_EXPORT int beam_session_peer_pidfd(const beam_session *session);

/* Round trip to the peer's library: fn(ns, arg) once, ns = 0 when the session ended first.
 * -EBUSY: one is under way; -ESHUTDOWN. */
BEAM_EXPORT int beam_session_ping(beam_session *session, void (*fn)(uint64_t ns, void *arg),
                                  void *arg);

struct beam_call_options {
    size_t size;
    uint64_t timeout_ns;  /* becomes the deadline that travels; 0: none */
    beam_request *parent; /* its deadline, its cancel and its depth travel to this call */
};
#define BEAM_CALL_OPTIONS(...)                                                                     \
    ((struct beam_call_options){.size = sizeof(struct beam_call_options), __VA_ARGS__})

/* One request, one answer: on_reply runs exactly once. status is never NULL; message is NULL without
 * an answer (several answers: the last; use beam_open for all of them).
 * 0: *message is NULL. -EAGAIN: session's queue, channels or fd credit used up; its on_writable
 * follows. -EINVAL: name; -ESHUTDOWN: the session is closed or draining; -ELOOP: nested deeper than
 * 16; -ETIMEDOUT: parent's deadline passed; or as beam_channel_send. */
typedef void beam_reply_fn(const struct beam_status *status, const beam_message *message,
                           void *arg);
BEAM_EXPORT int beam_call(beam_session *session, const char *service, beam_message **message,
                          beam_reply_fn *on_reply, void *arg,
                          const struct beam_call_options *options);

/* The same from a foreign thread. 0 and *ret_reply (may be NULL for an empty answer); > 0: the
 * status code the peer answered, and *ret_reply is a message whose metadata are the details, or NULL;
 * < 0: a local error. -EDEADLK on a reactor. A time-out leaves at once. */
BEAM_EXPORT int beam_call_wait(beam_session *session, const char *service, beam_message **message,
                               const struct beam_call_options *options, beam_message **ret_reply);

/* A request that stays open: messages both ways until each side ends. The first message may be NULL
 * (an empty one is sent). The caller owns the channel. Errors as beam_call. */
BEAM_EXPORT int beam_open(beam_session *session, const char *service, beam_message **message,
                          const struct beam_channel_handlers *handlers, void *arg,
                          const struct beam_call_options *options, beam_channel **ret_channel);

/* An event: no answer. All events of a session for one name share one channel and its credit. */
BEAM_EXPORT int beam_send_event(beam_session *session, const char *service, beam_message **message);

#ifdef __cplusplus
}
#endif

#endif
