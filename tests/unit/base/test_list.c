/* The intrusive list. */
#include "base/list.h"

#include "tests/support/test.h"

struct item {
    int number;
    struct bm_list node;
};

static void check_order(struct bm_list *list, const int *numbers, int len)
{
    int n = 0;
    for (struct bm_list *node = list->next; node != list; node = node->next, n++) {
        REQUIRE(n < len);
        CHECK_INT(bm_list_entry(node, struct item, node)->number, numbers[n]);
        CHECK_PTR(node->next->prev, node);
    }
    CHECK_INT(n, len);
}

TEST(list_pushes_and_pops_at_both_ends)
{
    struct item items[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    struct bm_list list;
    bm_list_init(&list);
    CHECK(bm_list_empty(&list));
    CHECK_PTR(bm_list_front(&list), NULL);
    CHECK_PTR(bm_list_pop_front(&list), NULL);
    bm_list_push_back(&list, &items[1].node);
    bm_list_push_back(&list, &items[2].node);
    bm_list_push_front(&list, &items[0].node);
    bm_list_insert_before(&items[2].node, &items[3].node);
    check_order(&list, (int[]){0, 1, 3, 2}, 4);
    CHECK_PTR(bm_list_pop_front(&list), &items[0].node);
    CHECK(!bm_list_linked(&items[0].node));
    check_order(&list, (int[]){1, 3, 2}, 3);
}

TEST(list_unlink_twice_is_harmless)
{
    struct item a = {.number = 1}, b = {.number = 2};
    struct bm_list list;
    bm_list_init(&list);
    bm_list_unlink(&a.node);
    bm_list_push_back(&list, &a.node);
    bm_list_push_back(&list, &b.node);
    bm_list_unlink(&a.node);
    bm_list_unlink(&a.node);
    check_order(&list, (int[]){2}, 1);
    bm_list_unlink(&b.node);
    CHECK(bm_list_empty(&list));
}

TEST(list_splice_moves_everything_to_the_end)
{
    struct item items[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    struct bm_list to, from;
    bm_list_init(&to);
    bm_list_init(&from);
    bm_list_splice_back(&to, &from);
    CHECK(bm_list_empty(&to));
    bm_list_push_back(&from, &items[2].node);
    bm_list_push_back(&from, &items[3].node);
    bm_list_push_back(&to, &items[0].node);
    bm_list_push_back(&to, &items[1].node);
    bm_list_splice_back(&to, &from);
    check_order(&to, (int[]){0, 1, 2, 3}, 4);
    CHECK(bm_list_empty(&from));
    bm_list_splice_back(&from, &to);
    check_order(&from, (int[]){0, 1, 2, 3}, 4);
}
