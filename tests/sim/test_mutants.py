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
SEEDS = 2000
TIMEOUT_S = 300

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
            bm_reactor_close_fd(core->reactor, fd);
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
    "credit returned twice": ("runtime/unix_receive.c", """\
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


def link(mutant, where):
    """The link of `sim`, with the mutant in front: what an archive has besides is not taken."""
    program = os.path.join(where, "sim")
    line = subprocess.run(["ninja", "-C", BUILD, "-t", "commands", "-s", "tests/sim"], check=True,
                          capture_output=True, text=True).stdout
    command = [word for word in shlex.split(line) if word not in (":", "&&")]
    command[command.index("-o") + 1] = program
    command.insert(command.index("-o"), mutant)
    subprocess.run(command, cwd=BUILD, check=True, capture_output=True)
    return program


def hunt(name, file, old, new, says):
    path = os.path.join(ROOT, file)
    with open(path) as source:
        text = source.read()
    if text.count(old) != 1:
        return f"{file} does not have its lines once: the mutant is out of date"
    with tempfile.TemporaryDirectory() as where:
        program = link(compile_mutant(COMMANDS[path], text.replace(old, new), where), where)
        run = subprocess.run([program, "--seeds", str(SEEDS)], capture_output=True, text=True,
                             errors="replace", timeout=TIMEOUT_S)
    if run.returncode == 0:
        return f"not found in {SEEDS} seeds"
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
for name, mutant in MUTANTS.items():
    if wanted and not any(part in name for part in wanted):
        continue
    complaint = hunt(name, *mutant)
    counts["failed" if complaint else "passed"] += 1
    print(f"FAIL {name}: {complaint}" if complaint else f"ok   {name}", flush=True)
print(f"{counts['passed']} passed, {counts['failed']} failed, 0 skipped")
sys.exit(1 if counts["failed"] else 0)
