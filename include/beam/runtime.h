/* The runtime: one reactor per core, each a thread with its own io_uring, sharing nothing.
 *
 * Threads. Everything in this library runs on the reactor that owns the object it is called with,
 * except what this table names:
 *
 *   | function                                             | thread                              |
 *   |------------------------------------------------------|-------------------------------------|
 *   | beam_runtime_new, _free, beam_run, beam_start        | the one that makes the runtime      |
 *   | beam_runtime_stop                                    | any; also from a signal handler     |
 *   | beam_post, beam_serve, beam_serve_on, beam_unserve   | any                                 |
 *   | beam_listen, beam_unlisten                           | any                                 |
 *   | beam_connect_wait, beam_call_wait, beam_session_free | any that is not a reactor           |
 *   | beam_message_new (with NULL), put, attach, free      | any, one at a time per message      |
 *
 * Callbacks run on the reactor's thread, from its loop, never from inside the call that caused them.
 */
#ifndef BEAM_RUNTIME_H
#define BEAM_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <beam/error.h>
#include <beam/export.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_runtime beam_runtime;
typedef struct beam_timer beam_timer;

#define BEAM_US UINT64_C(1000)
#define BEAM_MS UINT64_C(1000000)
#define BEAM_SEC UINT64_C(1000000000)

/* Scope-bound release: BEAM_CLEANUP(beam_message_freep) beam_message *msg = NULL; */
#define BEAM_CLEANUP(fn) __attribute__((__cleanup__(fn)))

/* A way for sessions to travel. Values of this type are given to the runtime by pointer, so that a
 * program links only the transports it names. The ring between reactors is always there. */
struct beam_transport;
BEAM_EXPORT extern const struct beam_transport beam_unix;

#define BEAM_TRANSPORTS(...) ((const struct beam_transport *const[]){__VA_ARGS__, NULL})

enum beam_log_level {
    BEAM_LOG_ERROR = 3, /* numbers as in syslog(3) */
    BEAM_LOG_WARNING = 4,
    BEAM_LOG_INFO = 6,
    BEAM_LOG_DEBUG = 7,
};

/* What a session may cost us. 0 anywhere: the default. docs/spec/session.md section 9. */
struct beam_limits {
    size_t size;               /* sizeof(struct beam_limits) */
    uint32_t window;           /* bytes of credit per channel and direction; 65 536 */
    uint32_t channels_max;     /* channels the peer may have open; 1024 */
    uint32_t message_len_max;  /* metadata + body; 16 MiB */
    uint32_t large_len_max;    /* large messages of a session in memory at once; 32 MiB */
    uint32_t queue_len_max;    /* bytes waiting to be sent, per session; 4 MiB */
    uint32_t fds_max;          /* fds on their way to us, per session; 64 */
    bool fds_refused;          /* take no fds at all: senders get -EPERM */
    uint32_t sessions_uid_max; /* sessions of one *other* uid; 256 */
    uint32_t aborts_per_s;     /* resets a peer may send; 100, burst twice that */
};

enum beam_spin_policy {
    BEAM_SPIN_AUTO = 0, /* spin only where it was measured to pay */
    BEAM_SPIN_OFF,      /* always sleep in the kernel */
    BEAM_SPIN_FOREVER,  /* never sleep: dedicated cores, benchmarks */
};

struct beam_runtime_options {
    size_t size;                                    /* sizeof(struct beam_runtime_options) */
    unsigned reactors;                              /* threads; 0: 1. At most BEAM_REACTORS_MAX */
    const struct beam_transport *const *transports; /* NULL-terminated; NULL: rings only */
    struct beam_limits limits;
    const char *name; /* a label for logs and HELLO; NULL: the program's name */
    bool embedded;    /* one reactor inside the caller's own loop */
    enum beam_spin_policy spin;
    uint64_t stop_timeout_ns; /* how long beam_runtime_stop lets sessions finish; 0: 1 s */
    void (*log)(enum beam_log_level level, const char *text, void *arg); /* any reactor's thread */
    void *log_arg;
};

#define BEAM_REACTORS_MAX 64 /* ours: rings are quadratic in it (64 KiB each) */

#define BEAM_RUNTIME_OPTIONS(...)                                                                  \
    ((struct beam_runtime_options){.size = sizeof(struct beam_runtime_options), __VA_ARGS__})

/* Makes a runtime; nothing runs yet. Embedded runtimes make their ring here, on this thread.
 * options may be NULL and are copied, the table of transports too.
 * Errors: -EINVAL, -ENOMEM, -BEAM_ENO_IO_URING (beam_runtime_why() has the cause and the cure). */
BEAM_EXPORT int beam_runtime_new(const struct beam_runtime_options *options,
                                 beam_runtime **ret_runtime);

