/* Events that are numbered within their session: they come in their order, none twice. */
#ifndef BEAM_TEST_SIM_NOTE_H
#define BEAM_TEST_SIM_NOTE_H

#include <beam/beam.h>

/* What a sender keeps for a session of his. */
struct notes {
    unsigned session; /* whose they are */
    unsigned sent;
};

/* For a new session. */
void notes_begin(struct notes *notes);
void notes_send(struct notes *notes, beam_session *session);
/* The handler of the service "note". */
void notes_take(beam_request *request, const beam_message *message, void *arg);

/* Those that were sent and have not come. */
unsigned notes_under_way(void);
void notes_forget(void);

#endif
