/* The service `whoami`: who asks, as the server sees it; for trying what lets somebody in.
 *
 *     {} -> over a unix socket {"kind": "unix", "uid": …, "gid": …, "pid": …}; over a network
 *           {"kind": "net", "identity": …, "address": …}, the identity left out of who has none */
#include "cli/services.h"

static void on_whoami(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    const struct beam_peer *peer = beam_request_peer(request);
    beam_message *answer = beam_message_new();
    if (peer->kind == BEAM_PEER_NET) {
        beam_message_put_str(answer, "kind", "net");
        beam_message_put_strn(answer, "address", peer->address.ptr, peer->address.len);
        if (peer->identity.len > 0)
            beam_message_put_strn(answer, "identity", peer->identity.ptr, peer->identity.len);
    } else {
        beam_message_put_str(answer, "kind", peer->kind == BEAM_PEER_UNIX ? "unix" : "self");
        beam_message_put_uint(answer, "uid", peer->uid);
        beam_message_put_uint(answer, "gid", peer->gid);
        beam_message_put_int(answer, "pid", peer->pid);
    }
    beam_reply(request, &answer);
}

static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    (void)argument;
    return beam_serve(runtime, name, on_whoami, NULL);
}

const struct service_kind service_whoami = {
    .name = "whoami",
    .argument = NULL,
    .summary = "answers with who asks: kind, and uid, gid, pid or identity, address",
    .add = add,
};
