/* See collected.h. Most bodies fit a frame and are not charged: how many of those there are at once is
 * bounded by the streams of a connection. Who holds more stands in a list of the thread's, in which the
 * others of the same connection are looked for when one asks for more. */
#include "net/collected.h"

#include <errno.h>
#include <string.h>

#include "net/memory_budget.h"
#include "runtime/core.h"
#include "runtime/frame.h"
#include "runtime/runtime.h"

#define FIRST_LEN 1024u /* ours: of a body of unknown length */

static _Thread_local struct bm_list charged;

void bm_collected_init(struct bm_collected *collected, struct bm_core *core, const void *payer,
                       uint64_t memory_max)
{
    *collected = (struct bm_collected){.core = core, .payer = payer, .memory_max = memory_max};
}

static uint64_t charged_to(const void *payer)
{
    uint64_t sum = 0;
    for (struct bm_list *n = charged.next; n != &charged; n = n->next) {
        const struct bm_collected *other = bm_list_entry(n, struct bm_collected, node);
        if (other->payer == payer)
            sum += other->charged;
    }
    return sum;
}

static uint64_t most(const struct bm_collected *collected)
{
    const struct beam_limits *limits = &collected->core->runtime->limits;
    uint64_t share = limits->large_len_max - limits->large_len_max / 4;
    return share > limits->message_len_max ? share : limits->message_len_max;
}

/* So many bytes are here now. A core that has ended counts nothing any more. */
static void hold(struct bm_collected *collected, size_t len)
{
    if (collected->core != bm_core_current())
        return;
    struct bm_networks *networks = &collected->core->networks;
    networks->bodies += len - collected->held;
    collected->held = len;
    if (networks->account.used == 0) /* its connection has gone, and tells of it no more */
        bm_memory_tell(collected->core);
}

static void discharge(struct bm_collected *collected)
{
    if (collected->list == &charged)
        bm_list_unlink(&collected->node);
    collected->list = NULL;
    collected->charged = 0;
}

/* -ENOBUFS. */
static int charge(struct bm_collected *collected, uint64_t len)
{
    if (len <= BM_FRAME_LEN_MAX || len <= collected->charged)
        return 0;
    if (!charged.next)
        bm_list_init(&charged);
    uint64_t sum = charged_to(collected->payer) - collected->charged + len;
    if (sum > most(collected))
        return -ENOBUFS;
    if (!collected->list)
        bm_list_push_back(&charged, &collected->node);
    collected->list = &charged;
    collected->charged = len;
    return 0;
}

int bm_collected_reserve(struct bm_collected *collected, uint64_t len)
{
    struct bm_body *body = &collected->body;
    struct bm_pool *pool = &collected->core->pool;
    uint32_t cap;
    if (len > collected->core->runtime->limits.message_len_max)
        return -EMSGSIZE;
    if (len <= body->cap)
        return 0;
    if (len > BM_FRAME_LEN_MAX &&
        bm_memory_look(collected->core, collected->memory_max) == BM_MEMORY_OUT)
        return -ENOMEM;
    int r = charge(collected, len);
    if (r < 0)
        return r;
    uint8_t *block = bm_pool_get(pool, len, &cap);
    if (!block)
        return -ENOMEM;
    if (body->block) {
        memcpy(block, body->block, body->len);
        bm_pool_put(pool, body->block, body->cap);
    }
    body->block = block;
    body->cap = cap;
    hold(collected, cap);
    return 0;
}

/* Of a body whose length nobody has said: twice as much as there is, within the limit. */
static uint64_t room_for(const struct bm_collected *collected, uint64_t need)
{
    const uint64_t max = collected->core->runtime->limits.message_len_max;
    uint64_t room = collected->body.cap ? 2 * (uint64_t)collected->body.cap : FIRST_LEN;
    room = room < max ? room : max;
    return room > need ? room : need;
}

int bm_collected_add(struct bm_collected *collected, const uint8_t *bytes, size_t len)
{
    struct bm_body *body = &collected->body;
    const uint64_t need = (uint64_t)body->len + len;
    if (need > body->cap) {
        int r = bm_collected_reserve(collected, room_for(collected, need));
        if (r == -ENOBUFS)
            r = bm_collected_reserve(collected, need);
        if (r < 0)
            return r;
    }
    memcpy(body->block + body->len, bytes, len);
    body->len += (uint32_t)len;
    return 0;
}

void bm_collected_deinit(struct bm_collected *collected)
{
    struct bm_pool *pool = bm_core_pool(bm_core_current()); /* the core may have ended */
    if (collected->body.block)
        bm_pool_put(pool, collected->body.block, collected->body.cap);
    collected->body = (struct bm_body){0};
    hold(collected, 0);
    discharge(collected);
}

int bm_collected_answer(struct bm_collected *collected, size_t len)
{
    if (!collected->body.block)
        discharge(collected);
    int r = charge(collected, (uint64_t)collected->body.cap + len);
    hold(collected, collected->body.cap + (r == 0 ? len : 0));
    return r;
}
