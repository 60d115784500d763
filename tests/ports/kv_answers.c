/* Answers for documents that come over a pipe, by this library: see kv_answers.py.
 *
 * Each document is in a block of exactly its length, so that a sanitizer sees one byte too many. What is
 * refused is walked all the same; what is accepted is written again with its keys in two orders. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"

#define BATCH_LEN_MAX (1u << 30) /* ours: far more than differ.py sends at once */

struct answers {
    unsigned char *bytes;
    size_t len, cap;
};

static void *alloc(size_t len)
{
    void *block = malloc(len > 0 ? len : 1);
    if (!block)
        abort();
    return block;
}

static uint32_t u32_at(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(unsigned char *p, size_t number)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(number >> 8 * i);
}

/* Room for one more answer of up to len bytes, behind its length. */
static unsigned char *room(struct answers *answers, size_t len)
{
    if (answers->cap - answers->len < 4 + len) {
        answers->cap = 2 * answers->cap + 4 + len;
        answers->bytes = realloc(answers->bytes, answers->cap);
        if (!answers->bytes)
            abort();
    }
    return answers->bytes + answers->len + 4;
}

static void add(struct answers *answers, size_t len)
{
    put_u32(answers->bytes + answers->len, len);
    answers->len += 4 + len;
}

static void add_text(struct answers *answers, const char *text)
{
    memcpy(room(answers, strlen(text)), text, strlen(text));
    add(answers, strlen(text));
}

static void walk(const beam_kv_value *value, int depth)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key;
    beam_kv_iter_init(&iter, value);
    while (depth <= BEAM_KV_DEPTH_MAX && beam_kv_iter_next(&iter, &key, &inner) > 0)
        walk(&inner, depth + 1);
}

static void answer(struct answers *answers, const void *doc, size_t len)
{
    size_t cap = len * BEAM_KV_JSON_EXPANSION, text_len, again_len, odd_len;
    beam_kv_value root;
    int r = beam_kv_check(doc, len, NULL);
    if (beam_kv_root(doc, len, &root) == 0)
        walk(&root, 1);
    if (r < 0) {
        add_text(answers, beam_error_name(r));
        return;
    }
    char *text = (char *)room(answers, cap + len);
    unsigned char *odd = alloc(len);
    bool good =
        beam_kv_to_json(doc, len, text, cap, &text_len) == 0 &&
        document_rewrite(doc, len, text + text_len + 1, len, DOCUMENT_IN_ORDER, &again_len) == 0 &&
        document_rewrite(doc, len, odd, len, DOCUMENT_ODD_FIRST, &odd_len) == 0 &&
        odd_len == again_len && memcmp(odd, text + text_len + 1, odd_len) == 0;
    if (good)
        add(answers, text_len + 1 + again_len);
    else
        add_text(answers, "!accepted, and not written twice the same");
    free(odd);
}

int main(void)
{
    unsigned char head[4];
    struct answers answers = {NULL, 0, 0};
    while (fread(head, sizeof(head), 1, stdin) == 1) {
        size_t batch_len = u32_at(head), pos = 0;
        if (batch_len > BATCH_LEN_MAX)
            return 2;
        unsigned char *batch = alloc(batch_len);
        if (fread(batch, 1, batch_len, stdin) != batch_len)
            return 2;
        answers.len = 0;
        while (pos + 4 <= batch_len) {
            size_t len = u32_at(batch + pos);
            if (len > batch_len - pos - 4)
                return 2;
            void *doc = alloc(len);
            memcpy(doc, batch + pos + 4, len);
            answer(&answers, doc, len);
            free(doc);
            pos += 4 + len;
        }
        free(batch);
        put_u32(head, answers.len);
        fwrite(head, sizeof(head), 1, stdout);
        fwrite(answers.bytes, 1, answers.len, stdout);
        fflush(stdout);
    }
    free(answers.bytes);
    return 0;
}
