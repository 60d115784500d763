/* The queue of messages: order, and what it leaves behind in a message that has left it. */
#include "runtime/message_queue.h"

#include "tests/support/test.h"

/* Checks that the queue holds these, and that it ends behind the last of them. */
static void check_order(const struct bm_message_queue *queue, beam_message *const *expected,
                        unsigned count)
{
    const beam_message *message = bm_message_queue_first(queue);
    CHECK(bm_message_queue_empty(queue) == (count == 0));
    for (unsigned i = 0; i < count; i++, message = message->next) {
        REQUIRE(message != NULL);
        CHECK_PTR(message, expected[i]);
    }
    CHECK_PTR(message, NULL);
    CHECK_PTR(bm_message_queue_last(queue), count > 0 ? expected[count - 1] : NULL);
}

TEST(message_queue_gives_back_in_the_order_of_the_pushes)
{
    static beam_message a, b, c;
    struct bm_message_queue queue;
    bm_message_queue_init(&queue);
    check_order(&queue, NULL, 0);
    CHECK_PTR(bm_message_queue_pop(&queue), NULL);
    bm_message_queue_push(&queue, &a);
    check_order(&queue, (beam_message *[]){&a}, 1);
    bm_message_queue_push(&queue, &b);
    bm_message_queue_push(&queue, &c);
    check_order(&queue, (beam_message *[]){&a, &b, &c}, 3);
    CHECK_PTR(bm_message_queue_pop(&queue), &a);
    check_order(&queue, (beam_message *[]){&b, &c}, 2);
    CHECK_PTR(bm_message_queue_pop(&queue), &b);
    CHECK_PTR(bm_message_queue_pop(&queue), &c);
    CHECK_PTR(bm_message_queue_pop(&queue), NULL);
    check_order(&queue, NULL, 0);
}

TEST(message_queue_takes_messages_again_after_it_was_empty)
{
    static beam_message a, b;
    struct bm_message_queue queue = {0};
    for (unsigned i = 0; i < 3; i++) {
        bm_message_queue_push(&queue, &a);
        CHECK_PTR(bm_message_queue_pop(&queue), &a);
        check_order(&queue, NULL, 0);
        bm_message_queue_push_front(&queue, &b);
        CHECK_PTR(bm_message_queue_pop(&queue), &b);
        check_order(&queue, NULL, 0);
    }
    bm_message_queue_push(&queue, &b);
    bm_message_queue_push(&queue, &a);
    check_order(&queue, (beam_message *[]){&b, &a}, 2);
}

TEST(message_queue_push_front_makes_it_the_next)
{
    static beam_message a, b, c;
    struct bm_message_queue queue = {0};
    bm_message_queue_push_front(&queue, &b);
    bm_message_queue_push(&queue, &c);
    bm_message_queue_push_front(&queue, &a);
    check_order(&queue, (beam_message *[]){&a, &b, &c}, 3);
    bm_message_queue_push_front(&queue, bm_message_queue_pop(&queue));
    check_order(&queue, (beam_message *[]){&a, &b, &c}, 3);
}

TEST(message_queue_leaves_no_link_in_what_was_popped)
{
    static beam_message a, b;
    struct bm_message_queue queue = {0};
    a.next = b.next = &a; /* whatever was there: a push writes its own */
    bm_message_queue_push(&queue, &a);
    bm_message_queue_push(&queue, &b);
    check_order(&queue, (beam_message *[]){&a, &b}, 2);
    CHECK_PTR(bm_message_queue_pop(&queue)->next, NULL);
    CHECK_PTR(bm_message_queue_pop(&queue)->next, NULL);
}

TEST(message_queue_may_be_moved)
{
    static beam_message a, b;
    struct bm_message_queue from = {0};
    bm_message_queue_push(&from, &a);
    struct bm_message_queue to = from;
    bm_message_queue_init(&from);
    bm_message_queue_push(&to, &b);
    check_order(&to, (beam_message *[]){&a, &b}, 2);
    check_order(&from, NULL, 0);
}
