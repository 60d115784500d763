/* JSON text (docs/spec/codecs.md, section 2) from and to values. */
#ifndef BM_JSON_H
#define BM_JSON_H

#include <beam/buffer.h>
#include <beam/kv.h>

/* Reads one value that fills text[0..len) and puts it. 0, -BEAM_ECODEC_… or what a put returned; on failure
 * *ret_offset is where it shows. */
int bm_json_read(const uint8_t *text, size_t len, beam_kv_writer *out, size_t *ret_offset);

/* Adds the text of a value that was checked. safe: integers beyond 2^53 - 1 as {"$int":"…"}. */
int bm_json_write(const beam_kv_value *value, bool safe, beam_buffer *out);

/* Adds the text of one number; a float that is not finite as "nan", "inf" or "-inf". */
void bm_json_write_number(const beam_kv_value *number, beam_buffer *out);

/* Reads one number from the front of text (T8): -BEAM_ECODEC_SYNTAX, _TRUNCATED or _UNSUPPORTED. *ret_len is
 * how much of it was looked at, also on failure. */
int bm_json_read_number(const uint8_t *text, size_t len, beam_kv_value *ret_number,
                        size_t *ret_len);

#endif
