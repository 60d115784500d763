/* Random documents. Keys of one map are made distinct by a counter behind a '#', which the
 * random part never holds; edges (lengths around 8, extreme numbers) are more likely than in
 * uniform choice. */
#include "tests/support/documents.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

#define TEXT_LEN_MAX 80

static size_t random_text(struct test_random *random, char *buf)
{
    static const char *const pieces[] = {
        "a", "b", "a", "abcdefgh", "é", "€", "\U0001f600", "\n", "\xf0\x90\x80\x80", "\xef\xbf\xbd",
        "$"};
    size_t len = 0;
    for (uint64_t n = test_random_below(random, 10); n > 0; n--) {
        const char *piece = pieces[test_random_below(random, sizeof(pieces) / sizeof(pieces[0]))];
        size_t piece_len = strlen(piece);
        memcpy(buf + len, piece, piece_len);
        len += piece_len;
    }
    if (test_random_below(random, 8) == 0)
        buf[len++] = '\0';
    return len;
}

static beam_str random_key(struct test_random *random, bool in_map, unsigned i, char *buf)
{
    if (!in_map)
        return (beam_str){NULL, 0};
    size_t len = random_text(random, buf);
    len += (size_t)sprintf(buf + len, "#%u", i);
    return (beam_str){buf, len};
}

static double random_float(struct test_random *random)
{
    static const double edges[] = {0.0,  -0.0, 1.0,      0.1,       5e-324, 1.7976931348623157e308,
                                   1e21, 1e-7, INFINITY, -INFINITY, NAN,    0x1p-1017};
    uint64_t bits = test_random_next(random);
    double f;
    memcpy(&f, &bits, sizeof(f));
    uint64_t edge = test_random_below(random, 2 * sizeof(edges) / sizeof(edges[0]));
    return edge < sizeof(edges) / sizeof(edges[0]) ? edges[edge] : f;
}

static void put_scalar(struct test_random *random, beam_kv_writer *w, beam_str key)
{
    char text[TEXT_LEN_MAX];
    uint64_t number = test_random_next(random) >> test_random_below(random, 64);
    beam_kv_value value = {.type = (beam_kv_type)(1 + test_random_below(random, BEAM_KV_BYTES))};
    switch (value.type) {
    case BEAM_KV_INT:
        value.i = test_random_below(random, 2) ? (int64_t)number : -(int64_t)(number >> 1);
        break;
    case BEAM_KV_UINT:
        value.u = number;
        break;
    case BEAM_KV_FLOAT:
        value.f = random_float(random);
        break;
    case BEAM_KV_STR:
        value.str = (beam_str){text, random_text(random, text)};
        break;
    default:
        test_random_fill(random, text, sizeof(text));
        value.bytes = (beam_bytes){text, test_random_below(random, sizeof(text))};
        break;
    }
    beam_kv_put(w, key, &value);
}

static void put_container(struct test_random *random, beam_kv_writer *w, beam_str key,
                          unsigned size)
{
    char text[TEXT_LEN_MAX];
    bool map = test_random_below(random, 3) > 0;
    beam_kv_begin(w, key, map ? BEAM_KV_MAP : BEAM_KV_LIST);
    for (unsigned i = 0; size > 0; i++) {
        beam_str inner = random_key(random, map, i, text);
        unsigned part = 1 + (unsigned)test_random_below(random, size);
        if (w->depth < BEAM_KV_DEPTH_MAX && test_random_below(random, 3) == 0) {
            put_container(random, w, inner, part - 1);
        } else {
            part = 1;
            if (w->depth < BEAM_KV_DEPTH_MAX)
                put_scalar(random, w, inner);
        }
        size -= part;
    }
    beam_kv_end(w);
}

size_t document_random(struct test_random *random, unsigned size, void *buf, size_t cap)
{
    beam_kv_writer w;
    const void *doc;
    size_t len = 0;
    beam_kv_writer_init(&w, buf, cap);
    put_container(random, &w, (beam_str){NULL, 0}, size);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    return len;
}
