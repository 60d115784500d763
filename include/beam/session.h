/* Sessions: a session is one authenticated link to one peer, and over it go requests, events and
 * channels, in both directions: whoever connected may be asked, too.
 *
 * URLs name the way to the peer:
 *
 *     unix:/path        a socket file; unix:relative too
 *     unix:@name        an abstract socket of this machine (unix(7))
 *     unix:fd:N         a socket this process was started with. Once the call has succeeded the
 *                       descriptor is the library's to close
 *     ring:N            reactor N of this very runtime; needs no listener
 *
 * Everything here is called on the session's reactor, except where it says otherwise; the table in
 * <beam/runtime.h> has all of it in one place. */
#ifndef BEAM_SESSION_H
#define BEAM_SESSION_H

#include <beam/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_session beam_session;
typedef struct beam_request beam_request;

/* Options of URLs that lead over a network: <beam/net.h>. */
struct beam_net_connect;
struct beam_net_listen;

/* Who is at the other end, as the kernel says, or what has been verified, never as the peer says. */
struct beam_peer {
    enum {
        BEAM_PEER_SELF = 1, /* a reactor of this runtime: uid, gid and pid are this process's own */
        BEAM_PEER_UNIX = 2, /* SCM_CREDENTIALS of the peer's first packet (unix(7)) */
        BEAM_PEER_NET = 3,  /* of a network: no user, group or process is known (all ones) */
    } kind;
    uint32_t uid, gid;
    int32_t pid; /* may be another process by now: see beam_session_peer_pidfd */
    /* NET: who it is, as a certificate ("uri:…", "dns:…", "cn:…"), a token ("token:…") or a trusted proxy
     * ("proxy:…") says; empty: nobody knows. And from where it came: "192.0.2.7:4711". Both end with a
     * zero, and live as long as the session or the request they were asked of. Else empty. */
    beam_str identity, address;
};

/* --- connecting --- */

/* What a session tells. Each slot may be NULL. */
struct beam_session_handlers {
    /* The peer has answered: its limits and its identity are known. Once, at most. */
    void (*on_open)(beam_session *session, void *arg);
    /* A call, an open or an event has said -EAGAIN, and now there is room. */
    void (*on_writable)(beam_session *session, void *arg);
    /* The session has ended, and with it all that was under way; nothing follows. The code is OK
     * after an orderly end. The handle is still to be freed. */
    void (*on_close)(beam_session *session, const struct beam_status *status, void *arg);
    /* The peer takes no more requests of ours (GOAWAY); what is under way goes on. */
    void (*on_draining)(beam_session *session, void *arg);
};

struct beam_connect_options {
    size_t size;
    uint64_t timeout_ns; /* for connecting and the peer's first answer; 10 s */
    unsigned reactor;    /* beam_connect_wait: the one that is to own the session; 0 */
    const struct beam_session_handlers *handlers; /* borrowed for the session's life; none */
    void *arg;                                    /* of the handlers */
    /* For https:, http:, wss: and ws:; else NULL. Borrowed for the call. */
    const struct beam_net_connect *net;
};
#define BEAM_CONNECT_OPTIONS(...)                                                                  \
    ((struct beam_connect_options){.size = sizeof(struct beam_connect_options), __VA_ARGS__})

/* Opens a session that belongs to the calling reactor, and returns its handle, to be given back
 * with beam_session_free. Nothing is waited for: the session may be used at once, and what is sent
 * waits for the peer. If it cannot be reached, calls end with UNAVAILABLE and on_close tells why.
 * options may be NULL and are copied.
 * -BEAM_EURL: no URL, or no transport of this runtime knows it. -EPERM: not on a reactor of this
 * runtime. -EINVAL: no url, or options.net for a URL of another kind. -ESHUTDOWN: the runtime is stopping. -EMFILE and what else socket(2)
 * says; for unix:fd:N, -ENOTSOCK, -EPROTOTYPE, -ENOTCONN. -ENAMETOOLONG, -ENOMEM, -BEAM_EFORKED. */
BEAM_EXPORT int beam_connect(beam_runtime *runtime, const char *url,
                             const struct beam_connect_options *options,
                             beam_session **ret_session);

