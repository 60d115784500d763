/* The codecs of a runtime: which are known, which may be added, and until when. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <beam/beam.h>

#include "runtime/codec.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "tests/support/test.h"

static int to_kv(const struct beam_codec *codec, const void *in, size_t len, beam_kv_writer *out,
                 size_t *ret_error_offset)
{
    (void)codec;
    (void)in;
    (void)len;
    (void)ret_error_offset;
    return beam_kv_put_nil(out, NULL);
}

static int from_kv(const struct beam_codec *codec, const beam_kv_value *value, beam_buffer *out)
{
    (void)codec;
    (void)value;
    return beam_buffer_add(out, "x", 1);
}

static struct beam_codec codec_of(uint32_t number, const char *name)
{
    return (struct beam_codec){
        sizeof(struct beam_codec), number, name, "text/x-test", to_kv, from_kv};
}

static beam_runtime *runtime;

static void open_runtime(void)
{
    REQUIRE_INT(beam_runtime_new(NULL, &runtime), 0);
}

static void close_runtime(void)
{
    runtime = beam_runtime_free(runtime);
}

TEST(codecs_that_are_always_known_are_found_by_their_number)
{
    open_runtime();
    const struct bm_codecs *codecs = &runtime->codecs;
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_KV), &beam_kv_codec);
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_JSON), &beam_json);
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_MSGPACK), &beam_msgpack);
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_XML), beam_xml());
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_PROTOBUF), NULL);
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_APPLICATION), NULL);
    CHECK(bm_codecs_has(codecs, &beam_json));
    CHECK(!bm_codecs_has(codecs, &beam_json_safe)); /* another, of the same number */
    close_runtime();
}

TEST(codecs_registered_before_the_start_are_known)
{
    open_runtime();
    struct beam_codec own = codec_of(BEAM_CODEC_APPLICATION, "own");
    struct beam_codec last = codec_of(UINT32_MAX, "last");
    struct beam_codec protobuf = codec_of(BEAM_CODEC_PROTOBUF, "protobuf");
    protobuf.to_kv = NULL;
    protobuf.from_kv = NULL;
    CHECK_INT(beam_codec_register(runtime, &own), 0);
    CHECK_INT(beam_codec_register(runtime, &last), 0);
    CHECK_INT(beam_codec_register(runtime, &protobuf), 0);
    const struct bm_codecs *codecs = &runtime->codecs;
    CHECK_PTR(bm_codecs_find(codecs, BEAM_CODEC_APPLICATION), &own); /* itself, no copy */
    CHECK_PTR(bm_codecs_find(codecs, UINT32_MAX), &last);
    CHECK(bm_codec_converts(&own, &beam_json));
    CHECK(bm_codec_converts(&protobuf, &protobuf));
    CHECK(!bm_codec_converts(&protobuf, &beam_json));
    CHECK(!bm_codec_converts(&beam_json, &protobuf));
    /* One way alone is a codec, too. */
    last.from_kv = NULL;
    CHECK(bm_codec_converts(&last, &own));
    CHECK(!bm_codec_converts(&own, &last));
    close_runtime();
}

TEST(codecs_of_a_number_or_name_that_is_known_are_refused)
{
    open_runtime();
    struct beam_codec own = codec_of(BEAM_CODEC_APPLICATION, "own");
    struct beam_codec same_number = codec_of(BEAM_CODEC_APPLICATION, "other");
    struct beam_codec same_name = codec_of(BEAM_CODEC_APPLICATION + 1, "own");
    struct beam_codec json = codec_of(BEAM_CODEC_JSON, "my json");
    struct beam_codec named_json = codec_of(BEAM_CODEC_APPLICATION + 1, "json");
    CHECK_INT(beam_codec_register(runtime, &own), 0);
    CHECK_INT(beam_codec_register(runtime, &own), -EEXIST);
    CHECK_INT(beam_codec_register(runtime, &same_number), -EEXIST);
    CHECK_INT(beam_codec_register(runtime, &same_name), -EEXIST);
    CHECK_INT(beam_codec_register(runtime, &json), -EEXIST);
    CHECK_INT(beam_codec_register(runtime, &named_json), -EEXIST);
    close_runtime();
}

