/* See event_text.h. */
#include "net/event_text.h"

#include <string.h>

int bm_event_text_add(beam_buffer *out, const char *name, const char *data, size_t len)
{
    size_t i = 0;
    beam_buffer_add(out, "event: ", 7);
    beam_buffer_add(out, name, strlen(name));
    do {
        size_t start = i;
        while (i < len && data[i] != '\n' && data[i] != '\r')
            i++;
        beam_buffer_add(out, "\ndata: ", 7);
        beam_buffer_add(out, data + start, i - start);
        if (i + 1 < len && data[i] == '\r' && data[i + 1] == '\n')
            i++;
    } while (i++ < len);
    return beam_buffer_add(out, "\n\n", 2);
}
