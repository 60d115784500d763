/* What is true of a log: every transaction that was appended, the state behind each, and how far what was
 * told to somebody binds it. Files that a loss of power could have left are judged by that. */
#ifndef SIM_LOG_TRUTH_H
#define SIM_LOG_TRUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/log.h"
#include "tests/support/sim/disk.h"

#define TRUTH_KEYS 8u
#define TRUTH_REVS 1024u
#define TRUTH_BODY_LEN 4096u

/* Of each key: a digest of its value, 0 if it is not there, and the revision that put it. */
struct truth_state {
    uint64_t digests[TRUTH_KEYS];
    uint16_t revs[TRUTH_KEYS];
};

extern struct truth {
    struct truth_state states[TRUTH_REVS]; /* by revision */
    uint8_t *bodies[TRUTH_REVS];
    size_t body_lens[TRUTH_REVS];
    uint64_t rev;      /* of the last append */
    uint64_t promised; /* durable, as somebody was told */
    uint64_t seen;  /* somebody was told of it, in this epoch: it survives the end of the process */
    uint64_t epoch; /* of the last open */
    bool exists;    /* an open has returned: there is a file */
    uint64_t judged; /* states of a disk */
} truth;

void truth_begin(void);
void truth_end(void);

/* A transaction by luck: its bytes, in a buffer of TRUTH_BODY_LEN. */
size_t truth_body(uint8_t *bytes);
/* It was appended, as truth.rev + 1. */
void truth_append(const uint8_t *bytes, size_t len);
void truth_promise(uint64_t rev);
void truth_tell(uint64_t rev);

/* Of a value, as it stands in a state. */
uint64_t truth_digest(uint8_t type, const void *value, size_t len);

/* The entries of keys from *key on, up to `count`, as of a revision; moves *key on. 0: no more. */
size_t truth_part(uint64_t rev, unsigned *key, unsigned count, uint8_t *bytes, size_t cap);

/* Reads a log record by record: zeroed, then truth_read() for each. */
struct truth_reading {
    struct truth_state state;
    uint64_t rev;
    bool live;
    bool wrong; /* a state that never was */
};
int truth_read(void *reading, const struct bm_record *record);

/* What a loss of power has left: can it be opened, and is what was promised there? `when` goes into the
 * finding. */
void truth_judge(const struct sim_remains *remains, const char *name, const char *when);

/* An open has returned this. `power`: power was lost before. */
void truth_reopened(const struct bm_log_found *found, const struct truth_reading *reading,
                    bool power);

#endif
