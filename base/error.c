/* The texts of the two tables in <beam/error.h>. The tables are the only place where a code, its
 * text and its HTTP status stand; everything here is generated from them. */
#define _GNU_SOURCE
#include <beam/error.h>

#include <stdint.h>
#include <string.h>

struct row {
    int number;
    int http;
    const char *name;
    const char *text;
};

static const struct row codes[] = {
#define ROW(name, number, http, text) {number, http, #name, text},
    BEAM_STATUS_TABLE(ROW)
#undef ROW
};

static const struct row errors[] = {
#define ROW(name, number, text) {number, 0, #name, text},
    BEAM_ERROR_TABLE(ROW)
#undef ROW
};

static const struct row *find_code(unsigned code)
{
    const unsigned count = sizeof(codes) / sizeof(codes[0]);
    return &codes[code < count ? code : BEAM_UNKNOWN];
}

static const struct row *find_error(int error)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (-errors[i].number == error)
            return &errors[i];
    return NULL;
}

const char *beam_code_name(unsigned code)
{
    return find_code(code)->name;
}

const char *beam_code_text(unsigned code)
{
    return find_code(code)->text;
}

int beam_code_http(unsigned code)
{
    return find_code(code)->http;
}

const char *beam_strerror(int error)
{
    if (error >= 0)
        return "no error";
    const struct row *row = find_error(error);
    if (row)
        return row->text;
    /* strerrordesc_np (glibc 2.32) is the thread-safe form: no buffer, no locale. */
    const char *text = error > INT32_MIN ? strerrordesc_np(-error) : NULL;
    return text ? text : "unknown error";
}

const char *beam_error_name(int error)
{
    if (error >= 0)
        return "OK";
    const struct row *row = find_error(error);
    if (row)
        return row->name;
    const char *name = error > INT32_MIN ? strerrorname_np(-error) : NULL;
    return name ? name : "EUNKNOWN";
}
