/* The verb `convert`: one document, from one format to another.
 *
 * All of it is read, converted, and only then written, so that what is wrong somewhere leaves no half of a
 * result; a file appears when it is complete. */
#include "cli/arguments.h"
#include "cli/input.h"
#include "cli/save.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char convert_help[] =
    "usage: beam convert --from FORMAT --to FORMAT [FILE] [OPTION...]\n"
    "\n"
    "Reads a document from FILE, or standard input, and writes it in another format. The formats "
    "are\n"
    "kv, json, msgpack and, where this program has it, xml; docs/spec/codecs.md says what becomes "
    "of\n"
    "what.\n"
    "\n"
    "    --from FORMAT        what FILE is\n"
    "    --to FORMAT          what to write; the same FORMAT checks it, and json loses its white "
    "space\n"
    "    --output FILE        write to FILE, which appears when it is complete; - is standard "
    "output,\n"
    "                         a terminal too\n"
    "    --safe-int           to json: integers beyond 2^53 - 1 as {\"$int\":\"...\"}, for "
    "JavaScript\n"
    "\n"
    "The exit code is 0, 1 when FILE is not of that format or has no form in the other, 2 when "
    "the\n"
    "command line is wrong, 6 when the result would be too large.\n"
    "\n"
    "examples:\n"
    "    beam convert --from json --to msgpack settings.json --output settings.msgpack\n"
    "    curl -s https://example.org/feed.xml | beam convert --from xml --to json | jq .name\n";

struct convert {
    const char *from_name, *to_name, *path, *output;
    const struct beam_codec *from, *to;
    bool safe_int;
};

static const struct beam_codec *codec_named(const char *option, const char *name)
{
    const struct beam_codec *codecs[] = {&beam_kv_codec, &beam_json, &beam_msgpack, beam_xml()};
    for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
        if (codecs[i] && strcmp(codecs[i]->name, name) == 0)
            return codecs[i];
    fprintf(stderr,
            "beam: convert: %s %s: there is no such format here; there are kv, json, msgpack%s\n",
            option, name, beam_xml() ? ", xml" : "");
    return NULL;
}

static bool is_text(const struct beam_codec *codec)
{
    return codec == &beam_json || codec == &beam_json_safe || codec == beam_xml();
}

static int read_arguments(int argc, char **argv, struct convert *convert)
{
    const struct option options[] = {
        {"--from", OPTION_TEXT, &convert->from_name, 0, 0},
        {"--to", OPTION_TEXT, &convert->to_name, 0, 0},
        {"--output", OPTION_TEXT, &convert->output, 0, 0},
        {"--safe-int", OPTION_FLAG, &convert->safe_int, 0, 0},
        {NULL, OPTION_FLAG, NULL, 0, 0},
    };
    char **words;
    int count = arguments_read(argc, argv, options, convert_help, &words);
    if (count < 0)
        return count;
    if (count > 1 || !convert->from_name || !convert->to_name) {
        fprintf(stderr, "beam: convert: please name two formats and at most one file, as in\n"
                        "    beam convert --from json --to msgpack settings.json\n");
        return -EINVAL;
    }
    convert->path = count > 0 ? words[0] : "-";
    convert->from = codec_named("--from", convert->from_name);
    convert->to = convert->from ? codec_named("--to", convert->to_name) : NULL;
    if (!convert->to)
        return -EINVAL;
    if (convert->safe_int && convert->to != &beam_json) {
        fprintf(stderr, "beam: convert: --safe-int is for --to json\n");
        return -EINVAL;
    }
    if (convert->safe_int)
        convert->to = &beam_json_safe;
    if (!convert->output && !is_text(convert->to) && isatty(1)) {
        fprintf(stderr,
                "beam: convert: %s is nothing for a terminal; please say --output FILE, or "
                "--output - if you mean it\n",
                convert->to->name);
        return -EINVAL;
    }
    return 0;
}

static int read_input(const char *path, char **buffer, size_t *ret_len)
{
    int fd = input_open(path);
    if (fd < 0)
        return fd;
    int r = input_read(fd, buffer, ret_len);
    close(fd);
    if (r < 0)
        fprintf(stderr, "beam: %s: %s\n", path, strerror(-r));
    return r;
}

/* What is wrong, and where: `offset` is SIZE_MAX if at no byte of the input. */
static int complain(const struct convert *convert, const char *in, int error, size_t offset)
{
    const char *name = strcmp(convert->path, "-") == 0 ? "standard input" : convert->path;
    fprintf(stderr, "beam: %s: ", name);
    if (offset != SIZE_MAX) {
        fprintf(stderr, "byte %zu", offset);
        if (is_text(convert->from)) {
            size_t line = 1, start = 0;
            for (size_t i = 0; i < offset; i++)
                if (in[i] == '\n')
                    line++, start = i + 1;
            fprintf(stderr, " (line %zu, byte %zu of it)", line, offset - start + 1);
        }
        fputs(": ", stderr);
    }
    fprintf(stderr, "%s, from %s to %s\n",
            error == -EEXIST ? "a key comes twice in this map" : beam_strerror(error),
            convert->from->name, convert->to->name);
    return error == -BEAM_ECODEC_TOO_LARGE || error == -ENOMEM ? EXIT_LIMIT : EXIT_OTHER;
}

/* Into a file by way of one without a name, so that what copies it is what copies for `call`. */
static int write_file(const char *path, const beam_buffer *out)
{
    size_t len = 0;
    ssize_t n;
    int r = 0, fd = memfd_create("beam convert", MFD_CLOEXEC);
    for (; fd >= 0 && len < out->len; len += (size_t)n) {
        n = write(fd, out->ptr + len, out->len - len);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n < 0)
            break;
    }
    if (fd < 0 || len < out->len || lseek(fd, 0, SEEK_SET) < 0) {
        r = -errno;
        fprintf(stderr, "beam: %s: %s\n", path, strerror(-r));
    } else {
        r = save_fd(fd, path);
    }
    if (fd >= 0)
        close(fd);
    return r < 0 ? exit_status_of_file(r) : EXIT_OK;
}

static int write_output(const struct convert *convert, const beam_buffer *out)
{
    if (convert->output && strcmp(convert->output, "-") != 0)
        return write_file(convert->output, out);
    fwrite(out->ptr, 1, out->len, stdout); /* main() sees whether it went well */
    if (is_text(convert->to) && isatty(1))
        fputc('\n', stdout);
    return EXIT_OK;
}

int convert_main(int argc, char **argv)
{
    struct convert convert = {0};
    char *in = NULL;
    size_t len = 0, offset = SIZE_MAX;
    beam_buffer out;
    int r = read_arguments(argc, argv, &convert);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    r = read_input(convert.path, &in, &len);
    if (r < 0) {
        free(in);
        return exit_status_of_file(r);
    }
    beam_buffer_init(&out, INPUT_LEN_MAX);
    r = beam_convert(convert.from, convert.to, in, len,
                     &BEAM_CONVERT_LIMITS(.output_len_max = INPUT_LEN_MAX), &out, &offset);
    int status = r < 0 ? complain(&convert, in, r, offset) : write_output(&convert, &out);
    beam_buffer_deinit(&out);
    free(in);
    return status;
}
