/* Any words as a command line of the program: options by table, then key=value pairs, URLs, times and sizes.
 * What is wrong is said, in whole lines that name the program, and fails; what is right keeps to its limits.
 *
 * Input: words, each up to the end of its line.
 *
 * Covers: cli/arguments.c */
#include <errno.h>
#include <stdbool.h>

#include "cli/arguments.h"
#include "runtime/unix_socket.h"
#include "tests/fuzz/fuzz.h"

#define WORDS_MAX 40

/* --- what is said ------------------------------------------------------------------------------ */

static FILE *said, *terminal;
static char *said_text;
static size_t said_len;

static void listen_in(void)
{
    terminal = stderr;
    said = open_memstream(&said_text, &said_len);
    EXPECT(said);
    stderr = said; /* glibc lets programs do that */
}

/* A failure has been explained, and nothing else. */
static void expect_said(bool failed)
{
    fclose(said);
    stderr = terminal;
    EXPECT((said_len > 0) == failed);
    EXPECT(!failed || strncmp(said_text, "beam: ", 6) == 0);
    EXPECT(!failed || said_text[said_len - 1] == '\n');
    free(said_text);
}

/* --- words ------------------------------------------------------------------------------------- */

static bool is_decimal(const char *text, size_t len_max)
{
    size_t len = strlen(text);
    return len > 0 && len <= len_max && strspn(text, "0123456789") == len;
}

static void try_number(const char *text)
{
    uint64_t ns = 7, len = 7;
    int r = argument_duration(text, &ns), s = argument_size(text, &len);
    EXPECT(r == 0 || r == -EINVAL || r == -ERANGE);
    EXPECT(s == 0 || s == -EINVAL || s == -ERANGE);
    EXPECT(r == 0 || ns == 7);
    EXPECT(s == 0 || len == 7);
    EXPECT(r < 0 || (ns <= INT64_MAX && strpbrk(text, "smh"))); /* it has its unit */
    EXPECT(s < 0 || len <= INT64_MAX);
    if (!is_decimal(text, 15))
        return;
    char with_unit[32];
    EXPECT(s == 0 && len == strtoull(text, NULL, 10));
    EXPECT(r == -EINVAL);
    snprintf(with_unit, sizeof(with_unit), "%sns", text);
    EXPECT(argument_duration(with_unit, &ns) == 0 && ns == len);
    snprintf(with_unit, sizeof(with_unit), "%sK", text);
    EXPECT(argument_size(with_unit, &ns) == (len < 8789062500000000 ? 0 : -ERANGE));
    EXPECT(len >= 8789062500000000 || ns == len << 10);
}

/* A scheme that is known, and something behind it. */
static bool is_known(const char *url)
{
    static const char *const schemes[] = {"unix:",   "http+unix:", "https://",
                                          "http://", "wss://",     "ws://"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0 && url[strlen(schemes[i])] != '\0')
            return true;
    return false;
}

static void try_url(const char *url)
{
    struct bm_unix_address address;
    listen_in();
    int r = argument_url("fuzz", url);
    expect_said(r < 0);
    EXPECT(r == 0 || r == -EINVAL);
    EXPECT((r == 0) == is_known(url));
    EXPECT(r == 0 || bm_unix_address_parse(url, &address) < 0);
}

static void try_pairs(char **words, int count)
{
    beam_message *message = beam_message_new();
    listen_in();
    int r = arguments_put(message, words, count);
    expect_said(r < 0);
    EXPECT(r == 0 || r == -EINVAL);
    if (r == 0) {
        size_t len = 0;
        const void *metadata = beam_message_metadata(message, &len);
        EXPECT(beam_message_error(message) == 0 && (metadata != NULL) == (count > 0));
        EXPECT(!metadata || beam_kv_check(metadata, len, NULL) == 0);
    }
    beam_message_free(message);
}

/* --- the line ---------------------------------------------------------------------------------- */

struct values {
    bool flag;
    const char *text;
    struct texts texts;
    uint64_t count, size, time, any;
    unsigned mode;
};

static int read_line(int argc, char **argv, struct values *v, char ***ret_words)
{
    const struct option options[] = {
        {"--flag", OPTION_FLAG, &v->flag, 0, 0},
        {"--text", OPTION_TEXT, &v->text, 0, 0},
        {"--texts", OPTION_TEXTS, &v->texts, 0, 0},
        {"--count", OPTION_COUNT, &v->count, 1, 64},
        {"--size", OPTION_SIZE, &v->size, 16384, INT32_MAX},
        {"--time", OPTION_DURATION, &v->time, 1, INT64_MAX},
        {"--any", OPTION_COUNT, &v->any, 0, 0},
        {"--mode", OPTION_MODE, &v->mode, 0, 0},
        {NULL, OPTION_FLAG, NULL, 0, 0},
    };
    return arguments_read(argc, argv, options, "", ret_words);
}

static void try_line(char **line, int count)
{
    struct values v = {.count = 1, .size = 16384, .time = 1, .mode = 0600};
    char *argv[WORDS_MAX + 2] = {(char[]){"fuzz"}}, **words = NULL;
    memcpy(argv + 1, line, (size_t)count * sizeof(*line));
    listen_in();
    int r = read_line(count + 1, argv, &v, &words);
    expect_said(r < 0 && r != -ECANCELED);
    EXPECT(r >= 0 || r == -EINVAL || r == -ECANCELED);
    EXPECT(r <= count);
    EXPECT(v.count >= 1 && v.count <= 64 && v.any <= UINT32_MAX);
    EXPECT(v.size >= 16384 && v.size <= INT32_MAX && v.time >= 1 && v.time <= INT64_MAX);
    EXPECT(v.mode > 0 && v.mode <= 0777 && v.texts.count <= TEXTS_MAX);
    for (unsigned i = 0; i < v.texts.count; i++)
        EXPECT(strlen(v.texts.items[i]) < SIZE_MAX);
    if (r >= 0)
        try_pairs(words, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *line[WORDS_MAX];
    int count = 0;
    for (const uint8_t *end = data + size; data < end && count < WORDS_MAX;) {
        const uint8_t *newline = memchr(data, '\n', (size_t)(end - data));
        const uint8_t *stop = newline ? newline : end;
        line[count] = fuzz_string(data, (size_t)(stop - data));
        try_number(line[count]);
        try_url(line[count++]);
        data = stop + (newline != NULL);
    }
    try_line(line, count);
    while (count > 0)
        free(line[--count]);
    return 0;
}
