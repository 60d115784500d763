/* A channel of bytes with a stream of its own, beside its session: what it needs for a long transfer that
 * neither waits for the session's others nor holds them up (docs/spec/http.md section 4). This is the
 * channel's side; the stream is its carrier's.
 *
 *     undecided   it was attached with a token: nothing of it leaves, what is written waits in the channel
 *     flows       everything leaves by the stream, and comes by it
 *     none        the ordinary case: everything goes in frames of the session
 *
 * The opener of the session decides, once: bm_dedicated_go, or bm_dedicated_decline. The acceptor learns of
 * it: bm_dedicated_go too, or by the first frame that comes (bm_dedicated_may_come). An abort goes in
 * the session in every state. All on the core's thread. */
#ifndef BM_DEDICATED_H
#define BM_DEDICATED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <beam/session.h>

struct bm_dedicated;

#define BM_DEDICATED_QUEUE_LEN (256 << 10) /* ours: written and not taken; as the stream's window */
#define BM_DEDICATED_LEN_MIN                                                                       \
    (256u << 10) /* ours: of a descriptor; less is through before a stream would be open */

enum bm_dedicated_state {
    BM_DEDICATED_NONE,
    BM_DEDICATED_UNDECIDED,
    BM_DEDICATED_FLOWS,
};

/* What the stream is told. Not from inside a call that it makes here, but for `over`. */
struct bm_dedicated_calls {
    /* It flows, and there is something for bm_dedicated_take or bm_dedicated_take_end. */
    void (*ready)(struct bm_dedicated *dedicated);
    /* The application is done with so many bytes of bm_dedicated_data. */
    void (*consumed)(struct bm_dedicated *dedicated, size_t len);
    /* Nothing connects the two any more: both directions have ended, or it was decided for the session,
     * or the channel was aborted; told: by us, and the peer hears of it in the session. The last call;
     * it may come from inside any of those below. */
    void (*over)(struct bm_dedicated *dedicated, bool told);
};

/* Part of what the carrier keeps for the stream. */
struct bm_dedicated {
    const struct bm_dedicated_calls *calls;
    beam_channel *channel; /* NULL: over */
};

/* --- the session's --- */

/* A message of ours is about to be put: which of the channels that it attaches have a token. Harmless again. */
void bm_dedicated_offer(const beam_session *session, beam_message *message);
/* It is open at both ends, or soon will be, with this token: undecided from now on, and the carrier's to
 * go on with, if it does. */
void bm_dedicated_begin(beam_channel *channel, const uint8_t *token);
/* A frame of the peer that has bytes, or an order's end, has come in the session. true: it may, and from now
 * on everything does. */
bool bm_dedicated_may_come(beam_channel *channel);

/* --- the channel's --- */

void bm_dedicated_ready(beam_channel *channel);
void bm_dedicated_consumed(beam_channel *channel, int64_t len);
/* It is gone, or its abort is due in the session (told). No effect without a stream. */
void bm_dedicated_over(beam_channel *channel, bool told);

/* --- the stream's --- */

/* The two belong together from now on, undecided. */
void bm_dedicated_join(struct bm_dedicated *dedicated, const struct bm_dedicated_calls *calls,
                       beam_channel *channel);
/* There will be no stream; `over` is not called. The opener: it is decided for the session, which the peer
 * hears; the acceptor: it waits to hear that. */
void bm_dedicated_decline(struct bm_dedicated *dedicated);
/* It flows. */
void bm_dedicated_go(struct bm_dedicated *dedicated);
/* Bytes to be sent: up to len of them to buf, and how many. */
size_t bm_dedicated_take(struct bm_dedicated *dedicated, uint8_t *buf, size_t len);
/* Our direction ends, behind all that was taken: true, with its code, once. When it has been told, the
 * channel may be gone: bm_channel_check_gone. */
bool bm_dedicated_take_end(struct bm_dedicated *dedicated, uint32_t *ret_code);
/* Bytes have come, len > 0. They are consumed when `consumed` says so. */
void bm_dedicated_data(struct bm_dedicated *dedicated, const uint8_t *bytes, size_t len);
/* The peer's direction has ended with OK, or both have with another code. details: a kv map, or NULL. */
void bm_dedicated_end(struct bm_dedicated *dedicated, uint32_t code, const void *details,
                      uint32_t details_len);
/* The stream has broken: the channel is aborted, and both ends hear of it. */
void bm_dedicated_break(struct bm_dedicated *dedicated, enum beam_code code, const char *text);

#endif
