"""The simulation is worth something only if it finds bugs: each of these, put into the code, must be found
within the seeds that CI runs, and for what it is. A few lines are changed in a copy, which is compiled as
the original is and linked in front of the library."""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = os.environ["BEAM_SOURCE_DIR"]
BUILD = os.environ["BEAM_BUILD_DIR"]
SEEDS = {"sim": 2000, "sim_log": 1000}
TIMEOUT_S = 300

# What a log that acknowledges too much shows first: which, is up to the seed.
LOSS = "was promised|is called KV_CORRUPT|and the log goes on"

# name: (file, what stands there, what stands there instead, what the finding may say)
MUTANTS = {
    "two sends under way": ("runtime/unix_carrier.c", """\
        us->send_op.addr = us->packet.bytes;
    }
    us->send_op.fd = us->fd;
    us->send_op.len = us->packet.len;
""", """\
        us->send_op.addr = us->packet.bytes;
    }
    us->send_op.fd = us->fd;
    us->send_op.len = us->packet.len;
    uint32_t first = (uint32_t)bm_round_up8(16u + (uint64_t)bm_get_u32(us->packet.bytes + 8));
    if (head->fd_count == 0 && first < us->packet.len) {
        struct bm_op *half = malloc(sizeof(*half));
        bm_op_init(half, BM_OP_SEND, (bm_op_fn *)(void (*)(void))free);
        half->fd = us->fd;
        half->addr = us->packet.bytes;
        half->len = first;
        bm_op_start(us->session.core->reactor, half);
        us->send_op.addr = us->packet.bytes + first;
        us->send_op.len -= first;
    }
""", "two sends|breaker of the protocol|is wrong|came instead"),
    "a multishot not armed again": ("runtime/unix_receive.c", """\
    bm_reactor_count_rearm(core->reactor);
    bm_unix_receive_start(us);
}

static void on_receive_retry""", """\
    bm_reactor_count_rearm(core->reactor);
}

static void on_receive_retry""", "nothing will ever happen|was told|ended with"),
    "an fd not closed after MSG_CTRUNC": ("runtime/unix_receive.c", """\
            att->fds[att->fd_count++] = bm_take_fd(fd);
        else
            bm_reactor_close_fd(fds->core->reactor, fd);
""", """\
            att->fds[att->fd_count++] = bm_take_fd(fd);
        else
            (void)bm_take_fd(fd);
""", "left behind"),
    "memory freed before the last completion": ("runtime/unix_carrier.c", """\
    if (!us->closing || us->finished || !bm_op_idle(&us->connect_op) ||
        !bm_op_idle(&us->receive_op) || !bm_op_idle(&us->send_op))
""", """\
    if (!us->closing || us->finished || !bm_op_idle(&us->connect_op) ||
        !bm_op_idle(&us->send_op))
""", "freed"),
    "credit returned twice": ("runtime/unpacking.c", """\
    if (in.fds_missing && go_on)
        bm_session_return_fds(session, frame->fds);
""", """\
    if (in.fds_missing && go_on)
        bm_session_return_fds(session, 2u * frame->fds);
""", "more fds were given back"),
    "credit of bytes returned twice": ("runtime/channel.c", """\
    channel->owed += amount;
""", """\
    channel->owed += 2 * amount;
""", "more credit than its window"),
    "the kernel not looked at before sleeping": ("uring/reactor.c", """\
    if (bm_reactor_pending(reactor) || bm_mailbox_ready(&reactor->mailbox) || reactor->hurried > 0)
        return true;
    struct bm_list *node;
""", """\
    if (bm_mailbox_ready(&reactor->mailbox) || reactor->hurried > 0)
        return true;
    struct bm_list *node;
""", "nothing will ever happen|end(ed|s) with"),
    "an overflow taken for silence": ("uring/completion.c", """\
    if (bm_kernel_pending(reactor->kernel) & BM_PENDING_OVERFLOW)
        return NEWS_UNKNOWN;
""", "", "."),
    "fds of a late packet left open": ("runtime/unix_receive.c", """\
            if (view.payload_len > 0 || view.control_len > 0)
""", """\
            if (!us->closing && (view.payload_len > 0 || view.control_len > 0))
""", "left behind"),
    "what was sent called surely not run": ("runtime/unix_carrier.c", """\
        if (channel->ours && channel->id >= us->packet.head->first_id)
""", """\
        if (channel->ours)
""", "surely not run"),
}

