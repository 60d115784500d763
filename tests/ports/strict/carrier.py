"""The unix carrier of docs/spec/session.md, 7: packets and descriptors in and out of a socket. Used through session.py."""
import array, asyncio, collections, os, socket, struct
from .wire import PACKET, Violation


def close_all(fds):
    for fd in fds:
        os.close(fd)


def unix_socket():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return sock


def listen(path):
    sock = unix_socket()
    sock.bind(path)
    sock.listen()
    sock.setblocking(False)
    return sock


class Carrier:
    """Without a socket, `out` and the receive() of the subclass are the carrier; lose() is called at its end."""
    def __init__(self, sock):
        self.sock, self.loop, self.change = sock, asyncio.get_running_loop(), asyncio.Event()
        self.out, self.lost, self.closing, self.identity = collections.deque(), False, False, None
        if sock:
            sock.setblocking(False)
            self.loop.add_reader(sock, self.readable)

    async def wait(self, ready):
        while not self.lost and not ready():
            await self.change.wait()

    def poke(self):
        self.change.set()
        self.change = asyncio.Event()

    def push(self, packet, fds=(), opens=None):
        if not self.lost:
            self.out.append((packet, list(fds), opens))
            self.flush()

    def flush(self):
        """Send what the carrier takes, the rest when it takes more. When that was all, and we are closing, close."""
        try:
            while self.sock and self.out:
                socket.send_fds(self.sock, [self.out[0][0]], self.out[0][1])
                close_all(self.out.popleft()[1])
        except BlockingIOError:
            return self.loop.add_writer(self.sock, self.flush)
        except OSError:
            pass                                            # what the peer has still said is read before we are lost
        if self.sock:
            self.loop.remove_writer(self.sock)
            if self.closing:
                self.sock.shutdown(socket.SHUT_RDWR)
            if self.lost:
                self.sock.close()
                self.sock = None
        self.poke()

    def readable(self):
        fds, space = array.array("i"), socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12)
        try:
            packet, control, flags, _ = self.sock.recvmsg(PACKET, space, socket.MSG_CMSG_CLOEXEC)
            for _, kind, data in control:
                if kind == socket.SCM_RIGHTS:
                    fds.frombytes(data)
                elif kind == socket.SCM_CREDENTIALS:
                    self.identity = struct.unpack("iII", data) if self.peer is None else self.identity
            if packet:
                return self.receive(packet, fds, flags & socket.MSG_CTRUNC)
        except (BlockingIOError, ConnectionResetError):
            return      # reset: the peer closed with frames of ours unread; what it sent before can still be read
        except Violation as error:
            return self.lose(error)
        except OSError:
            pass
        self.lose()
