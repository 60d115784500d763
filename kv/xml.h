/* XML (docs/spec/codecs.md, section 4) from and to values. */
#ifndef BM_XML_H
#define BM_XML_H

#include <beam/buffer.h>
#include <beam/kv.h>

struct bm_account;

/* Reads one value, in the vocabulary of <kv> or foreign, that fills in[0..len), and puts it. What that takes
 * beside the document is on the account, which may be NULL. 0, -ENOMEM, -BEAM_ECODEC_… or what a put
 * returned; on failure *ret_offset is where it shows. Only with BEAM_XML. */
int bm_xml_read(const uint8_t *in, size_t len, beam_kv_writer *out, struct bm_account *account,
                size_t *ret_offset);

/* Adds the <kv> form of a value that was checked. */
int bm_xml_write(const beam_kv_value *value, beam_buffer *out);

#endif
