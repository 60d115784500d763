/* The way into a reactor from any thread: a bounded ring of calls, many producers, one consumer.
 * For control, not for messages: posting work, blocking calls of foreign threads, handing over
 * accepted sockets. */
#ifndef BM_MAILBOX_H
#define BM_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct bm_account;
struct bm_reactor;

#define BM_MAILBOX_SLOTS 1024u /* ours: 32 KiB a reactor; a power of two */

typedef void bm_mail_fn(void *arg);

/* Has fn(arg) run on the reactor's thread, in order per posting thread, and wakes the reactor if it
 * sleeps. Any thread. -EAGAIN when the mailbox is full (a reactor must not wait), -ESHUTDOWN when
 * the reactor has ended: fn then never runs and arg is still the caller's. */
int bm_mailbox_post(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg);

/* The same, waiting (futex) until there is room. Not on a reactor's thread: -EDEADLK.
 * deadline_ns: absolute bm_clock_now_ns(), UINT64_MAX for none; -ETIMEDOUT. */
int bm_mailbox_post_wait(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg,
                         uint64_t deadline_ns);

/* The rest is the reactor's: the box itself, and the consumer's end of it. */

struct bm_mail_slot {
    _Atomic uint64_t seq; /* position: free for it; position + 1: holds it */
    bm_mail_fn *fn;
    void *arg;
    uint64_t unused; /* two slots a cache line, none across two */
};

struct bm_mailbox {
    _Alignas(64) _Atomic uint64_t tail; /* producers */
    _Alignas(64) _Atomic uint32_t inside;
    _Atomic uint32_t waiters;
    _Atomic uint32_t room; /* futex: changes when there is room again, or no more will come */
    _Atomic uint32_t shut;
    _Alignas(64) uint64_t head; /* the consumer */
    struct bm_mail_slot *slots;
};

int bm_mailbox_init(struct bm_mailbox *box, struct bm_account *account);
void bm_mailbox_deinit(struct bm_mailbox *box, struct bm_account *account);

/* No post succeeds from now on, and the waiting ones end. */
void bm_mailbox_shut(struct bm_mailbox *box);
/* After shut: returns when no thread is inside a post any more, so that what was accepted is all
 * there and the memory may go. */
void bm_mailbox_settle(struct bm_mailbox *box);

bool bm_mailbox_ready(const struct bm_mailbox *box);
/* Runs at most max calls; returns how many. */
unsigned bm_mailbox_run(struct bm_mailbox *box, unsigned max);

#endif