# The same for a log and its disk (sim_log/).
LOG_MUTANTS = {
    "acknowledged before the sync": ("kv/group.c", """\
        start_group(log, (enum bm_record_kind)0, each);
""", """\
        start_group(log, (enum bm_record_kind)0, false);
""", LOSS),
    "a sync that failed is asked again": ("kv/group.c", """\
        bm_log_fail(log, log->sync_res);
    } else if (!whole) {
""", """\
        if (log->sync_res == -ECANCELED) {
            bm_log_fail(log, log->sync_res);
        } else {
            log->write.linked = true;
            start_sync(log, group->rev);
        }
    } else if (!whole) {
""", LOSS),
    "a sync that was cut from its write is believed": ("kv/group.c", """\
    } else if (log->group_syncs && !log->write.linked) {
""", """\
    } else if (false) {
""", LOSS),
    "a sync covers what was written while it was under way": ("kv/group.c", """\
        pass_durable(log, log->sync_rev);
""", """\
        pass_durable(log, log->written_rev);
""", LOSS),
    "a short write taken for a whole one": ("kv/group.c", """\
    bool whole = group->start + group->written == group->len;
""", """\
    bool whole = group->written > 0;
""", "was promised|nothing has failed that it stands on|never was|is called"),
    "a mark of what is written, and not durable": ("kv/group.c", """\
        bm_record_write(log->flying.bytes, kind, log->durable_rev, NULL, 0, log->epoch);
        log->flying.start = 0;
""", """\
        bm_record_write(log->flying.bytes, kind, log->written_rev, NULL, 0, log->epoch);
        log->flying.start = 0;
""", "is called KV_CORRUPT"),
    "a write that failed is written again": ("kv/group.c", """\
        bm_log_fail(log, log->write_res < 0 ? log->write_res : -EIO);
""", """\
        if (log->write_res == -ECANCELED)
            bm_log_fail(log, log->write_res);
        else
            start_write(log);
""", "and the log goes on"),
    "those who wait for a sync are forgotten in a failure": ("kv/log.c", """\
    bm_list_splice_back(&told, &log->filling.waits);
    bm_list_splice_back(&told, &log->syncing);
    if (log->compaction)
""", """\
    bm_list_splice_back(&told, &log->filling.waits);
    if (log->compaction)
""", "never told|never comes"),
    "a new file is renamed before it is synced": ("kv/compaction.c", """\
            start_sync(c, c->fd);
""", """\
            c->phase++;
""", "was promised|is called|was seen"),
    "a new name is not synced": ("kv/compaction.c", """\
        start_sync(c, log->place.dir_fd);
""", """\
        c->phase++;
""", LOSS),
    "what a part has brought along is not waited for": ("kv/compaction.c", """\
           (log->written_rev < c->placed_rev || (log->held && \
""", """\
           ((log->held && \
""", "nothing has failed that it stands on|was promised|is called KV_CORRUPT"),
    "no new epoch after an end that was not clean": ("kv/log.c", """\
    found->new_epoch = recovery->scan.early;
""", """\
    found->new_epoch = false;
""", "in its old epoch"),
    "what may be in memory alone is not written again": ("kv/recovery.c", """\
    int r = write_again(fd, scan->durable_end, scan->offset, account);
    return""", """\
    int r = 0;
    (void)write_again;
    (void)account;
    return""", "was promised|is called KV_CORRUPT"),
    "a name found at an open is not synced": ("kv/log.c", """\
    if (r == 0 && fsync(log->place.dir_fd) < 0)
        r = -errno;
    return r;
}

/* Has the file""", """\
    return r;
}

/* Has the file""", "was promised|was seen|no file any more"),
    "a reactor that ends waits for the disk ten seconds": ("uring/reactor.c", """\
        if (waits_for_file(reactor))
            spent_ns = 0;
""", """\
        (void)waits_for_file;
""", "broken invariant: spent_ns"),
}

