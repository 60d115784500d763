/* Bytes into frames' effects, for every carrier that receives bytes: one parsed frame meets the session.
 * What lies before is the carrier's: where a frame begins and ends, and which fds came beside it. */
#ifndef BM_UNPACKING_H
#define BM_UNPACKING_H

#include "runtime/session.h"

/* What a carrier adds. Each slot may be NULL, and is given the carrier's own `arg`. */
struct bm_unpacking {
    /* The peer's first HELLO, before the session takes it: who the peer is. false: it is refused, and the
     * session has been ended. */
    bool (*on_hello)(beam_session *session, const struct bm_hello *hello, void *arg);
    /* Descriptors that came beside the frames; both or none. A frame that has some where there are none
     * ends the session (-BEAM_EFRAME_FDS). */
    /* Moves the next `count` into the message. false: some are missing, or there is no memory; then those
     * that are there have been closed or moved. */
    bool (*take_fds)(unsigned count, beam_message *message, void *arg);
    /* Closes the next `count`, as far as they are there. */
    void (*discard_fds)(unsigned count, void *arg);
};

/* One frame, as bm_frame_next() gave it; `known` is false where that returned 2. The payload is borrowed,
 * 8-aligned. The caller holds a reference to the session, which is OPEN. false: the session has ended, and
 * what lies behind the frame is not to be looked at. */
bool bm_unpacking_frame(beam_session *session, const struct bm_unpacking *carrier, void *arg,
                        const struct bm_frame *frame, bool known);

#endif
