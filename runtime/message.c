/* Making, keeping and freeing messages, and their bodies. Metadata and attachments have files of
 * their own.
 *
 * Freeing is the one thing that any thread may do to any message, and the difficult one. A message
 * that is bound to a core (message.h) goes there through its mailbox. If that is full, a foreign
 * thread waits, and a reactor puts the message aside (core->unposted) to try again. If that core
 * has ended, the message is left to beam_runtime_free (runtime->left_behind); and what is left when
 * even that is over, a channel without a core, is memory that a lock protects. The memory of an
 * unbound message goes home over a ring, or back to the allocator.
 *
 * Invariants: a message has one owner; `home` is compared, and only followed when it is a core of
 * the runtime this thread belongs to; a view owns nothing but its attachments. */
#define _GNU_SOURCE
#include "runtime/message.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/ring.h"
#include "runtime/runtime.h"

#define UNPOSTED_RETRY_NS BM_NS_PER_MS /* ours: a full mailbox of 1024 is a matter of less */

/* What beam_message_new returns without memory. It is never written: every setter looks at FAILED
 * first. */
static beam_message out_of_memory = {
    .flags = BM_MESSAGE_STATIC | BM_MESSAGE_FAILED,
    .error = -ENOMEM,
};

beam_message *bm_message_new(struct bm_core *core)
{
    uint32_t cap;
    beam_message *message = bm_pool_get(bm_core_pool(core), sizeof(*message), &cap);
    if (!message)
        return NULL;
    /* Up to the writer: metadata_inline and body_inline need no clearing, nor does the writer. */
    memset(message, 0, offsetof(beam_message, writer));
    message->home = core;
    message->cap = cap;
    return message;
}

beam_message *beam_message_new(void)
{
    beam_message *message = bm_message_new(bm_core_current());
    return message ? message : &out_of_memory;
}

int beam_message_error(const beam_message *message)
{
    return message->error;
}

/* --- body ------------------------------------------------------------------------------------ */

uint8_t *bm_message_body_room(beam_message *message, uint32_t len)
{
    if (len <= BM_MESSAGE_BODY_INLINE) {
        message->body = message->body_inline;
        message->body_len = len;
        return message->body_inline;
    }
    if (!(message->flags & BM_MESSAGE_BODY_BLOCK) || message->body_cap < len) {
        /* This thread's pool: whoever builds on a message need not be where it came from. */
        struct bm_pool *pool = bm_core_pool(bm_core_current());
        uint32_t cap;
        uint8_t *block = bm_pool_get(pool, len, &cap);
        if (!block)
            return NULL;
        if (message->flags & BM_MESSAGE_BODY_BLOCK)
            bm_pool_put(pool, message->body_block, message->body_cap);
        message->body_block = block;
        message->body_cap = cap;
        message->flags |= BM_MESSAGE_BODY_BLOCK;
    }
    message->body = message->body_block;
    message->body_len = len;
    return message->body_block;
}

void bm_message_fail(beam_message *message, int error)
{
    if (message->flags & BM_MESSAGE_FAILED)
        return;
    message->error = error;
    message->flags |= BM_MESSAGE_FAILED;
}

int bm_message_copy_body(beam_message *message, const void *body, uint32_t len)
{
    if (len == 0) {
        message->body_len = 0;
        return 0;
    }
    uint8_t *room = bm_message_body_room(message, len);
    if (!room)
        return -ENOMEM;
    memcpy(room, body, len);
    return 0;
}

void bm_message_put_body(beam_message *message, struct bm_body *body)
{
    struct bm_pool *pool = bm_core_pool(bm_core_current());
    bm_message_will_change(message);
    if (body->len <= BM_MESSAGE_BODY_INLINE) {
        /* Its own room and not that of a message it shows, whose content may be looked at yet. */
        if (body->len > 0)
            memcpy(message->body_inline, body->block, body->len);
        bm_pool_put(pool, body->block, body->cap);
        message->body = message->body_inline;
    } else {
        if (message->flags & BM_MESSAGE_BODY_BLOCK)
            bm_pool_put(pool, message->body_block, message->body_cap);
        message->body_block = body->block;
        message->body_cap = body->cap;
        message->flags |= BM_MESSAGE_BODY_BLOCK;
        message->body = body->block;
    }
    message->body_len = body->len;
    *body = (struct bm_body){0};
}

