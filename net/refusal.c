/* How a request is refused: rule Q4. The body is JSON, whatever was asked for. */
#include <string.h>

#include "net/http_call.h"
#include "net/document_json.h"
#include "net/server.h"

#define FIELDS_MAX 8u

void bm_exchange_refuse_with(struct bm_exchange *exchange, const struct bm_refusal *refusal)
{
    struct bm_field all[FIELDS_MAX];
    size_t count = 0;
    beam_buffer body;
    beam_buffer_init(&body, BM_EXCHANGE_BODY_MAX);
    int r = bm_document_json_status(refusal->code, refusal->text, refusal->details,
                                    refusal->details_len, &body);
    if (r < 0) { /* too much to say, or no memory: the text alone, or nothing */
        beam_buffer_clear(&body);
        r = bm_document_json_status(refusal->code, refusal->text, NULL, 0, &body);
    }
    if (r == 0)
        all[count++] = BM_FIELD("content-type", "application/json");
    for (size_t i = 0; i < refusal->field_count && count < FIELDS_MAX; i++)
        all[count++] = refusal->fields[i];
    if (bm_exchange_answer(exchange, refusal->status, all, count, body.ptr,
                           r == 0 ? (int64_t)body.len : 0) < 0)
        bm_exchange_reset(exchange);
    beam_buffer_deinit(&body);
}

void bm_exchange_refuse(struct bm_exchange *exchange, unsigned status, enum beam_code code,
                        const char *message, const struct bm_field *fields, size_t field_count)
{
    bm_exchange_refuse_with(exchange, &(struct bm_refusal){
                                          .status = status,
                                          .code = code,
                                          .text = {message, message ? strlen(message) : 0},
                                          .fields = fields,
                                          .field_count = field_count,
                                      });
}

void bm_exchange_refuse_saying(struct bm_exchange *exchange, unsigned status, enum beam_code code,
                               const char *message, const char *name, const char *value)
{
    const struct bm_field field = {
        .name = name,
        .name_len = name ? strlen(name) : 0,
        .value = value,
        .value_len = value ? strlen(value) : 0,
    };
    bm_exchange_refuse(exchange, status, code, message, &field, name ? 1 : 0);
}
