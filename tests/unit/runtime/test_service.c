/* The services of a runtime: what is found after each change, and by others in the middle of it. */
#include "runtime/service.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "runtime/runtime.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

static void handle_a(beam_request *request, const beam_message *message, void *arg)
{
    (void)request;
    (void)message;
    (void)arg;
}

static int handled_b;

static void handle_b(beam_request *request, const beam_message *message, void *arg)
{
    (void)request;
    (void)message;
    (void)arg;
    handled_b++; /* so that no linker makes one function of the two */
}

static beam_runtime *runtime;
static int arg_a, arg_b;

static void open_runtime(unsigned reactors)
{
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = reactors), &runtime), 0);
}

static void close_runtime(void)
{
    runtime = beam_runtime_free(runtime);
}

static const struct bm_service *find(const char *name)
{
    return bm_services_find(bm_runtime_services(runtime), name, strlen(name));
}

TEST(service_is_found_by_its_whole_name)
{
    open_runtime(1);
    CHECK_PTR(find("echo"), NULL);
    CHECK_INT(beam_serve(runtime, "echo", handle_a, &arg_a), 0);
    const struct bm_service *s = find("echo");
    REQUIRE(s != NULL);
    CHECK(s->handler == handle_a);
    CHECK_PTR(s->arg, &arg_a);
    CHECK_UINT(s->core, BM_ANY_CORE);
    CHECK_MEM(s->name, s->name_len, "echo", 4);
    CHECK_PTR(find("ech"), NULL);
    CHECK_PTR(find("echos"), NULL);
    CHECK_PTR(find("Echo"), NULL);
    CHECK_PTR(bm_services_find(bm_runtime_services(runtime), "echo", 5), NULL); /* "echo\0" */
    CHECK_PTR(bm_services_find(bm_runtime_services(runtime), "", 0), NULL);
    close_runtime();
}

TEST(service_is_taken_until_it_is_unserved_and_then_free_for_another)
{
    open_runtime(1);
    CHECK_INT(beam_unserve(runtime, "echo"), -ENOENT);
    CHECK_INT(beam_serve(runtime, "echo", handle_a, &arg_a), 0);
    CHECK_INT(beam_serve(runtime, "echo", handle_b, &arg_b), -EEXIST);
    const struct bm_service *first = find("echo");
    CHECK(first->handler == handle_a);
    CHECK_INT(beam_unserve(runtime, "echo"), 0);
    CHECK_PTR(find("echo"), NULL);
    CHECK_INT(beam_unserve(runtime, "echo"), -ENOENT);
    CHECK_INT(beam_serve(runtime, "echo", handle_b, &arg_b), 0);
    const struct bm_service *second = find("echo");
    CHECK(second->handler == handle_b);
    CHECK_PTR(second->arg, &arg_b);
    /* A request may still hold the first: it stays what it was. */
    CHECK(first != second);
    CHECK(first->handler == handle_a);
    CHECK_PTR(first->arg, &arg_a);
    CHECK(!first->live);
    close_runtime();
}

TEST(service_names_that_are_none_are_refused)
{
    char name[257];
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    open_runtime(2);
    CHECK_INT(beam_serve(runtime, NULL, handle_a, NULL), -EINVAL);
    CHECK_INT(beam_serve(runtime, "", handle_a, NULL), -EINVAL);
    CHECK_INT(beam_serve(runtime, name, handle_a, NULL), -EINVAL);
    CHECK_INT(beam_serve(runtime, "\xc0\xaf", handle_a, NULL), -EINVAL);
    CHECK_INT(beam_serve(runtime, "cut \xe2\x82", handle_a, NULL), -EINVAL);
    CHECK_INT(beam_serve(runtime, "echo", NULL, NULL), -EINVAL);
    CHECK_INT(beam_serve_on(runtime, 2, "echo", handle_a, NULL), -EINVAL);
    CHECK_INT(beam_unserve(runtime, NULL), -EINVAL);
    CHECK_INT(beam_unserve(runtime, ""), -ENOENT);
    CHECK_INT(beam_unserve(runtime, name), -ENOENT);
    CHECK_UINT(bm_runtime_services(runtime)->count, 0);

    name[255] = '\0';
    CHECK_INT(beam_serve(runtime, name, handle_a, NULL), 0);
    CHECK(find(name) != NULL);
    name[254] = '\0';
    CHECK_PTR(find(name), NULL);
    CHECK_INT(beam_serve(runtime, "uhr \xe2\x82\xac", handle_a, NULL), 0);
    CHECK(find("uhr \xe2\x82\xac") != NULL);
    CHECK_INT(beam_serve_on(runtime, 1, "on one", handle_a, NULL), 0);
    CHECK_UINT(find("on one")->core, 1);
    close_runtime();
}

