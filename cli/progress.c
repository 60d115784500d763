/* Progress: silent for the first second, then a line that is written again on a terminal, and a new
 * line each second elsewhere. */
#include "cli/progress.h"

#include <beam/beam.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

void progress_begin(struct progress *progress, const char *what, uint64_t total)
{
    uint64_t now = beam_now_ns();
    *progress = (struct progress){.what = what, .total = total, .since_ns = now, .shown_ns = now};
}

static void show(struct progress *progress, uint64_t done, uint64_t now)
{
    double seconds = (double)(now - progress->since_ns) / 1e9, mb = (double)done / 1e6;
    fprintf(stderr, "%s%s: %.0f MB", isatty(2) ? "\r" : "", progress->what, mb);
    if (progress->total)
        fprintf(stderr, " of %.0f", (double)progress->total / 1e6);
    fprintf(stderr, ", %.0f MB/s%s", mb / seconds, isatty(2) ? "  " : "\n");
    progress->shown_ns = now;
    progress->shown = true;
}

void progress_update(struct progress *progress, uint64_t done)
{
    uint64_t now = beam_now_ns();
    if (now - progress->shown_ns >= BEAM_SEC)
        show(progress, done, now);
}

void progress_end(struct progress *progress, uint64_t done)
{
    if (!progress->shown)
        return;
    show(progress, done, beam_now_ns());
    if (isatty(2))
        fputc('\n', stderr);
}

static volatile sig_atomic_t seconds_waited;

/* Only write(2) is allowed here (signal-safety(7)), so the digits are made by hand. */
static void on_second(int signal)
{
    int saved = errno, n = ++seconds_waited;
    char text[] = "\rwaiting for an answer:      s ";
    for (char *digit = text + 27; n > 0 && digit > text + 22; n /= 10)
        *digit-- = (char)('0' + n % 10);
    if (write(2, text, sizeof(text) - 1) < 0)
        seconds_waited = 0; /* nobody to tell */
    errno = saved;
}

void progress_wait_begin(void)
{
    if (!isatty(2))
        return;
    struct sigaction action = {.sa_handler = on_second, .sa_flags = SA_RESTART};
    struct itimerval second = {{1, 0}, {1, 0}};
    seconds_waited = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &second, NULL);
}

void progress_wait_end(void)
{
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    if (seconds_waited > 0 && isatty(2))
        fputs("\r                                \r", stderr);
}
