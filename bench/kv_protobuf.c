/* protobuf-c: messages that were compiled from document.proto. Who reads one knows its fields, so keys
 * are neither in the bytes nor looked up. Unpacked through an allocator that counts. */
#include "bench/kv_format.h"

#include <protobuf-c/protobuf-c.h>
#include <stdlib.h>

#include <document.pb-c.h>

static uint64_t calls;

static void *counting_alloc(void *arg, size_t len)
{
    calls++;
    return malloc(len);
}

static void plain_free(void *arg, void *block)
{
    free(block);
}

static ProtobufCAllocator allocator = {.alloc = counting_alloc, .free = plain_free};

static uint64_t allocs(void)
{
    return calls;
}

static size_t pack_small(const struct small *small, unsigned char *buf)
{
    Bench__Small m = BENCH__SMALL__INIT;
    m.attempt = small->attempt;
    m.deadline = small->deadline_ns;
    m.method = (char *)small->method.ptr;
    m.reply = small->reply;
    m.service = (char *)small->service.ptr;
    m.trace = (char *)small->trace.ptr;
    m.user = (char *)small->user.ptr;
    m.weight = small->weight;
    return bench__small__pack(&m, buf);
}

static size_t pack_medium(const struct medium *medium, unsigned char *buf)
{
    Bench__Medium m = BENCH__MEDIUM__INIT;
    Bench__Account account = BENCH__ACCOUNT__INIT;
    Bench__Item items[ITEMS_MAX], *item_ptrs[ITEMS_MAX];
    char *tags[TAGS_MAX];
    account.active = medium->active;
    account.balance = medium->balance;
    account.id = medium->account;
    account.mail = (char *)medium->mail.ptr;
    account.name = (char *)medium->name.ptr;
    for (unsigned i = 0; i < medium->item_count; i++) {
        bench__item__init(&items[i]);
        items[i].price = medium->items[i].price;
        items[i].quantity = medium->items[i].quantity;
        items[i].sku = (char *)medium->items[i].sku.ptr;
        items[i].title = (char *)medium->items[i].title.ptr;
        item_ptrs[i] = &items[i];
    }
    for (unsigned i = 0; i < medium->tag_count; i++)
        tags[i] = (char *)medium->tags[i].ptr;
    m.account = &account;
    m.created = medium->created_ns;
    m.n_items = medium->item_count;
    m.items = item_ptrs;
    m.note = (char *)medium->note.ptr;
    m.n_tags = medium->tag_count;
    m.tags = tags;
    m.total = medium->total;
    m.version = medium->version;
    return bench__medium__pack(&m, buf);
}

/* The places are as long as what is packed into them: it was measured once. Who does not know that
 * asks get_packed_size first, which costs a third more. */
static size_t encode(const void *prepared, unsigned char *buf, size_t cap,
                     const unsigned char **ret_own)
{
    const struct document *document = prepared;
    switch (document->kind) {
    case DOCUMENT_SMALL:
        return pack_small(&document->small, buf);
    case DOCUMENT_MEDIUM:
        return pack_medium(&document->medium, buf);
    default:
        return 0;
    }
}

static void add_text(struct sums *sums, const char *text)
{
    sum_text(sums, text, strlen(text));
}

static void add_small(const Bench__Small *m, struct sums *sums)
{
    sum_int(sums, m->attempt);
    sum_int(sums, m->deadline);
    add_text(sums, m->method);
    sum_bool(sums, m->reply);
    add_text(sums, m->service);
    add_text(sums, m->trace);
    add_text(sums, m->user);
    sum_float(sums, m->weight);
}

static void add_medium(const Bench__Medium *m, struct sums *sums)
{
    sum_bool(sums, m->account->active);
    sum_float(sums, m->account->balance);
    sum_int(sums, m->account->id);
    add_text(sums, m->account->mail);
    add_text(sums, m->account->name);
    sum_int(sums, m->created);
    for (size_t i = 0; i < m->n_items; i++) {
        sum_float(sums, m->items[i]->price);
        sum_int(sums, m->items[i]->quantity);
        add_text(sums, m->items[i]->sku);
        add_text(sums, m->items[i]->title);
    }
    add_text(sums, m->note);
    for (size_t i = 0; i < m->n_tags; i++)
        add_text(sums, m->tags[i]);
    sum_float(sums, m->total);
    sum_int(sums, m->version);
}

static bool decode_small(const unsigned char *bytes, size_t len, struct sums *sums)
{
    Bench__Small *m = bench__small__unpack(&allocator, len, bytes);
    if (m == NULL)
        return false;
    add_small(m, sums);
    bench__small__free_unpacked(m, &allocator);
    return true;
}

static bool decode_medium(const unsigned char *bytes, size_t len, struct sums *sums)
{
    Bench__Medium *m = bench__medium__unpack(&allocator, len, bytes);
    if (m == NULL)
        return false;
    add_medium(m, sums);
    bench__medium__free_unpacked(m, &allocator);
    return true;
}

const struct kv_format kv_protobuf_small = {
    .encode = encode, .decode = decode_small, .allocs = allocs, .keyless = true};

const struct kv_format kv_protobuf_medium = {
    .encode = encode, .decode = decode_medium, .allocs = allocs, .keyless = true};
