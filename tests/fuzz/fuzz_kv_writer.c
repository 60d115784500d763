/* Any calls of the document writer. Two writers are told the same: one has all the room there is, the other
 * starts without any and gets just what `need` asks for, each time in a block of exactly that length. They
 * answer the same; an error sticks; and what they finish is valid, the same bytes, and holds as many entries
 * as were put.
 *
 * Input: records of a byte for the call (below), a key, and a value as its kind takes it.
 *
 * Covers: kv/writer.c kv/order.c */
#include <errno.h>
#include <stdbool.h>

#include <beam/kv.h>

#include "tests/fuzz/fuzz.h"

#define CALLS_MAX 256
#define ENTRIES_MAX 500 /* ours: each moves the tight writer, and so all before it */
#define ROOM_LEN (1u << 20)

enum call {
    CALL_NIL,
    CALL_BOOL,
    CALL_INT,
    CALL_UINT,
    CALL_FLOAT,
    CALL_STR,
    CALL_STRN,
    CALL_BYTES,
    CALL_ENTRIES, /* a map or list as it would lie in a document */
    CALL_BEGIN_MAP,
    CALL_BEGIN_LIST,
    CALL_END,
    CALL_BEGIN, /* of any type */
    CALL_MANY,  /* small entries, whose keys come in an order of the input's choice */
    CALL_FINISH,
    CALL_PUT, /* a value of any type */
};
enum { NO_KEY = 0x10, LONG_KEY = 0x20, NO_VALUE = 0x40 };

struct step {
    enum call call;
    char *name; /* NULL, or as a C string */
    beam_str key;
    beam_kv_value value;
};

static char long_key[BEAM_KV_KEY_LEN_MAX + 2];
static unsigned entries; /* in what was put so far */

static int apply(beam_kv_writer *w, const struct step *step)
{
    const void *doc;
    size_t len;
    switch (step->call) {
    case CALL_NIL:
        return beam_kv_put_nil(w, step->name);
    case CALL_BOOL:
        return beam_kv_put_bool(w, step->name, step->value.u & 1);
    case CALL_INT:
        return beam_kv_put_int(w, step->name, step->value.i);
    case CALL_UINT:
        return beam_kv_put_uint(w, step->name, step->value.u);
    case CALL_FLOAT:
        return beam_kv_put_float(w, step->name, step->value.f);
    case CALL_STR:
        return beam_kv_put_str(w, step->name, step->value.str.ptr);
    case CALL_STRN:
        return beam_kv_put_strn(w, step->name, step->value.str.ptr, step->value.str.len);
    case CALL_BYTES:
        return beam_kv_put_bytes(w, step->name, step->value.bytes.ptr, step->value.bytes.len);
    case CALL_BEGIN_MAP:
        return beam_kv_begin_map(w, step->name);
    case CALL_BEGIN_LIST:
        return beam_kv_begin_list(w, step->name);
    case CALL_BEGIN:
        return beam_kv_begin(w, step->key, step->value.type);
    case CALL_END:
        return beam_kv_end(w);
    case CALL_FINISH:
        return beam_kv_writer_finish(w, &doc, &len);
    case CALL_ENTRIES:
    case CALL_MANY:
    case CALL_PUT:
        break;
    }
    return beam_kv_put(w, step->key, &step->value);
}

/* The writer that gets just what it needs. */
static int apply_growing(beam_kv_writer *w, const struct step *step)
{
    int r;
    while ((r = apply(w, step)) == -ENOSPC) {
        EXPECT(w->error == -ENOSPC && w->need > w->cap);
        uint8_t *old = w->base, *room = malloc(w->need);
        EXPECT(room && beam_kv_writer_move(w, room, w->need) == 0);
        free(old);
    }
    return r;
}

static void both(beam_kv_writer *ample, beam_kv_writer *tight, const struct step *step)
{
    int before = ample->error, r = apply(ample, step);
    if (r == -ENOSPC) { /* not of our 1 MiB */
        ample->error = tight->error = -E2BIG;
        return;
    }
    EXPECT(apply_growing(tight, step) == r);
    EXPECT(before == 0 || r == before);
    EXPECT(ample->error == r && tight->error == r);
    EXPECT(ample->len == tight->len && ample->tail == tight->tail && ample->depth == tight->depth);
    EXPECT(tight->len + tight->tail <= tight->cap);
    entries += r == 0 && step->call != CALL_END && step->call != CALL_FINISH;
}

static unsigned count(const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    unsigned sum = 1;
    beam_kv_iter_init(&iter, value);
    while (beam_kv_iter_next(&iter, NULL, &inner) > 0)
        sum += count(&inner);
    return sum;
}

