/* Arguments: a command line becomes values.
 *
 * A verb has a table of options, each with a kind and the variable it fills; what is not an option
 * is a word. Numbers carry their unit in the text (500ms, 64K), because a bare number would have to
 * be looked up. Every complaint names the word, what is wrong with it, and a way to write it that
 * works. */
#include "cli/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

__attribute__((__format__(__printf__, 1, 2))) static int complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("beam: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return -EINVAL;
}

struct unit {
    const char *name;
    double factor;
};

/* A number of at least 0 and one of the units, which end with a NULL name. */
static int read_quantity(const char *text, const struct unit *units, uint64_t *ret)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    double number = strtod(text, &end);
    if (errno)
        return -ERANGE;
    for (const char *p = text; p < end; p++)
        if (!isdigit((unsigned char)*p) && *p != '.') /* strtod also reads 0x10 and 1e3 */
            return -EINVAL;
    for (; units->name; units++) {
        if (strcmp(end, units->name) != 0)
            continue;
        number *= units->factor;
        if (number > 9e18) /* a double this side of INT64_MAX */
            return -ERANGE;
        *ret = (uint64_t)(number + 0.5);
        return 0;
    }
    return -EINVAL;
}

int argument_duration(const char *text, uint64_t *ret_ns)
{
    static const struct unit units[] = {
        {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {NULL, 0},
    };
    return read_quantity(text, units, ret_ns);
}

int argument_size(const char *text, uint64_t *ret_len)
{
    static const struct unit units[] = {
        {"", 1},         {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {NULL, 0},
    };
    return read_quantity(text, units, ret_len);
}

static int read_count(const char *text, uint64_t *ret)
{
    static const struct unit units[] = {{"", 1}, {NULL, 0}};
    if (strchr(text, '.'))
        return -EINVAL;
    return read_quantity(text, units, ret);
}

static int set_number(const char *verb, const struct option *option, const char *text)
{
    static const char *const written[] = {
        [OPTION_COUNT] = "a whole number, such as 16",
        [OPTION_SIZE] = "bytes, such as 65536, 64K or 1MiB",
        [OPTION_DURATION] = "a time with its unit, such as 500ms, 2s or 1.5m",
    };
    uint64_t max = option->max ? option->max : UINT32_MAX, number = 0;
    int r = option->kind == OPTION_DURATION ? argument_duration(text, &number)
            : option->kind == OPTION_SIZE   ? argument_size(text, &number)
                                            : read_count(text, &number);
    if (r == -EINVAL)
        return complain("%s: %s %s: please write %s", verb, option->name, text,
                        written[option->kind]);
    if (r == -ERANGE || number < option->min || number > max)
        return complain("%s: %s %s: must be %" PRIu64 " to %" PRIu64 "%s", verb, option->name, text,
                        option->min, max, option->kind == OPTION_DURATION ? " ns" : "");
    *(uint64_t *)option->value = number;
    return 0;
}

static int set_option(const char *verb, const struct option *option, const char *text)
{
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)option->value = text;
        return 0;
    case OPTION_TEXTS: {
        struct texts *texts = option->value;
        if (texts->count == TEXTS_MAX)
            return complain("%s: %s can be given %d times, not more", verb, option->name,
                            TEXTS_MAX);
        texts->items[texts->count++] = text;
        return 0;
    }
    case OPTION_MODE: {
        char *end;
        unsigned long mode = strtoul(text, &end, 8);
        if (!isdigit((unsigned char)*text) || *end || mode == 0 || mode > 0777)
            return complain("%s: %s %s: please write an octal mode, such as 0660", verb,
                            option->name, text);
        *(unsigned *)option->value = (unsigned)mode;
        return 0;
    }
    case OPTION_COUNT:
    case OPTION_SIZE:
    case OPTION_DURATION:
        break;
    }
    return set_number(verb, option, text);
}

/* The option a word names, and where its value begins after '=' (NULL: in the next word). */
static const struct option *find_option(const struct option *options, const char *word,
                                        const char **ret_value)
{
    size_t len = strcspn(word, "=");
    for (; options->name; options++) {
        if (strlen(options->name) != len || memcmp(options->name, word, len) != 0)
            continue;
        *ret_value = word[len] ? word + len + 1 : NULL;
        return options;
    }
    return NULL;
}

