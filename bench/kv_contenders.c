/* Each format in each loop of the kv cells. Peers that were not found are NULL in contenders.h. */
#include "bench/contenders.h"
#include "bench/kv_work.h"

#define CONTENDER(name, loop, format)                                                              \
    int name(struct bench_run *run)                                                                \
    {                                                                                              \
        return loop(run, &format);                                                                 \
    }

CONTENDER(kv_beam_encode, kv_encode, kv_beam)
CONTENDER(kv_beam_unsorted_encode, kv_encode, kv_beam_unsorted)
CONTENDER(kv_beam_decode, kv_decode, kv_beam)
CONTENDER(kv_beam_get_fields, kv_get_fields, kv_beam)
CONTENDER(kv_beam_get_entries, kv_get_entries, kv_beam)
CONTENDER(kv_beam_dump, kv_encode, kv_beam_json)
CONTENDER(kv_beam_load, kv_decode, kv_beam_json)
CONTENDER(kv_raw_encode, kv_copy_written, kv_beam)
CONTENDER(kv_raw_decode, kv_copy_read, kv_beam)
CONTENDER(kv_raw_dump, kv_copy_written, kv_beam_json)
CONTENDER(kv_raw_load, kv_copy_read, kv_beam_json)
CONTENDER(kv_array_get_entries, kv_get_entries, kv_array)

#ifdef BENCH_MSGPACK
CONTENDER(kv_msgpack_encode, kv_encode, kv_msgpack)
CONTENDER(kv_msgpack_decode, kv_decode, kv_msgpack)
CONTENDER(kv_msgpack_get_fields, kv_get_fields, kv_msgpack)
CONTENDER(kv_msgpack_get_entries, kv_get_entries, kv_msgpack)
#endif

#ifdef BENCH_FLEXBUFFERS
CONTENDER(kv_flexbuffers_encode, kv_encode, kv_flexbuffers)
CONTENDER(kv_flexbuffers_decode, kv_decode, kv_flexbuffers)
CONTENDER(kv_flexbuffers_get_fields, kv_get_fields, kv_flexbuffers)
CONTENDER(kv_flexbuffers_get_entries, kv_get_entries, kv_flexbuffers)
#endif

#ifdef BENCH_JANSSON
CONTENDER(kv_jansson_encode, kv_encode, kv_jansson)
CONTENDER(kv_jansson_decode, kv_decode, kv_jansson)
CONTENDER(kv_jansson_get_fields, kv_get_fields, kv_jansson)
CONTENDER(kv_jansson_get_entries, kv_get_entries, kv_jansson)
CONTENDER(kv_jansson_dumps, kv_encode, kv_jansson_dump)
#endif

#ifdef BENCH_PROTOBUF
static const struct kv_format *protobuf(const struct bench_run *run)
{
    return strcmp(run->row->document, "small") == 0 ? &kv_protobuf_small : &kv_protobuf_medium;
}

int kv_protobuf_encode(struct bench_run *run)
{
    return kv_encode(run, protobuf(run));
}

int kv_protobuf_decode(struct bench_run *run)
{
    return kv_decode(run, protobuf(run));
}
#endif
