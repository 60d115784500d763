/* The words of the command line: options by table, key=value pairs, durations, sizes, URLs.
 *
 * Everything here prints what is wrong and how to write it instead, and returns -EINVAL. */
#ifndef CLI_ARGUMENTS_H
#define CLI_ARGUMENTS_H

#include <beam/beam.h>

enum option_kind {
    OPTION_FLAG,     /* bool */
    OPTION_TEXT,     /* const char * */
    OPTION_TEXTS,    /* struct texts: may be given several times */
    OPTION_COUNT,    /* uint64_t: a whole number */
    OPTION_SIZE,     /* uint64_t: bytes; 64K, 1MiB */
    OPTION_DURATION, /* uint64_t: nanoseconds; 500ms, 2s */
    OPTION_MODE,     /* unsigned: octal, as chmod(1) */
};

#define TEXTS_MAX 16 /* BEAM_MESSAGE_FDS_MAX for --send-fd, and plenty for the others */

struct texts {
    const char *items[TEXTS_MAX];
    unsigned count;
};

struct option {
    const char *name; /* "--timeout"; a NULL name ends the table */
    enum option_kind kind;
    void *value;       /* of the type above; left alone when the option is not given */
    uint64_t min, max; /* for numbers; max 0: UINT32_MAX */
};

/* Reads argv[1..], writes through `options`, and leaves the other words in *ret_words (the storage
 * of argv). Options may stand anywhere, as "--name value" or "--name=value"; "--" ends them.
 * Returns the number of words; -ECANCELED when the help was asked for and printed. */
int arguments_read(int argc, char **argv, const struct option *options, const char *help,
                   char ***ret_words);

/* Puts "key=text" or "key:=true|false|null|number" into the metadata of a message. */
int argument_put(beam_message *message, const char *word);

/* All of them; what no single word shows (a key twice, too many) is found too. */
int arguments_put(beam_message *message, char **words, int count);

/* Whether the scheme of a URL is one that this program speaks. */
int argument_url(const char *verb, const char *url);

/* A codec by its name or number, as it travels in messages (enum beam_codec_number). */
int argument_codec(const char *verb, const char *text, uint32_t *ret_codec);

int argument_duration(const char *text, uint64_t *ret_ns);
int argument_size(const char *text, uint64_t *ret_len);

#endif
