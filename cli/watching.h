/* A channel to a service that is watched until it ends, or SIGINT. */
#ifndef CLI_WATCHING_H
#define CLI_WATCHING_H

#include <beam/beam.h>

struct watching {
    const char *verb, *url, *service;
    beam_session *session;
    /* Each message, on the reactor's thread, while the caller of watching_run waits. 0: go on; 1: it
     * is enough; -EPROTO: not what such a service sends; below 0, an error of printing. They are
     * said. */
    int (*on_message)(const beam_message *message, void *arg);
    void *arg;

    beam_message *message; /* the rest is watching.c's */
    beam_channel *channel;
    int status;
};

/* Opens the channel with *message, and returns when it has ended, or SIGINT or SIGTERM has come: the
 * exit code. Says why on stderr. Takes the message, the session and the runtime, and frees all three. */
int watching_run(struct watching *watching, beam_runtime *runtime, beam_message **message);

#endif
