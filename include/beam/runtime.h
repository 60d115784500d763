/* The runtime: one or more reactors, and time.
 *
 * A *reactor* is one thread with one io_uring. It owns its sessions, channels, requests and timers
 * for their whole life, and it alone runs their callbacks, so nothing here needs a lock of yours. A
 * *runtime* is the reactors of one program and what they serve. A program makes a runtime, adds
 * services (<beam/service.h>) and listeners (<beam/session.h>), and lets it run in one of three
 * ways:
 *
 *     beam_run      on this thread, until beam_runtime_stop
 *     beam_start    on threads of its own, while this one does something else
 *     embedded      inside the event loop that the program has already
 *
 * Callbacks run from the reactor's loop, never from inside the call that caused them. They must not
 * block: everything else on that reactor waits for them.
 *
 * Threads. An object is used on the reactor that owns it: inside its callbacks, inside functions
 * posted with beam_post, and, embedded, anywhere on the host's thread. The exceptions:
 *
 *   | function                                              | thread                             |
 *   |-------------------------------------------------------|------------------------------------|
 *   | beam_runtime_new, beam_runtime_free, beam_run,        | one thread that is no reactor;     |
 *   |   beam_start, beam_codec_register                     |   embedded: the host's             |
 *   | beam_runtime_fd, beam_runtime_turn                    | the host's                         |
 *   | beam_runtime_stop                                     | any, and in a signal handler       |
 *   | beam_post, beam_serve, beam_serve_on,                 | any                                |
 *   |   beam_serve_with, beam_unserve,                      |                                    |
 *   |   beam_listen, beam_unlisten, beam_listen_url,        |                                    |
 *   |   beam_net_reload, beam_net_adopt, beam_runtime_stats |                                    |
 *   | beam_connect_wait, beam_call_wait                     | any that is no reactor             |
 *   | beam_session_free                                     | the session's, or any that is no   |
 *   |                                                       |   reactor                          |
 *   | beam_session_peer, beam_session_peer_name             | any, once the session has opened   |
 *   | beam_message_*, of a message built here or answered   | any, one at a time; but a channel  |
 *   |   by beam_call_wait                                   |   is attached on a reactor         |
 *   | beam_message_free, of any message                     | any                                |
 *   | beam_reactor_*, beam_now_ns, beam_platform,           | any                                |
 *   |   beam_runtime_why, beam_limits_default,              |                                    |
 *   |   beam_exit_code, and all of error.h and kv.h         |                                    |
 *   | beam_store_read, beam_store_read_file                 | any                                |
 *   | beam_store_dump_*                                     | any, one at a time for each dump   |
 *
 * Errors are negative: -errno or -BEAM_E… (<beam/error.h>). Times are nanoseconds of
 * CLOCK_MONOTONIC.
 *
 * fork(2): a child cannot use a runtime of its parent. Calls answer -BEAM_EFORKED there, what is sent on
 * a channel or answered goes nowhere, and beam_runtime_free closes the child's copies of its descriptors
 * and leaves the memory alone. The parent notices nothing. What that means for the lock of a store's file:
 * <beam/store.h>.
 *
 * Options. Structs of options begin with their size and are made by a macro that sets it: a later
 * version of the library can tell by it which fields a program knows. A field that is 0 or NULL
 * means the default. */
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

/* Options: each struct of them begins with its own size, which the macro of its name fills in
 * (BEAM_RUNTIME_OPTIONS and so on), and zero means the default in every member. A program may so be
 * older than the library or newer: what a shorter struct lacks counts as zero; of a longer one what the
 * library does not know must be zero, else -E2BIG. -EINVAL: no size. Where options may be NULL, all is
 * default. */

/* A way for sessions to travel, and the scheme of URLs that names it. The runtime is given pointers
 * to these, so that a program links only the transports it names. The rings between the reactors of
 * one runtime ("ring:") need no entry. */
struct beam_transport;
BEAM_EXPORT extern const struct beam_transport beam_unix; /* "unix:", unix(7) SOCK_SEQPACKET */

