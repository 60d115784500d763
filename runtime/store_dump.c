/* A dump: a state becomes a file of a store, without a store and without a file.
 *
 *     head, snap..., live, closed
 *
 * all of one revision. Keys come in order, so that nothing is kept but the part that is being filled: a
 * map of its own, whose entries are the body of a snap. */
#include <errno.h>
#include <string.h>

#include <beam/store.h>

#include "base/alloc.h"
#include "kv/record.h"
#include "kv/recovery.h"
#include "runtime/store.h"

struct beam_store_dump {
    beam_store_write_fn *fn;
    void *arg;
    uint64_t rev, epoch;
    beam_buffer part, record;
    beam_kv_writer writer; /* into part, while one is open */
    bool open, ended;
    size_t part_len; /* of entries in the part */
    uint8_t last[BEAM_STORE_KEY_LEN_MAX];
    size_t last_len; /* 0: no key so far */
    int error;
};

static int fail(beam_store_dump *dump, int error)
{
    if (!dump->error)
        dump->error = error;
    return dump->error;
}

static int write_record(beam_store_dump *dump, enum bm_record_kind kind, const void *body,
                        size_t len)
{
    uint8_t *room;
    beam_buffer_clear(&dump->record);
    int r = beam_buffer_reserve(&dump->record, (size_t)bm_record_len(len), &room);
    if (r < 0)
        return r;
    bm_record_write(room, kind, dump->rev, body, len, dump->epoch);
    return dump->fn(room, (size_t)bm_record_len(len), dump->arg);
}

static int write_head(beam_store_dump *dump)
{
    uint8_t head[BM_RECORD_HEAD_LEN];
    bm_record_write_head(head, (struct bm_record_head){dump->epoch, dump->rev});
    return dump->fn(head, sizeof(head), dump->arg);
}

/* The part that is open becomes a snap. */
static int write_part(beam_store_dump *dump)
{
    const void *document;
    size_t len;
    if (!dump->open)
        return 0;
    dump->open = false;
    beam_kv_end(&dump->writer);
    int r = beam_kv_writer_finish(&dump->writer, &document, &len);
    if (r < 0)
        return r;
    return write_record(dump, BM_RECORD_SNAP, (const uint8_t *)document + BM_ENTRY_HEADER_LEN,
                        len - BM_ENTRY_HEADER_LEN);
}

int beam_store_dump_new(uint64_t rev, beam_store_write_fn *fn, void *arg,
                        beam_store_dump **ret_dump)
{
    if (!fn)
        return -EINVAL;
    beam_store_dump *dump = bm_alloc_zero(NULL, sizeof(*dump));
    if (!dump)
        return -ENOMEM;
    dump->fn = fn;
    dump->arg = arg;
    dump->rev = rev;
    dump->epoch = bm_recovery_draw_epoch();
    beam_buffer_init(&dump->part, BM_RECORD_LEN_MAX);
    beam_buffer_init(&dump->record, BM_RECORD_LEN_MAX);
    int r = write_head(dump);
    if (r < 0) {
        beam_store_dump_free(dump);
        return r;
    }
    *ret_dump = dump;
    return 0;
}

/* Whether a key may come next; it is the last one then. */
static int take_key(beam_store_dump *dump, beam_str key)
{
    if (key.len == 0 || key.len > BEAM_STORE_KEY_LEN_MAX)
        return -ENAMETOOLONG;
    if (dump->last_len > 0 && bm_key_compare(key.ptr, key.len, dump->last, dump->last_len) <= 0)
        return -EINVAL;
    memcpy(dump->last, key.ptr, key.len);
    dump->last_len = key.len;
    return 0;
}

static size_t entry_len(beam_str key, const beam_kv_value *value)
{
    size_t len = value->type == BEAM_KV_STR     ? value->str.len
                 : value->type >= BEAM_KV_BYTES ? value->bytes.len
                 : value->type >= BEAM_KV_INT   ? 8
                                                : 0;
    return (size_t)bm_entry_len(len, key.len);
}

int beam_store_dump_put(beam_store_dump *dump, beam_str key, const beam_kv_value *value)
{
    if (dump->error)
        return dump->error;
    if (dump->ended)
        return -EINVAL;
    int r = take_key(dump, key);
    if (r == 0 && value->type >= BEAM_KV_MAP)
        r = bm_store_check_value(value);
    if (r < 0)
        return fail(dump, r);
    size_t len = entry_len(key, value);
    if (dump->open && dump->part_len + len > BM_SNAP_LEN_MAX)
        r = write_part(dump);
    if (r == 0 && !dump->open) {
        beam_kv_writer_init_buffer(&dump->writer, &dump->part);
        beam_kv_begin_map(&dump->writer, NULL);
        dump->open = true;
        dump->part_len = 0;
    }
    if (r == 0)
        r = beam_kv_put(&dump->writer, key, value);
    dump->part_len += len;
    return r < 0 ? fail(dump, r) : 0;
}

int beam_store_dump_end(beam_store_dump *dump)
{
    if (dump->error)
        return dump->error;
    if (dump->ended)
        return -EINVAL;
    dump->ended = true;
    int r = write_part(dump);
    if (r == 0)
        r = write_record(dump, BM_RECORD_LIVE, NULL, 0);
    if (r == 0)
        r = write_record(dump, BM_RECORD_CLOSED, NULL, 0);
    return r < 0 ? fail(dump, r) : 0;
}

beam_store_dump *beam_store_dump_free(beam_store_dump *dump)
{
    if (!dump)
        return NULL;
    beam_buffer_deinit(&dump->part);
    beam_buffer_deinit(&dump->record);
    bm_free(NULL, dump, sizeof(*dump));
    return NULL;
}
