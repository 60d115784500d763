/* What the readers of other formats need of the writer beyond its public calls: texts that are decoded on
 * their way, straight into the document. */
#ifndef BM_WRITER_H
#define BM_WRITER_H

#include <beam/kv.h>

/* An entry whose key and value are still to be written, in place. */
struct bm_writer_entry {
    beam_kv_type type; /* MAP and LIST are opened, with a value_len of 0 */
    bool in_map;       /* it has a key */
    size_t value_len, key_len;
    uint8_t *value, *key; /* where they go */
};

/* Finds room for entry, of which value and key are set. Errors are those of beam_kv_put and stick. */
int bm_writer_reserve(beam_kv_writer *writer, struct bm_writer_entry *entry);

/* Makes it part of the document; nothing was put in between. Key and value are there and by the rules: that
 * is the caller's promise. Cannot fail. */
void bm_writer_commit(beam_kv_writer *writer, const struct bm_writer_entry *entry);

/* Takes the first byte, a '$', from the key of the last entry, which is the only one in an open map. */
void bm_writer_unescape_key(beam_kv_writer *writer);

#endif
