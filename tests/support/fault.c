/* Faults in the two places where they can be put: the allocator's table and the completion hook.
 *
 * The struct is written by the threads of the library and by whoever lifts the fault: atomics, of no
 * particular order, since they are read when all is at rest. What is not atomic in it is written before
 * `lifted` is taken back, and read after that has been looked at. */
#include "tests/support/fault.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "uring/completion.h"
#include "uring/reactor.h"

/* Weak: they do not pull the library in, and are absent where nothing else does. */
#pragma weak bm_alloc_set
#pragma weak bm_completion_hook
#pragma weak bm_op_cancel
#pragma weak bm_reactor_current

/* Present where a sanitizer is linked. */
void __sanitizer_print_stack_trace(void) __attribute__((weak));

static struct fault *fault;
static unsigned here;

static void note_strike(void)
{
    if (!atomic_exchange(&fault->struck, true) && fault->traced && __sanitizer_print_stack_trace)
        __sanitizer_print_stack_trace();
}

/* --- allocations ----------------------------------------------------------------------------- */

static bool is_struck(void)
{
    if (atomic_load(&fault->lifted))
        return false;
    unsigned n = atomic_fetch_add(&fault->allocations[here], 1) + 1;
    unsigned at = atomic_load(&fault->at);
    if (at == 0 || fault->place != here)
        return false;
    bool strikes = (fault->kind == FAULT_ALLOCATION && n == at) ||
                   (fault->kind == FAULT_ALLOCATIONS && n >= at);
    if (strikes)
        note_strike();
    return strikes;
}

static void *failing_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)arg;
    if (new_len > old_len && is_struck())
        return NULL;
    return test_memory_realloc(ptr, old_len, new_len);
}

/* --- completions ----------------------------------------------------------------------------- */

/* A receive that has been cancelled so that its last completion can be the one that fails. */
static struct bm_op *_Atomic ending;

int fault_error_of(unsigned op_kind, unsigned variant)
{
    static const int errors[][FAULT_VARIANTS] = {
        [BM_OP_ACCEPT] = {-EMFILE, -ECONNABORTED, -ENOMEM},
        [BM_OP_CONNECT] = {-ECONNREFUSED, -EAGAIN, -ENOMEM},
        [BM_OP_SEND] = {-EPIPE, -ECONNRESET, -ENOTCONN},
        [BM_OP_SENDMSG] = {-EPIPE, -ECONNRESET, -ENOTCONN},
        [BM_OP_RECVMSG_MULTISHOT] = {-ENOBUFS, -ECONNRESET, -ENOMEM},
        [BM_OP_RECV_MULTISHOT] = {-ENOBUFS, -ECONNRESET, -ENOMEM},
        [BM_OP_RECV_SELECT] = {-ECONNRESET, -ETIMEDOUT,
                               -EHOSTUNREACH}, /* bytes are lost with these */
        [BM_OP_WRITE] = {-EIO, -ENOSPC, -EDQUOT},
        [BM_OP_FSYNC] = {-EIO, -ENOSPC, -EDQUOT},
        [BM_OP_RENAME] = {-EIO, -ENOSPC, -EROFS},
        [BM_OP_FALLOCATE] = {-EIO, -ENOSPC, -EDQUOT},
    };
    return op_kind < sizeof(errors) / sizeof(errors[0]) ? errors[op_kind][variant] : 0;
}

static bool counts(const struct bm_op *op, int res)
{
    bool taken = op->kind == BM_OP_SENDMSG && op->closes_linked && res > 0;
    return fault_error_of(op->kind, 0) != 0 && res != -ECANCELED && !taken;
}

static void strike(struct bm_op *op, int *res)
{
    if (op->kind == BM_OP_ACCEPT && *res >= 0)
        close(*res);
    *res = fault->wanted ? fault->wanted : fault_error_of(op->kind, fault->variant);
    atomic_store(&fault->error, *res);
    atomic_store(&fault->op, op->kind);
    note_strike();
}

static enum bm_completion_verdict on_completion(struct bm_op *op, int *res, uint32_t *flags,
                                                void *arg)
{
    (void)arg;
    bool more = bm_op_more(*flags);
    if (op == atomic_load(&ending) && !more) {
        atomic_store(&ending, NULL);
        if (*res == -ECANCELED)
            strike(op, res);
        return BM_COMPLETION_PASS;
    }
    if (atomic_load(&fault->lifted) || !counts(op, *res))
        return BM_COMPLETION_PASS;
    unsigned n = atomic_fetch_add(&fault->completions[here], 1) + 1;
    if (fault->kind != FAULT_COMPLETION || fault->place != here || n != atomic_load(&fault->at))
        return BM_COMPLETION_PASS;
    if (more) {
        if (op->state == BM_OP_INFLIGHT) {
            atomic_store(&ending, op);
            bm_op_cancel(bm_reactor_current(), op);
        }
    } else if (bm_op_buffer(*flags) < 0 || *res <= 0 || op->kind == BM_OP_RECV_SELECT) {
        strike(op, res);
    }
    return BM_COMPLETION_PASS;
}

/* --------------------------------------------------------------------------------------------- */

void fault_set(struct fault *it, unsigned place)
{
    static const struct bm_allocator allocator = {.realloc = failing_realloc};
    fault = it;
    here = place;
    if (bm_alloc_set)
        bm_alloc_set(&allocator);
    if (&bm_completion_hook)
        bm_completion_hook.fn = on_completion;
}

void fault_unset(void)
{
    if (bm_alloc_set)
        bm_alloc_set(NULL);
    if (&bm_completion_hook)
        bm_completion_hook.fn = NULL;
    fault = NULL;
}
