"""A server of the scope's tests that does what only some servers do: server.py MODE [PORT] [HOST].

Prints its port, then for each connection writes the pid of whoever accepted it:
  plain     accepts one after the other
  defer     accepts once the client has said something (TCP_DEFER_ACCEPT)
  fork      a child of its own for each connection; the parent lets go
  prefork   four children accept from one listening socket
  share     lets others listen on the same port (SO_REUSEPORT)
  pass      gives each connection to an older process over a Unix socket, and keeps it as well
  flight    leaves each connection in a Unix socket that nobody reads, and lets go of it
  thread    gives each connection to a thread with descriptors of its own
  leader    serves from a thread after the main thread has ended
  reuse     takes a port that connections still linger on (SO_REUSEADDR)
  once      the same; accepts one connection, lets go of it and ends
  device    takes only what comes by the loopback interface (SO_BINDTODEVICE)
  mptcp     listens for MPTCP, which takes TCP as well
  ring      registers each connection with an io_uring and lets go of its descriptor
  hidden    lets nobody of its own user look at it (PR_SET_DUMPABLE)
  leave     keeps each connection, as do four large children that end when the client says something
"""
import array, ctypes, os, signal, socket, sys, threading, time

mode = sys.argv[1]
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
host = sys.argv[3] if len(sys.argv) > 3 else '127.0.0.1'
# Whoever started this ends it; what it forked ends with it.
libc = ctypes.CDLL(None, use_errno=True)


def until_parent_ends():
    libc.prctl(1, signal.SIGKILL)


until_parent_ends()
protocol = 262 if mode == 'mptcp' else 0
server = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_STREAM, protocol)
if mode == 'share':
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
if mode in ('reuse', 'once'):
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if mode == 'device':
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
if mode == 'hidden':
    libc.prctl(4, 0, 0, 0, 0)
if mode == 'defer':
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)


def say(connection):
    connection.sendall(b'%d\n' % os.getpid())


def hand(to, connection):
    descriptor = array.array('i', [connection.fileno()])
    to.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])


def take(source):
    data, ancillary, _, _ = source.recvmsg(1, socket.CMSG_SPACE(4))
    return socket.socket(fileno=array.array('i', ancillary[0][2])[0]) if data else None


def plain():
    kept = []
    while True:
        connection, _ = server.accept()
        kept.append(connection)
        say(connection)


def fork():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = server.accept()
        ready, gone = socket.socketpair()
        if os.fork() == 0:
            until_parent_ends()
            gone.close()
            server.close()
            # The end of it: the parent has let go of the connection.
            ready.recv(1)
            say(connection)
            connection.recv(1)
            os._exit(0)
        connection.close()
        ready.close()
        gone.close()


def prefork():
    for _ in range(4):
        if os.fork() == 0:
            until_parent_ends()
            plain()
    signal.pause()


def passing():
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        until_parent_ends()
        ours.close()
        server.close()
        kept = []
        while True:
            kept.append(take(theirs))
            theirs.send(b'x')
    theirs.close()
    kept = []
    while True:
        connection, _ = server.accept()
        kept.append(connection)
        hand(ours, connection)
        ours.recv(1)
        say(connection)


def flight():
    ours, theirs = socket.socketpair()
    while True:
        connection, _ = server.accept()
        say(connection)
        hand(ours, connection)
        connection.close()
        globals()['kept'] = theirs


def thread():
    ours, theirs = socket.socketpair()
    ready = threading.Event()

    def other():
        libc.unshare(0x400)  # CLONE_FILES
        ready.set()
        kept = []
        while True:
            kept.append(take(theirs))

    threading.Thread(target=other, daemon=True).start()
    ready.wait()
    while True:
        connection, _ = server.accept()
        hand(ours, connection)
        say(connection)
        connection.close()


def leader():
    threading.Thread(target=plain).start()
    # The main thread alone: exit(2), not exit_group(2).
    number = {'x86_64': 60, 'aarch64': 93}[os.uname().machine]
    libc.syscall(number, 0)


def once():
    server.accept()[0].close()
    server.close()


def ring():
    # io_uring_setup, io_uring_register with IORING_REGISTER_FILES; a ring for each, which keeps them.
    while True:
        connection, _ = server.accept()
        made = libc.syscall(425, 8, (ctypes.c_char * 120)())
        held = libc.syscall(427, made, 2, (ctypes.c_int * 1)(connection.fileno()), 1)
        if made < 0 or held < 0:
            sys.exit(f'io_uring: {os.strerror(ctypes.get_errno())}')
        say(connection)
        connection.close()


def leave():
    kept = []
    while True:
        connection, _ = server.accept()
        kept.append(connection)
        for _ in range(4):
            ready, told = socket.socketpair()
            if os.fork() == 0:
                until_parent_ends()
                # The kernel takes its memory before its descriptors; of much that takes a while.
                large = bytearray(96 << 20)
                large[::4096] = b'x' * len(large[::4096])
                told.send(b'x')
                connection.recv(1, socket.MSG_PEEK)
                os._exit(0)
            ready.recv(1)
        say(connection)


server.bind((host, port))
server.listen(16)
print(server.getsockname()[1], flush=True)
{'plain': plain, 'defer': plain, 'share': plain, 'fork': fork, 'prefork': prefork,
 'pass': passing, 'flight': flight, 'thread': thread, 'leader': leader,
 'leave': leave, 'once': once, 'reuse': plain, 'device': plain, 'mptcp': plain, 'ring': ring, 'hidden': plain}[mode]()
