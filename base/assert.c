/* Where a broken invariant ends the process. write(2) and abort(3) only: nothing here may allocate,
 * lock or call back into the library, because nothing is known to be sound any more. */
#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put(const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, text, len);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

void bm_assert_failed(const char *expr, const char *file, int line)
{
    char digits[12];
    int i = (int)sizeof(digits);
    digits[--i] = '\0';
    do {
        digits[--i] = (char)('0' + line % 10);
        line /= 10;
    } while (line > 0 && i > 0);

    put("beam: broken invariant: ");
    put(expr);
    put(" at ");
    put(file);
    put(":");
    put(digits + i);
    put("\n");
    abort();
}
