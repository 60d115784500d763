/* A file descriptor crosses: the server opens a file, the client reads it.
 *
 * No byte of the file passes through the socket. What the client receives is the open file itself,
 * so it works for what the client could not have opened, and it costs the same for a gigabyte.
 *
 * Server and client are one process here to be short; as two they would be the same code. */
#include <beam/beam.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_open(beam_request *request, const beam_message *message, void *arg)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        beam_fail(request, BEAM_INTERNAL, "%s", strerror(errno));
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_attach_fd(answer, &fd); /* fd is -1 from here on: the message owns the file */
    beam_reply(request, &answer);
}

/* What arrived, read to its end. */
static int show(const beam_message *answer)
{
    char magic[4];
    struct stat st;
    int fd = beam_message_take_fd(answer, 0); /* ours to close now */
    if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, magic, sizeof(magic), 0) != sizeof(magic))
        return -EBADMSG;
    printf("received a file of %lld bytes that begins with \"%.3s\"\n", (long long)st.st_size,
           magic + 1);
    close(fd);
    return memcmp(magic + 1, "ELF", 3) == 0 ? 0 : -EBADMSG;
}

int main(void)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    char url[64];
    snprintf(url, sizeof(url), "unix:@fd-pass-%d", getpid());

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_serve(runtime, "open", on_open, NULL);
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, NULL, &session);
    if (r >= 0)
        r = beam_call_wait(session, "open", &question, NULL, &answer);
    if (r == 0)
        r = show(answer);
    return r > 0 ? 1 : beam_exit_code(r, stderr);
}
