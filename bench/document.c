/* Makes the documents, and adds up what a reader of one must find. Lengths and values vary within
 * the bounds that such data has; nothing is random but by the seed. */
#include "bench/document.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX 200

static const char *const words[] = {"amber",  "basalt",  "copper", "dahlia",  "ember",   "fjord",
                                    "garnet", "harbour", "indigo", "juniper", "kestrel", "lantern",
                                    "meadow", "nimbus",  "orchid", "pebble"};

/* splitmix64, by Sebastiano Vigna. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static const char *word(uint64_t *state)
{
    return words[draw(state) % (sizeof(words) / sizeof(words[0]))];
}

static struct text text(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* ptr is NULL when there is no memory. */
static struct text text(const char *format, ...)
{
    char buf[TEXT_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(buf, sizeof(buf), format, args);
    va_end(args);
    return (struct text){strdup(buf), (size_t)len};
}

static bool small_make(struct small *small, uint64_t *state)
{
    *small = (struct small){
        .method = text("%s", word(state)),
        .service = text("%s.%s", word(state), word(state)),
        .trace = text("%016llx%016llx", (unsigned long long)draw(state),
                      (unsigned long long)draw(state)),
        .user = text("%s%u", word(state), (unsigned)(draw(state) % 1000)),
        .attempt = (int64_t)(draw(state) % 4),
        .deadline_ns = INT64_C(1730000000000000000) + (int64_t)(draw(state) >> 14),
        .weight = (double)(draw(state) % 10000) / 7,
        .reply = draw(state) % 2 == 0,
    };
    return small->method.ptr && small->service.ptr && small->trace.ptr && small->user.ptr;
}

static bool medium_make(struct medium *medium, uint64_t *state)
{
    *medium = (struct medium){
        .mail = text("%s.%s@example.org", word(state), word(state)),
        .name = text("%s %s", word(state), word(state)),
        .note = text("%s, s'il vous pla\u00eet: %s %s %s, \u00fcber %s; %s %s", word(state),
                     word(state), word(state), word(state), word(state), word(state), word(state)),
        .account = (int64_t)(draw(state) >> 24),
        .created_ns = INT64_C(1730000000000000000) + (int64_t)(draw(state) >> 14),
        .version = (int64_t)(draw(state) % 100),
        .balance = (double)(draw(state) % 1000000) / 100,
        .total = (double)(draw(state) % 1000000) / 100,
        .active = draw(state) % 2 == 0,
        .item_count = ITEMS_MAX,
        .tag_count = TAGS_MAX,
    };
    bool good = medium->mail.ptr && medium->name.ptr && medium->note.ptr;
    for (unsigned i = 0; i < medium->item_count; i++) {
        medium->items[i] = (struct item){
            .sku = text("%.2s-%04u", word(state), (unsigned)(draw(state) % 10000)),
            .title = text("%s %s %s", word(state), word(state), word(state)),
            .price = (double)(draw(state) % 100000) / 100,
            .quantity = (int64_t)(draw(state) % 50),
        };
        good = good && medium->items[i].sku.ptr && medium->items[i].title.ptr;
    }
    for (unsigned i = 0; i < medium->tag_count; i++) {
        medium->tags[i] = text("%s", word(state));
        good = good && medium->tags[i].ptr;
    }
    return good;
}

static bool large_make(struct large *large, uint64_t *state)
{
    bool good = true;
    large->count = RECORDS;
    for (unsigned i = 0; i < large->count; i++) {
        struct record *r = &large->records[i];
        *r = (struct record){
            .mail = text("%s.%s@example.org", word(state), word(state)),
            .name = text("%s %s", word(state), word(state)),
            .tags = {text("%s", word(state)), text("%s", word(state))},
            .id = (int64_t)(draw(state) >> 20),
            .latitude = (double)(draw(state) % 18000000) / 1e5 - 90,
            .longitude = (double)(draw(state) % 36000000) / 1e5 - 180,
            .score = (double)(draw(state) % 1000) / 8,
            .active = draw(state) % 2 == 0,
        };
        good = good && r->mail.ptr && r->name.ptr && r->tags[0].ptr && r->tags[1].ptr;
    }
    return good;
}

bool document_make(struct document *document, uint64_t seed)
{
    uint64_t state = seed;
    switch (document->kind) {
    case DOCUMENT_SMALL:
        return small_make(&document->small, &state);
    case DOCUMENT_MEDIUM:
        return medium_make(&document->medium, &state);
    case DOCUMENT_LARGE:
        document->large = malloc(sizeof(*document->large));
        return document->large != NULL && large_make(document->large, &state);
    }
    return false;
}

static void key(struct sums *sums, const char *name)
{
    sum_key(sums, name, strlen(name));
}

static void keyed_text(struct sums *sums, const char *name, struct text value)
{
    key(sums, name);
    sum_text(sums, value.ptr, value.len);
}

static void keyed_int(struct sums *sums, const char *name, int64_t value)
{
    key(sums, name);
    sum_int(sums, value);
}

static void keyed_float(struct sums *sums, const char *name, double value)
{
    key(sums, name);
    sum_float(sums, value);
}

static void keyed_bool(struct sums *sums, const char *name, bool value)
{
    key(sums, name);
    sum_bool(sums, value);
}

static void small_sum(const struct small *small, struct sums *sums)
{
    keyed_int(sums, "attempt", small->attempt);
    keyed_int(sums, "deadline", small->deadline_ns);
    keyed_text(sums, "method", small->method);
    keyed_bool(sums, "reply", small->reply);
    keyed_text(sums, "service", small->service);
    keyed_text(sums, "trace", small->trace);
    keyed_text(sums, "user", small->user);
    keyed_float(sums, "weight", small->weight);
}

static void medium_sum(const struct medium *medium, struct sums *sums)
{
    key(sums, "account");
    keyed_bool(sums, "active", medium->active);
    keyed_float(sums, "balance", medium->balance);
    keyed_int(sums, "id", medium->account);
    keyed_text(sums, "mail", medium->mail);
    keyed_text(sums, "name", medium->name);
    keyed_int(sums, "created", medium->created_ns);
    key(sums, "items");
    for (unsigned i = 0; i < medium->item_count; i++) {
        keyed_float(sums, "price", medium->items[i].price);
        keyed_int(sums, "quantity", medium->items[i].quantity);
        keyed_text(sums, "sku", medium->items[i].sku);
        keyed_text(sums, "title", medium->items[i].title);
    }
    keyed_text(sums, "note", medium->note);
    key(sums, "tags");
    for (unsigned i = 0; i < medium->tag_count; i++)
        sum_text(sums, medium->tags[i].ptr, medium->tags[i].len);
    keyed_float(sums, "total", medium->total);
    keyed_int(sums, "version", medium->version);
}

static void large_sum(const struct large *large, struct sums *sums)
{
    key(sums, "records");
    for (unsigned i = 0; i < large->count; i++) {
        const struct record *r = &large->records[i];
        keyed_bool(sums, "active", r->active);
        keyed_int(sums, "id", r->id);
        keyed_text(sums, "mail", r->mail);
        keyed_text(sums, "name", r->name);
        key(sums, "position");
        keyed_float(sums, "latitude", r->latitude);
        keyed_float(sums, "longitude", r->longitude);
        keyed_float(sums, "score", r->score);
        key(sums, "tags");
        for (unsigned j = 0; j < 2; j++)
            sum_text(sums, r->tags[j].ptr, r->tags[j].len);
    }
}

struct sums document_sums(const struct document *document)
{
    struct sums sums = {0};
    switch (document->kind) {
    case DOCUMENT_SMALL:
        small_sum(&document->small, &sums);
        break;
    case DOCUMENT_MEDIUM:
        medium_sum(&document->medium, &sums);
        break;
    case DOCUMENT_LARGE:
        large_sum(document->large, &sums);
        break;
    }
    return sums;
}
