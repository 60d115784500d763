/* Two ends and a session between them, over each transport of one table.
 *
 *     static void on_echo(beam_request *request, const beam_message *message, void *arg) { ... }
 *
 *     FLOW_TEST(request_is_answered)
 *     {
 *         flow_serve("echo", on_echo, NULL);
 *         flow_start(NULL);
 *         ... beam_call(flow.session, ...);
 *         FLOW_WAIT(answer.count == 1);
 *     }
 *
 * becomes the cases request_is_answered/ring, …/unix and so on, one for each row.
 *
 * The case runs *on the client's reactor*: it may call everything in the library, callbacks run on its
 * thread and only within FLOW_WAIT, and checks of both kinds are welcome in them. Handlers run where
 * the service is: on the same reactor, another thread, or another process that was forked before there
 * was a runtime. What they and the case tell each other lies in flow_share() and is atomic; functions
 * and what was shared have the same address on both sides.
 *
 * Nothing sleeps to be sure: FLOW_WAIT turns the reactor until its condition holds, or fails. */
#ifndef BEAM_TEST_FLOW_H
#define BEAM_TEST_FLOW_H

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <beam/beam.h>

#include "tests/support/test.h"

enum flow_kind {
    FLOW_SELF,    /* a ring of one reactor to itself */
    FLOW_RING,    /* a ring between two reactors */
    FLOW_UNIX,    /* a unix socket between two runtimes of one process */
    FLOW_PROCESS, /* a unix socket between two processes */
    /* Between two runtimes of one process, over TCP: */
    FLOW_H2,  /* HTTP/2 */
    FLOW_H2S, /* HTTP/2 over TLS */
    FLOW_WSS, /* WebSocket over TLS */
    FLOW_KINDS,
};

struct flow_options {
    /* Each end's own. Over a ring both ends are one runtime, which has those of the server. */
    struct beam_limits client, server;
    enum beam_spin_policy spin;
    bool unconnected; /* no session is made */
    bool unawaited;   /* flow_start returns before the peer's HELLO has come */
};

/* What became of one beam_call: its arg, with flow_on_reply as its callback. */
struct flow_answer {
    unsigned count; /* how often on_reply ran */
    enum beam_code code;
    char text[256];
    beam_message *message; /* kept; flow_answer_clear */
};

extern struct flow {
    enum flow_kind kind;
    bool one_runtime; /* both ends belong to it */
    bool one_process;
    bool network; /* over HTTP: descriptors do not go yet */
    bool secure;  /* ... with TLS */
    char url[108];
    beam_runtime *runtime;             /* the client's */
    beam_session *session;             /* the client's end; a case that frees it sets it to NULL */
    unsigned opens, writables, closes; /* callbacks of that session */
    struct beam_status closed;         /* what on_close said; the text is closed_text */
    char closed_text[256];
} flow;

#define FLOW_TEST(name_)                                                                           \
    static void flow_##name_(void);                                                                \
    FLOW_CASE_(name_, FLOW_SELF, "self")                                                           \
    FLOW_CASE_(name_, FLOW_RING, "ring")                                                           \
    FLOW_CASE_(name_, FLOW_UNIX, "unix")                                                           \
    FLOW_CASE_(name_, FLOW_PROCESS, "process")                                                     \
    FLOW_CASES_OF_NETWORKS_(name_)                                                                 \
    static void flow_##name_(void)

#define FLOW_CASES_OF_NETWORKS_(name_)                                                             \
    FLOW_CASE_(name_, FLOW_H2, "h2")                                                               \
    FLOW_CASE_(name_, FLOW_H2S, "h2s")                                                             \
    FLOW_CASE_(name_, FLOW_WSS, "wss")

/* With descriptors, which go over rings and unix sockets alone so far. Where a network takes them too this
 * is FLOW_TEST. */
#define FLOW_TEST_FDS(name_)                                                                       \
    static void flow_##name_(void);                                                                \
    FLOW_CASE_(name_, FLOW_SELF, "self")                                                           \
    FLOW_CASE_(name_, FLOW_RING, "ring")                                                           \
    FLOW_CASE_(name_, FLOW_UNIX, "unix")                                                           \
    FLOW_CASE_(name_, FLOW_PROCESS, "process")                                                     \
    static void flow_##name_(void)

#define FLOW_TEST_FDS_ONE_PROCESS(name_)                                                           \
    static void flow_##name_(void);                                                                \
    FLOW_CASE_(name_, FLOW_SELF, "self")                                                           \
    FLOW_CASE_(name_, FLOW_RING, "ring")                                                           \
    FLOW_CASE_(name_, FLOW_UNIX, "unix")                                                           \
    static void flow_##name_(void)

/* For what only a socket of this machine can do. */
#define FLOW_TEST_UNIX(name_)                                                                      \
    static void flow_##name_(void);                                                                \
    FLOW_CASE_(name_, FLOW_UNIX, "unix")                                                           \
    FLOW_CASE_(name_, FLOW_PROCESS, "process")                                                     \
    static void flow_##name_(void)

