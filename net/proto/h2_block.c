/* A header block. Fields point into the copy, which does not move. */
#include "net/proto/h2_block.h"

#include <errno.h>
#include <string.h>

#define BLOCK_LEN (BM_H2_FIELDS_MAX * sizeof(struct bm_field) + BM_H2_FIELDS_LEN_MAX)

void bm_h2_block_init(struct bm_h2_block *block, struct bm_account *account)
{
    *block = (struct bm_h2_block){.account = account};
}

void bm_h2_block_deinit(struct bm_h2_block *block)
{
    bm_h2_block_clear(block);
    block->fields = bm_free(block->account, block->fields, block->fields ? BLOCK_LEN : 0);
    block->bytes = NULL;
}

void bm_h2_block_clear(struct bm_h2_block *block)
{
    memset(block->pseudo, 0, sizeof(block->pseudo));
    block->bytes_len = block->count = block->len = 0;
}

bool bm_h2_block_too_large(const struct bm_h2_block *block)
{
    return block->len > BM_H2_FIELDS_LEN_MAX || block->count > BM_H2_FIELDS_MAX;
}

static const char *keep(struct bm_h2_block *block, beam_str text)
{
    char *copy = block->bytes + block->bytes_len;
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    block->bytes_len += text.len;
    return copy;
}

int bm_h2_block_add(struct bm_h2_block *block, beam_str name, beam_str value, bool secret)
{
    int pseudo = bm_h2_pseudo_of(name);
    block->len += name.len + value.len;
    block->count += pseudo < 0;
    if (block->len > BM_H2_FIELDS_EXCESS * BM_H2_FIELDS_LEN_MAX ||
        block->count > BM_H2_FIELDS_EXCESS * BM_H2_FIELDS_MAX)
        return -EMSGSIZE;
    if (bm_h2_block_too_large(block))
        return 0;
    if (!block->fields && !(block->fields = bm_alloc(block->account, BLOCK_LEN)))
        return -ENOMEM;
    block->bytes = (char *)(block->fields + BM_H2_FIELDS_MAX);
    if (pseudo >= 0)
        block->pseudo[pseudo] = (beam_str){keep(block, value), value.len};
    else
        block->fields[block->count - 1] = (struct bm_field){
            .name = keep(block, name),
            .name_len = name.len,
            .value = keep(block, value),
            .value_len = value.len,
            .secret = secret,
        };
    return 0;
}

bool bm_h2_block_request(const struct bm_h2_block *block, struct bm_h2_request *ret_request)
{
    const struct bm_field *field = bm_field_find(block->fields, block->count, "host");
    beam_str authority = block->pseudo[BM_H2_AUTHORITY];
    beam_str host = field ? (beam_str){field->value, field->value_len} : authority;
    if (authority.len == 0)
        authority = host;
    if (!bm_h2_authority_ok(authority) || !bm_h2_authority_same(host, authority))
        return false;
    *ret_request = (struct bm_h2_request){
        .method = block->pseudo[BM_H2_METHOD],
        .scheme = block->pseudo[BM_H2_SCHEME],
        .authority = authority,
        .path = block->pseudo[BM_H2_PATH],
        .protocol = block->pseudo[BM_H2_PROTOCOL],
        .fields = block->fields,
        .fields_count = block->count,
    };
    return true;
}

int bm_h2_block_status(const struct bm_h2_block *block)
{
    beam_str text = block->pseudo[BM_H2_STATUS];
    int status = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (i == 3 || text.ptr[i] < '0' || text.ptr[i] > '9')
            return -1;
        status = 10 * status + (text.ptr[i] - '0');
    }
    return text.len == 3 ? status : -1;
}
