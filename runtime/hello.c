/* HELLO documents to and from struct bm_hello. Keys nobody here knows are passed over, so that a later
 * version can add some (docs/spec/session.md H2). Knows nothing of when a HELLO may come, nor whether
 * two roles go together. */
#include "runtime/hello.h"

#include <errno.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "kv/utf8.h"
#include "runtime/frame.h"

#define NAME_LEN_MAX 255u /* H1 */

/* The numbers of H1 that may be absent. */
static const struct number {
    const char *key;
    uint32_t least, most, absent;
    size_t offset;
} numbers[] = {
    {"window", BM_WINDOW_MIN, INT32_MAX, BM_WINDOW_MIN, offsetof(struct bm_hello, window)},
    {"channels", 1, INT32_MAX, BM_EARLY_CHANNELS, offsetof(struct bm_hello, channels_max)},
    {"message", 1, INT32_MAX, BM_EARLY_LEN, offsetof(struct bm_hello, message_len_max)},
    {"fds", 0, INT32_MAX, 0, offsetof(struct bm_hello, fds_max)},
    {"ping", 1, BM_PING_MAX_S, 0, offsetof(struct bm_hello, ping_s)},
};

/* 1: there, in *ret_number; 0: absent. */
static int get_number(const beam_kv_value *map, const char *key, int64_t least, int64_t most,
                      uint32_t *ret_number)
{
    int64_t number;
    int r = beam_kv_get_int(map, key, &number);
    if (r == -ENOENT)
        return 0;
    if (r < 0 || number < least || number > most)
        return -BEAM_EHELLO_MALFORMED;
    *ret_number = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
    return 1;
}

static int get_role(const beam_kv_value *map, bool *ret_opener)
{
    beam_str role;
    if (beam_kv_get_str(map, "role", &role) < 0)
        return -BEAM_EHELLO_MALFORMED;
    bool opener = role.len == 6 && memcmp(role.ptr, "opener", 6) == 0;
    if (!opener && !(role.len == 8 && memcmp(role.ptr, "acceptor", 8) == 0))
        return -BEAM_EHELLO_MALFORMED;
    *ret_opener = opener;
    return 0;
}

int bm_hello_parse(const void *document, size_t len, struct bm_hello *ret_hello)
{
    struct bm_hello hello = {.fds_refused = true};
    beam_kv_value map;

    /* What is no map has no version, and is refused for that. */
    if (beam_kv_check(document, len, NULL) < 0 || beam_kv_root(document, len, &map) < 0)
        return -BEAM_EHELLO_MALFORMED;
    /* No greatest version: the session speaks the lower of the two. */
    if (get_number(&map, "version", 1, INT64_MAX, &hello.version) <= 0)
        return -BEAM_EHELLO_MALFORMED;
    int r = get_role(&map, &hello.opener);
    if (r < 0)
        return r;
    r = beam_kv_get_str(&map, "name", &hello.name);
    if ((r < 0 && r != -ENOENT) || hello.name.len > NAME_LEN_MAX)
        return -BEAM_EHELLO_MALFORMED;
    for (size_t i = 0; i < BM_ARRAY_LEN(numbers); i++) {
        uint32_t number = numbers[i].absent;
        r = get_number(&map, numbers[i].key, numbers[i].least, numbers[i].most, &number);
        if (r < 0)
            return r;
        memcpy((char *)&hello + numbers[i].offset, &number, sizeof(number));
        if (numbers[i].offset == offsetof(struct bm_hello, fds_max))
            hello.fds_refused = r == 0;
    }
    *ret_hello = hello;
    return 0;
}

/* What of the name may be sent: at most 255 bytes, cut between characters; nothing if it is no text. */
static size_t name_len(beam_str name)
{
    if (!bm_utf8_valid(name.ptr, name.len))
        return 0;
    return name.len > NAME_LEN_MAX ? bm_utf8_whole(name.ptr, NAME_LEN_MAX) : name.len;
}

size_t bm_hello_write(const struct bm_hello *hello, void *out)
{
    beam_kv_writer w;
    const void *document;
    size_t len, label_len = name_len(hello->name);

    beam_kv_writer_init(&w, out, BM_HELLO_LEN_MAX);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_int(&w, "channels", hello->channels_max);
    if (!hello->fds_refused)
        beam_kv_put_int(&w, "fds", hello->fds_max);
    beam_kv_put_int(&w, "message", hello->message_len_max);
    if (label_len > 0)
        beam_kv_put_strn(&w, "name", hello->name.ptr, label_len);
    if (hello->ping_s > 0)
        beam_kv_put_int(&w, "ping", hello->ping_s);
    beam_kv_put_str(&w, "role", hello->opener ? "opener" : "acceptor");
    beam_kv_put_int(&w, "version", hello->version);
    beam_kv_put_int(&w, "window", hello->window);
    beam_kv_end(&w);
    int r = beam_kv_writer_finish(&w, &document, &len);
    bm_assert(r == 0); /* the room is enough and the keys differ */
    return len;
}
