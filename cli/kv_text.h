/* Values and keys as text, and back. */
#ifndef CLI_KV_TEXT_H
#define CLI_KV_TEXT_H

#include <beam/beam.h>

#define KV_TEXT_LEN_MAX ((size_t)1 << 30) /* ours: of what is read or printed at once */

/* A word of the command line as a key; a view of it. -EINVAL after saying why it is none. */
int kv_text_key(const char *verb, const char *word, beam_str *ret_key);

/* A value as JSON (docs/spec/kv.md K15), without control characters that would steer a terminal. 0 or an
 * error. */
int kv_text_json(FILE *out, const beam_kv_value *value);

/* key=text or key:=JSON, as `beam call` has it, without a newline. */
int kv_text_pair(FILE *out, beam_str key, const beam_kv_value *value);

/* {"key":...,"value":...} and a newline; without a value: {"key":...}. */
int kv_text_line(FILE *out, beam_str key, const beam_kv_value *value);

/* A value as a document of its own, added to what out holds. */
int kv_text_document(beam_buffer *out, const beam_kv_value *value);

/* JSON into a document; out becomes that. ret_offset as in beam_convert. */
int kv_text_read(const void *text, size_t len, beam_buffer *out, size_t *ret_offset);

/* Reads a file, "-" being standard input, to its end; says what is wrong with it. 0 or an error. */
int kv_text_read_file(const char *path, beam_buffer *out);

#endif
