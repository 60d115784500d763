/* Messages that wait for something, first in, first out, linked through their `next`; the queue owns
 * them. All zero is an empty one, and it may be copied and moved like any value. A message stands in
 * one queue at a time; `next` of one that stands in none is NULL. */
#ifndef BM_MESSAGE_QUEUE_H
#define BM_MESSAGE_QUEUE_H

#include <stdbool.h>

#include "runtime/message.h"

struct bm_message_queue {
    beam_message *first; /* NULL: empty */
    beam_message *last;  /* means nothing in an empty one */
};

static inline void bm_message_queue_init(struct bm_message_queue *queue)
{
    queue->first = NULL;
}

static inline bool bm_message_queue_empty(const struct bm_message_queue *queue)
{
    return !queue->first;
}

/* NULL: it is empty. */
static inline beam_message *bm_message_queue_first(const struct bm_message_queue *queue)
{
    return queue->first;
}

static inline beam_message *bm_message_queue_last(const struct bm_message_queue *queue)
{
    return queue->first ? queue->last : NULL;
}

static inline void bm_message_queue_push(struct bm_message_queue *queue, beam_message *message)
{
    message->next = NULL;
    if (queue->first)
        queue->last->next = message;
    else
        queue->first = message;
    queue->last = message;
}

/* Of one that could not go on after all: it is the next again. */
static inline void bm_message_queue_push_front(struct bm_message_queue *queue,
                                               beam_message *message)
{
    message->next = queue->first;
    if (!queue->first)
        queue->last = message;
    queue->first = message;
}

static inline beam_message *bm_message_queue_pop(struct bm_message_queue *queue)
{
    beam_message *message = queue->first;
    if (message) {
        queue->first = message->next;
        message->next = NULL;
    }
    return message;
}

#endif
