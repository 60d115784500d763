/* The text of an event (HTML Living Standard, section 9.2, text/event-stream). */
#ifndef BM_EVENT_TEXT_H
#define BM_EVENT_TEXT_H

#include <beam/buffer.h>

/* Adds an event of that name. Each line of data, ended by LF, CR or both, goes with a field of its own, so
 * that nothing in it can be taken for more than data. Errors as beam_buffer_add. */
int bm_event_text_add(beam_buffer *out, const char *name, const char *data, size_t len);

#endif
