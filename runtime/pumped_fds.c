/* See pumped_fds.h. The sender's pump begins at once: what it reads waits in the channel for the message to
 * leave, within the credit that every channel starts with. The receiver's application gets one end of a
 * connection over loopback, whatever was sent.
 *
 * Invariant: att->pumped says that fd_count counts channels; all of fds[] are -1 then. */
#include "runtime/pumped_fds.h"

#include <errno.h>

#include "base/cleanup.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/dedicated.h"
#include "runtime/message.h"
#include "runtime/socket_pair.h"

/* A channel and a pump that do nothing yet. */
struct prepared {
    struct bm_pump_options options;
    struct bm_pump *pump;
    beam_channel *channel;
};

static void give_up(struct prepared *all, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bm_pump_free(all[i].pump);
        if (all[i].channel) {
            bm_channel_gone(all[i].channel);
            bm_channel_unref(all[i].channel);
        }
    }
}

static int prepare(struct bm_core *core, const struct bm_attachments *att, struct prepared *all)
{
    int r = 0;
    for (unsigned i = 0; i < att->fd_count && r == 0; i++)
        r = bm_pump_judge(att->fds[i], &all[i].options);
    for (unsigned i = 0; i < att->fd_count && r == 0; i++) {
        all[i].pump = bm_pump_new(core);
        all[i].channel = bm_channel_new(core, BM_MODE_BYTES);
        if (!all[i].pump || !all[i].channel)
            r = -ENOMEM;
    }
    return r;
}

int bm_pumped_fds_send(struct bm_core *core, beam_message *message)
{
    struct bm_attachments *att = message->attachments;
    struct prepared all[BEAM_MESSAGE_FDS_MAX] = {0};
    const unsigned channels = att->channel_count;
    if (channels + att->fd_count > BM_ATTACHED_MAX)
        return -EMSGSIZE;
    int r = prepare(core, att, all);
    for (unsigned i = 0; i < att->fd_count && r == 0; i++)
        if (!bm_attachments_add_channel(message))
            r = -ENOMEM;
    if (r < 0) {
        att->channel_count = (uint8_t)channels;
        give_up(all, att->fd_count);
        return r;
    }
    for (unsigned i = 0; i < att->fd_count; i++) {
        const struct bm_pump_options *options = &all[i].options;
        struct bm_attached_channel *entry = &att->channels[channels + i];
        entry->mode = BM_MODE_FD;
        entry->channel = all[i].channel;
        entry->about = (struct bm_about){
            .kind = options->kind,
            .readable = options->reads,
            .writable = options->writes,
            .length = options->read_len,
        };
        bm_channel_attached(all[i].channel);
        all[i].channel->dedicate = options->read_len > BM_DEDICATED_LEN_MIN;
        bm_pump_start(all[i].pump, options, (beam_stream *)all[i].channel, &att->fds[i]);
    }
    att->pumped = true;
    return 0;
}

/* The descriptor that an attached channel stands for; < 0: none could be had. */
static int receive(struct bm_core *core, struct bm_attached_channel *entry)
{
    const struct bm_pump_options options = {
        .kind = BM_PUMP_SOCKET,
        .reads = entry->about.writable,
        .writes = entry->about.readable,
        .read_len = BM_PUMP_TO_END,
        .write_len = entry->about.length,
    };
    int fds[2];
    struct bm_pump *pump = bm_pump_new(core);
    int r = pump ? bm_socket_pair_new(fds) : -ENOMEM;
    if (r < 0) {
        bm_pump_free(pump);
        return r;
    }
    beam_channel *channel = entry->channel;
    entry->channel = NULL;
    bm_channel_taken(channel);
    bm_pump_start(pump, &options, (beam_stream *)channel, &fds[0]);
    return fds[1];
}

bool bm_pumped_fds_receive(struct bm_core *core, beam_message *message)
{
    struct bm_attachments *att = message->attachments;
    unsigned fds = 0, channels = 0;
    for (unsigned i = 0; i < att->channel_count; i++) {
        struct bm_attached_channel *entry = &att->channels[i];
        if (entry->mode != BM_MODE_FD) {
            struct bm_attached_channel kept = *entry;
            entry->channel = NULL;
            att->channels[channels++] = kept;
            continue;
        }
        int fd = receive(core, entry);
        if (fd < 0)
            return false;
        att->fds[fds++] = fd;
    }
    att->channel_count = (uint8_t)channels;
    att->pumped = false;
    return true;
}
