/* Living in somebody else's loop. */
#ifndef BM_EMBED_H
#define BM_EMBED_H

struct bm_reactor;

int bm_embed_init(struct bm_reactor *reactor);

/* One turn between two waits of the host. */
void bm_embed_turn(struct bm_reactor *reactor);

/* Work was queued outside a turn: the host's fd becomes readable. Nothing when not embedded. */
void bm_embed_kick(struct bm_reactor *reactor);

#endif