# And for a store over it (sim_log --store).
STORE_MUTANTS = {
    "what each was to sync is told when it is written": ("runtime/store_log.c", """\
        [BEAM_STORE_SYNC_EACH] = BM_LOG_EACH,
""", """\
        [BEAM_STORE_SYNC_EACH] = BM_LOG_BATCH,
""", LOSS),
    "a part of a compaction is called older than it is": ("runtime/store_log.c", """\
    *ret_rev = store->rev;
""", """\
    *ret_rev = store->told;
""", "never was|broken invariant"),
}


def commands():
    with open(os.path.join(BUILD, "compile_commands.json")) as file:
        return {entry["file"]: entry for entry in json.load(file)}


def compile_mutant(entry, text, where):
    """Compiled as the original is, but from a copy beside nothing: includes are named from the root."""
    source = os.path.join(where, "mutant.c")
    target = os.path.join(where, "mutant.o")
    with open(source, "w") as file:
        file.write("#include <stdlib.h>\n" + text)
    command = shlex.split(entry["command"])
    command[command.index("-o") + 1] = target
    command[command.index(entry["file"])] = source
    subprocess.run(command + ["-Wno-error"], cwd=entry["directory"], check=True, capture_output=True)
    return target


def link(name, mutant, where):
    """The link of a program, with the mutant in front: what an archive has besides is not taken."""
    program = os.path.join(where, name)
    line = subprocess.run(["ninja", "-C", BUILD, "-t", "commands", "-s", "tests/" + name], check=True,
                          capture_output=True, text=True).stdout
    command = [word for word in shlex.split(line) if word not in (":", "&&")]
    command[command.index("-o") + 1] = program
    command.insert(command.index("-o"), mutant)
    subprocess.run(command, cwd=BUILD, check=True, capture_output=True)
    return program


def hunt(tests, store, name, file, old, new, says):
    path = os.path.join(ROOT, file)
    with open(path) as source:
        text = source.read()
    if text.count(old) != 1:
        return f"{file} does not have its lines once: the mutant is out of date"
    with tempfile.TemporaryDirectory() as where:
        mutant = compile_mutant(COMMANDS[path], text.replace(old, new), where)
        program = link(tests, mutant, where)
        command = [program, "--store"] if store else [program]
        try:
            run = subprocess.run(command + ["--seeds", str(SEEDS[tests])], capture_output=True,
                                 text=True, errors="replace", timeout=TIMEOUT_S,
                                 env={**os.environ, "TMPDIR": where})
        except subprocess.TimeoutExpired:
            return f"it has not ended in {TIMEOUT_S} s"
    if run.returncode == 0:
        return f"not found in {SEEDS[tests]} seeds"
    seed = re.search(r"seed (\d+)", run.stderr)
    finding = run.stderr.strip().splitlines()
    told = " / ".join(finding[:2])
    if not seed:
        return f"the program failed without a seed: {told}"
    if not re.search(says, run.stderr):
        return f"found in seed {seed.group(1)}, but for another reason: {told}"
    print(f"     {name}: {told}", flush=True)
    return None


COMMANDS = commands()
wanted = sys.argv[1:]
counts = {"passed": 0, "failed": 0}
everything = [("sim", False, *item) for item in MUTANTS.items()]
everything += [("sim_log", False, *item) for item in LOG_MUTANTS.items()]
everything += [("sim_log", True, *item) for item in STORE_MUTANTS.items()]
for tests, store, name, mutant in everything:
    if wanted and not any(part in name for part in wanted):
        continue
    complaint = hunt(tests, store, name, *mutant)
    counts["failed" if complaint else "passed"] += 1
    print(f"FAIL {name}: {complaint}" if complaint else f"ok   {name}", flush=True)
print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped")
sys.exit(1 if counts["failed"] else 0)