/* The same from a thread that is no reactor, waiting until the session is open: on_open is not
 * called for it. Errors as above, and what becomes of the connection:
 * -ETIMEDOUT. -ECONNREFUSED, -ENOENT and what else connect(2) says. -ECONNABORTED: the peer was
 * there and left. -BEAM_E…: it does not keep to the protocol (session errors, <beam/error.h>). Over a
 * network also -EACCES (401, 403), -EBUSY (429, 502, 503, 504), -EPROTO (no Beam), -EPROTONOSUPPORT (no
 * common version), -BEAM_ETLS_…. -ESHUTDOWN: the runtime has not been started, or has ended. -EINVAL: no
 * such reactor. -EDEADLK: on a reactor. */
BEAM_EXPORT int beam_connect_wait(beam_runtime *runtime, const char *url,
                                  const struct beam_connect_options *options,
                                  beam_session **ret_session);

/* Ends a session in order: the peer is asked to open nothing more (GOAWAY), what is under way
 * finishes, then the session closes. New calls of ours are refused from now on. */
BEAM_EXPORT void beam_session_drain(beam_session *session);

/* Ends a session now. What is under way ends with UNAVAILABLE if it has surely not reached the
 * peer, else with UNKNOWN. */
BEAM_EXPORT void beam_session_close(beam_session *session);

/* Gives the handle back, and closes the session if that is still to do. Calls under way get their
 * end all the same; handlers of the session are not called any more. On the session's reactor, or
 * from a thread that is none, which waits until it is done. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_session *beam_session_free(beam_session *session);
static inline void beam_session_freep(beam_session **session)
{
    *session = beam_session_free(*session);
}

/* --- listening --- */

struct beam_listen_options {
    size_t size;
    unsigned mode; /* of the socket file, whatever the umask; 0600 */
    /* For https:, http:, wss: and ws:; else NULL. Borrowed for the call. */
    const struct beam_net_listen *net;
};
#define BEAM_LISTEN_OPTIONS(...)                                                                   \
    ((struct beam_listen_options){.size = sizeof(struct beam_listen_options), __VA_ARGS__})

/* Listens at a URL. Sessions are dealt out over the reactors in turn. A socket file that a dead
 * server left behind is replaced. Any thread, before the start or after it; the socket is made at
 * once, so that its errors are told here, and peers are accepted once the runtime runs. options may
 * be NULL.
 * -EINVAL: options.net for a URL of another kind. -EADDRINUSE: somebody listens there. -EEXIST: there is a file which is no socket. -EACCES and
 * what else bind(2) says. -BEAM_EURL, -ENAMETOOLONG, -ESHUTDOWN, -EMFILE, -ENOMEM,
 * -BEAM_EFORKED. */
BEAM_EXPORT int beam_listen(beam_runtime *runtime, const char *url,
                            const struct beam_listen_options *options);

/* Stops listening at a URL, written as it was for beam_listen, and removes the socket file, as the
 * end of the runtime does. Sessions that were accepted go on. Any thread; waits until it is done.
 * -ENOENT: nobody listens there. -EINVAL: no url. -BEAM_EFORKED. */
BEAM_EXPORT int beam_unlisten(beam_runtime *runtime, const char *url);

/* The URL under which others reach a listener, which is named by the URL it was given: the same but for a
 * port of 0, for which the one that it got stands here. Writes at most size bytes, with an end. Any
 * thread. -ENOENT: nobody listens there. -ENOSPC: over size. -EINVAL: no url. -BEAM_EFORKED. */
BEAM_EXPORT int beam_listen_url(beam_runtime *runtime, const char *url, char *ret_url, size_t size);

/* --- asking --- */

struct beam_call_options {
    size_t size;
    uint64_t timeout_ns; /* becomes a deadline, which travels and is kept at both ends; none */
    /* The request in whose service this call is made, on the same reactor: the call ends when that
     * is cancelled, and gets no more time than that has left. NULL: none. beam_call_wait does not
     * look at it. */
    beam_request *parent;
};
#define BEAM_CALL_OPTIONS(...)                                                                     \
    ((struct beam_call_options){.size = sizeof(struct beam_call_options), __VA_ARGS__})

/* How a call ended. status is never NULL. message is the answer, borrowed; NULL when there was none
 * or the status is an error; of several answers the last (beam_open gives all of them). */
typedef void beam_reply_fn(const struct beam_status *status, const beam_message *message,
                           void *arg);

/* One request, one answer. Takes the message and has on_reply run exactly once, from the loop,
 * whatever becomes of peer and session; it may be NULL. Errors take nothing, and on_reply is not
 * called.
 * -EAGAIN: no room now, be it the queue of the session or what the peer takes of channels and fds;
 * the session's on_writable follows. -ESHUTDOWN: the session has ended, or is draining at either
 * end. -EINVAL: the name of the service is no UTF-8 of 1 to 255 bytes. -ELOOP: nested deeper than
 * 16. -ETIMEDOUT: no time is left. -ECANCELED: the parent has been cancelled. -EXDEV: the parent
 * lives on another reactor, or an attached channel does. -EMSGSIZE, -EPERM, -ENOMEM, the sticky error
 * of the message: as beam_channel_send. -BEAM_EFORKED. */