/* The value of beam_runtime_options.transports. Lives as long as the block it stands in, which is
 * long enough: beam_runtime_new copies it. */
#define BEAM_TRANSPORTS(...) ((const struct beam_transport *const[]){__VA_ARGS__, NULL})

enum beam_log_level {
    BEAM_LOG_ERROR = 3, /* numbers as in syslog(3) */
    BEAM_LOG_WARNING = 4,
    BEAM_LOG_INFO = 6,
    BEAM_LOG_DEBUG = 7,
};

/* How much one session may cost this process. Behind each field stands the default, which 0 means
 * too. Values outside the range of the protocol are brought into it (docs/spec/session.md section
 * 3). What is marked [told] is sent to the peer, which keeps to it; breaking it ends the
 * session. */
struct beam_limits {
    size_t size;               /* not looked at: the size of beam_runtime_options covers it */
    uint32_t window;           /* [told] credit of each channel, bytes; 65 536, at least 16 384 */
    uint32_t channels_max;     /* [told] channels the peer has open at once; 1024 */
    uint32_t message_len_max;  /* [told] metadata and body of one message, bytes; 16 MiB */
    uint32_t large_len_max;    /* messages over one frame (64 KiB) that came and are not freed yet,
                                  bytes; 32 MiB, at least message_len_max. More are refused. A document
                                  on the way between two other codecs is no longer than this, too */
    uint32_t queue_len_max;    /* accepted for sending and not sent yet, bytes; 4 MiB */
    uint32_t fds_max;          /* [told] fds that came and were not taken or closed yet; 64 */
    bool fds_refused;          /* [told] take no fds, ever: whoever sends one is answered -EPERM */
    uint32_t sessions_uid_max; /* sessions from one uid other than ours, over all reactors; 256. One
                                  more is closed as soon as it is accepted */
    uint32_t aborts_per_s;     /* resets of its own requests that a peer may send in a second; 100,
                                  and twice that in a burst */
};

/* What a reactor with nothing to do does first. It spins only if there is a CPU for every reactor,
 * and never when embedded, whatever stands here. */
enum beam_spin_policy {
    BEAM_SPIN_AUTO = 0, /* looks for work for a while where that was measured to pay, then sleeps */
    BEAM_SPIN_OFF,      /* sleeps in the kernel at once */
    BEAM_SPIN_FOREVER,  /* never sleeps: dedicated cores, benchmarks */
};

#define BEAM_REACTORS_MAX 64 /* ours: there is a ring of 64 KiB from each to each */

struct beam_runtime_options {
    size_t size;                                    /* sizeof(struct beam_runtime_options) */
    unsigned reactors;                              /* 1; at most BEAM_REACTORS_MAX */
    const struct beam_transport *const *transports; /* ends with NULL; none, at most 8 */
    struct beam_limits limits;
    const char *name; /* a label for logs and the peer, never an identity; the program's name */
    bool embedded;    /* one reactor, which the host's loop turns (beam_runtime_fd) */
    enum beam_spin_policy spin;
    uint64_t stop_timeout_ns; /* how long the stop lets sessions finish; 1 s */
    /* What the library has to say; it never prints. NULL: nobody listens. Called on the threads of
     * the reactors, and inside beam_listen and beam_net_reload, which say what is wrong with their
     * options; text is valid during the call. */
    void (*log)(enum beam_log_level level, const char *text, void *arg);
    void *log_arg;
};

#define BEAM_RUNTIME_OPTIONS(...)                                                                  \
    ((struct beam_runtime_options){.size = sizeof(struct beam_runtime_options), __VA_ARGS__})

/* Makes a runtime; nothing runs yet, but an embedded one is ready to be turned. options may be NULL
 * and are copied, the table of transports and the name too. The caller owns the runtime.
 * -EINVAL: more reactors or transports than there may be, several reactors embedded, no such spin
 * policy. -E2BIG: as any options. -ENOMEM. Embedded also the errors of beam_start, because its ring is made here. */
