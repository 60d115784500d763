/* jansson: trees of values, written as compact text and made from text. Its allocator functions are
 * replaced by ones that count. */
#include "bench/kv_format.h"

#include <jansson.h>
#include <stdlib.h>

static uint64_t calls;

static void *counting_malloc(size_t len)
{
    calls++;
    return malloc(len);
}

static bool start(void)
{
    json_set_alloc_funcs(counting_malloc, free);
    return true;
}

static uint64_t allocs(void)
{
    return calls;
}

/* The texts are UTF-8, so that jansson need not look. */
static void set_text(json_t *object, const char *key, struct text text)
{
    json_object_set_new_nocheck(object, key, json_stringn_nocheck(text.ptr, text.len));
}

static void set_int(json_t *object, const char *key, int64_t value)
{
    json_object_set_new_nocheck(object, key, json_integer(value));
}

static void set_float(json_t *object, const char *key, double value)
{
    json_object_set_new_nocheck(object, key, json_real(value));
}

static void set_bool(json_t *object, const char *key, bool value)
{
    json_object_set_new_nocheck(object, key, json_boolean(value));
}

static json_t *small_tree(const struct small *small)
{
    json_t *root = json_object();
    set_int(root, "attempt", small->attempt);
    set_int(root, "deadline", small->deadline_ns);
    set_text(root, "method", small->method);
    set_bool(root, "reply", small->reply);
    set_text(root, "service", small->service);
    set_text(root, "trace", small->trace);
    set_text(root, "user", small->user);
    set_float(root, "weight", small->weight);
    return root;
}

static json_t *medium_tree(const struct medium *medium)
{
    json_t *root = json_object(), *account = json_object();
    set_bool(account, "active", medium->active);
    set_float(account, "balance", medium->balance);
    set_int(account, "id", medium->account);
    set_text(account, "mail", medium->mail);
    set_text(account, "name", medium->name);
    json_object_set_new_nocheck(root, "account", account);
    set_int(root, "created", medium->created_ns);
    json_t *items = json_array();
    for (unsigned i = 0; i < medium->item_count; i++) {
        json_t *item = json_object();
        set_float(item, "price", medium->items[i].price);
        set_int(item, "quantity", medium->items[i].quantity);
        set_text(item, "sku", medium->items[i].sku);
        set_text(item, "title", medium->items[i].title);
        json_array_append_new(items, item);
    }
    json_object_set_new_nocheck(root, "items", items);
    set_text(root, "note", medium->note);
    json_t *tags = json_array();
    for (unsigned i = 0; i < medium->tag_count; i++)
        json_array_append_new(tags, json_stringn_nocheck(medium->tags[i].ptr, medium->tags[i].len));
    json_object_set_new_nocheck(root, "tags", tags);
    set_float(root, "total", medium->total);
    set_int(root, "version", medium->version);
    return root;
}

static json_t *large_tree(const struct large *large)
{
    json_t *root = json_object(), *records = json_array();
    for (unsigned i = 0; i < large->count; i++) {
        const struct record *r = &large->records[i];
        json_t *record = json_object(), *position = json_object(), *tags = json_array();
        set_bool(record, "active", r->active);
        set_int(record, "id", r->id);
        set_text(record, "mail", r->mail);
        set_text(record, "name", r->name);
        set_float(position, "latitude", r->latitude);
        set_float(position, "longitude", r->longitude);
        json_object_set_new_nocheck(record, "position", position);
        set_float(record, "score", r->score);
        for (unsigned j = 0; j < 2; j++)
            json_array_append_new(tags, json_stringn_nocheck(r->tags[j].ptr, r->tags[j].len));
        json_object_set_new_nocheck(record, "tags", tags);
        json_array_append_new(records, record);
    }
    json_object_set_new_nocheck(root, "records", records);
    return root;
}

