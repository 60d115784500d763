/* Codes, errors and their texts. */
#include <beam/error.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "tests/support/test.h"

TEST(error_texts_exist_for_every_number)
{
    for (int error = -5000; error <= 10; error++) {
        CHECK(beam_strerror(error) && beam_strerror(error)[0]);
        CHECK(beam_error_name(error) && beam_error_name(error)[0]);
    }
    CHECK(beam_strerror(INT32_MIN) != NULL);
    CHECK(beam_error_name(INT32_MIN) != NULL);
    CHECK_STR(beam_error_name(-EAGAIN), "EAGAIN");
    CHECK_STR(beam_error_name(-BEAM_EFRAME_KIND), "FRAME_KIND");
    CHECK_STR(beam_error_name(0), "OK");
    CHECK_STR(beam_strerror(-BEAM_ENO_IO_URING), "io_uring is not available");
}

TEST(code_names_and_http_follow_the_table)
{
    CHECK_STR(beam_code_name(BEAM_NOT_FOUND), "NOT_FOUND");
    CHECK_INT(beam_code_http(BEAM_OK), 200);
    CHECK_INT(beam_code_http(BEAM_CANCELLED), 499);
    CHECK_STR(beam_code_name(17), "UNKNOWN");
    CHECK_STR(beam_code_name(UINT32_MAX), "UNKNOWN");
    CHECK_INT(beam_code_http(UINT32_MAX), 500);
    for (unsigned code = 0; code <= 16; code++)
        for (unsigned other = 0; other < code; other++)
            CHECK(strcmp(beam_code_name(code), beam_code_name(other)) != 0);
}