void *beam_message_reserve_body(beam_message *message, size_t len)
{
    if (message->flags & (BM_MESSAGE_FAILED | BM_MESSAGE_VIEW))
        return NULL;
    if (len > INT32_MAX) {
        bm_message_fail(message, -EMSGSIZE);
        return NULL;
    }
    bm_message_will_change(message);
    uint8_t *room = bm_message_body_room(message, (uint32_t)len);
    if (!room)
        bm_message_fail(message, -ENOMEM);
    return room;
}

void beam_message_set_body(beam_message *message, const void *body, size_t len)
{
    void *room = beam_message_reserve_body(message, len);
    if (room && len > 0)
        memcpy(room, body, len);
}

const void *beam_message_body(const beam_message *message, size_t *ret_len)
{
    if (ret_len)
        *ret_len = message->body_len;
    return message->body_len > 0 ? message->body : NULL;
}

void beam_message_set_codec(beam_message *message, uint32_t codec)
{
    if (!(message->flags & (BM_MESSAGE_STATIC | BM_MESSAGE_VIEW)))
        message->codec = codec;
}

uint32_t beam_message_codec(const beam_message *message)
{
    return message->codec;
}

/* --- keep and free --------------------------------------------------------------------------- */

/* What a view shows goes over to a message that lasts. Without memory for one it is the shown message
 * itself; of its first line nothing is read then, for it is the maker's. */
static beam_message *keep_shown(beam_message *view)
{
    beam_message *message = bm_message_new(bm_core_current());
    if (message) {
        message->shown = view->shown;
        message->shown_home = view->shown_home;
    } else {
        message = view->shown;
        message->next = NULL;
        message->attachments = NULL;
        message->home = view->shown_home;
        message->flags = 0;
        message->fds_owed = 0;
    }
    message->body = view->body;
    message->metadata = view->metadata;
    message->payer = view->payer;
    message->body_len = view->body_len;
    message->metadata_len = view->metadata_len;
    message->codec = view->codec;
    view->shown = NULL;
    view->payer = NULL;
    return message;
}

beam_message *beam_message_keep(const beam_message *borrowed)
{
    /* Callbacks get a const pointer so that they do not edit what they borrow; keeping is the one
     * change of owner they may make. */
    beam_message *message = (beam_message *)borrowed;
    if (!(message->flags & BM_MESSAGE_VIEW)) {
        if (message->flags & BM_MESSAGE_LENT) {
            *message->kept = true;
            message->next = NULL;
            message->flags &= (uint16_t)~BM_MESSAGE_LENT;
        }
        return message;
    }

    if (message->shown)
        return keep_shown(message);
    beam_message *copy = bm_message_new(bm_core_current());
    if (!copy)
        return NULL;
    if (bm_message_copy_body(copy, message->body, message->body_len) < 0 ||
        bm_message_copy_metadata(copy, message->metadata, message->metadata_len) < 0) {
        bm_message_free_memory(copy);
        return NULL;
    }
    copy->codec = message->codec;
    copy->attachments = message->attachments;
    copy->payer = message->payer;
    copy->fds_owed = message->fds_owed;
    copy->flags |= message->flags & (BM_MESSAGE_CHARGED | BM_MESSAGE_HOLDS);
    message->attachments = NULL;
    message->payer = NULL;
    message->fds_owed = 0;
    message->flags &= (uint16_t) ~(BM_MESSAGE_CHARGED | BM_MESSAGE_HOLDS);
    return copy;
}