static void name_of(unsigned i, char name[16])
{
    snprintf(name, 16, "service %u", i);
}

TEST(service_table_finds_a_thousand_and_forgets_every_other)
{
    char name[16];
    open_runtime(1);
    for (unsigned i = 0; i < 1000; i++) {
        name_of(i, name);
        REQUIRE_INT(beam_serve(runtime, name, i % 3 ? handle_a : handle_b, &runtime + i), 0);
    }
    for (unsigned i = 0; i < 1000; i += 2) {
        name_of(i, name);
        CHECK_INT(beam_unserve(runtime, name), 0);
    }
    for (unsigned i = 0; i < 1000; i++) {
        test_note("service %u", i);
        name_of(i, name);
        const struct bm_service *s = find(name);
        CHECK((s != NULL) == (i % 2 == 1));
        if (s)
            CHECK(s->arg == (void *)(&runtime + i) && s->handler == (i % 3 ? handle_a : handle_b));
    }
    close_runtime();
}

TEST(service_table_has_a_limit_of_names_ever_served)
{
    open_runtime(1);
    CHECK_INT(beam_serve(runtime, "first", handle_a, NULL), 0);
    bm_runtime_services(runtime)->count = BM_SERVICES_MAX - 1; /* as if so many had been */
    CHECK_INT(beam_serve(runtime, "last", handle_a, NULL), 0);
    struct bm_alloc_totals full = bm_alloc_totals();
    CHECK_INT(beam_serve(runtime, "one more", handle_a, NULL), -ENOSPC);
    CHECK_INT(beam_unserve(runtime, "last"), 0);
    CHECK_INT(beam_serve(runtime, "last", handle_b, NULL), -ENOSPC);
    /* What was served just so costs no new entry, however often. */
    for (unsigned i = 0; i < 10; i++) {
        CHECK_INT(beam_serve(runtime, "last", handle_a, NULL), 0);
        CHECK_INT(beam_unserve(runtime, "last"), 0);
    }
    CHECK_UINT(bm_alloc_totals().live_bytes, full.live_bytes);
    CHECK_PTR(find("one more"), NULL);
    CHECK(find("first") != NULL);
    close_runtime();
}

static void *refuse(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)ptr;
    (void)old_len;
    (void)new_len;
    (void)arg;
    return NULL;
}

TEST(service_without_memory_is_not_served)
{
    open_runtime(1);
    bm_alloc_set(&(struct bm_allocator){.realloc = refuse});
    int r = beam_serve(runtime, "echo", handle_a, NULL);
    bm_alloc_set(NULL);
    CHECK_INT(r, -ENOMEM);
    CHECK_PTR(find("echo"), NULL);
    CHECK_INT(beam_serve(runtime, "echo", handle_a, NULL), 0);
    close_runtime();
}

#define CHANGES 3000

static _Atomic bool changed_all;
static _Atomic unsigned readers_ready;

static void *read_on(void *arg)
{
    unsigned *seen = arg;
    readers_ready++;
    while (!changed_all) {
        const struct bm_service *s = find("changing");
        if (s) {
            /* Never one's handler with the other's argument, nor half a name. */
            CHECK(s->handler == handle_a ? s->arg == &arg_a
                                         : s->handler == handle_b && s->arg == &arg_b);
            CHECK_MEM(s->name, s->name_len, "changing", 8);
            (*seen)++;
        }
        CHECK(find("lasting") != NULL);
        CHECK_PTR(find("never"), NULL);
    }
    return NULL;
}

TEST(service_readers_see_whole_entries_while_a_writer_changes_them)
{
    pthread_t readers[3];
    static unsigned seen[3];
    open_runtime(1);
    changed_all = false;
    readers_ready = 0;
    CHECK_INT(beam_serve(runtime, "lasting", handle_a, NULL), 0);
    for (int i = 0; i < 3; i++)
        REQUIRE_INT(pthread_create(&readers[i], NULL, read_on, &seen[i]), 0);
    while (readers_ready < 3)
        sched_yield();
    int wrong = 0;
    for (int i = 0; i < CHANGES; i++) {
        bool a = i % 2;
        wrong += beam_serve(runtime, "changing", a ? handle_a : handle_b, a ? &arg_a : &arg_b) != 0;
        if (i % 64 == 0)
            sched_yield();
        wrong += beam_unserve(runtime, "changing") != 0;
    }
    CHECK_INT(wrong, 0);
    changed_all = true;
    for (int i = 0; i < 3; i++)
        pthread_join(readers[i], NULL);
    CHECK_PTR(find("changing"), NULL);
    CHECK_UINT(bm_runtime_services(runtime)->count, 3); /* "changing" twice: as a and as b */
    close_runtime();
}

