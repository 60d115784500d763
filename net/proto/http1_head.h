/* The head of a message once it has been taken apart: what it says about the body, the connection
 * and where the request goes, and whether it may say so. No parser and no connection here. */
#ifndef BM_HTTP1_HEAD_H
#define BM_HTTP1_HEAD_H

#include <string.h>

#include "net/proto/http1.h"

struct bm_http1_head {
    bool answer;     /* of a server */
    bool to_head;    /* ... to HEAD: no body, whatever the fields say */
    bool to_upgrade; /* ... to a request that offered one: 101 is allowed */
    const char *target;
    size_t target_len;
    struct bm_http1_message message;

    /* What bm_http1_head_judge finds out. */
    bool chunked;
    bool until_end; /* of the connection */
    bool keep_alive;
    bool expects_continue;

    struct bm_field fields[BM_HTTP1_FIELDS_MAX]; /* as many as message.field_count says are there */
};

/* All zero but the fields, which are 2 KiB that a request of five need not pay for. */
static inline void bm_http1_head_init(struct bm_http1_head *head)
{
    memset(head, 0, offsetof(struct bm_http1_head, fields));
}

/* A request line without its CR LF, one that came through the gate: 0; 505 for a version that is
 * not 1.0 or 1.1; 400 for what is no version. */
int bm_http1_head_check_version(const char *line, size_t len);

/* Fills in the rest of message and what is below it from target, method, status, minor_version and
 * fields. 0, or the status for the peer (an answer's: 400 or 501, which only say that it is not
 * good). `body_len_max`: else 413. */
int bm_http1_head_judge(struct bm_http1_head *head, uint64_t body_len_max);

#endif
