/* Each block has 16 bytes in front: who paid, and how much. A payer lives as long as a block of it does,
 * and is itself charged to nobody, because it may outlive its account.
 *
 * A payer's account is touched by the thread that owns it alone. Blocks of a payer that is gone, or of
 * none, may be freed anywhere: their number is atomic, and their account is NULL. */
#include "net/proto/payer.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"

struct bm_payer {
    struct bm_account *account;
    size_t used;         /* bytes of its blocks; its thread's */
    _Atomic size_t refs; /* blocks, and one for the owner; relaxed up, acquire-release down */
    bool refused;
};

struct head {
    struct bm_payer *payer;
    size_t len; /* with this */
};
_Static_assert(sizeof(struct head) == 16, "what follows is aligned to 16");

static _Thread_local struct bm_payer *current;

struct bm_payer *bm_payer_new(struct bm_account *account)
{
    struct bm_payer *payer = (struct bm_payer *)bm_alloc_zero(NULL, sizeof(*payer));
    if (payer) {
        payer->account = account;
        atomic_init(&payer->refs, 1);
    }
    return payer;
}

static void unref(struct bm_payer *payer)
{
    if (atomic_fetch_sub_explicit(&payer->refs, 1, memory_order_acq_rel) == 1)
        bm_free(NULL, payer, sizeof(*payer));
}

struct bm_payer *bm_payer_free(struct bm_payer *payer)
{
    if (!payer)
        return NULL;
    for (struct bm_account *account = payer->account; account; account = account->parent) {
        bm_assert(account->used >= payer->used);
        account->used -= payer->used;
    }
    payer->account = NULL;
    unref(payer);
    return NULL;
}

struct bm_payer *bm_payer_enter(struct bm_payer *payer)
{
    struct bm_payer *outer = current;
    current = payer;
    return outer;
}

void bm_payer_leave(struct bm_payer *outer)
{
    current = outer;
}

bool bm_payer_refused(struct bm_payer *payer)
{
    bool refused = payer->refused;
    payer->refused = false;
    return refused;
}

static struct bm_account *account_of(const struct bm_payer *payer)
{
    return payer ? payer->account : NULL;
}

void *bm_payer_malloc(size_t len)
{
    struct bm_payer *payer = current;
    struct head *head = NULL;
    if (len <= SIZE_MAX - sizeof(*head))
        head = (struct head *)bm_alloc(account_of(payer), len + sizeof(*head));
    if (!head) {
        if (payer)
            payer->refused = true;
        return NULL;
    }
    *head = (struct head){payer, len + sizeof(*head)};
    if (payer) {
        payer->used += head->len;
        atomic_fetch_add_explicit(&payer->refs, 1, memory_order_relaxed);
    }
    return head + 1;
}

void bm_payer_release(void *ptr)
{
    if (!ptr)
        return;
    struct head *head = (struct head *)ptr - 1;
    struct bm_payer *payer = head->payer;
    struct bm_account *account = account_of(payer);
    if (account)
        payer->used -= head->len;
    bm_free(account, head, head->len);
    if (payer)
        unref(payer);
}

/* Moves the block, whoever paid for the old one: the new one is paid by who asks for it. */
void *bm_payer_realloc(void *ptr, size_t len)
{
    void *fresh = bm_payer_malloc(len);
    if (fresh && ptr) {
        size_t old_len = ((struct head *)ptr - 1)->len - sizeof(struct head);
        memcpy(fresh, ptr, old_len < len ? old_len : len);
        bm_payer_release(ptr);
    }
    return fresh;
}