static void read_value(struct fuzz_input *in, struct step *step, uint8_t flags)
{
    beam_kv_value *value = &step->value;
    size_t len = sizeof(value->u);
    switch (step->call) {
    case CALL_NIL:
    case CALL_BEGIN_MAP:
    case CALL_BEGIN_LIST:
        return;
    case CALL_PUT:
        value->type = (beam_kv_type)(fuzz_byte(in) % 12);
        break;
    case CALL_BEGIN:
        value->type = (beam_kv_type)(fuzz_byte(in) % 12);
        return;
    case CALL_ENTRIES:
        value->type = fuzz_byte(in) & 1 ? BEAM_KV_MAP : BEAM_KV_LIST;
        break;
    default:
        value->type = (beam_kv_type)(step->call + 2); /* INT to BYTES */
    }
    if (value->type >= BEAM_KV_STR) {
        len = fuzz_byte(in);
        const uint8_t *view = fuzz_view(in, &len);
        value->bytes = (beam_bytes){flags & NO_VALUE ? NULL : fuzz_string(view, len), len};
        if (step->call == CALL_ENTRIES && value->bytes.ptr && len % 8 != 0 && flags & LONG_KEY)
            value->bytes.len -= len % 8;
    } else if (flags & NO_VALUE) {
        value->u = fuzz_u64(in);
    } else {
        const uint8_t *view = fuzz_view(in, &len);
        value->u = 0;
        memcpy(&value->u, view, len);
    }
}

static void many(struct fuzz_input *in, beam_kv_writer *ample, beam_kv_writer *tight)
{
    unsigned number = fuzz_byte(in) % 128, multiplier = 2u * fuzz_byte(in) + 1,
             digits = fuzz_byte(in) % 30;
    for (unsigned i = 0; i < number; i++) {
        char name[48];
        snprintf(name, sizeof(name), "%0*u", (int)(digits * (i % 3)), i * multiplier % 256);
        struct step step = {.call = CALL_INT, .name = name, .value.u = i};
        both(ample, tight, &step);
    }
}

static void step(struct fuzz_input *in, beam_kv_writer *ample, beam_kv_writer *tight)
{
    uint8_t op = fuzz_byte(in);
    struct step step = {.call = op & 15};
    if (step.call == CALL_MANY) {
        many(in, ample, tight);
        return;
    }
    bool ends = step.call == CALL_END || step.call == CALL_FINISH;
    if (!(op & NO_KEY) && !ends) {
        size_t len = fuzz_byte(in);
        bool large = op & LONG_KEY && step.call != CALL_ENTRIES;
        const uint8_t *view = (const uint8_t *)long_key;
        if (large)
            len = len % 16 < 2 ? BEAM_KV_KEY_LEN_MAX + len % 2 : 250 + len;
        else
            view = fuzz_view(in, &len);
        step.name = fuzz_string(view, len);
        step.key = (beam_str){step.name, len};
    }
    if (!ends)
        read_value(in, &step, op);
    bool owned = step.value.type >= BEAM_KV_STR && step.call != CALL_BEGIN && !ends;
    both(ample, tight, &step);
    free(step.name);
    if (owned)
        free((void *)(uintptr_t)step.value.bytes.ptr);
}

static void finish(beam_kv_writer *ample, beam_kv_writer *tight)
{
    const void *doc = NULL, *same = NULL;
    size_t len = 0, same_len = 0;
    beam_kv_value root;
    int r = beam_kv_writer_finish(ample, &doc, &len);
    EXPECT(beam_kv_writer_finish(tight, &same, &same_len) == r);
    if (r < 0)
        return;
    EXPECT(len == same_len && memcmp(doc, same, len) == 0);
    EXPECT(beam_kv_check(same, len, NULL) == 0);
    EXPECT(beam_kv_root(doc, len, &root) == 0);
    EXPECT(count(&root) >= entries); /* what was put whole brings its own */

    /* Moved to more room it is still the same; to less it does not go. */
    uint8_t *more = malloc(len + 8);
    EXPECT(tight->cap == 0 || beam_kv_writer_move(tight, more, tight->cap - 1) == -EINVAL);
    if (tight->cap <= len + 8) {
        uint8_t *old = tight->base;
        EXPECT(beam_kv_writer_move(tight, more, len + 8) == 0);
        EXPECT(beam_kv_writer_finish(tight, &same, &same_len) == 0);
        EXPECT(same_len == len && memcmp(doc, same, len) == 0);
        more = old;
    }
    free(more);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t room[ROOM_LEN];
    struct fuzz_input in = {data, data + size};
    beam_kv_writer ample, tight;

    if (!long_key[0])
        memset(long_key, 'k', sizeof(long_key) - 1);
    entries = 0;
    beam_kv_writer_init(&ample, room, sizeof(room));
    beam_kv_writer_init(&tight, NULL, 0);
    for (unsigned i = 0; i < CALLS_MAX && entries < ENTRIES_MAX && in.pos < in.end; i++)
        step(&in, &ample, &tight);
    while (ample.depth > 0 && ample.error == 0) /* so that it is a document more often */
        both(&ample, &tight, &(struct step){.call = CALL_END});
    finish(&ample, &tight);
    free(tight.base);
    return 0;
}