BEAM_EXPORT int beam_runtime_new(const struct beam_runtime_options *options,
                                 beam_runtime **ret_runtime);

/* Stops it if it still runs (beam_runtime_stop), waits for its threads, frees it. Not to be called
 * from one of its callbacks. Handles of sessions, channels and messages that the application still
 * holds are then good for being freed and nothing else. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_runtime *beam_runtime_free(beam_runtime *runtime);
static inline void beam_runtime_freep(beam_runtime **runtime)
{
    *runtime = beam_runtime_free(*runtime);
}

/* Runs reactor 0 on this thread and the others on threads of their own, until beam_runtime_stop;
 * all of them have ended when it returns. Once in a runtime's life. Returns 0 after an orderly stop.
 * -BEAM_ENO_IO_URING (beam_runtime_why has the cause and the cure), -ENOMEM, -EMFILE or what else the
 * kernel says: a reactor could not be made, and none runs. -EALREADY: it has been started before.
 * -EINVAL: it is embedded. -BEAM_EFORKED. */
BEAM_EXPORT int beam_run(beam_runtime *runtime);

/* The same with all reactors on threads of their own; returns as soon as they run, or cannot.
 * Errors as beam_run. */
BEAM_EXPORT int beam_start(beam_runtime *runtime);

/* Asks for the end, and returns at once: listeners close, sessions are drained (beam_session_drain)
 * for at most stop_timeout_ns and then closed, then the reactors end and beam_run returns. An
 * embedded runtime drains while its host turns it. Any thread, and safe in a signal handler
 * (signal-safety(7)). */
BEAM_EXPORT void beam_runtime_stop(beam_runtime *runtime);

/* Embedded: a descriptor that is readable (level-triggered, as poll(2) has it) whenever
 * beam_runtime_turn has something to do, timers included. It is the runtime's: poll it in any loop,
 * neither read nor close it. Other threads may use the runtime as they may any; what they wait for
 * happens in its turns. -EINVAL: the runtime is not embedded. */
BEAM_EXPORT int beam_runtime_fd(beam_runtime *runtime);

/* Embedded: does what there is to do within a budget, without blocking; callbacks run in here. The
 * fd is readable again if something is left, so there is no result to obey and no time-out to
 * compute. Returns 0; -EINVAL: the runtime is not embedded; -EDEADLK: from a callback, which is inside
 * a turn; -BEAM_EFORKED. */
BEAM_EXPORT int beam_runtime_turn(beam_runtime *runtime);

/* --- from one thread to another --- */

typedef void beam_post_fn(void *arg);

/* Has fn(arg) run on a reactor, from its loop; calls posted by one thread run in their order. Any
 * thread. Calls posted before the start run before everything else, or never, if the runtime is
 * freed without having been started. After an error fn does not run, and arg is the caller's.
 * -EAGAIN: the mailbox of that reactor is full (1024 calls). -ESHUTDOWN: it has ended. -EINVAL: no
 * such reactor, or fn is NULL. -ENOMEM (before the start only), -BEAM_EFORKED. */
BEAM_EXPORT int beam_post(beam_runtime *runtime, unsigned reactor, beam_post_fn *fn, void *arg);

/* The number of the reactor whose thread this is, 0 first; -1 on other threads. */
BEAM_EXPORT int beam_reactor_current(void);

/* How many reactors the runtime has. */
BEAM_EXPORT unsigned beam_reactor_count(const beam_runtime *runtime);

/* --- time --- */

typedef void beam_timer_fn(void *arg);

/* Calls fn(arg) on the calling reactor after delay_ns, never early and late by 66 us at most if the
 * reactor is idle. With period_ns > 0 again each period_ns from then on: without drift, and an
 * expiry that was missed is left out. The timer is freed with beam_timer_free or by the end of the
 * runtime, also one that has fired for good. runtime may be NULL for the calling reactor's.
 * -EPERM: not on a reactor, or on another runtime's. -ENOMEM. */
BEAM_EXPORT int beam_timer_new(beam_runtime *runtime, uint64_t delay_ns, uint64_t period_ns,
                               beam_timer_fn *fn, void *arg, beam_timer **ret_timer);

