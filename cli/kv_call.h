/* One question to the services of a store, and its answer. */
#ifndef CLI_KV_CALL_H
#define CLI_KV_CALL_H

#include "cli/kv_target.h"

struct kv_call {
    beam_kv_writer argument; /* a map that is open: what is put here is asked */
    beam_kv_value answer;    /* a map; borrowed from the message */

    beam_buffer buffer; /* the rest is kv_call.c's */
    beam_message *message;
    bool silent; /* no count of seconds: there is other progress to be seen */
};

/* An empty question, to be given to kv_call_end(). */
void kv_call_begin(struct kv_call *call);

/* Asks the service `verb`, and waits for the answer. An enum exit_status, after saying what failed. */
int kv_call_make(struct kv_call *call, const struct kv_target *target, const char *verb);

/* Gives everything back. */
void kv_call_end(struct kv_call *call);

#endif