BEAM_EXPORT int beam_call(beam_session *session, const char *service, beam_message **message,
                          beam_reply_fn *on_reply, void *arg,
                          const struct beam_call_options *options);

/* The same from a thread that is no reactor, waiting for the end, on a session whose handle the
 * caller holds. What beam_call says -EAGAIN to, this waits for, as long as timeout_ns allows.
 *
 *   - 0: the request ended with OK. *ret_reply is the answer, the caller's, to be used on any
 *     thread; NULL: it was empty.
 *   - Above 0: the status code it ended with. *ret_reply is a message whose metadata are the
 *     details, "message" among them for people; or NULL. When timeout_ns is over this returns
 *     BEAM_DEADLINE_EXCEEDED at once, whatever the peer does.
 *   - Below 0: the call was not made, and the message is still the caller's. Errors as beam_call, but
 *     for -EAGAIN. -ETIMEDOUT: there was no room until timeout_ns was over. -EDEADLK: on a reactor.
 *     -BEAM_EFORKED.
 *
 * ret_reply may be NULL. The answer's fds stay in it. Channels attached to it are reset, because only
 * a reactor could use them. */
BEAM_EXPORT int beam_call_wait(beam_session *session, const char *service, beam_message **message,
                               const struct beam_call_options *options, beam_message **ret_reply);

/* A request that stays open: messages go both ways until each side ends its own. The first one is
 * what the service is asked; with message NULL an empty one is sent. *ret_channel is the caller's
 * to free; on_end tells the status of the request. handlers are borrowed for the channel's life.
 * Errors as beam_call. */
BEAM_EXPORT int beam_open(beam_session *session, const char *service, beam_message **message,
                          const struct beam_channel_handlers *handlers, void *arg,
                          const struct beam_call_options *options, beam_channel **ret_channel);

/* An event: a message that expects no answer. All events of a session for one name share one
 * channel: they arrive in order, and one credit limits them. Whether anybody serves the name is not
 * told. Errors as beam_call and beam_channel_send; after -EAGAIN the session's on_writable
 * follows. */
BEAM_EXPORT int beam_send_event(beam_session *session, const char *service, beam_message **message);

/* --- looking at a session --- */

/* The peer, valid as long as the session. On any thread once the session has opened. */
BEAM_EXPORT const struct beam_peer *beam_session_peer(const beam_session *session);

/* What the peer calls itself: a label for logs, a view as long as the session; empty until it has
 * opened. On any thread from then on. */
BEAM_EXPORT beam_str beam_session_peer_name(const beam_session *session);

/* Whether the session has opened and not ended. */
BEAM_EXPORT bool beam_session_is_open(const beam_session *session);

/* A pidfd (pidfd_open(2)) for the process that called connect(2) or socketpair(2) at the other end
 * of a unix session (SO_PEERPIDFD, Linux 6.5), the caller's to close. -ENOTSUP: another kind of
 * session, or an older kernel. -ESHUTDOWN: the session has ended, and its socket is
 * closed. */
BEAM_EXPORT int beam_session_peer_pidfd(const beam_session *session);

/* What a session holds of this process just now. Each number has its limit in struct
 * beam_limits. */
struct beam_session_stats {
    uint64_t memory_len;   /* bytes: all of it, the two below included */
    uint64_t queue_len;    /* bytes accepted for sending and not sent yet */
    uint64_t large_len;    /* bytes of large messages that came and are not freed yet */
    uint32_t channels;     /* open, by whomever */
    uint32_t fds_received; /* fds that came and were not taken or closed yet */
};
BEAM_EXPORT void beam_session_stats(const beam_session *session,
                                    struct beam_session_stats *ret_stats);

/* Asks the peer's library for a sign of life: fn(ns, arg) runs once, from the loop, with the time
 * of the round trip in ns, or 0 if the session ended first; not after beam_session_free. -EBUSY:
 * one is under way. -ESHUTDOWN: the session has ended. */
BEAM_EXPORT int beam_session_ping(beam_session *session, void (*fn)(uint64_t ns, void *arg),
                                  void *arg);

#ifdef __cplusplus
}
#endif

#endif
