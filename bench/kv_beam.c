/* Beam's documents, through <beam/kv.h>. Keys come in the order of the format, as a program would
 * write them that cares; kv_beam_unsorted has them in an order that comes to mind. */
#include "bench/kv_format.h"

#include <beam/codec.h>
#include <beam/kv.h>

#include <stdlib.h>

#include "base/alloc.h"

static void put_text(beam_kv_writer *w, const char *key, struct text text)
{
    beam_kv_put_strn(w, key, text.ptr, text.len);
}

static void write_small(beam_kv_writer *w, const struct small *small)
{
    beam_kv_begin_map(w, NULL);
    beam_kv_put_int(w, "attempt", small->attempt);
    beam_kv_put_int(w, "deadline", small->deadline_ns);
    put_text(w, "method", small->method);
    beam_kv_put_bool(w, "reply", small->reply);
    put_text(w, "service", small->service);
    put_text(w, "trace", small->trace);
    put_text(w, "user", small->user);
    beam_kv_put_float(w, "weight", small->weight);
    beam_kv_end(w);
}

static void write_medium(beam_kv_writer *w, const struct medium *medium)
{
    beam_kv_begin_map(w, NULL);
    beam_kv_begin_map(w, "account");
    beam_kv_put_bool(w, "active", medium->active);
    beam_kv_put_float(w, "balance", medium->balance);
    beam_kv_put_int(w, "id", medium->account);
    put_text(w, "mail", medium->mail);
    put_text(w, "name", medium->name);
    beam_kv_end(w);
    beam_kv_put_int(w, "created", medium->created_ns);
    beam_kv_begin_list(w, "items");
    for (unsigned i = 0; i < medium->item_count; i++) {
        const struct item *item = &medium->items[i];
        beam_kv_begin_map(w, NULL);
        beam_kv_put_float(w, "price", item->price);
        beam_kv_put_int(w, "quantity", item->quantity);
        put_text(w, "sku", item->sku);
        put_text(w, "title", item->title);
        beam_kv_end(w);
    }
    beam_kv_end(w);
    put_text(w, "note", medium->note);
    beam_kv_begin_list(w, "tags");
    for (unsigned i = 0; i < medium->tag_count; i++)
        put_text(w, NULL, medium->tags[i]);
    beam_kv_end(w);
    beam_kv_put_float(w, "total", medium->total);
    beam_kv_put_int(w, "version", medium->version);
    beam_kv_end(w);
}

static void write_large(beam_kv_writer *w, const struct large *large)
{
    beam_kv_begin_map(w, NULL);
    beam_kv_begin_list(w, "records");
    for (unsigned i = 0; i < large->count; i++) {
        const struct record *record = &large->records[i];
        beam_kv_begin_map(w, NULL);
        beam_kv_put_bool(w, "active", record->active);
        beam_kv_put_int(w, "id", record->id);
        put_text(w, "mail", record->mail);
        put_text(w, "name", record->name);
        beam_kv_begin_map(w, "position");
        beam_kv_put_float(w, "latitude", record->latitude);
        beam_kv_put_float(w, "longitude", record->longitude);
        beam_kv_end(w);
        beam_kv_put_float(w, "score", record->score);
        beam_kv_begin_list(w, "tags");
        put_text(w, NULL, record->tags[0]);
        put_text(w, NULL, record->tags[1]);
        beam_kv_end(w);
        beam_kv_end(w);
    }
    beam_kv_end(w);
    beam_kv_end(w);
}

static size_t finish(beam_kv_writer *w)
{
    const void *doc;
    size_t len;
    int r = beam_kv_writer_finish(w, &doc, &len);
    return r < 0 ? 0 : len;
}

static size_t encode(const void *prepared, unsigned char *buf, size_t cap,
                     const unsigned char **ret_own)
{
    const struct document *document = prepared;
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, cap);
    switch (document->kind) {
    case DOCUMENT_SMALL:
        write_small(&w, &document->small);
        break;
    case DOCUMENT_MEDIUM:
        write_medium(&w, &document->medium);
        break;
    case DOCUMENT_LARGE:
        write_large(&w, document->large);
        break;
    }
    return finish(&w);
}

/* Only small documents. */
static size_t encode_unsorted(const void *prepared, unsigned char *buf, size_t cap,
                              const unsigned char **ret_own)
{
    const struct small *small = &((const struct document *)prepared)->small;
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, cap);
    beam_kv_begin_map(&w, NULL);
    put_text(&w, "service", small->service);
    put_text(&w, "method", small->method);
    put_text(&w, "user", small->user);
    put_text(&w, "trace", small->trace);
    beam_kv_put_int(&w, "deadline", small->deadline_ns);
    beam_kv_put_int(&w, "attempt", small->attempt);
    beam_kv_put_float(&w, "weight", small->weight);
    beam_kv_put_bool(&w, "reply", small->reply);
    beam_kv_end(&w);
    return finish(&w);
}

static bool add_value(const beam_kv_value *value, struct sums *sums);

static bool add_entries(const beam_kv_value *container, struct sums *sums)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    int r;
    beam_kv_iter_init(&iter, container);
    while ((r = beam_kv_iter_next(&iter, &key, &value)) > 0) {
        sum_key(sums, key.ptr, key.len);
        if (!add_value(&value, sums))
            return false;
    }
    return r == 0;
}