TEST(codecs_that_make_no_sense_are_refused)
{
    char name[66], type[257];
    memset(name, 'n', sizeof(name));
    memset(type, 't', sizeof(type));
    name[64] = type[255] = '\0';
    const struct beam_codec good = codec_of(BEAM_CODEC_APPLICATION, "own");
    struct beam_codec codec = good;
    open_runtime();
    CHECK_INT(beam_codec_register(runtime, NULL), -EINVAL);
    codec.size = 0;
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec.size = sizeof(codec) - 1;
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = codec_of(5, "own");
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = codec_of(65535, "own");
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = codec_of(BEAM_CODEC_APPLICATION, NULL);
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = codec_of(BEAM_CODEC_APPLICATION, "");
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = codec_of(BEAM_CODEC_APPLICATION, "\xff");
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);
    codec = good;
    codec.media_type = NULL;
    CHECK_INT(beam_codec_register(runtime, &codec), -EINVAL);

    codec = codec_of(BEAM_CODEC_APPLICATION, name);
    codec.media_type = type;
    CHECK_INT(beam_codec_register(runtime, &codec), 0);
    struct beam_codec other = codec_of(BEAM_CODEC_APPLICATION + 1, "other");
    type[255] = 't';
    type[256] = '\0';
    other.media_type = type;
    CHECK_INT(beam_codec_register(runtime, &other), -EINVAL);
    name[64] = 'n';
    name[65] = '\0';
    other = codec_of(BEAM_CODEC_APPLICATION + 1, name);
    CHECK_INT(beam_codec_register(runtime, &other), -EINVAL);

    /* Of a later version: what it has more may be zero, and nothing else. */
    struct {
        struct beam_codec codec;
        uint64_t more;
    } later = {codec_of(BEAM_CODEC_APPLICATION + 2, "later"), 1};
    later.codec.size = sizeof(later);
    CHECK_INT(beam_codec_register(runtime, &later.codec), -E2BIG);
    later.more = 0;
    CHECK_INT(beam_codec_register(runtime, &later.codec), 0);
    close_runtime();
}

TEST(codecs_are_thirty_two_at_most)
{
    struct beam_codec codecs[BM_CODECS_MAX];
    char names[BM_CODECS_MAX][16];
    open_runtime();
    unsigned room = BM_CODECS_MAX - runtime->codecs.count;
    CHECK(room < BM_CODECS_MAX);
    for (unsigned i = 0; i <= room; i++) {
        snprintf(names[i], sizeof(names[i]), "own %u", i);
        codecs[i] = codec_of(BEAM_CODEC_APPLICATION + i, names[i]);
        CHECK_INT(beam_codec_register(runtime, &codecs[i]), i < room ? 0 : -ENOSPC);
    }
    close_runtime();
}

TEST(codecs_are_refused_once_the_runtime_runs)
{
    struct beam_codec own = codec_of(BEAM_CODEC_APPLICATION, "own");
    open_runtime();
    REQUIRE_INT(beam_start(runtime), 0);
    CHECK_INT(beam_codec_register(runtime, &own), -EBUSY);
    close_runtime();
}

TEST(codecs_of_an_embedded_runtime_may_come_until_its_first_turn)
{
    struct beam_codec own = codec_of(BEAM_CODEC_APPLICATION, "own");
    struct beam_codec late = codec_of(BEAM_CODEC_APPLICATION + 1, "late");
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &runtime), 0);
    CHECK_INT(beam_codec_register(runtime, &own), 0);
    CHECK_INT(beam_runtime_turn(runtime), 0);
    CHECK_INT(beam_codec_register(runtime, &late), -EBUSY);
    close_runtime();
}

/* --- services that have one ------------------------------------------------------------------ */

static void handle(beam_request *request, const beam_message *message, void *arg)
{
    (void)request;
    (void)message;
    (void)arg;
}

static const struct bm_service *find(const char *name)
{
    return bm_services_find(bm_runtime_services(runtime), name, strlen(name));
}

TEST(service_with_options_is_served_as_they_say)
{
    struct beam_codec own = codec_of(BEAM_CODEC_APPLICATION, "own");
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &runtime), 0);
    CHECK_INT(beam_serve_with(runtime, "none", handle, NULL, NULL), 0);
    REQUIRE(find("none") != NULL);
    CHECK_PTR(find("none")->codec, NULL);
    CHECK_UINT(find("none")->core, BM_ANY_CORE);
    CHECK_INT(
        beam_serve_with(runtime, "json", handle, NULL,
                        &BEAM_SERVE_OPTIONS(.codec = &beam_json, .on_reactor = true, .reactor = 1)),
        0);
    REQUIRE(find("json") != NULL);
    CHECK_PTR(find("json")->codec, &beam_json);
    CHECK_UINT(find("json")->core, 1);
    CHECK_INT(beam_serve_with(runtime, "own", handle, NULL, &BEAM_SERVE_OPTIONS(.codec = &own)),
              -BEAM_ECODEC_UNKNOWN);
    CHECK_INT(beam_codec_register(runtime, &own), 0);
    CHECK_INT(beam_serve_with(runtime, "own", handle, NULL, &BEAM_SERVE_OPTIONS(.codec = &own)), 0);
    CHECK_INT(
        beam_serve_with(runtime, "none", handle, NULL, &BEAM_SERVE_OPTIONS(.codec = &beam_json)),
        -EEXIST);
    CHECK_INT(beam_serve_with(runtime, "far", handle, NULL,
                              &BEAM_SERVE_OPTIONS(.on_reactor = true, .reactor = 2)),
              -EINVAL);
    CHECK_INT(beam_serve_with(runtime, "x", handle, NULL, &(struct beam_serve_options){0}),
              -EINVAL);

    /* One that is served anew with another codec is another. */
    CHECK_INT(beam_unserve(runtime, "json"), 0);
    CHECK_INT(beam_serve_with(
                  runtime, "json", handle, NULL,
                  &BEAM_SERVE_OPTIONS(.codec = &beam_msgpack, .on_reactor = true, .reactor = 1)),
              0);
    CHECK_PTR(find("json")->codec, &beam_msgpack);
    close_runtime();
}
