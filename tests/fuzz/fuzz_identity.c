/* Any bytes as a certificate, for the names in it. What is accepted is within the limits, and each name is a
 * text that no reader cuts short and no log is turned by.
 *
 * Covers: net/proto/identity.c */
#include <errno.h>

#include "net/proto/identity.h"
#include "tests/fuzz/fuzz.h"

static void expect_text(const struct bm_identity_name *name)
{
    size_t len = strlen(name->text);
    EXPECT(len > 0 && len <= BM_IDENTITY_NAME_LEN_MAX);
    for (const char *p = name->text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        EXPECT(c >= 0x20 && c != 0x7f);
        EXPECT(name->kind == BM_IDENTITY_COMMON_NAME || c < 0x80);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bm_account account = {0};
    struct bm_identity *identity = NULL;
    void *copy = fuzz_copy(data, size);
    int r = bm_identity_new(&identity, &account, copy, size);
    EXPECT(r == 0 || r == -EBADMSG || r == -E2BIG);
    EXPECT((r == 0) == (identity != NULL));
    if (r == 0) {
        EXPECT(identity->count <= BM_IDENTITY_NAMES_MAX);
        for (size_t i = 0; i < identity->count; i++) {
            expect_text(&identity->names[i]);
            EXPECT(bm_identity_find(identity, identity->names[i].kind) != NULL);
        }
    }
    bm_identity_free(identity, &account);
    EXPECT(account.used == 0);
    free(copy);
    return 0;
}