int arguments_read(int argc, char **argv, const struct option *options, const char *help,
                   char ***ret_words)
{
    const char *verb = argv[0];
    int count = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        /* "-" alone is a word, standard input, and so is a number below 0. */
        if (only_words || word[0] != '-' || !word[1] || isdigit((unsigned char)word[1])) {
            argv[count++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(help, stdout);
            return -ECANCELED;
        }
        const char *value;
        const struct option *option = find_option(options, word, &value);
        if (!option)
            return complain("%s: there is no option %s; `beam %s --help` lists them", verb, word,
                            verb);
        if (option->kind == OPTION_FLAG && value)
            return complain("%s: %s takes no value", verb, option->name);
        if (option->kind != OPTION_FLAG && !value) {
            if (++i == argc)
                return complain("%s: %s needs a value behind it", verb, option->name);
            value = argv[i];
        }
        int r = set_option(verb, option, value);
        if (r < 0)
            return r;
    }
    *ret_words = argv;
    return count;
}

/* true, false, null or a number as JSON writes it. */
static int put_typed(beam_message *message, const char *key, const char *text)
{
    char *end;
    if (strcmp(text, "null") == 0)
        return beam_message_put_nil(message, key), 0;
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return beam_message_put_bool(message, key, text[0] == 't'), 0;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text) || text[0] == '+')
        return -EINVAL;
    errno = 0;
    if (strpbrk(text, ".eE")) {
        double number = strtod(text, &end); /* ERANGE also for what is near 0, and fine */
        if (*end || isinf(number))
            return -EINVAL;
        return beam_message_put_float(message, key, number), 0;
    }
    if (text[0] == '-') {
        intmax_t number = strtoimax(text, &end, 10);
        if (*end || errno || !isdigit((unsigned char)text[1]))
            return -EINVAL;
        return beam_message_put_int(message, key, number), 0;
    }
    uintmax_t number = strtoumax(text, &end, 10);
    if (*end || errno)
        return -EINVAL;
    return beam_message_put_uint(message, key, number), 0;
}

int argument_put(beam_message *message, const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals)
        return complain("%s: please write key=text, or key:=value for a number, true, false, null",
                        word);
    bool typed = equals > word && equals[-1] == ':';
    size_t len = (size_t)(equals - word) - typed;
    if (len == 0)
        return complain("%s: the key in front of the = is missing", word);
    char *key = strndup(word, len);
    if (!key)
        return complain("%s", strerror(ENOMEM));
    int r = 0;
    if (!typed)
        beam_message_put_str(message, key, equals + 1);
    else if (put_typed(message, key, equals + 1) < 0)
        r = complain("%s: after := comes a number, true, false or null; for a text write %s=%s",
                     word, key, equals + 1);
    free(key);
    return r;
}

int arguments_put(beam_message *message, char **words, int count)
{
    for (int i = 0; i < count; i++)
        if (argument_put(message, words[i]) < 0)
            return -EINVAL;
    size_t len;
    (void)beam_message_metadata(message, &len); /* sorts the keys, and so finds one that is twice */
    int r = beam_message_error(message);
    if (r == -EEXIST)
        return complain("a key is given twice; each can have one value");
    if (r == -EMSGSIZE)
        return complain(
            "too much metadata: at most %d keys and %d bytes; the rest belongs in --body",
            BEAM_METADATA_KEYS_MAX, BEAM_METADATA_LEN_MAX);
    if (r < 0)
        return complain("key=value: %s", beam_strerror(r));
    return 0;
}

int argument_url(const char *verb, const char *url)
{
    static const char known[] = "    unix:/path    a socket file\n"
                                "    unix:@name    an abstract socket of this machine\n"
                                "    unix:fd:N     a socket that was inherited as descriptor N\n"
                                "    https://host:port   over a network, encrypted; wss:// where "
                                "only WebSocket gets through\n"
                                "    http://host:port    the same in the clear; ws://\n"
                                "    http+unix:/path     HTTP over a socket file\n";
    static const char *const schemes[] = {"unix:",   "http+unix:", "https://",
                                          "http://", "wss://",     "ws://"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0 && url[strlen(schemes[i])])
            return 0;
    return complain("%s: %s is not a URL of a kind this version speaks, which are\n%s", verb, url,
                    known);
}

int argument_codec(const char *verb, const char *text, uint32_t *ret_codec)
{
    static const struct {
        const char *name;
        uint32_t number;
    } known[] = {
        {"kv", BEAM_CODEC_KV},   {"json", BEAM_CODEC_JSON},         {"msgpack", BEAM_CODEC_MSGPACK},
        {"xml", BEAM_CODEC_XML}, {"protobuf", BEAM_CODEC_PROTOBUF},
    };
    uint64_t number;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(text, known[i].name) == 0) {
            *ret_codec = known[i].number;
            return 0;
        }
    if (read_count(text, &number) < 0 || number > UINT32_MAX)
        return complain("%s: --codec %s: please write kv, json, msgpack, xml, protobuf, or the "
                        "number of another, such as %d",
                        verb, text, BEAM_CODEC_APPLICATION);
    *ret_codec = (uint32_t)number;
    return 0;
}