/* Stops what still runs, waits for its threads, frees. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_runtime *beam_runtime_free(beam_runtime *runtime);
static inline void beam_runtime_freep(beam_runtime **runtime)
{
    *runtime = beam_runtime_free(*runtime);
}

/* Runs reactor 0 on this thread and the others on threads of their own, until beam_runtime_stop.
 * Returns 0 after an orderly stop, or the error that prevented the start. */
BEAM_EXPORT int beam_run(beam_runtime *runtime);

/* The same on threads of its own; returns at once when all reactors run. */
BEAM_EXPORT int beam_start(beam_runtime *runtime);

/* Asks for the end: listeners close, sessions get GOAWAY and stop_timeout_ns to finish, then
 * beam_run returns. Any thread, and safe in a signal handler (signal-safety(7)). */
BEAM_EXPORT void beam_runtime_stop(beam_runtime *runtime);

/* Embedded: an fd that is readable (level-triggered) whenever beam_runtime_turn has work; borrowed.
 * Poll it for reading in any loop and call beam_runtime_turn when it fires; no return value to obey,
 * no time-out to honour. Other threads may use the runtime as they may any; what they wait for happens
 * in its turns. -EINVAL when the runtime is not embedded; -EDEADLK from a callback, which is inside a
 * turn. */
BEAM_EXPORT int beam_runtime_fd(beam_runtime *runtime);
BEAM_EXPORT int beam_runtime_turn(beam_runtime *runtime);

/* Runs fn(arg) on a reactor, in order per posting thread. Any thread; before the start too, and then it
 * runs first of all (or never, if the runtime is freed unstarted). -EAGAIN: its mailbox is full (1024
 * posts); -ESHUTDOWN: it has ended; nothing was taken then. -EINVAL: no such reactor. */
typedef void beam_post_fn(void *arg);
BEAM_EXPORT int beam_post(beam_runtime *runtime, unsigned reactor, beam_post_fn *fn, void *arg);

/* The reactor this thread is, or -1. */
BEAM_EXPORT int beam_reactor_current(void);
BEAM_EXPORT unsigned beam_reactor_count(const beam_runtime *runtime);

/* Calls fn(arg) on the calling reactor, once after delay_ns or, with period_ns > 0, again and again
 * at that rate without drift. The timer is freed by beam_timer_free (also from its own callback) and
 * by the end of the runtime. runtime may be NULL: the calling reactor's. -EPERM off a reactor or on
 * another runtime's, -ENOMEM. */
typedef void beam_timer_fn(void *arg);
BEAM_EXPORT int beam_timer_new(beam_runtime *runtime, uint64_t delay_ns, uint64_t period_ns,
                               beam_timer_fn *fn, void *arg, beam_timer **ret_timer);
BEAM_EXPORT beam_timer *beam_timer_free(beam_timer *timer);

/* CLOCK_MONOTONIC, or what a test put in its place. Any thread. */
BEAM_EXPORT uint64_t beam_now_ns(void);

/* Counters of one reactor since it began. Read on that reactor they are exact; elsewhere they may be
 * a few operations old. */
struct beam_stats {
    uint64_t turns, enters, sqes, cqes, overflows, enobufs, rearms;
    uint64_t wakes_sent, wakes_skipped, sleeps, spins, spin_hits;
    uint64_t wake_cost_ns, spin_budget_ns;
    uint64_t allocs; /* calls of the allocator, on this reactor's thread */
    uint64_t messages_sent, messages_received, packets_sent, packets_received;
    uint64_t fds_sent, fds_received;
    uint64_t sessions, channels; /* open now */
};
BEAM_EXPORT int beam_runtime_stats(beam_runtime *runtime, unsigned reactor,
                                   struct beam_stats *ret_stats);

/* What this machine and build have; texts are static. */
struct beam_platform {
    const char *version; /* of this library */
    const char *kernel, *liburing;
    bool io_uring, passrights, pidfd, min_wait, no_iowait;
};
BEAM_EXPORT const struct beam_platform *beam_platform(void);

/* Why io_uring is not available here and what to do about it; "" when it is. */
BEAM_EXPORT const char *beam_runtime_why(void);

/* The limits that 0 stands for. */
BEAM_EXPORT void beam_limits_default(struct beam_limits *ret_limits);

/* Prints "beam: what, and what to do" for a negative error of this library, or for a status code above
 * 0 as the _wait calls return, to out (may be NULL). Returns the exit code that stands for it: 0 ok,
 * 2 usage or URL, 3 no io_uring, 4 peer unavailable, 5 permission, 6 a limit, 7 time was up, 8 not
 * found, 9 another status, 1 any other error. */
BEAM_EXPORT int beam_exit_code(int error, FILE *out);

#ifdef __cplusplus
}
#endif

#endif
