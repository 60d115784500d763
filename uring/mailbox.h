/* The way into a reactor from any thread: a bounded ring of calls, many producers, one consumer.
 * For control, not for messages: posting work, blocking calls of foreign threads, handing over
 * accepted sockets. */
#ifndef BM_MAILBOX_H
#define BM_MAILBOX_H

#include <stdint.h>

struct bm_reactor;

#define BM_MAILBOX_SLOTS 1024u /* ours: 16 KiB a reactor; a power of two */

typedef void bm_mail_fn(void *arg);

/* Has fn(arg) run on the reactor's thread, in order per posting thread, and wakes the reactor if it
 * sleeps. Any thread. -EAGAIN when the mailbox is full (a reactor must not wait), -ESHUTDOWN when
 * the reactor has ended: fn then never runs and arg is still the caller's. */
int bm_mailbox_post(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg);

/* The same, waiting (futex) until there is room. Not on a reactor's thread: -EDEADLK.
 * deadline_ns: absolute bm_clock_now_ns(), UINT64_MAX for none; -ETIMEDOUT. */
int bm_mailbox_post_wait(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg,
                         uint64_t deadline_ns);

#endif
