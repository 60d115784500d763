/* The message as the runtime sees it. See <beam/message.h> for what applications may do.
 *
 * Memory. One block from the pool of the core that made it (its home): a first cache line with all
 * a receiver reads, a second with what only the maker needs, then room for small metadata and a
 * small body. Longer ones get blocks of their own. Blocks are allocations in their own right, so
 * whoever holds a message can free it on any thread; sending it home is only cheaper.
 *
 * A *view* is a message over bytes that are somebody else's (a receive buffer, a slot of a ring,
 * another message). It lives on the stack of the dispatch and is what handlers borrow. Keeping it
 * copies the bytes and moves the attachments, or gives the message that it shows: a small one crosses a
 * ring as its address and a description, so that its first line stays in the cache of the core that made
 * it unless somebody keeps it.
 *
 * What binds a received message to a core: it owes credit to the peer of a channel (`payer`), or
 * channels are attached to it. Everything that touches these runs on that core; without them a
 * message is plain memory and fds, for any one thread at a time.
 *
 * A large message that a hop passes on to another core leaves its session, whose budget it was in. What
 * it had there is taken over by its *charge*, a message without a body, bound to the channel it came on;
 * the two travel together, and freeing the charge, on whatever thread, gives the budget back. */
#ifndef BM_MESSAGE_H
#define BM_MESSAGE_H

#include <string.h>

#include <beam/message.h>

#include "base/list.h"
#include "runtime/attached_about.h"
#include "runtime/frame.h"

struct bm_core;
struct bm_pool;

#define BM_MESSAGE_METADATA_INLINE 128u /* this and the next: at most 255, see struct bm_small */
#define BM_MESSAGE_BODY_INLINE 192u
#define BM_MESSAGE_COST 64u /* what a message costs besides its bytes; docs/spec/session.md W2 */

/* beam_message.flags */
enum {
    BM_MESSAGE_VIEW = 1 << 0,       /* body and metadata are borrowed */
    BM_MESSAGE_STATIC = 1 << 1,     /* the one that stands for -ENOMEM */
    BM_MESSAGE_LENT = 1 << 2,       /* a callback borrows it; `kept` is there instead of `next` */
    BM_MESSAGE_FAILED = 1 << 3,     /* error is set */
    BM_MESSAGE_WRITING = 1 << 4,    /* the metadata writer is open */
    BM_MESSAGE_BODY_BLOCK = 1 << 5, /* body lies in a block of its own */
    BM_MESSAGE_META_BLOCK = 1 << 6, /* metadata lies in a block of its own */
    BM_MESSAGE_LAST = 1 << 7,       /* to be sent: our direction ends behind it */
    BM_MESSAGE_LARGE = 1 << 8,      /* to be sent: does not fit one frame */
    BM_MESSAGE_UNPAID = 1 << 9,     /* to be sent: an answer that waits for its credit in line */
    BM_MESSAGE_OPENED = 1 << 10,    /* packed, not yet sent: its frame opens its channel */
    BM_MESSAGE_HOLDS = 1 << 11,     /* received: counted in the holds of its payer */
    BM_MESSAGE_CHARGED = 1 << 12,   /* received: a large one, in the session's budget for those */
    BM_MESSAGE_CHANGED = 1 << 13,   /* received, then built upon: came_* are its lengths before */
    BM_MESSAGE_PASSED = 1 << 14,    /* goes over a hop, or came over one: it has a `charge` */
};

struct bm_attached_channel {
    uint64_t id; /* on the wire; given when packed, read when received */
    enum bm_channel_mode mode;
    beam_channel *channel; /* referenced: our end until sent, the receiver's until taken */
    struct bm_about about; /* of BM_MODE_FD */
};

struct bm_attachments {
    uint8_t fd_count;
    uint8_t channel_count;
    bool pumped;                          /* the fds are channels: pumped_fds.h */
    bool received;                        /* by us: the channels are the receiver's ends */
    uint32_t cap;                         /* of this block */
    uint32_t channels_cap;                /* of the block below */
    int fds[BEAM_MESSAGE_FDS_MAX];        /* -1: taken */
    struct bm_attached_channel *channels; /* NULL: none was ever attached */
};

struct beam_message {
    /* What a receiver reads. */
    union {
        beam_message *next;
        bool *kept; /* LENT: the lender's word, set when the borrower keeps it */
    };
    const uint8_t *body;
    const uint8_t *metadata; /* a kv map, or NULL */
    struct bm_attachments *attachments;
    struct bm_core *home; /* whose pool it came from; NULL: the allocator */
    beam_channel *payer;  /* referenced. Received: whose peer gets the credit back. Packed, in
                             unix_carrier.c: whose message it is */
    uint32_t body_len;
    uint32_t metadata_len;
    uint32_t codec;
    uint16_t flags;
    uint16_t fds_owed; /* received: fd credits to give back for fds not yet taken */

