/* A service whose question and answer are messages of Protocol Buffers, by protobuf-c.
 *
 * To Beam they are bodies of codec 4, which nothing is converted to or from: between two ends that speak
 * it they pass untouched. The codec without adapters that is registered here has one use: who asks in
 * json is told which codec would do (INVALID_ARGUMENT), and the handler never sees a body of another. */
#include <beam/beam.h>

#include <string.h>
#include <unistd.h>

#include "order.pb-c.h"

static const struct beam_codec protobuf = {
    .size = sizeof(protobuf),
    .number = BEAM_CODEC_PROTOBUF,
    .name = "protobuf",
    .media_type = "application/protobuf",
};

/* The shop. */
static void on_order(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    Order *order = order__unpack(NULL, len, body);
    if (!order || !order->item[0]) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "that is no order");
        if (order)
            order__free_unpacked(order, NULL);
        return;
    }
    char text[200];
    Receipt receipt = RECEIPT__INIT;
    snprintf(text, sizeof(text), "%u x %.100s", order->count, order->item);
    receipt.text = text;
    receipt.cents = 250u * (uint64_t)order->count;
    order__free_unpacked(order, NULL);

    /* Straight into the message: there is no copy. */
    beam_message *answer = beam_message_new();
    uint8_t *room = beam_message_reserve_body(answer, receipt__get_packed_size(&receipt));
    beam_message_set_codec(answer, BEAM_CODEC_PROTOBUF);
    if (room)
        receipt__pack(&receipt, room);
    beam_reply(request, &answer);
}

/* The customer. 0, a status code, or an error. */
static int order(beam_session *session, const char *item, uint32_t count)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    Order wanted = ORDER__INIT;
    wanted.item = (char *)item;
    wanted.count = count;
    uint8_t *room = beam_message_reserve_body(question, order__get_packed_size(&wanted));
    beam_message_set_codec(question, BEAM_CODEC_PROTOBUF);
    if (room)
        order__pack(&wanted, room);
    int r = beam_call_wait(session, "order", &question, NULL, &answer);
    if (r != 0)
        return r;

    size_t len;
    const void *body = beam_message_body(answer, &len);
    Receipt *receipt = receipt__unpack(NULL, len, body);
    if (!receipt)
        return BEAM_DATA_LOSS;
    printf("%s: %llu.%02llu\n", receipt->text, (unsigned long long)receipt->cents / 100,
           (unsigned long long)receipt->cents % 100);
    receipt__free_unpacked(receipt, NULL);
    return 0;
}

/* Somebody who knows json alone. */
static int order_in_json(beam_session *session)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    beam_str text = {"", 0};
    beam_message_set_body(question, "{}", 2);
    beam_message_set_codec(question, BEAM_CODEC_JSON);
    int r = beam_call_wait(session, "order", &question, NULL, &answer);
    if (answer)
        (void)beam_message_get_str(answer, "message", &text);
    printf("%s: %.*s\n", beam_code_name(r > 0 ? (unsigned)r : 0), BEAM_STR(text));
    return r < 0 ? r : r == BEAM_INVALID_ARGUMENT ? 0 : BEAM_UNKNOWN;
}

int main(void)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    char url[64];
    snprintf(url, sizeof(url), "unix:@protobuf-%d", getpid());

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_codec_register(runtime, &protobuf);
    if (r >= 0)
        r = beam_serve_with(runtime, "order", on_order, NULL,
                            &BEAM_SERVE_OPTIONS(.codec = &protobuf));
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, NULL, &session);
    if (r >= 0)
        r = order(session, "pencils", 3);
    if (r == 0)
        r = order_in_json(session);
    return r > 0 ? 1 : beam_exit_code(r, stderr);
}
