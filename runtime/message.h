/* The message as the runtime sees it. See <beam/message.h> for what applications may do.
 *
 * Memory. One block from the pool of the core that made it (its home): a first cache line with all
 * a receiver reads, a second with what only the maker needs, then room for small metadata and a small
 * body. Longer ones get blocks of their own. Blocks are allocations in their own right, so whoever
 * holds a message can free it on any thread; sending it home is only cheaper.
 *
 * A *view* is a message over bytes that are somebody else's (a receive buffer, a slot of a ring, another
 * message). It lives on the stack of the dispatch and is what handlers borrow. Keeping it copies, or
 * gives the message that it shows: a small one crosses a ring as its address and a description, so that
 * its first line stays in the cache of the core that made it unless somebody keeps it. */
#ifndef BM_MESSAGE_H
#define BM_MESSAGE_H

#include <string.h>

#include <beam/message.h>

#include "base/list.h"
#include "runtime/frame.h"

struct bm_core;
struct bm_pool;

#define BM_MESSAGE_METADATA_INLINE 128u /* this and the next: at most 255, see struct bm_small */
#define BM_MESSAGE_BODY_INLINE 192u
#define BM_MESSAGE_COST 64u /* what a message costs besides its bytes; docs/spec/session.md W2 */

enum {
    BM_MESSAGE_VIEW = 1 << 0,       /* body and metadata are borrowed */
    BM_MESSAGE_STATIC = 1 << 1,     /* the one that stands for -ENOMEM */
    BM_MESSAGE_LENT = 1 << 2,       /* a callback borrows it; `kept` is there */
    BM_MESSAGE_WRITING = 1 << 3,    /* the metadata writer is open */
    BM_MESSAGE_BODY_BLOCK = 1 << 4, /* body lies in a block of its own */
    BM_MESSAGE_META_BLOCK = 1 << 5, /* metadata too */
    BM_MESSAGE_LAST = 1 << 6,       /* our direction ends behind it */
    BM_MESSAGE_LARGE = 1 << 7,      /* counted among the large ones under way */
    BM_MESSAGE_FAILED = 1 << 8,     /* error is set */
    BM_MESSAGE_UNPAID = 1 << 10, /* an answer: taken without credit, which it waits for in line */
    BM_MESSAGE_OPENED = 1 << 11, /* packed with OPEN */
    BM_MESSAGE_HOLDS = 1 << 12,  /* received: counted in the holds of its payer */
    BM_MESSAGE_CHARGED = 1 << 9, /* a large one in the receiving session's budget */
    BM_MESSAGE_CHANGED =
        1 << 13, /* received, then built upon: came_* say what it cost its sender */
};

struct bm_attached_channel {
    uint64_t id; /* on the wire; given when packed, read when received */
    enum bm_channel_mode mode;
    beam_channel *channel; /* sender: our end, until it is sent; receiver: until it is taken */
};

struct bm_attachments {
    uint8_t fd_count;
    uint8_t channel_count;
    bool sent;    /* the channels have ids; `channel` of the sender's is no longer ours to see */
    uint32_t cap; /* of this block */
    uint32_t channels_cap;
    int fds[BEAM_MESSAGE_FDS_MAX]; /* -1: taken */
    struct bm_attached_channel *channels;
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
    beam_channel *payer;  /* received: whose peer gets the credit back */
    uint32_t body_len;
    uint32_t metadata_len;
    uint32_t codec;
    uint16_t flags;
    uint16_t fds_owed; /* received: fd credits to give back for fds not yet taken */

    beam_message *shown; /* VIEW: the message whose content this is, ours too; or NULL */

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

static inline uint32_t bm_message_body_len_received(const beam_message *message)
{
    return message->flags & BM_MESSAGE_CHANGED ? message->came_body_len : message->body_len;
}

static inline unsigned bm_message_fds(const beam_message *message)
{
    return message->attachments ? message->attachments->fd_count : 0;
}

/* Of a message that was received, without those that were taken: what would be sent. */
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

/* A view: over bytes that are somebody else's. */
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

static inline bool bm_message_is_small(const beam_message *message)
{
    const uint16_t blocks = BM_MESSAGE_BODY_BLOCK | BM_MESSAGE_META_BLOCK;
    return !(message->flags & blocks) && !message->attachments;
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
    view->home = home;
    view->shown = message;
}

/* NULL without memory. */
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

/* Room for a body of len bytes; NULL without memory (no sticky error). */
uint8_t *bm_message_body_room(beam_message *message, uint32_t len);

/* Metadata or body of a message by copy; -ENOMEM. */
int bm_message_copy_metadata(beam_message *message, const void *document, uint32_t len);
int bm_message_copy_body(beam_message *message, const void *body, uint32_t len);

/* The attachments of a message, made when missing; NULL without memory. */
struct bm_attachments *bm_message_attachments(beam_message *message);
/* One more attached channel; NULL without memory or over the limit. */
struct bm_attached_channel *bm_attachments_add_channel(beam_message *message);
/* Resets the channels nobody took; one of them, NULL when none is left. */
void bm_attachments_drop_channels(beam_message *message);
const beam_channel *bm_attachments_channel(const beam_message *message);
/* Closes fds and resets channels that were not taken; the memory stays with the message. */
void bm_attachments_close(beam_message *message);
void bm_attachments_free_memory(struct bm_pool *pool, struct bm_attachments *att);
/* The channels have left with their message: our ends are the application's alone; ids and modes stay. */
void bm_attachments_release_channels(struct bm_attachments *att);
/* Of a received message all of whose channels were taken: room for others. */
void bm_attachments_renew(struct bm_attachments *att);
/* fds that were taken leave no gaps. */
void bm_attachments_close_ranks(struct bm_attachments *att);

/* Around a callback that borrows a message. Once it was kept the lender must not look at it again: it
 * may be on another core, or gone. A view stays the lender's; keeping it copies. */
static inline void bm_message_lend(beam_message *message, bool *kept)
{
    *kept = false;
    message->kept = kept;
    message->flags |= BM_MESSAGE_LENT;
}

/* Ends a message that was received: credit, fds, channels, memory (not a view's). */
void bm_message_done(beam_message *message);

static inline void bm_message_return(beam_message *message, const bool *kept)
{
    if (*kept)
        return;
    message->flags &= (uint16_t)~BM_MESSAGE_LENT;
    message->next = NULL;
    bm_message_done(message);
}

/* Before a message is sent: one that was received gives its credit back and keeps only what can
 * travel on. -EINVAL: it holds channels that nobody took, which cannot. */
int bm_message_make_ours(beam_message *message);

/* Gives the memory of a message back, without looking at payer or attachments. */
void bm_message_free_memory(beam_message *message);

/* Takes what binds a message to its core (credit, fd credit, channels) off it, so that any thread may
 * own it. Owner's core. */
void bm_message_unbind(beam_message *message);

/* The memory of a message that came home. Owner's core; NULL: back to the allocator. */
void bm_message_take_home(struct bm_core *core, beam_message *message);

/* Those that a full mailbox refused. Owner's core. */
void bm_message_post_again(struct bm_core *core);

#endif
