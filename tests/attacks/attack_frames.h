/* Frames of HTTP/2 by hand, for an attacker: any of them, in any order. */
#ifndef BEAM_TEST_ATTACK_FRAMES_H
#define BEAM_TEST_ATTACK_FRAMES_H

#include "tests/attacks/attack_rig.h"

struct frames {
    uint8_t bytes[256u << 10];
    size_t len;
};
static struct frames frames;

static inline void frames_put(const void *bytes, size_t len)
{
    REQUIRE(frames.len + len <= sizeof(frames.bytes));
    memcpy(frames.bytes + frames.len, bytes, len);
    frames.len += len;
}

static inline void frames_head(size_t len, unsigned type, unsigned flags, uint32_t id)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,
                             (uint8_t)type,        (uint8_t)flags,      (uint8_t)(id >> 24),
                             (uint8_t)(id >> 16),  (uint8_t)(id >> 8),  (uint8_t)id};
    frames_put(head, sizeof(head));
}

static inline void frames_add(unsigned type, unsigned flags, uint32_t id, const void *payload,
                              size_t len)
{
    frames_head(len, type, flags, id);
    frames_put(payload, len);
}

static inline void frames_u32(unsigned type, uint32_t id, uint32_t value)
{
    const uint8_t payload[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16),
                                (uint8_t)(value >> 8), (uint8_t)value};
    frames_add(type, 0, id, payload, 4);
}

/* Hands them over. False: the server takes no more. */
static inline bool frames_send(struct attacker *attacker)
{
    bool goes_on = attacker_send(attacker, frames.bytes, frames.len);
    frames.len = 0;
    return goes_on;
}

static inline void frames_setting(uint16_t name, uint32_t value)
{
    const uint8_t setting[6] = {(uint8_t)(name >> 8),   (uint8_t)name,
                                (uint8_t)(value >> 24), (uint8_t)(value >> 16),
                                (uint8_t)(value >> 8),  (uint8_t)value};
    frames_add(F_SETTINGS, 0, 0, setting, sizeof(setting));
}

/* A client's first words, with one setting of its own (0: none), and the acknowledgement. */
static inline void frames_greet(uint16_t name, uint32_t value)
{
    frames.len = 0;
    frames_put("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    if (name)
        frames_setting(name, value);
    else
        frames_add(F_SETTINGS, 0, 0, "", 0);
    frames_add(F_SETTINGS, F_ACK, 0, "", 0);
}

/* A field without a table and without Huffman (RFC 7541 section 6.2.2). */
static inline size_t field_put(uint8_t *block, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);
    uint8_t *pos = block;
    REQUIRE(name_len < 127 && value_len < 127);
    *pos++ = 0;
    *pos++ = (uint8_t)name_len;
    memcpy(pos, name, name_len);
    pos += name_len;
    *pos++ = (uint8_t)value_len;
    memcpy(pos, value, value_len);
    return (size_t)(pos - block) + value_len;
}

/* POST http://a PATH: what pseudo fields there have to be. */
static inline size_t block_post(uint8_t *block, const char *path)
{
    static const uint8_t begin[] = {0x83, 0x86, 0x01, 0x01, 'a'};
    memcpy(block, begin, sizeof(begin));
    return sizeof(begin) + field_put(block + sizeof(begin), ":path", path);
}

static inline void frames_post(uint32_t id, const char *path, unsigned flags)
{
    uint8_t block[256];
    frames_add(F_HEADERS, F_END_HEADERS | flags, id, block, block_post(block, path));
}

/* The same with one more field. */
static inline void frames_post_with(uint32_t id, const char *path, unsigned flags, const char *name,
                                    const char *value)
{
    uint8_t block[512];
    size_t len = block_post(block, path);
    len += field_put(block + len, name, value);
    frames_add(F_HEADERS, F_END_HEADERS | flags, id, block, len);
}

#define ECHO "/beam/call/echo"
#define HOLD "/beam/call/hold"
#define MUCH "/beam/call/much"

/* One piece after the other, until the server has had enough or all have gone. */
static inline void flood(struct attacker *attacker, void (*put)(unsigned i), unsigned count)
{
    for (unsigned i = 0; i < count;) {
        for (unsigned n = 0; n < 64 && i < count; n++, i++)
            put(i);
        if (!frames_send(attacker))
            return;
    }
}

#endif