static bool add_value(const beam_kv_value *value, struct sums *sums)
{
    switch (value->type) {
    case BEAM_KV_FALSE:
    case BEAM_KV_TRUE:
        sum_bool(sums, value->type == BEAM_KV_TRUE);
        return true;
    case BEAM_KV_INT:
        sum_int(sums, value->i);
        return true;
    case BEAM_KV_FLOAT:
        sum_float(sums, value->f);
        return true;
    case BEAM_KV_STR:
        sum_text(sums, value->str.ptr, value->str.len);
        return true;
    case BEAM_KV_MAP:
    case BEAM_KV_LIST:
        return add_entries(value, sums);
    default:
        return false;
    }
}

static bool decode(const unsigned char *bytes, size_t len, struct sums *sums)
{
    beam_kv_value root;
    bool good = beam_kv_check(bytes, len, NULL) == 0 && beam_kv_root(bytes, len, &root) == 0 &&
                add_value(&root, sums);
    return good;
}

static void *open_document(const unsigned char *bytes, size_t len)
{
    beam_kv_value *root = malloc(sizeof(*root));
    if (root == NULL || beam_kv_check(bytes, len, NULL) < 0 || beam_kv_root(bytes, len, root) < 0)
        return NULL;
    return root;
}

static bool get_fields(const void *opened, struct sums *sums)
{
    static const char *const texts[] = {"method", "service", "trace", "user"};
    static const char *const ints[] = {"attempt", "deadline"};
    const beam_kv_value *map = opened;
    int64_t number;
    double weight;
    bool reply;
    beam_str text;
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (beam_kv_get_str(map, texts[i], &text) < 0)
            return false;
        sum_text(sums, text.ptr, text.len);
    }
    for (unsigned i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        if (beam_kv_get_int(map, ints[i], &number) < 0)
            return false;
        sum_int(sums, number);
    }
    if (beam_kv_get_bool(map, "reply", &reply) < 0 || beam_kv_get_float(map, "weight", &weight) < 0)
        return false;
    sum_bool(sums, reply);
    sum_float(sums, weight);
    return true;
}

static void *open_map(const struct entries *entries)
{
    size_t cap = entries->count * 48, len; /* header, number, a key of at most 32 bytes */
    unsigned char *room = malloc(cap);
    uint32_t *offsets = calloc(entries->count, sizeof(*offsets));
    beam_kv_index *index = malloc(sizeof(*index));
    if (room == NULL || offsets == NULL || index == NULL)
        return NULL;
    beam_kv_writer w;
    beam_kv_writer_init(&w, room, cap);
    beam_kv_begin_map(&w, NULL);
    for (size_t i = 0; i < entries->count; i++)
        beam_kv_put_int(&w, entries->keys[i].ptr, (int64_t)i);
    beam_kv_end(&w);
    beam_kv_value *map = (len = finish(&w)) > 0 ? open_document(room, len) : NULL;
    if (map == NULL || beam_kv_index_build(map, offsets, entries->count, index) < 0)
        return NULL;
    return index;
}

static int64_t get_entry(const void *opened, struct text key)
{
    beam_kv_value value;
    int64_t number;
    if (beam_kv_index_find(opened, (beam_str){key.ptr, key.len}, &value) < 0 ||
        beam_kv_as_int(&value, &number) < 0)
        return -1;
    return number;
}

const struct kv_format kv_beam = {.encode = encode,
                                  .decode = decode,
                                  .open = open_document,
                                  .get_fields = get_fields,
                                  .open_map = open_map,
                                  .get_entry = get_entry,
                                  .allocs = bm_alloc_count_thread};

const struct kv_format kv_beam_unsorted = {
    .encode = encode_unsorted, .decode = decode, .allocs = bm_alloc_count_thread};

/* A document, to be written as JSON. */
struct encoded {
    size_t len;
    unsigned char bytes[];
};

static void *prepare_json(const struct document *document)
{
    static unsigned char room[1 << 20];
    size_t len = encode(document, room, sizeof(room), NULL);
    struct encoded *encoded = len > 0 ? malloc(sizeof(*encoded) + len) : NULL;
    if (encoded == NULL)
        return NULL;
    encoded->len = len;
    memcpy(encoded->bytes, room, len);
    return encoded;
}

static size_t encode_json(const void *prepared, unsigned char *buf, size_t cap,
                          const unsigned char **ret_own)
{
    const struct encoded *encoded = prepared;
    size_t len;
    int r = beam_kv_to_json(encoded->bytes, encoded->len, (char *)buf, cap, &len);
    return r < 0 ? 0 : len;
}

/* Text that becomes a document, which needs no check: it is ours. */
static bool decode_json(const unsigned char *bytes, size_t len, struct sums *sums)
{
    static unsigned char room[1 << 20];
    beam_kv_writer w;
    beam_kv_value root;
    size_t at, doc_len;
    beam_kv_writer_init(&w, room, sizeof(room));
    return beam_json.to_kv(&beam_json, bytes, len, &w, &at) == 0 && (doc_len = finish(&w)) > 0 &&
           beam_kv_root(room, doc_len, &root) == 0 && add_value(&root, sums);
}

const struct kv_format kv_beam_json = {.prepare = prepare_json,
                                       .encode = encode_json,
                                       .decode = decode_json,
                                       .allocs = bm_alloc_count_thread};
