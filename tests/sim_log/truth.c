/* The truth about a log (truth.h). The state behind a revision is small, so that all of them are kept, and
 * a file is compared record by record. */
#include "tests/sim_log/truth.h"

#include <beam/error.h>
#include <stdlib.h>
#include <string.h>

#include "kv/recovery.h"
#include "tests/support/sim/inner.h"

#define VALUE_LEN_MAX 900u /* a group of some is several sectors long */

struct truth truth;

void truth_begin(void)
{
    truth = (struct truth){.judged = truth.judged};
}

void truth_end(void)
{
    for (unsigned i = 0; i < TRUTH_REVS; i++)
        free(truth.bodies[i]);
    memset(truth.bodies, 0, sizeof(truth.bodies));
}

/* --- transactions --------------------------------------------------------------------------------- */

static size_t put_entry(uint8_t *to, unsigned key, uint8_t type, size_t value_len)
{
    size_t len = (size_t)bm_entry_len(value_len, 2);
    memset(to, 0, len);
    bm_put_u64(to, value_len | UINT64_C(2) << 32 | (uint64_t)type << 48);
    to[8 + value_len] = 'k';
    to[9 + value_len] = (uint8_t)('0' + key);
    return len;
}

size_t truth_body(uint8_t *bytes)
{
    size_t len = 0;
    unsigned large = 0;
    for (unsigned key = 0; key < TRUTH_KEYS; key++) {
        size_t value_len;
        switch (sim_below(10)) {
        case 0:
            len += put_entry(bytes + len, key, BM_ENTRY_DEL, 0);
            break;
        case 1: /* zeros look like the end of the records */
        case 2:
            if (++large > 2)
                break;
            value_len = (size_t)sim_below(VALUE_LEN_MAX);
            uint8_t fill = sim_below(2) ? 0 : (uint8_t)sim_below(256);
            size_t entry = len;
            len += put_entry(bytes + len, key, BEAM_KV_BYTES, value_len);
            memset(bytes + entry + 8, fill, value_len);
            break;
        case 3:
        case 4:
            bm_put_u64(bytes + len + 8, 0);
            len += put_entry(bytes + len, key, BEAM_KV_INT, 8);
            bm_put_u64(bytes + len - bm_entry_len(8, 2) + 8, sim_below(1000));
            break;
        default:
            break;
        }
    }
    return len;
}

uint64_t truth_digest(uint8_t type, const void *value, size_t len)
{
    const uint8_t *bytes = value;
    uint64_t sum = (14695981039346656037u ^ type) * 1099511628211u ^ len;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum | 1;
}

/* false: there is something in it that was never written. */
static bool change(struct truth_state *state, uint64_t rev, const uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        struct bm_entry e = bm_entry_at(bytes + at);
        const uint8_t *key = bm_entry_key(&e);
        unsigned index = e.key_len == 2 ? key[1] - (unsigned)'0' : TRUTH_KEYS;
        if (index >= TRUTH_KEYS)
            return false;
        state->digests[index] =
            e.type == BM_ENTRY_DEL ? 0 : truth_digest(e.type, e.value, e.value_len);
        state->revs[index] = (uint16_t)rev;
        at += (size_t)e.len;
    }
    return true;
}

void truth_append(const uint8_t *bytes, size_t len)
{
    uint64_t rev = ++truth.rev;
    if (rev >= TRUTH_REVS)
        sim_fail("more transactions than the truth has room for");
    free(truth.bodies[rev]);
    truth.bodies[rev] = malloc(len + 1);
    if (len > 0)
        memcpy(truth.bodies[rev], bytes, len);
    truth.body_lens[rev] = len;
    truth.states[rev] = truth.states[rev - 1];
    (void)change(&truth.states[rev], rev, bytes, len);
}

void truth_promise(uint64_t rev)
{
    if (rev > truth.promised)
        truth.promised = rev;
}

void truth_tell(uint64_t rev)
{
    if (rev > truth.seen)
        truth.seen = rev;
}