/* For what needs both ends' memory. */
#define FLOW_TEST_ONE_PROCESS(name_)                                                               \
    static void flow_##name_(void);                                                                \
    FLOW_CASE_(name_, FLOW_SELF, "self")                                                           \
    FLOW_CASE_(name_, FLOW_RING, "ring")                                                           \
    FLOW_CASE_(name_, FLOW_UNIX, "unix")                                                           \
    FLOW_CASES_OF_NETWORKS_(name_)                                                                 \
    static void flow_##name_(void)

#define FLOW_CASE_(name_, kind_, suffix_)                                                          \
    static void flow_##name_##_over_##kind_(void)                                                  \
    {                                                                                              \
        flow_run(kind_, flow_##name_);                                                             \
    }                                                                                              \
    __attribute__((constructor)) static void flow_register_##name_##_over_##kind_(void)            \
    {                                                                                              \
        static struct test_case test_case_ = {#name_ "/" suffix_, flow_##name_##_over_##kind_,     \
                                              NULL};                                               \
        test_register(&test_case_);                                                                \
    }

/* Zeroed memory that both ends see; before flow_start. */
void *flow_share(size_t len);

/* Serves at both ends; before flow_start. */
void flow_serve(const char *name, beam_handler *handler, void *arg);

/* The same on one reactor of the server alone, its home, which is not the one sessions come in on:
 * each request makes a hop. flow_start then gives the server two reactors. */
void flow_serve_at_home(const char *name, beam_handler *handler, void *arg);

/* The same of services that have a codec, which both ends know: one that is always known, or was
 * registered. */
void flow_serve_in(const struct beam_codec *codec, const char *name, beam_handler *handler,
                   void *arg);
void flow_serve_in_at_home(const struct beam_codec *codec, const char *name, beam_handler *handler,
                           void *arg);
/* Who may ask for the service that was named last. */
void flow_allow(beam_allow_fn *allow);
void flow_register(const struct beam_codec *codec);

/* Both ends and the session. NULL: defaults. */
void flow_start(const struct flow_options *options);

/* What the peer of a session, or of a request at the server, is. */
static inline int flow_peer_kind(void)
{
    return flow.one_runtime ? BEAM_PEER_SELF : flow.network ? BEAM_PEER_NET : BEAM_PEER_UNIX;
}

/* How often so many messages may ask for memory at one end when all is warm: not at all, but that TLS's
 * library takes some for each record, and gives it back. */
static inline uint64_t flow_allocs_max(uint64_t messages)
{
    return flow.secure ? 4 * messages : 0;
}

/* Another session; handlers may be NULL. */
beam_session *flow_connect(const struct beam_session_handlers *handlers, void *arg);

/* Ends both ends, in order, and checks that the other process found nothing wrong. At the end of each
 * case by itself. */
void flow_stop(void);

/* Turns the client's reactor until expr holds; fails the case when it does not become true. */
#define FLOW_WAIT(expr)                                                                            \
    do {                                                                                           \
        uint64_t flow_until_ = flow_wait_limit_ns();                                               \
        bool flow_holds_;                                                                          \
        while (!(flow_holds_ = (expr)) && beam_now_ns() < flow_until_)                             \
            flow_turn();                                                                           \
        test_check(flow_holds_, #expr, TEST_AT_, true);                                            \
    } while (0)

uint64_t flow_wait_limit_ns(void);
void flow_turn(void);

/* Returns when all that both ends had sent, and what that caused, has been handled: for showing that
 * something does *not* happen. */
void flow_settle(void);

/* Ends a turn of FLOW_WAIT early when the client's reactor calls it; no effect elsewhere. What changes
 * there is seen within a millisecond. */
void flow_tick(void);

/* How many of the same a case does: in a sweep (sweep.h), where each is a place for a fault of its own
 * and the thousandth finds what the hundredth found, so few instead. */
unsigned flow_many(unsigned many, unsigned in_sweep);

/* The runtime of the reactor this is called on. */
beam_runtime *flow_runtime_here(void);

/* Runs fn on the server's reactor, with a request of its own, and waits for it. Not on a session that
 * takes no more requests. */
void flow_at_server(void (*fn)(beam_request *request, void *arg), void *arg);

/* The same at the home of flow_serve_at_home. */
void flow_at_home(void (*fn)(beam_request *request, void *arg), void *arg);

/* beam_call's callback, with a struct flow_answer as its arg. */
void flow_on_reply(const struct beam_status *status, const beam_message *message, void *arg);
void flow_answer_clear(struct flow_answer *answer);

/* Calls and waits. message may be NULL: an empty one. */
struct flow_answer flow_ask(const char *service, beam_message *message);

/* The text of a status, cut and ended. */
void flow_copy_text(char *to, size_t size, beam_str text);

/* A message with a body of len bytes that flow_body_is_right knows again, whatever its start. */
beam_message *flow_message_of(size_t len, unsigned seed);
bool flow_body_is_right(const beam_message *message, size_t len, unsigned seed);

/* Behind the macros. */
void flow_run(enum flow_kind kind, void (*body)(void));

#endif
