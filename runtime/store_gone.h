/* The keys that a store deleted last, and in which revision: what tells a conditional change of a key that
 * is not there whether it was (docs/spec/kv.md, Y6). Deletions are forgotten in their order; for a key
 * that may be among those, the answer is the latest revision that was forgotten: later than it was, never
 * earlier. */
#ifndef BM_STORE_GONE_H
#define BM_STORE_GONE_H

#include <beam/kv.h>

#define BM_GONE_MAX 1024u /* ours: deletions that are known */

struct bm_gone_key {
    uint64_t digest; /* of the key */
    uint64_t rev;
};

struct bm_gone {
    struct bm_gone_key ring[BM_GONE_MAX]; /* the oldest at next, once it is full */
    uint16_t sorted[BM_GONE_MAX];         /* places in the ring, by digest, revision and place */
    uint32_t count, next;
    uint64_t forgotten; /* the latest revision that was */
    uint64_t compared;  /* entries looked at by all searches, ever: for tests */
};

/* None is known, and all up to rev are forgotten. */
void bm_gone_init(struct bm_gone *gone, uint64_t rev);
/* One more; revisions do not go back. */
void bm_gone_add(struct bm_gone *gone, beam_str key, uint64_t rev);
/* When a key that is not there was deleted, or later. */
uint64_t bm_gone_find(struct bm_gone *gone, beam_str key);

#endif