static size_t copy_entry(uint64_t rev, unsigned key, uint8_t *to)
{
    const uint8_t *bytes = truth.bodies[rev];
    for (size_t at = 0; at < truth.body_lens[rev];) {
        struct bm_entry e = bm_entry_at(bytes + at);
        if (bm_entry_key(&e)[1] == '0' + key) {
            memcpy(to, bytes + at, (size_t)e.len);
            return (size_t)e.len;
        }
        at += (size_t)e.len;
    }
    sim_fail("revision %llu has no key %u", (unsigned long long)rev, key);
}

size_t truth_part(uint64_t rev, unsigned *key, unsigned count, uint8_t *bytes, size_t cap)
{
    const struct truth_state *state = &truth.states[rev];
    size_t len = 0;
    for (; *key < TRUTH_KEYS && count > 0; ++*key) {
        if (state->digests[*key] == 0)
            continue;
        if (len + VALUE_LEN_MAX + 16 > cap)
            break;
        len += copy_entry(state->revs[*key], *key, bytes + len);
        count--;
    }
    return len;
}

/* --- reading -------------------------------------------------------------------------------------- */

static bool is_state(const struct truth_state *state, uint64_t rev)
{
    return rev <= truth.rev &&
           memcmp(state->digests, truth.states[rev].digests, sizeof(state->digests)) == 0;
}

int truth_read(void *arg, const struct bm_record *record)
{
    struct truth_reading *reading = arg;
    if (!change(&reading->state, record->rev, record->body, record->body_len))
        reading->wrong = true;
    reading->rev = record->rev;
    reading->live |= record->kind == BM_RECORD_LIVE;
    if (reading->live && !is_state(&reading->state, record->rev))
        reading->wrong = true;
    return 0;
}

void truth_judge(const struct sim_remains *remains, const char *name, const char *when)
{
    const struct sim_remain *file = sim_remains_find(remains, name);
    truth.judged++;
    if (!file) {
        if (truth.exists)
            sim_fail("%s: there is no file any more", when);
        return;
    }
    struct truth_reading reading = {.rev = 0};
    struct bm_recovery recovery = {.stop = 0};
    struct bm_window window;
    bm_window_over(&window, file->bytes, file->len);
    int r = bm_recovery_follow(&window, true, truth_read, &reading, &recovery);
    if (r == 0)
        r = bm_recovery_judge(&window, &recovery);
    const struct bm_scan *scan = &recovery.scan;
    if (r < 0)
        sim_fail("%s: the file is called %s at offset %llu, revision %llu", when,
                 beam_error_name(r), (unsigned long long)scan->offset,
                 (unsigned long long)scan->rev);
    if (reading.wrong)
        sim_fail("%s: the file has a state that never was, up to revision %llu", when,
                 (unsigned long long)scan->rev);
    if (scan->rev < truth.promised)
        sim_fail("%s: revision %llu was promised, and the file ends with %llu", when,
                 (unsigned long long)truth.promised, (unsigned long long)scan->rev);
    if (scan->rev < truth.seen && scan->epoch == truth.epoch && !scan->early)
        sim_fail("%s: revision %llu was seen, the file ends with %llu, and no new epoch will begin",
                 when, (unsigned long long)truth.seen, (unsigned long long)scan->rev);
}

void truth_reopened(const struct bm_log_found *found, const struct truth_reading *reading,
                    bool power)
{
    if (found->created && truth.exists)
        sim_fail("the file was made anew");
    if (reading->wrong || (reading->live && !is_state(&reading->state, found->rev)))
        sim_fail("a log was opened in a state that never was, revision %llu",
                 (unsigned long long)found->rev);
    if (found->rev < truth.promised || found->rev > truth.rev)
        sim_fail("a log was opened at revision %llu, and %llu of %llu were promised",
                 (unsigned long long)found->rev, (unsigned long long)truth.promised,
                 (unsigned long long)truth.rev);
    if (!power && found->rev < truth.seen)
        sim_fail("a log was opened at revision %llu, and %llu was told before the process ended",
                 (unsigned long long)found->rev, (unsigned long long)truth.seen);
    if (found->rev < truth.seen && found->epoch == truth.epoch)
        sim_fail("a log was opened at revision %llu in its old epoch, and %llu was seen",
                 (unsigned long long)found->rev, (unsigned long long)truth.seen);
    truth.rev = truth.promised = truth.seen = found->rev;
    truth.epoch = found->epoch;
    truth.exists = true;
}
