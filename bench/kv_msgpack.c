/* msgpack-c: packed into an sbuffer over the place where the bytes are wanted; unpacked into a zone
 * that is kept and is large enough, so that it is cleared without a call of the allocator. */
#include "bench/kv_format.h"

#include <msgpack.h>
#include <stdlib.h>

#define ZONE_LEN (2u << 20) /* the objects of the largest document, by a factor of three */

static msgpack_zone zone;
static uint64_t chunks; /* that the zone had to add */

static bool start(void)
{
    return msgpack_zone_init(&zone, ZONE_LEN);
}

static void pack_text(msgpack_packer *pk, struct text text)
{
    msgpack_pack_str(pk, text.len);
    msgpack_pack_str_body(pk, text.ptr, text.len);
}

/* The length of a literal is the compiler's to find, as in the macros of many a program. */
static inline void pack_key(msgpack_packer *pk, const char *key)
{
    size_t len = strlen(key);
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, key, len);
}

static inline void pack_bool(msgpack_packer *pk, bool value)
{
    if (value)
        msgpack_pack_true(pk);
    else
        msgpack_pack_false(pk);
}

static void pack_small(msgpack_packer *pk, const struct small *small)
{
    msgpack_pack_map(pk, SMALL_FIELDS);
    pack_key(pk, "attempt");
    msgpack_pack_int64(pk, small->attempt);
    pack_key(pk, "deadline");
    msgpack_pack_int64(pk, small->deadline_ns);
    pack_key(pk, "method");
    pack_text(pk, small->method);
    pack_key(pk, "reply");
    pack_bool(pk, small->reply);
    pack_key(pk, "service");
    pack_text(pk, small->service);
    pack_key(pk, "trace");
    pack_text(pk, small->trace);
    pack_key(pk, "user");
    pack_text(pk, small->user);
    pack_key(pk, "weight");
    msgpack_pack_double(pk, small->weight);
}

static void pack_medium(msgpack_packer *pk, const struct medium *medium)
{
    msgpack_pack_map(pk, 7);
    pack_key(pk, "account");
    msgpack_pack_map(pk, 5);
    pack_key(pk, "active");
    pack_bool(pk, medium->active);
    pack_key(pk, "balance");
    msgpack_pack_double(pk, medium->balance);
    pack_key(pk, "id");
    msgpack_pack_int64(pk, medium->account);
    pack_key(pk, "mail");
    pack_text(pk, medium->mail);
    pack_key(pk, "name");
    pack_text(pk, medium->name);
    pack_key(pk, "created");
    msgpack_pack_int64(pk, medium->created_ns);
    pack_key(pk, "items");
    msgpack_pack_array(pk, medium->item_count);
    for (unsigned i = 0; i < medium->item_count; i++) {
        const struct item *item = &medium->items[i];
        msgpack_pack_map(pk, 4);
        pack_key(pk, "price");
        msgpack_pack_double(pk, item->price);
        pack_key(pk, "quantity");
        msgpack_pack_int64(pk, item->quantity);
        pack_key(pk, "sku");
        pack_text(pk, item->sku);
        pack_key(pk, "title");
        pack_text(pk, item->title);
    }
    pack_key(pk, "note");
    pack_text(pk, medium->note);
    pack_key(pk, "tags");
    msgpack_pack_array(pk, medium->tag_count);
    for (unsigned i = 0; i < medium->tag_count; i++)
        pack_text(pk, medium->tags[i]);
    pack_key(pk, "total");
    msgpack_pack_double(pk, medium->total);
    pack_key(pk, "version");
    msgpack_pack_int64(pk, medium->version);
}

static void pack_large(msgpack_packer *pk, const struct large *large)
{
    msgpack_pack_map(pk, 1);
    pack_key(pk, "records");
    msgpack_pack_array(pk, large->count);
    for (unsigned i = 0; i < large->count; i++) {
        const struct record *record = &large->records[i];
        msgpack_pack_map(pk, 7);
        pack_key(pk, "active");
        pack_bool(pk, record->active);
        pack_key(pk, "id");
        msgpack_pack_int64(pk, record->id);
        pack_key(pk, "mail");
        pack_text(pk, record->mail);
        pack_key(pk, "name");
        pack_text(pk, record->name);
        pack_key(pk, "position");
        msgpack_pack_map(pk, 2);
        pack_key(pk, "latitude");
        msgpack_pack_double(pk, record->latitude);
        pack_key(pk, "longitude");
        msgpack_pack_double(pk, record->longitude);
        pack_key(pk, "score");
        msgpack_pack_double(pk, record->score);
        pack_key(pk, "tags");
        msgpack_pack_array(pk, 2);
        pack_text(pk, record->tags[0]);
        pack_text(pk, record->tags[1]);
    }
}

static size_t encode(const void *prepared, unsigned char *buf, size_t cap,
                     const unsigned char **ret_own)
{
    const struct document *document = prepared;
    msgpack_sbuffer buffer = {.data = (char *)buf, .alloc = cap}; /* grows only beyond cap */
    msgpack_packer pk;
    msgpack_packer_init(&pk, &buffer, msgpack_sbuffer_write);
    switch (document->kind) {
    case DOCUMENT_SMALL:
        pack_small(&pk, &document->small);
        break;
    case DOCUMENT_MEDIUM:
        pack_medium(&pk, &document->medium);
        break;
    case DOCUMENT_LARGE:
        pack_large(&pk, document->large);
        break;
    }
    return buffer.size;
}

