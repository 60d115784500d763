/* Fields of HTTP, whatever carries them: a name and a value (RFC 9110 section 5). Pure functions
 * over borrowed bytes; nothing here allocates or fails. */
#ifndef BM_FIELD_H
#define BM_FIELD_H

#include <stdbool.h>
#include <stddef.h>

/* Borrowed, not terminated. Names that came from a peer are in lower case, and names for HTTP/2 must
 * be. */
struct bm_field {
    const char *name, *value;
    size_t name_len, value_len;
    bool
        secret; /* goes into no table on its way (RFC 7541 section 7.1.3): tokens, cookies; HTTP/1.1
                    has no tables and does not look at it */
};

/* One of two literals or other C strings. */
#define BM_FIELD(name_, value_)                                                                    \
    ((struct bm_field){.name = (name_),                                                            \
                       .value = (value_),                                                          \
                       .name_len = __builtin_strlen(name_),                                        \
                       .value_len = __builtin_strlen(value_)})

/* A character of a token (RFC 9110 section 5.6.2). */
bool bm_field_is_token_char(unsigned char c);
/* One character at least, all of them a token's. */
bool bm_field_is_name(const char *name, size_t len);
/* No control characters but tabs within, no blanks at its ends (section 5.5); may be empty. */
bool bm_field_is_value(const char *value, size_t len);

/* Letters of ASCII compared without regard to case; other bytes as they are. */
bool bm_field_same(const char *a, size_t a_len, const char *b);

/* The first field of this name (in lower case), or NULL. */
const struct bm_field *bm_field_find(const struct bm_field *fields, size_t count, const char *name);
/* How many there are. */
size_t bm_field_count(const struct bm_field *fields, size_t count, const char *name);
/* Whether `token` is in one of the comma-separated lists of all fields of that name (section
 * 5.6.1). `exact` compares with regard to case. */
bool bm_field_lists(const struct bm_field *fields, size_t count, const char *name,
                    const char *token, bool exact);

#endif
