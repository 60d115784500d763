/* What can be judged about an HTTP/2 connection from the heads of the frames that a peer sends,
 * before anything is done about them: floods of frames that are cheap to send, header blocks that
 * never end, stream ids that were passed over. It reads nine bytes a frame, and hardly anything of
 * payloads, so that it holds whatever the engine behind it does.
 *
 * Each kind of frame that does nothing for a request has a budget of its own (a token bucket). The
 * limits are far above what browsers, proxies and h2load were seen to do, and far below what costs
 * us anything. */
#ifndef BM_H2_GUARD_H
#define BM_H2_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/proto/budget.h"
#include "net/proto/h2_preface.h"

#define BM_H2_HEAD_LEN 9u          /* section 4.1 */
#define BM_H2_CONTINUATIONS_MAX 8u /* of a header block; as nghttp2 since CVE-2024-28182 */
#define BM_H2_GAPS_MAX 16u         /* passed-over ids that are remembered, the latest */
#define BM_H2_ENDED_MAX 256u /* streams that a client has ended or reset, and that are remembered */

/* name, at once, a second */
#define BM_H2_BUDGET_TABLE(X)                                                                      \
    X(PING, 100, 20)     /* CVE-2019-9512; a peer that measures sends one a round trip */          \
    X(SETTINGS, 32, 1)   /* CVE-2019-9515; acknowledgements included */                            \
    X(PRIORITY, 512, 50) /* CVE-2019-9513; old browsers send some a request */                     \
    X(EMPTY, 100, 10)    /* CVE-2019-9518: DATA without data or end */                             \
    X(OTHER, 100, 10)    /* unknown types, GOAWAY, interim responses */                            \
    X(RESET, 100, 10)    /* CVE-2023-44487 and CVE-2025-8671: RST_STREAM, theirs and ours */       \
    X(UPDATE, 4000, 400) /* CVE-2019-9511: WINDOW_UPDATE beyond one each BM_H2_UPDATE_LEN sent */

enum bm_h2_budget {
#define BM_H2_BUDGET_ENUM_(name, burst, per_s) BM_H2_BUDGET_##name,
    BM_H2_BUDGET_TABLE(BM_H2_BUDGET_ENUM_)
#undef BM_H2_BUDGET_ENUM_
        BM_H2_BUDGETS,
};

#define BM_H2_UPDATE_LEN 512u /* bytes of DATA sent, for one WINDOW_UPDATE that is not counted */

struct bm_h2_gap {
    uint32_t first, last; /* ids; 0: none */
};

struct bm_h2_guard {
    bool server;
    bool greeted;        /* the first frame of the peer is there, whole */
    uint8_t flags, type; /* of the frame under way */
    uint8_t head_len;    /* bytes of its head that are there */
    uint8_t head[BM_H2_HEAD_LEN];
    uint8_t continuations; /* of the block under way */
    uint32_t preface_left; /* bytes of it to come */
    uint32_t payload_left; /* of the frame */
    uint32_t id;
    uint32_t prefix;         /* those that have come, as a number */
    uint8_t prefix_left;     /* bytes of the payload that are looked at and still to come */
    uint64_t block_since_ns; /* a header block has begun and not ended; UINT64_MAX: none */
    uint32_t last_id;        /* the highest that a HEADERS had */
    uint32_t update_len;     /* sent, and not yet enough for one WINDOW_UPDATE */
    uint32_t gap_next;
    struct bm_h2_gap gaps[BM_H2_GAPS_MAX];
    uint32_t ended[BM_H2_ENDED_MAX]; /* by id / 2 */
    struct bm_budget budgets[BM_H2_BUDGETS];
};

void bm_h2_guard_init(struct bm_h2_guard *guard, bool server);

/* Looks at the next bytes of the peer. 0, or the HTTP/2 error code (RFC 9113 section 7) with which
 * the connection is to end; *ret_len is then how many of the bytes stand before the frame that is
 * one too many, else len. */
uint32_t bm_h2_guard_read(struct bm_h2_guard *guard, const uint8_t *bytes, size_t len,
                          uint64_t now_ns, size_t *ret_len);

/* Charges what the heads do not show: a reset of ours that the peer's fault was, an interim
 * response. False: there is nothing left of it. */
bool bm_h2_guard_charge(struct bm_h2_guard *guard, enum bm_h2_budget budget, uint64_t now_ns);

/* So many bytes of DATA were sent, for which windows are opened again; end: they were the last of a
 * body, for which even a peer that opens windows by the byte does so twice at most. */
void bm_h2_guard_sent(struct bm_h2_guard *guard, size_t len, bool end);

#endif
