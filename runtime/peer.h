/* Who is at the other end of a session, as it is kept: what the application sees, and the block in which
 * the texts of that are. */
#ifndef BM_PEER_H
#define BM_PEER_H

#include <beam/session.h>

/* What is known of a peer of a network. Never changed once it is made, so that any thread may read it, as
 * long as it has a reference. */
struct bm_peer_texts;

/* Copies both. -ENOMEM. */
int bm_peer_texts_new(beam_str identity, beam_str address, struct bm_peer_texts **ret);
/* Whether they say the same; NULL says nothing. */
bool bm_peer_texts_are(const struct bm_peer_texts *texts, beam_str identity, beam_str address);
/* Any thread. NULL is nobody. */
struct bm_peer_texts *bm_peer_texts_ref(struct bm_peer_texts *texts);
struct bm_peer_texts *bm_peer_texts_unref(struct bm_peer_texts *texts);

/* Zeroed: nobody. */
struct bm_peer {
    struct beam_peer shown;      /* its texts lie in `texts` */
    struct bm_peer_texts *texts; /* a reference; NULL: not of a network, or nothing is known */
};

/* The peer is of a network, and this is it; the reference goes over. The kernel knows no user of it: uid,
 * gid and pid are all ones. */
void bm_peer_set_net(struct bm_peer *peer, struct bm_peer_texts *texts);
/* to is cleared or zeroed. */
void bm_peer_copy(struct bm_peer *to, const struct bm_peer *from);
void bm_peer_clear(struct bm_peer *peer);

#endif
