/* Metadata of messages: a kv map that grows in the message's own room first and in a block of the
 * pool when it must. Keys are put in any order; the writer sorts once, when the map is sealed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/core.h"
#include "runtime/message.h"

#define WRITER_OVERHEAD 16u /* the writer keeps its bookkeeping behind the entries */

/* Moves the writer into a block with room for at least `need` bytes. */
static int grow(beam_message *message, size_t need)
{
    if (need > BEAM_METADATA_LEN_MAX + WRITER_OVERHEAD + 64)
        return -EMSGSIZE;
    struct bm_pool *pool = bm_core_pool(bm_core_current()); /* as for a body */
    uint32_t cap;
    uint8_t *block = bm_pool_get(pool, need, &cap);
    if (!block)
        return -ENOMEM;
    int r = beam_kv_writer_move(&message->writer, block, cap);
    bm_assert(r == 0);
    if (message->flags & BM_MESSAGE_META_BLOCK)
        bm_pool_put(pool, message->metadata_block, message->metadata_cap);
    message->metadata_block = block;
    message->metadata_cap = cap;
    message->flags |= BM_MESSAGE_META_BLOCK;
    return 0;
}

/* Whether a value can be put now; opens the map at the first one. */
static bool begin_put(beam_message *message, const char *key)
{
    if (message->flags & (BM_MESSAGE_FAILED | BM_MESSAGE_VIEW))
        return false;
    if (!key || (message->metadata && !(message->flags & BM_MESSAGE_WRITING))) {
        bm_message_fail(message, -EINVAL);
        return false;
    }
    if (++message->keys > BEAM_METADATA_KEYS_MAX) {
        bm_message_fail(message, -EMSGSIZE);
        return false;
    }
    if (!(message->flags & BM_MESSAGE_WRITING)) {
        bm_message_will_change(message);
        beam_kv_writer_init(&message->writer, message->metadata_inline, BM_MESSAGE_METADATA_INLINE);
        beam_kv_begin_map(&message->writer, NULL);
        message->metadata = message->metadata_inline;
        message->flags |= BM_MESSAGE_WRITING;
    }
    return true;
}

/* After a put: 0 to repeat it in a larger buffer, 1 when it is done or has failed for good. */
static int settle(beam_message *message, int r)
{
    if (r == -ENOSPC) {
        r = grow(message, message->writer.need);
        if (r == 0)
            return 0;
    }
    if (r < 0)
        bm_message_fail(message, r);
    return 1;
}

#define PUT(message, key, call)                                                                    \
    do {                                                                                           \
        if (!begin_put(message, key))                                                              \
            return;                                                                                \
        while (!settle(message, call)) {                                                           \
        }                                                                                          \
    } while (0)

void beam_message_put_nil(beam_message *message, const char *key)
{
    PUT(message, key, beam_kv_put_nil(&message->writer, key));
}

void beam_message_put_bool(beam_message *message, const char *key, bool value)
{
    PUT(message, key, beam_kv_put_bool(&message->writer, key, value));
}

void beam_message_put_int(beam_message *message, const char *key, int64_t value)
{
    PUT(message, key, beam_kv_put_int(&message->writer, key, value));
}

void beam_message_put_uint(beam_message *message, const char *key, uint64_t value)
{
    PUT(message, key, beam_kv_put_uint(&message->writer, key, value));
}

void beam_message_put_float(beam_message *message, const char *key, double value)
{
    PUT(message, key, beam_kv_put_float(&message->writer, key, value));
}

void beam_message_put_str(beam_message *message, const char *key, const char *value)
{
    PUT(message, key, beam_kv_put_str(&message->writer, key, value));
}

void beam_message_put_strn(beam_message *message, const char *key, const char *value, size_t len)
{
    PUT(message, key, beam_kv_put_strn(&message->writer, key, value, len));
}

void beam_message_put_bytes(beam_message *message, const char *key, const void *value, size_t len)
{
    PUT(message, key, beam_kv_put_bytes(&message->writer, key, value, len));
}