static bool add_object(const msgpack_object *object, struct sums *sums)
{
    switch (object->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        sum_bool(sums, object->via.boolean);
        return true;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        sum_int(sums, (int64_t)object->via.u64);
        return true;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        sum_int(sums, object->via.i64);
        return true;
    case MSGPACK_OBJECT_FLOAT64:
        sum_float(sums, object->via.f64);
        return true;
    case MSGPACK_OBJECT_STR:
        sum_text(sums, object->via.str.ptr, object->via.str.size);
        return true;
    case MSGPACK_OBJECT_ARRAY:
        for (uint32_t i = 0; i < object->via.array.size; i++)
            if (!add_object(&object->via.array.ptr[i], sums))
                return false;
        return true;
    case MSGPACK_OBJECT_MAP:
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            const msgpack_object_kv *pair = &object->via.map.ptr[i];
            if (pair->key.type != MSGPACK_OBJECT_STR)
                return false;
            sum_key(sums, pair->key.via.str.ptr, pair->key.via.str.size);
            if (!add_object(&pair->val, sums))
                return false;
        }
        return true;
    default:
        return false;
    }
}

static bool decode(const unsigned char *bytes, size_t len, struct sums *sums)
{
    msgpack_object object;
    const void *chunk = zone.chunk_list.head;
    bool good =
        msgpack_unpack((const char *)bytes, len, NULL, &zone, &object) == MSGPACK_UNPACK_SUCCESS &&
        add_object(&object, sums);
    chunks += zone.chunk_list.head != chunk;
    msgpack_zone_clear(&zone);
    return good;
}

static void *open_document(const unsigned char *bytes, size_t len)
{
    msgpack_unpacked *unpacked = malloc(sizeof(*unpacked));
    if (unpacked == NULL)
        return NULL;
    msgpack_unpacked_init(unpacked);
    if (msgpack_unpack_next(unpacked, (const char *)bytes, len, NULL) != MSGPACK_UNPACK_SUCCESS ||
        unpacked->data.type != MSGPACK_OBJECT_MAP)
        return NULL;
    return &unpacked->data;
}

/* There is no look-up in msgpack-c: pair by pair, lengths first. */
static const msgpack_object *get(const msgpack_object *map, const char *key,
                                 msgpack_object_type type)
{
    size_t len = strlen(key);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        if (pair->key.type == MSGPACK_OBJECT_STR && pair->key.via.str.size == len &&
            memcmp(pair->key.via.str.ptr, key, len) == 0)
            return pair->val.type == type ? &pair->val : NULL;
    }
    return NULL;
}

static bool get_fields(const void *opened, struct sums *sums)
{
    static const char *const texts[] = {"method", "service", "trace", "user"};
    static const char *const ints[] = {"attempt", "deadline"};
    const msgpack_object *object;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if ((object = get(opened, texts[i], MSGPACK_OBJECT_STR)) == NULL)
            return false;
        sum_text(sums, object->via.str.ptr, object->via.str.size);
    }
    for (unsigned i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        if ((object = get(opened, ints[i], MSGPACK_OBJECT_POSITIVE_INTEGER)) == NULL)
            return false;
        sum_int(sums, (int64_t)object->via.u64);
    }
    if ((object = get(opened, "reply", MSGPACK_OBJECT_BOOLEAN)) == NULL)
        return false;
    sum_bool(sums, object->via.boolean);
    if ((object = get(opened, "weight", MSGPACK_OBJECT_FLOAT64)) == NULL)
        return false;
    sum_float(sums, object->via.f64);
    return true;
}

static void *open_map(const struct entries *entries)
{
    msgpack_sbuffer buffer;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&pk, &buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&pk, entries->count);
    for (size_t i = 0; i < entries->count; i++) {
        pack_text(&pk, entries->keys[i]);
        msgpack_pack_int64(&pk, (int64_t)i);
    }
    return open_document((const unsigned char *)buffer.data, buffer.size);
}

/* The pairs came in order: a binary search over them. */
static int64_t get_entry(const void *opened, struct text key)
{
    const msgpack_object *map = opened;
    uint32_t low = 0, high = map->via.map.size;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const msgpack_object_str *str = &map->via.map.ptr[middle].key.via.str;
        int order = memcmp(str->ptr, key.ptr, str->size < key.len ? str->size : key.len);
        if (order == 0 && str->size == key.len)
            return (int64_t)map->via.map.ptr[middle].val.via.u64;
        if (order < 0 || (order == 0 && str->size < key.len))
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static uint64_t allocs(void)
{
    return chunks;
}

const struct kv_format kv_msgpack = {.start = start,
                                     .encode = encode,
                                     .decode = decode,
                                     .open = open_document,
                                     .get_fields = get_fields,
                                     .open_map = open_map,
                                     .get_entry = get_entry,
                                     .allocs = allocs};