/* Stops a timer and frees it, on its reactor; fn is not called again. Also from its own callback.
 * Accepts NULL, returns NULL. */
BEAM_EXPORT beam_timer *beam_timer_free(beam_timer *timer);

/* Now: CLOCK_MONOTONIC (clock_gettime(2)), or what a test has put in its place. */
BEAM_EXPORT uint64_t beam_now_ns(void);

/* --- looking inside --- */

/* What one reactor has done since it began; plain counters that never go back, unless marked. */
struct beam_stats {
    uint64_t turns;          /* rounds of its loop */
    uint64_t enters;         /* io_uring_enter(2) calls, of any kind */
    uint64_t sqes;           /* submissions the kernel took */
    uint64_t cqes;           /* completions dispatched */
    uint64_t overflows;      /* times the kernel had more completions than the ring has room for */
    uint64_t enobufs;        /* receives that found no buffer */
    uint64_t rearms;         /* multishot receives started again after they ended by themselves */
    uint64_t wakes_sent;     /* doorbells rung because the other reactor slept */
    uint64_t wakes_skipped;  /* ... and not rung, because it was awake */
    uint64_t sleeps;         /* enters that were allowed to block */
    uint64_t spins;          /* times it looked for work instead of sleeping */
    uint64_t spin_hits;      /* ... and found some */
    uint64_t wake_cost_ns;   /* now: what a wake costs here, as measured; 0: not measured */
    uint64_t spin_budget_ns; /* now: how long it would look before it sleeps */
    uint64_t allocs;         /* calls of the allocator; 0 unless read on this reactor */
    uint64_t messages_sent, messages_received; /* of streams: frames */
    uint64_t packets_sent, packets_received;   /* on unix sockets */
    uint64_t fds_sent, fds_received;
    uint64_t sessions, channels; /* now: all that exist, also if they only wait to be freed */
};

/* Read on that reactor the counters are exact; elsewhere they are a glance that may be a little old
 * and not of one moment. -EINVAL: no such reactor. -ESHUTDOWN: it has not begun. */
BEAM_EXPORT int beam_runtime_stats(beam_runtime *runtime, unsigned reactor,
                                   struct beam_stats *ret_stats);

/* What this build and this machine have; the features were tried, not read off a version. */
struct beam_platform {
    const char *version;  /* of this library */
    const char *kernel;   /* release, as uname(2) has it */
    const char *liburing; /* version in use */
    bool io_uring;        /* a ring can be made here; if not, see beam_runtime_why */
    bool passrights;      /* SO_PASSRIGHTS, Linux 6.16: the kernel refuses fds nobody wants */
    bool pidfd;           /* SO_PASSPIDFD, Linux 6.5: beam_session_peer_pidfd works */
    bool min_wait;        /* IORING_FEAT_MIN_TIMEOUT, Linux 6.12 */
    bool no_iowait;       /* IORING_FEAT_NO_IOWAIT, Linux 6.15 */
};

/* Never NULL; the struct and its texts are static. The first call makes a ring to try it. */
BEAM_EXPORT const struct beam_platform *beam_platform(void);

/* Why io_uring was refused and what to do about it, in one line; "" while it has not been refused
 * in this process. Static. */
BEAM_EXPORT const char *beam_runtime_why(void);

/* The limits that 0 stands for. */
BEAM_EXPORT void beam_limits_default(struct beam_limits *ret_limits);

/* For the end of main. error is a negative error of this library, or a status code above 0 as the
 * _wait calls return; either is told on out as one line, "beam: …" (nothing for 0, or when out is
 * NULL). Returns the exit code that stands for it: 0 ok, 2 usage or URL, 3 no io_uring, 4 the peer
 * is not there, 5 permission, 6 a limit, 7 the time was up, 8 not found, 9 another status, 1 any
 * other error. */
BEAM_EXPORT int beam_exit_code(int error, FILE *out);

#ifdef __cplusplus
}
#endif

#endif