beam_message *bm_message_keep_with(const beam_message *borrowed, struct bm_body *body,
                                   uint32_t codec)
{
    beam_message *view = (beam_message *)borrowed;
    const uint32_t body_len = borrowed->body_len;
    const uint32_t metadata_len = borrowed->metadata_len;
    bool copies = (borrowed->flags & BM_MESSAGE_VIEW) && !borrowed->shown;
    if (copies)
        view->body_len = 0; /* not the body too, which would be for nothing */
    beam_message *message = beam_message_keep(borrowed);
    if (copies)
        view->body_len = body_len;
    if (!message)
        return NULL;
    if (message->payer && !(message->flags & BM_MESSAGE_CHANGED)) {
        message->came_body_len = body_len;
        message->came_metadata_len = metadata_len;
        message->flags |= BM_MESSAGE_CHANGED;
    }
    bm_message_put_body(message, body);
    message->codec = codec;
    return message;
}

/* The line of a small body, which another core has read, comes back to be written long before it is. */
static void fetch_body(const beam_message *message)
{
#ifdef __x86_64__
    /* What __builtin_prefetch(_, 1) means, and does not emit for a processor of any age. */
    __asm__ volatile("prefetchw %0" : : "m"(*message->body_inline));
#else
    __builtin_prefetch(message->body_inline, 1);
#endif
}

/* The memory of a small message that is shown, whose block is all there is to it. Without a pool
 * everything goes to the allocator, and nothing home. */
static void free_shown(struct bm_pool *pool, const beam_message *message)
{
    const uint32_t cap = bm_pool_cap(sizeof(beam_message));
    struct bm_core *home = message->shown_home;
    struct bm_core *core = pool ? bm_core_current() : NULL;
    if (!core || !home) {
        bm_pool_put(NULL, message->shown, cap);
    } else if (home == core) {
        fetch_body(message->shown);
        bm_pool_put(&core->pool, message->shown, cap);
    } else {
        bm_ring_return(core, home, message->shown);
    }
}

static void free_blocks(struct bm_pool *pool, beam_message *message)
{
    if (message->flags & BM_MESSAGE_BODY_BLOCK)
        bm_pool_put(pool, message->body_block, message->body_cap);
    if (message->flags & BM_MESSAGE_META_BLOCK)
        bm_pool_put(pool, message->metadata_block, message->metadata_cap);
    if (message->attachments)
        bm_attachments_free_memory(pool, message->attachments);
    if (message->shown)
        free_shown(pool, message);
    bm_pool_put(pool, message, message->cap);
}

void bm_message_free_memory(beam_message *message)
{
    struct bm_core *core = bm_core_current();
    if (message->home == core || !message->home) {
        free_blocks(bm_core_pool(message->home), message);
        return;
    }
    if (core && bm_runtime_has_core(core->runtime, message->home)) {
        bm_ring_return(core, message->home, message);
        return;
    }
    free_blocks(NULL, message);
}

void bm_message_take_home(struct bm_core *core, beam_message *message)
{
    fetch_body(message);
    free_blocks(bm_core_pool(core), message);
}

static void drop_charge(beam_message *message)
{
    beam_message *charge = message->charge;
    message->flags &= (uint16_t)~BM_MESSAGE_PASSED;
    message->charge = NULL;
    beam_message_free(charge);
}

int bm_message_pass_charge(beam_message *message)
{
    beam_channel *payer = message->payer;
    if (!(message->flags & BM_MESSAGE_CHARGED) || !payer->holds_of ||
        (message->flags & BM_MESSAGE_PASSED))
        return 0;
    bm_assert(!message->shown);
    beam_message *charge = bm_message_new(payer->core);
    if (!charge)
        return -ENOMEM;
    /* It owes the cost of a message without a body, which this one then owes no more. */
    charge->payer = bm_channel_ref(payer);
    bm_channel_return_credit(payer, -(int64_t)BM_MESSAGE_COST);
    bm_channel_message_holds(charge, payer->holds_of);
    charge->charged = message->charged;
    charge->flags |= BM_MESSAGE_CHARGED;
    message->charge = charge;
    message->charged = 0;
    message->flags &= (uint16_t)~BM_MESSAGE_CHARGED;
    message->flags |= BM_MESSAGE_PASSED;
    return 0;
}

