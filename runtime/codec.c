/* See codec.h. A list in which one looks from front to back: there are a handful, and only who asks in a
 * codec that is not the service's is looked up.
 *
 * Converting is kv/convert.c's, and when to do it transcode.c's. */
#include "runtime/codec.h"

#include <errno.h>
#include <string.h>

#include "kv/utf8.h"
#include "runtime/options.h"
#include "runtime/runtime.h"

void bm_codecs_init(struct bm_codecs *codecs)
{
    const struct beam_codec *const always[] = {&beam_kv_codec, &beam_json, &beam_msgpack,
                                               beam_xml()};
    codecs->count = 0;
    for (unsigned i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        if (always[i])
            codecs->known[codecs->count++] = always[i];
}

const struct beam_codec *bm_codecs_find(const struct bm_codecs *codecs, uint32_t number)
{
    for (unsigned i = 0; i < codecs->count; i++)
        if (codecs->known[i]->number == number)
            return codecs->known[i];
    return NULL;
}

bool bm_codecs_has(const struct bm_codecs *codecs, const struct beam_codec *codec)
{
    for (unsigned i = 0; i < codecs->count; i++)
        if (codecs->known[i] == codec)
            return true;
    return false;
}

static bool is_text(const char *text, size_t len_max)
{
    size_t len = text ? strlen(text) : 0;
    return len > 0 && len <= len_max && bm_utf8_valid(text, len);
}

/* docs/spec/session.md M1: 5 to 65 535 have no meaning yet. */
static bool is_number(uint32_t number)
{
    return number <= BEAM_CODEC_PROTOBUF || number >= BEAM_CODEC_APPLICATION;
}

static int check(const struct beam_codec *codec)
{
    struct beam_codec read;
    if (!codec)
        return -EINVAL;
    int r = bm_options_read(&read, sizeof(read), codec);
    if (r < 0)
        return r;
    /* There is no older one: what it lacks would be a way to convert. */
    bool sound = codec->size >= sizeof(read) && is_number(read.number) &&
                 is_text(read.name, BM_CODEC_NAME_LEN_MAX) &&
                 is_text(read.media_type, BM_CODEC_MEDIA_TYPE_LEN_MAX);
    return sound ? 0 : -EINVAL;
}

/* Its reactors run: they look codecs up without a lock. An embedded one runs when it is turned. */
static bool has_started(beam_runtime *runtime)
{
    struct beam_stats stats;
    if (!runtime->options.embedded)
        return bm_runtime_state(runtime) != BM_RUNTIME_NEW;
    return beam_runtime_stats(runtime, 0, &stats) == 0 && stats.turns > 0;
}

int beam_codec_register(beam_runtime *runtime, const struct beam_codec *codec)
{
    struct bm_codecs *codecs = &runtime->codecs;
    int r = check(codec);
    if (r < 0)
        return r;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (has_started(runtime))
        return -EBUSY;
    for (unsigned i = 0; i < codecs->count; i++)
        if (codecs->known[i]->number == codec->number ||
            strcmp(codecs->known[i]->name, codec->name) == 0)
            return -EEXIST;
    if (codecs->count == BM_CODECS_MAX)
        return -ENOSPC;
    codecs->known[codecs->count++] = codec;
    return 0;
}