    beam_message *shown; /* the small message in which the content lies, ours too; NULL: none */
    union {
        struct bm_core *shown_home;
        beam_message *charge; /* PASSED, and so large, and shows none: what holds the budget of the
                                 session by which it came */
    };

    /* What only the maker and the sending session need. */
    int error;
    uint32_t cap; /* of this block */
    uint32_t body_cap;
    uint32_t metadata_cap;
    uint8_t *body_block;
    uint8_t *metadata_block;
    uint32_t packed;       /* bytes of the body that have left, of a large one */
    uint32_t frame_offset; /* where its frame stands in the packet, while that is retained */
    uint32_t keys;
    uint32_t came_body_len, came_metadata_len; /* CHANGED */
    uint32_t charged;                          /* CHARGED: so much */
    beam_kv_writer writer;

    _Alignas(64) uint8_t metadata_inline[BM_MESSAGE_METADATA_INLINE];
    _Alignas(64) uint8_t body_inline[BM_MESSAGE_BODY_INLINE];
};

static inline uint64_t bm_message_len(const beam_message *message)
{
    return (uint64_t)message->metadata_len + message->body_len;
}

static inline int64_t bm_message_cost(const beam_message *message)
{
    return (int64_t)bm_message_len(message) + BM_MESSAGE_COST;
}

/* What its sender was charged for a message that was received, whatever it was made into since. */
static inline int64_t bm_message_cost_received(const beam_message *message)
{
    return message->flags & BM_MESSAGE_CHANGED
               ? (int64_t)message->came_body_len + message->came_metadata_len + BM_MESSAGE_COST
               : bm_message_cost(message);
}

static inline unsigned bm_message_fds(const beam_message *message)
{
    return message->attachments ? message->attachments->fd_count : 0;
}

/* Without those that were taken: what would be sent. */
static inline unsigned bm_message_fds_left(const beam_message *message)
{
    unsigned n = 0;
    for (unsigned i = 0; i < bm_message_fds(message); i++)
        n += message->attachments->fds[i] >= 0;
    return n;
}

static inline unsigned bm_message_channels(const beam_message *message)
{
    return message->attachments ? message->attachments->channel_count : 0;
}

static inline void bm_message_view_init(beam_message *view, const void *body, size_t len)
{
    memset(view, 0,
           offsetof(beam_message, error)); /* the rest is the maker's, and a view has none */
    view->error = 0;
    view->flags = BM_MESSAGE_VIEW;
    view->body = body;
    view->body_len = (uint32_t)len;
}

/* What describes a small message: its content lies in it, and it has nothing else. */
struct bm_small {
    uint32_t codec;
    uint8_t body_len;
    uint8_t metadata_len;
};

/* The small message that this one is or shows, and whose it is; NULL: neither. Of one that is shown
 * no more than addresses are looked at. */
static inline beam_message *bm_message_small(beam_message *message, struct bm_core **ret_home)
{
    const uint16_t blocks = BM_MESSAGE_BODY_BLOCK | BM_MESSAGE_META_BLOCK;
    if ((message->flags & blocks) || message->attachments)
        return NULL;
    beam_message *small = message->shown ? message->shown : message;
    if ((message->body_len > 0 && message->body != small->body_inline) ||
        (message->metadata_len > 0 && message->metadata != small->metadata_inline))
        return NULL;
    *ret_home = message->shown ? message->shown_home : message->home;
    return small;
}

static inline struct bm_small bm_message_describe(const beam_message *message)
{
    return (struct bm_small){message->codec, (uint8_t)message->body_len,
                             (uint8_t)message->metadata_len};
}

/* A view of a small message, which it owns, without a look at it. */
static inline void bm_message_show(beam_message *view, beam_message *message, struct bm_small small,
                                   struct bm_core *home)
{
    bm_message_view_init(view, message->body_inline, small.body_len);
    view->metadata = small.metadata_len > 0 ? message->metadata_inline : NULL;
    view->metadata_len = small.metadata_len;
    view->codec = small.codec;
    view->shown = message;
    view->shown_home = home;
}

/* From the pool of a core whose thread this is, or from the allocator. NULL without memory. */
beam_message *bm_message_new(struct bm_core *core);

/* Makes an error stick, unless one does already. */
void bm_message_fail(beam_message *message, int error);

