/* kv documents for tests: random ones, and the way through the reader and back through the
 * writer. */
#ifndef BEAM_TEST_DOCUMENTS_H
#define BEAM_TEST_DOCUMENTS_H

#include <beam/kv.h>

struct test_random;

/* A random document of every type, nested, with keys in random order and often with common
 * prefixes; finished in buf, which has to be large enough for about `size` values. */
size_t document_random(struct test_random *random, unsigned size, void *buf, size_t cap);

enum document_order { DOCUMENT_IN_ORDER, DOCUMENT_ODD_FIRST };

/* Puts what `value` holds, value by value, never by copying a map or list. ODD_FIRST: the
 * entries of maps go in as the 2nd, 4th, … 1st, 3rd, …, so that the writer has to sort. Returns
 * the writer's error. Recurses as deep as the document: at most 32. */
static inline int document_put(beam_kv_writer *w, beam_str key, const beam_kv_value *value,
                               enum document_order order)
{
    if (value->type != BEAM_KV_MAP && value->type != BEAM_KV_LIST)
        return beam_kv_put(w, key, value);

    int r = beam_kv_begin(w, key, value->type);
    bool split = value->type == BEAM_KV_MAP && order == DOCUMENT_ODD_FIRST;
    for (int pass = 0; r >= 0 && pass < (split ? 2 : 1); pass++) {
        beam_kv_iter iter;
        beam_kv_value inner;
        beam_str inner_key, none = {NULL, 0};
        beam_kv_iter_init(&iter, value);
        for (size_t i = 0; (r = beam_kv_iter_next(&iter, &inner_key, &inner)) > 0; i++) {
            if (split && i % 2 == (size_t)pass)
                continue;
            r = document_put(w, value->type == BEAM_KV_MAP ? inner_key : none, &inner, order);
            if (r < 0)
                break;
        }
    }
    return r < 0 ? r : beam_kv_end(w);
}

/* A checked document, read and written again into buf. */
static inline int document_rewrite(const void *doc, size_t len, void *buf, size_t cap,
                                   enum document_order order, size_t *ret_len)
{
    beam_kv_value root;
    beam_kv_writer w;
    const void *start;
    int r = beam_kv_root(doc, len, &root);
    if (r < 0)
        return r;
    beam_kv_writer_init(&w, buf, cap);
    document_put(&w, (beam_str){NULL, 0}, &root, order);
    return beam_kv_writer_finish(&w, &start, ret_len);
}

#endif
