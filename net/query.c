/* See query.h. */
#include "net/query.h"

#include <string.h>

/* What stands before the first c, and what behind it; with no c, all of it and nothing. */
static void cut(beam_str text, char c, beam_str *ret_before, beam_str *ret_behind)
{
    const char *at = text.len > 0 ? memchr(text.ptr, c, text.len) : NULL;
    size_t before = at ? (size_t)(at - text.ptr) : text.len;
    *ret_before = (beam_str){text.ptr, before};
    *ret_behind = at ? (beam_str){at + 1, text.len - before - 1} : (beam_str){0};
}

void bm_query_split(beam_str target, beam_str *ret_path, beam_str *ret_query)
{
    cut(target, '?', ret_path, ret_query);
}

bool bm_query_next(beam_str *rest, beam_str *ret_key, beam_str *ret_value)
{
    while (rest->len > 0) {
        beam_str pair;
        cut(*rest, '&', &pair, rest);
        if (pair.len == 0)
            continue;
        cut(pair, '=', ret_key, ret_value);
        return true;
    }
    return false;
}
