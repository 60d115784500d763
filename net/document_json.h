/* Documents as JSON, for bodies, events and the field `beam-metadata`. */
#ifndef BM_DOCUMENT_JSON_H
#define BM_DOCUMENT_JSON_H

#include <beam/buffer.h>
#include <beam/codec.h>

/* How an end is told: {"code": NAME, "message": TEXT, "details": MAP}, added to out; what is empty is left
 * out. details: a kv document; what it has under "message" is left out, as the text is. -ENOMEM. */
int bm_document_json_status(enum beam_code code, beam_str text, const void *details, size_t len,
                            beam_buffer *out);

/* A kv document as JSON in characters of ASCII, as a field can hold it; without what stands under `leave`
 * (NULL: all of it). *ret_empty: it is a map and nothing is left of it; nothing is added then. Errors as
 * beam_convert. */
int bm_document_json_field(const void *document, size_t len, const char *leave, beam_buffer *out,
                           bool *ret_empty);

#endif
