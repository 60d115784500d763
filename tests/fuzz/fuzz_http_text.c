/* Texts that a request of HTTP brings to a call: what is read out of them is no longer than they are, and
 * means what a second reading says. The first byte chooses which.
 *
 * Covers: net/percent.c, net/query.c, net/accept.c, net/beam_timeout.c, net/call_path.c,
 * net/event_text.c, net/document_json.c:bm_document_json_field */
#include <errno.h>

#include "net/accept.h"
#include "net/beam_timeout.h"
#include "net/call_path.h"
#include "net/document_json.h"
#include "net/event_text.h"
#include "net/percent.h"
#include "net/query.h"
#include "tests/fuzz/fuzz.h"

/* Each byte written again as "%xx" decodes to it. */
static void decode(beam_str text)
{
    char *out = malloc(text.len + 1), *again = malloc(3 * text.len + 1);
    size_t len, len_again;
    if (bm_percent_decode(text, false, out, text.len, &len) == 0) {
        EXPECT(len <= text.len);
        for (size_t i = 0; i < len; i++)
            sprintf(again + 3 * i, "%%%02X", (unsigned char)out[i]);
        char *twice = malloc(len + 1);
        EXPECT(bm_percent_decode((beam_str){again, 3 * len}, true, twice, len, &len_again) == 0);
        EXPECT(len_again == len && memcmp(twice, out, len) == 0);
        free(twice);
        EXPECT(len == 0 || bm_percent_decode(text, false, out, len - 1, &len_again) == -EMSGSIZE);
    } else {
        EXPECT(memchr(text.ptr, '%', text.len) != NULL);
    }
    free(out);
    free(again);
}

/* Pairs lie in the text, one behind the other. */
static void split(beam_str text)
{
    beam_str rest = text, key, value, path, query;
    const char *end = text.ptr;
    bm_query_split(text, &path, &query);
    EXPECT(path.len + query.len + (query.ptr != NULL) == text.len);
    while (bm_query_next(&rest, &key, &value)) {
        EXPECT(key.ptr >= end);
        EXPECT(!memchr(key.ptr, '=', key.len) && !memchr(key.ptr, '&', key.len));
        EXPECT(value.len == 0 || !memchr(value.ptr, '&', value.len));
        end = value.ptr ? value.ptr + value.len : key.ptr + key.len;
        EXPECT(end <= text.ptr + text.len);
    }
}

static void accept(beam_str text)
{
    const struct bm_field fields[] = {
        {.name = "accept", .value = text.ptr, .name_len = 6, .value_len = text.len}};
    static const char *const types[] = {"application/json", "text/event-stream"};
    for (size_t i = 0; i < 2; i++) {
        struct bm_accept found = bm_accept_find(fields, 1, types[i]);
        EXPECT(found.quality <= 1000);
        EXPECT(!bm_accept_is_anything(fields, 1) || found.quality == 1000);
    }
    beam_str type = bm_accept_type_of(text);
    EXPECT(type.len <= text.len);
}

static void timeout(beam_str text)
{
    uint64_t ns;
    int r = bm_beam_timeout_read(text, &ns);
    EXPECT(r == 0 || r == -EINVAL);
    EXPECT(r < 0 || (text.len >= 2 && text.ptr[0] >= '0' && text.ptr[0] <= '9'));
}

static void path(beam_str text)
{
    char *room = malloc(text.len);
    beam_str service, method;
    if (bm_call_path_read(text, room, &service, &method) == 0)
        EXPECT(service.len + method.len <= text.len);
    free(room);
}

/* Whatever the data, each line of the event but the first begins as data, and none is another field. */
static void event(beam_str text)
{
    beam_buffer out;
    beam_buffer_init(&out, SIZE_MAX);
    EXPECT(bm_event_text_add(&out, "x", text.ptr, text.len) == 0);
    const char *all = (const char *)out.ptr, *end = all + out.len;
    EXPECT(out.len > 11 && memcmp(all, "event: x\n", 9) == 0 && memcmp(end - 2, "\n\n", 2) == 0);
    EXPECT(!memchr(all, '\r', out.len));
    for (const char *line = all + 9; line < end - 1;
         line = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1)
        EXPECT(end - line >= 6 && memcmp(line, "data: ", 6) == 0);
    beam_buffer_deinit(&out);
}

/* What a document is in a field is the document again. */
static void field(beam_str text)
{
    beam_buffer document, out, again;
    bool empty;
    beam_buffer_init(&document, 1 << 20);
    beam_buffer_init(&out, 1 << 20);
    beam_buffer_init(&again, 1 << 20);
    if (beam_convert(&beam_json, &beam_kv_codec, text.ptr, text.len, NULL, &document, NULL) == 0 &&
        bm_document_json_field(document.ptr, document.len, NULL, &out, &empty) == 0 && !empty) {
        EXPECT(bm_field_is_value((const char *)out.ptr, out.len));
        for (size_t i = 0; i < out.len; i++)
            EXPECT(out.ptr[i] < 0x7f);
        EXPECT(beam_convert(&beam_json, &beam_kv_codec, out.ptr, out.len, NULL, &again, NULL) == 0);
        EXPECT(again.len == document.len && memcmp(again.ptr, document.ptr, again.len) == 0);
    }
    beam_buffer_deinit(&document);
    beam_buffer_deinit(&out);
    beam_buffer_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(beam_str text) = {decode, split, accept, timeout,
                                                     path,   event, field};
    if (size < 2)
        return 0;
    char *text = fuzz_copy(data + 1, size - 1);
    readers[data[0] % (sizeof(readers) / sizeof(readers[0]))]((beam_str){text, size - 1});
    free(text);
    return 0;
}
