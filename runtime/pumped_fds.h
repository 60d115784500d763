/* Descriptors over carriers that cannot pass them: each becomes an attached channel of bytes, which a pump at
 * either end joins to a descriptor (docs/spec/http.md section 3). Credit and limits count them as
 * descriptors all the same. */
#ifndef BM_PUMPED_FDS_H
#define BM_PUMPED_FDS_H

#include <stdbool.h>

#include <beam/message.h>

struct bm_core;

/* Of a message that is about to be taken for sending: its fds move into pumps, and channels for them are
 * attached to it. 0, or nothing has changed: -ENOTSUP: one of them is nothing that bytes can be read from or
 * written to; -EMSGSIZE: more channels than a message may have; -ENOMEM, or what fstat(2) says. */
int bm_pumped_fds_send(struct bm_core *core, beam_message *message);

/* Of a message that has come, whose channels are open: those for descriptors become its fds. false: no room
 * for them, or no memory; the message is to be refused. */
bool bm_pumped_fds_receive(struct bm_core *core, beam_message *message);

#endif
