/* A reactor inside somebody else's loop. Reactor's thread. */
#ifndef BM_EMBED_H
#define BM_EMBED_H

struct bm_reactor;

/* Has the ring make the reactor's eventfd readable. 0 or -errno. */
int bm_embed_init(struct bm_reactor *reactor);

/* One turn between two waits of the host. */
void bm_embed_turn(struct bm_reactor *reactor);

/* Work was queued outside a turn: makes the fd that the host polls readable. No effect inside a turn,
 * or when not embedded. */
void bm_embed_kick(struct bm_reactor *reactor);

#endif
