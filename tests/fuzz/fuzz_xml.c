/* Any bytes as XML: the vocabulary of <kv> and foreign.
 *
 * What is refused has a byte to blame. What is accepted becomes a valid document, which comes back from its
 * XML. Any document does. Without expat there is nothing to try.
 *
 * Covers: kv/xml.c kv/xml_writer.c */
#include "tests/fuzz/codec.h"

static void check(const beam_buffer *doc, size_t size)
{
    fuzz_document_survives(&beam_json, doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (beam_xml())
        fuzz_codec(beam_xml(), data, size, check);
    return 0;
}