/* Before the owner of a message changes its body or metadata: what it owes stays what it was. */
static inline void bm_message_will_change(beam_message *message)
{
    if (!message->payer || (message->flags & BM_MESSAGE_CHANGED))
        return;
    message->came_body_len = message->body_len;
    message->came_metadata_len = message->metadata_len;
    message->flags |= BM_MESSAGE_CHANGED;
}

/* Ends the metadata; returns the sticky error. Sending starts with it. */
int bm_message_seal(beam_message *message);

/* Gives the message a body of len bytes to be written; NULL without memory, and no error sticks. */
uint8_t *bm_message_body_room(beam_message *message, uint32_t len);

/* Gives a message without them metadata (a checked map) or a body, by copy. 0 or -ENOMEM; no error
 * sticks. */
int bm_message_copy_metadata(beam_message *message, const void *document, uint32_t len);
int bm_message_copy_body(beam_message *message, const void *body, uint32_t len);

/* Bytes that are to be the body of a message: made first, where it may fail, and put then. */
struct bm_body {
    uint8_t *block; /* of a pool, or NULL: none */
    uint32_t cap;
    uint32_t len;
};

/* Makes the body of a message of these bytes, which are its from then on. Without attachments, metadata or
 * what it owes changing. Cannot fail. */
void bm_message_put_body(beam_message *message, struct bm_body *body);

/* beam_message_keep() of a message that is to have another body: this one, of that codec. NULL without
 * memory: nothing has changed, and *body is still the caller's. */
beam_message *bm_message_keep_with(const beam_message *borrowed, struct bm_body *body,
                                   uint32_t codec);

/* --- attachments.c; all but the first two on a message that has some --- */

/* The attachments of a message, made when missing; NULL without memory. */
struct bm_attachments *bm_message_attachments(beam_message *message);
/* One more attached channel, zeroed; NULL without memory or over the limit. */
struct bm_attached_channel *bm_attachments_add_channel(beam_message *message);
/* A channel that was not sent or taken; NULL: there is none. */
const beam_channel *bm_attachments_channel(const beam_message *message);
/* Drops all of those: see bm_channel_attachment_dropped(). */
void bm_attachments_drop_channels(beam_message *message);
/* The same, and closes the fds that were not taken; the memory stays with the message. */
void bm_attachments_close(beam_message *message);
void bm_attachments_free_memory(struct bm_pool *pool, struct bm_attachments *att);
/* The channels have left with their message: the application alone has our ends now. Ids and modes
 * stay. */
void bm_attachments_release_channels(struct bm_attachments *att);
/* Of a received message all of whose channels were taken: room for others. */
void bm_attachments_renew(struct bm_attachments *att);
/* Before sending on: those that are left move up to where fds were taken. */
void bm_attachments_close_ranks(struct bm_attachments *att);

/* --- lending and giving back --- */

/* Around a callback that borrows a message: lend, call, return. If the callback keeps a message
 * that is no view, *kept is set, and the lender must not look at it again: it may be on another
 * core, or gone. */
static inline void bm_message_lend(beam_message *message, bool *kept)
{
    *kept = false;
    message->kept = kept;
    message->flags |= BM_MESSAGE_LENT;
}

/* The owner's core is done with a message: credit goes back, fds are closed, channels dropped,
 * memory freed (of a view: that of its attachments). */
void bm_message_done(beam_message *message);

/* The message is done with, unless it was kept. */
static inline void bm_message_return(beam_message *message, const bool *kept)
{
    if (*kept)
        return;
    message->flags &= (uint16_t)~BM_MESSAGE_LENT;
    message->next = NULL;
    bm_message_done(message);
}

/* Before a message is sent that may have been received: its credit goes back, and what was taken
 * out of it is forgotten. So does a charge that came with it; one that was made here goes on. -EINVAL:
 * it holds channels that nobody took, which cannot travel on. */
int bm_message_make_ours(beam_message *message);

/* A received message is about to be passed on to another core as it is: what it has of its session's budget
 * for large ones goes over to a charge, until its next receiver is done with it. -ENOMEM: nothing has
 * changed. */
int bm_message_pass_charge(beam_message *message);

/* Gives the memory of a message back, without looking at payer, fds and channels. Any thread. */
void bm_message_free_memory(beam_message *message);

/* Takes off a message what binds it to its core: credit goes back, a charge too, channels are dropped;
 * fds stay. Any thread may own it then. Owner's core. */
void bm_message_unbind(beam_message *message);

/* The memory of a message has come home to this core, whose thread this is; NULL: it goes back to
 * the allocator. */
void bm_message_take_home(struct bm_core *core, beam_message *message);

/* Frees, once more, those that this core freed and whose own core had a full mailbox. Their next
 * stop is that mailbox again. */
void bm_message_post_again(struct bm_core *core);

#endif
