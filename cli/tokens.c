/* Files of tokens. The file is read once and kept as it was read, with a zero byte behind each word. */
#include "cli/tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_LEN_MAX 8192u /* docs/spec/http.md, I1 */
#define BLANKS " \t\r"

struct tokens {
    char *text; /* TOKENS_FILE_MAX + 1 bytes: a secret */
    unsigned count;
    struct {
        const char *name;
        beam_str token;
    } items[TOKENS_MAX];
};

static int complain(const char *path, unsigned line, const char *what)
{
    fprintf(stderr, "beam: %s: line %u: %s\n", path, line, what);
    return -EINVAL;
}

bool tokens_is_one(const char *text)
{
    size_t chars = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "-._~+/");
    size_t len = chars + strspn(text + chars, "=");
    return chars > 0 && text[len] == '\0' && len <= TOKEN_LEN_MAX;
}

/* Its text, for free(3) and explicit_bzero(3) of all of it. */
static int read_file(const char *path, char **ret_text)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), r = fd < 0 ? -errno : 0;
    char *text = calloc(1, TOKENS_FILE_MAX + 1);
    size_t len = 0;
    if (r == 0 && !text)
        r = -ENOMEM;
    if (r == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH))
        fprintf(stderr,
                "beam: warning: %s: anybody on this machine can read these tokens; "
                "chmod 600 it\n",
                path);
    while (r == 0 && len <= TOKENS_FILE_MAX) {
        ssize_t n = read(fd, text + len, TOKENS_FILE_MAX + 1 - len);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            r = -errno;
        else if (n > 0)
            len += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    if (r == 0 && len > TOKENS_FILE_MAX)
        r = -EFBIG;
    if (r == 0 && memchr(text, '\0', len))
        r = -EINVAL;
    if (r == 0) {
        *ret_text = text;
        return 0;
    }
    fprintf(stderr, "beam: %s: %s\n", path, r == -EINVAL ? "this is no text" : strerror(-r));
    if (text)
        explicit_bzero(text, TOKENS_FILE_MAX + 1);
    free(text);
    return r;
}

/* Two words, or one, of a line; returns their number, 3 for more. */
static unsigned split(char *line, char *ret_words[2])
{
    unsigned count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(line, BLANKS, &rest); word; word = strtok_r(NULL, BLANKS, &rest)) {
        if (count == 2)
            return 3;
        ret_words[count++] = word;
    }
    return count;
}

static int add(struct tokens *tokens, const char *path, unsigned line, char *words[2],
               unsigned count)
{
    if (count != 2)
        return complain(path, line, "please write NAME TOKEN");
    if (strlen(words[0]) > TOKENS_NAME_MAX)
        return complain(path, line, "a name has 249 bytes at most");
    for (const char *p = words[0]; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return complain(path, line, "a name has no control characters");
    if (!tokens_is_one(words[1]))
        return complain(path, line, "a token is letters, digits and -._~+/ (RFC 6750)");
    beam_str token = {words[1], strlen(words[1])};
    for (unsigned i = 0; i < tokens->count; i++)
        if (beam_token_equal(tokens->items[i].token, token) &&
            strcmp(tokens->items[i].name, words[0]) != 0)
            return complain(path, line, "this token is another name's already");
    if (tokens->count == TOKENS_MAX)
        return complain(path, line, "more than 4096 tokens");
    if (token.len < TOKENS_LEN_MIN)
        fprintf(stderr,
                "beam: warning: %s: line %u: a token of %zu characters can be guessed; "
                "`openssl rand -hex 32` makes one that cannot\n",
                path, line, token.len);
    tokens->items[tokens->count].name = words[0];
    tokens->items[tokens->count++].token = token;
    return 0;
}

int tokens_read(const char *path, struct tokens **ret_tokens)
{
    struct tokens *tokens = calloc(1, sizeof(*tokens));
    int r = tokens ? read_file(path, &tokens->text) : -ENOMEM;
    unsigned number = 0;
    char *next = r == 0 ? tokens->text : NULL;
    while (next && r == 0) {
        char *line = strsep(&next, "\n"), *words[2];
        number++;
        unsigned count = line[0] == '#' ? 0 : split(line, words);
        if (count > 0)
            r = add(tokens, path, number, words, count);
    }
    if (r == 0 && tokens->count == 0) {
        fprintf(stderr, "beam: %s: there is no token in it\n", path);
        r = -EINVAL;
    }
    if (r < 0) {
        tokens_free(tokens);
        return r;
    }
    *ret_tokens = tokens;
    return 0;
}

struct tokens *tokens_free(struct tokens *tokens)
{
    if (tokens && tokens->text)
        explicit_bzero(tokens->text, TOKENS_FILE_MAX + 1);
    if (tokens)
        free(tokens->text);
    free(tokens);
    return NULL;
}

int tokens_authenticate(beam_str token, char *ret_name, size_t size, void *arg)
{
    const struct tokens *tokens = arg;
    const char *name = NULL;
    for (unsigned i = 0; i < tokens->count; i++)
        name = beam_token_equal(tokens->items[i].token, token) ? tokens->items[i].name : name;
    if (!name)
        return -EACCES;
    snprintf(ret_name, size, "%s", name);
    return 0;
}

int tokens_read_one(const char *path, char **ret_token)
{
    char *text, *token = NULL;
    int r = read_file(path, &text);
    if (r < 0)
        return r;
    for (char *next = text; next && !token;) {
        char *line = strsep(&next, "\n"), *words[2];
        unsigned count = line[0] == '#' ? 0 : split(line, words);
        if (count == 1 || count == 2)
            token = strdup(words[count - 1]);
    }
    if (!token)
        fprintf(stderr, "beam: %s: there is no token in it\n", path);
    explicit_bzero(text, TOKENS_FILE_MAX + 1);
    free(text);
    *ret_token = token;
    return token ? 0 : -EINVAL;
}
