/* Calls in both directions: while the shop serves an order, it asks the customer to confirm.
 *
 * A session has no client side and no server side: whoever connected may be asked, too. The
 * question is a *child* of the order. It ends when the order is cancelled, and gets no more time
 * than the order has left. */
#include <beam/beam.h>

#include <unistd.h>

/* The shop. */

static void on_confirmed(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_request *order = arg;
    if (status->code != BEAM_OK) {
        beam_fail(order, BEAM_ABORTED, "not confirmed: %.*s", BEAM_STR(status->message));
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_put_str(answer, "text", "it is on its way");
    beam_reply(order, &answer);
}

static void on_order(beam_request *order, const beam_message *message, void *arg)
{
    beam_message *question = beam_message_new();
    beam_message_put_int(question, "price", 42);
    beam_request_keep(order); /* it is answered later, in on_confirmed */
    int r = beam_call(beam_request_session(order), "confirm", &question, on_confirmed, order,
                      &BEAM_CALL_OPTIONS(.parent = order));
    beam_message_free(question); /* NULL when it was taken */
    if (r < 0)
        beam_fail(order, BEAM_UNAVAILABLE, "%s", beam_strerror(r));
}

/* The customer. */

static void on_confirm(beam_request *request, const beam_message *message, void *arg)
{
    int64_t price;
    if (beam_message_get_int(message, "price", &price) == 0 && price <= 50)
        beam_reply(request, NULL);
    else
        beam_fail(request, BEAM_FAILED_PRECONDITION, "that is too much");
}

int main(void)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *shop = NULL;
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *customer = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *order = beam_message_new();
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix));
    char url[64];
    snprintf(url, sizeof(url), "unix:@nested-%d", getpid());

    int r = beam_runtime_new(&options, &shop);
    if (r >= 0)
        r = beam_serve(shop, "order", on_order, NULL);
    if (r >= 0)
        r = beam_listen(shop, url, NULL);
    if (r >= 0)
        r = beam_start(shop);

    if (r >= 0)
        r = beam_runtime_new(&options, &customer);
    if (r >= 0)
        r = beam_serve(customer, "confirm", on_confirm, NULL);
    if (r >= 0)
        r = beam_start(customer);
    if (r >= 0)
        r = beam_connect_wait(customer, url, NULL, &session);
    beam_message_put_str(order, "item", "a lamp");
    if (r >= 0)
        r = beam_call_wait(session, "order", &order, NULL, &answer);

    beam_str text = {"", 0};
    if (answer)
        beam_message_get_str(answer, r > 0 ? "message" : "text", &text);
    printf("%.*s\n", BEAM_STR(text));
    return r > 0 ? 1 : beam_exit_code(r, stderr);
}
