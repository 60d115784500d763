/* The texts about a peer of a network outlive its session in the requests that it made, and go to other
 * reactors with them: one block, which all refer to and the last frees.
 *
 * Invariant: a block is complete before anybody else sees it, and is not written again but for its count. */
#include "runtime/peer.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

struct bm_peer_texts {
    _Atomic unsigned
        refs;   /* relaxed up; acq_rel down: the last one sees that all others are done */
    size_t len; /* of this block */
    beam_str identity, address;
    char text[];
};

static beam_str put(char **at, beam_str text)
{
    char *begin = *at;
    if (text.len > 0)
        memcpy(begin, text.ptr, text.len);
    begin[text.len] = '\0';
    *at = begin + text.len + 1;
    return (beam_str){begin, text.len};
}

int bm_peer_texts_new(beam_str identity, beam_str address, struct bm_peer_texts **ret)
{
    size_t len = sizeof(struct bm_peer_texts) + identity.len + 1 + address.len + 1;
    struct bm_peer_texts *block = bm_alloc(NULL, len);
    if (!block)
        return -ENOMEM;
    char *at = block->text;
    atomic_init(&block->refs, 1);
    block->len = len;
    block->identity = put(&at, identity);
    block->address = put(&at, address);
    *ret = block;
    return 0;
}

static bool same(beam_str a, beam_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool bm_peer_texts_are(const struct bm_peer_texts *texts, beam_str identity, beam_str address)
{
    return texts && same(texts->identity, identity) && same(texts->address, address);
}

struct bm_peer_texts *bm_peer_texts_ref(struct bm_peer_texts *texts)
{
    if (texts)
        atomic_fetch_add_explicit(&texts->refs, 1, memory_order_relaxed);
    return texts;
}

struct bm_peer_texts *bm_peer_texts_unref(struct bm_peer_texts *texts)
{
    if (!texts)
        return NULL;
    unsigned before = atomic_fetch_sub_explicit(&texts->refs, 1, memory_order_acq_rel);
    bm_assert(before > 0);
    return before == 1 ? bm_free(NULL, texts, texts->len) : NULL;
}

void bm_peer_set_net(struct bm_peer *peer, struct bm_peer_texts *texts)
{
    bm_peer_clear(peer);
    peer->texts = texts;
    peer->shown.kind = BEAM_PEER_NET;
    peer->shown.uid = peer->shown.gid = UINT32_MAX;
    peer->shown.pid = -1;
    if (!texts)
        return;
    peer->shown.identity = texts->identity;
    peer->shown.address = texts->address;
}

void bm_peer_copy(struct bm_peer *to, const struct bm_peer *from)
{
    bm_assert(!to->texts);
    *to = *from;
    bm_peer_texts_ref(to->texts);
}

void bm_peer_clear(struct bm_peer *peer)
{
    bm_peer_texts_unref(peer->texts);
    *peer = (struct bm_peer){0};
}
