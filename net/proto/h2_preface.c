/* The preface was made so that a server of HTTP/1.1 refuses it and looks at nothing behind it; the
 * whole of it is compared, as nghttp2 will. */
#include "net/proto/h2_preface.h"

#include <errno.h>
#include <string.h>

int bm_h2_is_preface(const uint8_t *bytes, size_t len)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    size_t known = len < BM_H2_PREFACE_LEN ? len : BM_H2_PREFACE_LEN;
    if (known > 0 && memcmp(bytes, preface, known) != 0)
        return 0;
    return known == BM_H2_PREFACE_LEN ? 1 : -EAGAIN;
}