void beam_message_put(beam_message *message, beam_str key, const struct beam_kv_value *value)
{
    PUT(message, key.ptr, beam_kv_put(&message->writer, key, value));
}

void beam_message_putf(beam_message *message, const char *key, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (len < 0) {
        bm_message_fail(message, -EINVAL);
        return;
    }
    if ((size_t)len < sizeof(text)) {
        beam_message_put_strn(message, key, text, (size_t)len);
        return;
    }
    if (len > (int)BEAM_METADATA_LEN_MAX) {
        bm_message_fail(message, -EMSGSIZE);
        return;
    }

    struct bm_pool *pool = bm_core_pool(bm_core_current());
    uint32_t cap;
    char *room = bm_pool_get(pool, (size_t)len + 1, &cap);
    if (!room) {
        bm_message_fail(message, -ENOMEM);
        return;
    }
    va_start(args, format);
    vsnprintf(room, (size_t)len + 1, format, args);
    va_end(args);
    beam_message_put_strn(message, key, room, (size_t)len);
    bm_pool_put(pool, room, cap);
}

int bm_message_seal(beam_message *message)
{
    if (message->flags & BM_MESSAGE_FAILED)
        return message->error;
    if (!(message->flags & BM_MESSAGE_WRITING))
        return 0;

    const void *document;
    size_t len;
    beam_kv_end(&message->writer);
    int r = beam_kv_writer_finish(&message->writer, &document, &len);
    if (r >= 0 && len > BEAM_METADATA_LEN_MAX)
        r = -EMSGSIZE;
    if (r < 0) {
        bm_message_fail(message, r);
        return r;
    }
    message->flags &= (uint16_t)~BM_MESSAGE_WRITING;
    message->metadata = document;
    message->metadata_len = (uint32_t)len;
    return 0;
}

int bm_message_copy_metadata(beam_message *message, const void *document, uint32_t len)
{
    if (len == 0)
        return 0;
    uint8_t *room = message->metadata_inline;
    if (len > BM_MESSAGE_METADATA_INLINE) {
        room = bm_pool_get(bm_core_pool(bm_core_current()), len, &message->metadata_cap);
        if (!room)
            return -ENOMEM;
        message->metadata_block = room;
        message->flags |= BM_MESSAGE_META_BLOCK;
    }
    memcpy(room, document, len);
    message->metadata = room;
    message->metadata_len = len;
    return 0;
}

const void *beam_message_metadata(const beam_message *message, size_t *ret_len)
{
    /* Sealing a message that is still being built is part of looking at it. */
    if (message->flags & BM_MESSAGE_WRITING)
        (void)bm_message_seal((beam_message *)message);
    bool sealed = message->metadata_len > 0;
    if (ret_len)
        *ret_len = message->metadata_len;
    return sealed ? message->metadata : NULL;
}

static int root(const beam_message *message, struct beam_kv_value *ret_map)
{
    size_t len;
    const void *document = beam_message_metadata(message, &len);
    return document ? beam_kv_root(document, len, ret_map) : -ENOENT;
}

int beam_message_get(const beam_message *message, const char *key, struct beam_kv_value *ret_value)
{
    struct beam_kv_value map;
    int r = root(message, &map);
    return r < 0 ? r : beam_kv_get(&map, key, ret_value);
}

/* One getter for each type that a kv map has one for. */
#define GETTER(kind, type)                                                                         \
    int beam_message_get_##kind(const beam_message *message, const char *key, type *ret_##kind)    \
    {                                                                                              \
        struct beam_kv_value map;                                                                  \
        int r = root(message, &map);                                                               \
        return r < 0 ? r : beam_kv_get_##kind(&map, key, ret_##kind);                              \
    }

GETTER(str, beam_str)
GETTER(int, int64_t)
GETTER(uint, uint64_t)
GETTER(bytes, beam_bytes)
GETTER(float, double)
GETTER(bool, bool)
