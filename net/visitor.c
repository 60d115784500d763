/* Whoever asks, as a peer that outlives the request it came with. */
#include "net/server.h"

int bm_visitor_peer(const struct bm_visitor *visitor, struct bm_peer_texts **last,
                    struct bm_peer *ret_peer)
{
    struct bm_peer_texts *texts = last ? *last : NULL;
    if (bm_peer_texts_are(texts, visitor->peer.identity, visitor->peer.address)) {
        bm_peer_texts_ref(texts);
    } else {
        int r = bm_peer_texts_new(visitor->peer.identity, visitor->peer.address, &texts);
        if (r < 0)
            return r;
        if (last) {
            bm_peer_texts_unref(*last);
            *last = bm_peer_texts_ref(texts);
        }
    }
    *ret_peer = (struct bm_peer){0};
    bm_peer_set_net(ret_peer, texts);
    return 0;
}
