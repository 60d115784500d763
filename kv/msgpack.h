/* msgpack (docs/spec/codecs.md, section 3) from and to values. */
#ifndef BM_MSGPACK_H
#define BM_MSGPACK_H

#include <beam/buffer.h>
#include <beam/kv.h>

/* Reads one value that fills in[0..len) and puts it. 0, -BEAM_ECODEC_… or what a put returned; on failure
 * *ret_offset is where it shows. */
int bm_msgpack_read(const uint8_t *in, size_t len, beam_kv_writer *out, size_t *ret_offset);

/* Adds the msgpack form of a value that was checked. */
int bm_msgpack_write(const beam_kv_value *value, beam_buffer *out);

#endif