void bm_message_unbind(beam_message *message)
{
    if (message->attachments && message->attachments->channel_count > 0)
        bm_attachments_drop_channels(message);
    if (message->payer)
        bm_channel_message_done(message);
    if (message->flags & BM_MESSAGE_PASSED)
        drop_charge(message);
}

int bm_message_make_ours(beam_message *message)
{
    struct bm_attachments *att = message->attachments;
    if (att && att->received) {
        if (bm_attachments_channel(message))
            return -EINVAL;
        bm_attachments_renew(att);
    }
    if (att)
        bm_attachments_close_ranks(att);
    if (message->payer) {
        /* One that was made here goes on; what came with it has come to its end. */
        if ((message->flags & BM_MESSAGE_PASSED) && message->charge->payer != message->payer)
            drop_charge(message);
        bm_channel_message_done(message);
    }
    return 0;
}

/* Several messages, freed on several threads, may refer to one channel whose core is no more.
 * Recursive: the last one frees the channel, and with it the messages that holds. */
static pthread_mutex_t orphans_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

/* Whose core must do the freeing; NULL when any thread may. */
static const beam_channel *bound_to(const beam_message *message)
{
    if (message->payer)
        return message->payer;
    return message->attachments ? bm_attachments_channel(message) : NULL;
}

static void free_here(void *arg)
{
    beam_message *message = arg;
    bm_message_unbind(message);
    if (message->attachments)
        bm_attachments_close(message);
    bm_message_free_memory(message);
}

/* The core has ended: with the runtime goes what they are bound to. */
static void leave_behind(beam_runtime *runtime, beam_message *message)
{
    pthread_mutex_lock(&runtime->start_lock);
    bm_message_queue_push(&runtime->left_behind, message);
    pthread_mutex_unlock(&runtime->start_lock);
}

static void free_there(struct bm_core *core, beam_message *message)
{
    struct bm_core *here = bm_core_current();
    if (bm_runtime_forked(core->runtime))
        return; /* the parent's */
    /* Foreign threads wait while the mailbox is full. A reactor must not, as two that wait for each
     * other would wait for ever. */
    int r = here ? bm_mailbox_post(core->reactor, free_here, message)
                 : bm_mailbox_post_wait(core->reactor, free_here, message, UINT64_MAX);
    if (r == -EAGAIN) {
        bm_message_queue_push(&here->unposted, message);
        if (!bm_timer_armed(&here->unposted_timer))
            bm_timer_arm(here->reactor, &here->unposted_timer,
                         bm_reactor_now_ns(here->reactor) + UNPOSTED_RETRY_NS);
    } else if (r < 0) {
        leave_behind(core->runtime, message);
    }
}

void bm_message_post_again(struct bm_core *core)
{
    struct bm_message_queue again = core->unposted;
    beam_message *message;
    bm_message_queue_init(&core->unposted);
    while ((message = bm_message_queue_pop(&again)))
        beam_message_free(message);
}

beam_message *beam_message_free(beam_message *message)
{
    if (!message || (message->flags & (BM_MESSAGE_STATIC | BM_MESSAGE_VIEW)))
        return NULL;
    const beam_channel *bound = bound_to(message);
    struct bm_core *core = bound ? bm_channel_core(bound) : NULL;
    if (bound && !core) {
        pthread_mutex_lock(&orphans_lock);
        free_here(message);
        pthread_mutex_unlock(&orphans_lock);
    } else if (!bound || core == bm_core_current()) {
        free_here(message);
    } else {
        free_there(core, message);
    }
    return NULL;
}

void bm_message_done(beam_message *message)
{
    bm_message_unbind(message);
    if (message->attachments)
        bm_attachments_close(message);
    if (!(message->flags & BM_MESSAGE_VIEW)) {
        bm_message_free_memory(message);
    } else if (message->shown) {
        free_shown(bm_core_pool(bm_core_current()), message);
        message->shown = NULL;
    } else if (message->attachments) {
        bm_attachments_free_memory(bm_core_pool(bm_core_current()), message->attachments);
        message->attachments = NULL;
    }
}
