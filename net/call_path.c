/* See call_path.h. */
#include "net/call_path.h"

#include <string.h>

#include "net/percent.h"

int bm_call_path_read(beam_str path, char *room, beam_str *ret_service, beam_str *ret_method)
{
    const char *slash = path.len > 0 ? memchr(path.ptr, '/', path.len) : NULL;
    beam_str service = {path.ptr, slash ? (size_t)(slash - path.ptr) : path.len};
    beam_str method = {0};
    size_t service_len, method_len;
    if (slash)
        method = (beam_str){slash + 1, path.len - service.len - 1};
    int r = bm_percent_decode(service, false, room, path.len, &service_len);
    if (r == 0)
        r = bm_percent_decode(method, false, room + service_len, path.len - service_len,
                              &method_len);
    if (r < 0)
        return r;
    *ret_service = (beam_str){room, service_len};
    *ret_method = (beam_str){room + service_len, method_len};
    return 0;
}
