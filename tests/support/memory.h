/* What a table of a test's own (base/alloc.h) does with what it lets pass. */
#ifndef BEAM_TEST_MEMORY_H
#define BEAM_TEST_MEMORY_H

#include <stddef.h>

/* As the library's own: old_len 0 allocates, new_len 0 frees; aligned to 64 bytes from 64 on, else to 16. */
void *test_memory_realloc(void *ptr, size_t old_len, size_t new_len);

#endif
