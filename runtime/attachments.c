/* What travels beside a message: file descriptors and fresh channels.
 *
 * An fd belongs to the message from attach to take; what is never taken is closed, once, with the
 * message. A channel of a message under construction is our end, usable at once but bound to nothing
 * until the message is packed; of a received message, it is the receiver's end until taken. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"

struct bm_attachments *bm_message_attachments(beam_message *message)
{
    if (message->attachments)
        return message->attachments;
    uint32_t cap;
    struct bm_attachments *att =
        bm_pool_get(bm_core_pool(bm_core_current()), sizeof(struct bm_attachments), &cap);
    if (!att)
        return NULL;
    *att = (struct bm_attachments){.cap = cap};
    message->attachments = att;
    return att;
}

struct bm_attached_channel *bm_attachments_add_channel(beam_message *message)
{
    struct bm_attachments *att = bm_message_attachments(message);
    if (!att || att->channel_count == BM_ATTACHED_MAX)
        return NULL;
    if (!att->channels) {
        att->channels = bm_pool_get(bm_core_pool(bm_core_current()),
                                    BM_ATTACHED_MAX * sizeof(att->channels[0]), &att->channels_cap);
        if (!att->channels)
            return NULL;
    }
    struct bm_attached_channel *entry = &att->channels[att->channel_count++];
    *entry = (struct bm_attached_channel){0};
    return entry;
}

static void close_fd(int *fd)
{
    struct bm_core *core = bm_core_current();
    if (*fd < 0)
        return;
    if (core)
        bm_reactor_close_fd(core->reactor, fd);
    else
        close(bm_take_fd(fd));
}

void bm_attachments_drop_channels(beam_message *message)
{
    struct bm_attachments *att = message->attachments;
    for (unsigned i = 0; i < att->channel_count; i++) {
        beam_channel *channel = att->channels[i].channel;
        att->channels[i].channel = NULL;
        if (channel)
            bm_channel_attachment_dropped(channel);
    }
}

const beam_channel *bm_attachments_channel(const beam_message *message)
{
    const struct bm_attachments *att = message->attachments;
    for (unsigned i = 0; i < att->channel_count; i++)
        if (att->channels[i].channel)
            return att->channels[i].channel;
    return NULL;
}

void bm_attachments_close(beam_message *message)
{
    struct bm_attachments *att = message->attachments;
    if (att->channel_count > 0)
        bm_attachments_drop_channels(message);
    for (unsigned i = 0; i < att->fd_count; i++)
        close_fd(&att->fds[i]);
    att->fd_count = att->channel_count = 0;
}

void bm_attachments_free_memory(struct bm_pool *pool, struct bm_attachments *att)
{
    bm_pool_put(pool, att->channels, att->channels_cap);
    bm_pool_put(pool, att, att->cap);
}

void bm_attachments_release_channels(struct bm_attachments *att)
{
    for (unsigned i = 0; i < att->channel_count; i++) {
        beam_channel *channel = att->channels[i].channel;
        att->channels[i].channel = NULL;
        bm_channel_unref(channel);
    }
}

void bm_attachments_renew(struct bm_attachments *att)
{
    att->channel_count = 0;
    att->received = false;
}

void bm_attachments_close_ranks(struct bm_attachments *att)
{
    unsigned n = 0;
    for (unsigned i = 0; i < att->fd_count; i++)
        if (att->fds[i] >= 0)
            att->fds[n++] = att->fds[i];
    att->fd_count = (uint8_t)n;
}

/* --- file descriptors ------------------------------------------------------------------------ */

void beam_message_attach_fd(beam_message *message, int *fd)
{
    int error = 0;
    if (message->flags & (BM_MESSAGE_FAILED | BM_MESSAGE_VIEW))
        error = -EINVAL; /* an earlier error sticks, this one is not seen */
    else if (*fd < 0)
        error = -EBADF;
    else if (bm_message_fds(message) == BEAM_MESSAGE_FDS_MAX)
        error = -EMSGSIZE;
    else if (!bm_message_attachments(message))
        error = -ENOMEM;

    if (error < 0) {
        close_fd(fd);
        if (!(message->flags & BM_MESSAGE_VIEW))
            bm_message_fail(message, error);
        return;
    }
    struct bm_attachments *att = message->attachments;
    att->fds[att->fd_count++] = bm_take_fd(fd);
}

int beam_message_take_fd(const beam_message *message, unsigned index)
{
    if (index >= bm_message_fds(message))
        return -1;
    beam_message *taker = (beam_message *)message;
    int fd = bm_take_fd(&taker->attachments->fds[index]);
    if (fd >= 0 && taker->fds_owed > 0)
        bm_channel_fd_done(taker, 1);
    return fd;
}

int beam_message_peek_fd(const beam_message *message, unsigned index)
{
    return index < bm_message_fds(message) ? message->attachments->fds[index] : -1;
}

unsigned beam_message_fd_count(const beam_message *message)
{
    return bm_message_fds(message);
}

/* --- channels -------------------------------------------------------------------------------- */

static beam_channel *attach(beam_message *message, enum bm_channel_mode mode)
{
    if (message->flags & (BM_MESSAGE_FAILED | BM_MESSAGE_VIEW))
        return NULL;
    struct bm_core *core = bm_core_current();
    if (!core) {
        bm_message_fail(message, -EPERM);
        return NULL;
    }
    if (bm_message_channels(message) == BM_ATTACHED_MAX) {
        bm_message_fail(message, -EMSGSIZE);
        return NULL;
    }
    struct bm_attached_channel *entry = bm_attachments_add_channel(message);
    beam_channel *channel = entry ? bm_channel_new(core, mode) : NULL;
    if (!channel) {
        if (entry)
            message->attachments->channel_count--;
        bm_message_fail(message, -ENOMEM);
        return NULL;
    }
    bm_channel_attached(channel);
    entry->mode = mode;
    entry->channel = channel;
    return channel;
}

beam_channel *beam_message_attach_channel(beam_message *message)
{
    return attach(message, BM_MODE_MESSAGES);
}

beam_stream *beam_message_attach_stream(beam_message *message)
{
    return (beam_stream *)attach(message, BM_MODE_BYTES);
}

static beam_channel *take(const beam_message *message, unsigned index, enum bm_channel_mode mode)
{
    /* Of a message we are building the ends in here are the peer's to be; nobody here may take one. */
    if (index >= bm_message_channels(message) || !message->attachments->received)
        return NULL;
    struct bm_attached_channel *entry = &message->attachments->channels[index];
    if (entry->mode != mode || !entry->channel)
        return NULL;
    beam_channel *channel = entry->channel;
    entry->channel = NULL;
    bm_channel_taken(channel);
    return channel;
}

beam_channel *beam_message_take_channel(const beam_message *message, unsigned index)
{
    return take(message, index, BM_MODE_MESSAGES);
}

beam_stream *beam_message_take_stream(const beam_message *message, unsigned index)
{
    return (beam_stream *)take(message, index, BM_MODE_BYTES);
}

unsigned beam_message_channel_count(const beam_message *message)
{
    return bm_message_channels(message);
}