/* --- several names at once ------------------------------------------------------------------- */

static void make_offers(struct bm_offer offers[3], void *arg)
{
    static const char *const names[] = {"set.a", "set.b", "set.c"};
    for (unsigned i = 0; i < 3; i++)
        offers[i] = (struct bm_offer){
            .name = names[i], .handler = handle_a, .arg = arg, .core = BM_ANY_CORE};
}

TEST(service_sets_are_served_whole_or_not_at_all)
{
    struct bm_offer offers[3];
    open_runtime(1);
    make_offers(offers, &arg_a);
    CHECK_INT(beam_serve(runtime, "set.c", handle_b, &arg_b), 0);
    CHECK_INT(bm_services_offer(runtime, offers, 3), -EEXIST);
    CHECK_PTR(find("set.a"), NULL);
    CHECK_PTR(find("set.b"), NULL);
    CHECK_UINT(bm_runtime_services(runtime)->count, 1);
    CHECK_INT(beam_unserve(runtime, "set.c"), 0);
    /* Nor for want of room in the table, or with a name that is none. */
    bm_runtime_services(runtime)->count = BM_SERVICES_MAX - 2;
    CHECK_INT(bm_services_offer(runtime, offers, 3), -ENOSPC);
    CHECK_PTR(find("set.a"), NULL);
    bm_runtime_services(runtime)->count = 1;
    offers[1].name = "";
    CHECK_INT(bm_services_offer(runtime, offers, 3), -EINVAL);
    CHECK_PTR(find("set.a"), NULL);
    CHECK_PTR(find("set.c"), NULL);

    make_offers(offers, &arg_a);
    CHECK_INT(bm_services_offer(runtime, offers, 3), 0);
    CHECK(find("set.a") && find("set.b") && find("set.c"));
    CHECK_UINT(bm_runtime_services(runtime)->count, 4);
    bm_services_withdraw(runtime, offers, 3);
    CHECK_PTR(find("set.b"), NULL);
    CHECK_INT(bm_services_offer(runtime, offers, 3), 0); /* revived */
    CHECK_UINT(bm_runtime_services(runtime)->count, 4);
    close_runtime();
}

TEST(service_sets_leave_a_name_that_is_another_ones_by_now)
{
    struct bm_offer offers[3];
    open_runtime(1);
    make_offers(offers, &arg_a);
    CHECK_INT(bm_services_offer(runtime, offers, 3), 0);
    CHECK_INT(beam_unserve(runtime, "set.b"), 0);
    CHECK_INT(beam_serve(runtime, "set.b", handle_b, &arg_b), 0);
    bm_services_withdraw(runtime, offers, 3);
    CHECK_PTR(find("set.a"), NULL);
    CHECK(find("set.b") != NULL);
    close_runtime();
}

TEST(service_sets_without_memory_are_not_served)
{
    struct bm_offer offers[3];
    open_runtime(1);
    make_offers(offers, &arg_a);
    for (int left = 0; left < 3; left++) {
        scarce_begin(left);
        int r = bm_services_offer(runtime, offers, 3);
        scarce_end();
        CHECK_INT(r, -ENOMEM);
        CHECK_PTR(find("set.a"), NULL);
    }
    CHECK_INT(bm_services_offer(runtime, offers, 3), 0);
    close_runtime();
}

/* --- several threads ------------------------------------------------------------------------- */

static void *serve_all(void *arg)
{
    unsigned *served = arg;
    char name[16];
    for (unsigned i = 0; i < 500; i++) {
        name_of(i, name);
        int r = beam_serve(runtime, name, handle_a, arg);
        CHECK(r == 0 || r == -EEXIST);
        *served += r == 0;
    }
    return NULL;
}

TEST(service_wanted_by_several_threads_is_one_threads)
{
    pthread_t threads[4];
    unsigned served[4] = {0}, sum = 0;
    char name[16];
    open_runtime(1);
    for (int i = 0; i < 4; i++)
        REQUIRE_INT(pthread_create(&threads[i], NULL, serve_all, &served[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        sum += served[i];
    }
    CHECK_UINT(sum, 500);
    for (unsigned i = 0; i < 500; i++) {
        name_of(i, name);
        CHECK(find(name) != NULL);
    }
    close_runtime();
}
