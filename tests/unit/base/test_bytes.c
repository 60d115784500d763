/* The cursor over bytes from a peer. */
#include "base/bytes.h"

#include "tests/support/test.h"

TEST(bytes_cannot_be_taken_past_the_end)
{
    static const uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct bm_bytes b = bm_bytes(data, sizeof(data));
    CHECK_PTR(bm_bytes_take(&b, 3), data);
    CHECK_UINT(bm_bytes_left(&b), 5);
    CHECK_PTR(bm_bytes_take(&b, 6), NULL);
    CHECK_PTR(bm_bytes_take(&b, UINT64_MAX), NULL);
    CHECK_PTR(bm_bytes_take(&b, (uint64_t)1 << 63), NULL);
    CHECK_UINT(bm_bytes_left(&b), 5); /* nothing has moved */
    CHECK_PTR(bm_bytes_take(&b, 0), data + 3);
    CHECK_PTR(bm_bytes_take(&b, 5), data + 3);
    CHECK_UINT(bm_bytes_left(&b), 0);
    CHECK_PTR(bm_bytes_take(&b, 0), data + 8);
    CHECK_PTR(bm_bytes_take(&b, 1), NULL);
}

TEST(bytes_are_little_endian_and_need_no_alignment)
{
    uint8_t data[16] = {0};
    bm_put_u16(data + 1, 0x1234);
    bm_put_u32(data + 3, 0x56789abc);
    bm_put_u64(data + 7, UINT64_C(0x0123456789abcdef));
    CHECK_MEM(data, 16, "\0\x34\x12\xbc\x9a\x78\x56\xef\xcd\xab\x89\x67\x45\x23\x01\0", 16);
    CHECK_UINT(bm_get_u16(data + 1), 0x1234);
    CHECK_UINT(bm_get_u32(data + 3), 0x56789abc);
    CHECK_UINT(bm_get_u64(data + 7), UINT64_C(0x0123456789abcdef));
}

TEST(round_up8_reaches_the_next_multiple)
{
    CHECK_UINT(bm_round_up8(0), 0);
    CHECK_UINT(bm_round_up8(1), 8);
    CHECK_UINT(bm_round_up8(8), 8);
    CHECK_UINT(bm_round_up8(9), 16);
}
