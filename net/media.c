/* See media.h. */
#include "net/media.h"

#include <string.h>

#include "net/accept.h"

static const struct {
    const char *type, *name; /* another name, and that of the codec */
} others[] = {
    {"application/msgpack", "msgpack"},
    {"application/x-msgpack", "msgpack"},
    {"text/xml", "xml"},
};

const struct beam_codec *bm_media_codec(const struct bm_codecs *codecs, beam_str content_type)
{
    beam_str type = bm_accept_type_of(content_type);
    const char *name = NULL;
    for (unsigned i = 0; i < codecs->count; i++)
        if (bm_field_same(type.ptr, type.len, codecs->known[i]->media_type))
            return codecs->known[i];
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (bm_field_same(type.ptr, type.len, others[i].type))
            name = others[i].name;
    for (unsigned i = 0; name && i < codecs->count; i++)
        if (strcmp(codecs->known[i]->name, name) == 0)
            return codecs->known[i];
    return NULL;
}

/* The quality of a codec under whichever of its names is wanted most. */
static struct bm_accept accept_of(const struct bm_field *fields, size_t count,
                                  const struct beam_codec *codec)
{
    struct bm_accept accept = bm_accept_find(fields, count, codec->media_type);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(others[i].name, codec->name) != 0)
            continue;
        struct bm_accept other = bm_accept_find(fields, count, others[i].type);
        if (other.exact && (!accept.exact || other.quality > accept.quality))
            accept = other;
    }
    return accept;
}

/* Without a preference of the asker: his own first, then JSON, then the service's. */
static unsigned rank(const struct beam_codec *codec, const struct beam_codec *spoken,
                     const struct beam_codec *asked)
{
    return codec == asked ? 3 : codec == &beam_json ? 2 : codec == spoken ? 1 : 0;
}

static bool can_be(const struct beam_codec *codec, const struct beam_codec *spoken)
{
    return spoken ? bm_codec_converts(spoken, codec) : codec->from_kv != NULL;
}

struct bm_media_choice bm_media_choose(const struct bm_codecs *codecs,
                                       const struct bm_field *fields, size_t count,
                                       const struct beam_codec *spoken,
                                       const struct beam_codec *asked)
{
    struct bm_media_choice choice = {0};
    struct bm_accept accepts[BM_CODECS_MAX];
    struct bm_accept wanted = {0};
    unsigned ranked = 0;
    bool anything = bm_accept_is_anything(fields, count);
    for (unsigned i = 0; i < codecs->count; i++) {
        const struct beam_codec *codec = codecs->known[i];
        struct bm_accept accept =
            anything ? (struct bm_accept){.quality = 1000} : accept_of(fields, count, codec);
        unsigned r = rank(codec, spoken, asked);
        accepts[i] = accept;
        if (accept.quality == 0 || !can_be(codec, spoken))
            continue;
        if (!choice.codec || accept.quality > wanted.quality ||
            (accept.quality == wanted.quality &&
             (accept.place < wanted.place || (accept.place == wanted.place && r > ranked)))) {
            choice.codec = codec;
            wanted = accept;
            ranked = r;
        }
    }
    for (unsigned i = 0; i < codecs->count; i++)
        if (accepts[i].quality > 0 && accepts[i].quality >= wanted.quality)
            choice.best |= UINT32_C(1) << i;
    return choice;
}

bool bm_media_is_best(const struct bm_codecs *codecs, const struct bm_media_choice *choice,
                      const struct beam_codec *codec)
{
    for (unsigned i = 0; i < codecs->count; i++)
        if (codecs->known[i] == codec)
            return choice->best >> i & 1;
    return false;
}