static json_t *tree(const struct document *document)
{
    switch (document->kind) {
    case DOCUMENT_SMALL:
        return small_tree(&document->small);
    case DOCUMENT_MEDIUM:
        return medium_tree(&document->medium);
    case DOCUMENT_LARGE:
        return large_tree(document->large);
    }
    return NULL;
}

static size_t dump(const json_t *root, unsigned char *buf, size_t cap)
{
    size_t len = json_dumpb(root, (char *)buf, cap, JSON_COMPACT);
    return len <= cap ? len : 0;
}

static size_t encode(const void *prepared, unsigned char *buf, size_t cap,
                     const unsigned char **ret_own)
{
    json_t *root = tree(prepared);
    size_t len = dump(root, buf, cap);
    json_decref(root);
    return len;
}

static bool add_tree(const json_t *value, struct sums *sums)
{
    switch (json_typeof(value)) {
    case JSON_TRUE:
    case JSON_FALSE:
        sum_bool(sums, json_is_true(value));
        return true;
    case JSON_INTEGER:
        sum_int(sums, json_integer_value(value));
        return true;
    case JSON_REAL:
        sum_float(sums, json_real_value(value));
        return true;
    case JSON_STRING:
        sum_text(sums, json_string_value(value), json_string_length(value));
        return true;
    case JSON_ARRAY:
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!add_tree(json_array_get(value, i), sums))
                return false;
        return true;
    case JSON_OBJECT: {
        json_t *object = (json_t *)value;
        for (void *at = json_object_iter(object); at != NULL;
             at = json_object_iter_next(object, at)) {
            const char *key = json_object_iter_key(at);
            sum_key(sums, key, strlen(key));
            if (!add_tree(json_object_iter_value(at), sums))
                return false;
        }
        return true;
    }
    default:
        return false;
    }
}

static bool decode(const unsigned char *bytes, size_t len, struct sums *sums)
{
    json_t *root = json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, NULL);
    bool good = root != NULL && add_tree(root, sums);
    json_decref(root);
    return good;
}

static void *open_document(const unsigned char *bytes, size_t len)
{
    return json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, NULL);
}

static bool get_fields(const void *opened, struct sums *sums)
{
    static const char *const texts[] = {"method", "service", "trace", "user"};
    static const char *const ints[] = {"attempt", "deadline"};
    const json_t *value, *map = opened;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        value = json_object_get(map, texts[i]);
        if (!json_is_string(value))
            return false;
        sum_text(sums, json_string_value(value), json_string_length(value));
    }
    for (unsigned i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        value = json_object_get(map, ints[i]);
        if (!json_is_integer(value))
            return false;
        sum_int(sums, json_integer_value(value));
    }
    const json_t *reply = json_object_get(map, "reply"), *weight = json_object_get(map, "weight");
    if (!json_is_boolean(reply) || !json_is_real(weight))
        return false;
    sum_bool(sums, json_is_true(reply));
    sum_float(sums, json_real_value(weight));
    return true;
}

static void *open_map(const struct entries *entries)
{
    json_t *map = json_object();
    for (size_t i = 0; i < entries->count; i++)
        set_int(map, entries->keys[i].ptr, (int64_t)i);
    return map;
}

static int64_t get_entry(const void *opened, struct text key)
{
    return json_integer_value(json_object_get(opened, key.ptr));
}

const struct kv_format kv_jansson = {.start = start,
                                     .encode = encode,
                                     .decode = decode,
                                     .open = open_document,
                                     .get_fields = get_fields,
                                     .open_map = open_map,
                                     .get_entry = get_entry,
                                     .allocs = allocs};

/* A tree that is there already, to be written. */
static void *prepare_dump(const struct document *document)
{
    return tree(document);
}

static size_t encode_dump(const void *prepared, unsigned char *buf, size_t cap,
                          const unsigned char **ret_own)
{
    return dump(prepared, buf, cap);
}

const struct kv_format kv_jansson_dump = {.start = start,
                                          .prepare = prepare_dump,
                                          .encode = encode_dump,
                                          .decode = decode,
                                          .allocs = allocs};
