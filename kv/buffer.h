/* What the kv layer may do with a buffer that its public header does not offer. */
#ifndef BM_BUFFER_H
#define BM_BUFFER_H

#include <beam/buffer.h>

struct bm_account;

/* A buffer whose memory is charged to an account (base/alloc.h). */
void bm_buffer_init(beam_buffer *buffer, size_t len_max, struct bm_account *account);

/* Makes cap at least need, and more than that if much will come. All of the old cap is kept, not only
 * len. 0, -BEAM_ECODEC_TOO_LARGE or -ENOMEM; the buffer is as it was then, without a sticky error. */
int bm_buffer_grow(beam_buffer *buffer, size_t need);

#endif
