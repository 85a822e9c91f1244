"""A UDP server of the agent's tests: datagrams.py MODE [PORT] [HOST].

Prints its port, then sends each datagram back with its pid before it, and prints how many it got:
  plain     the port is its own
  reuse     lets others take the same port (SO_REUSEADDR)
  share     shares the port (SO_REUSEPORT)
  meet      serves each peer by a connected socket of a child's, which lives as long as the parent
"""
import ctypes, os, signal, socket, sys

mode = sys.argv[1]
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
host = sys.argv[3] if len(sys.argv) > 3 else '127.0.0.1'
libc = ctypes.CDLL(None, use_errno=True)


def until_parent_ends():
    libc.prctl(1, signal.SIGKILL)


until_parent_ends()


def bound(at):
    server = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
    if mode in ('reuse', 'meet'):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mode == 'share':
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((host, at))
    return server


def echo(server):
    got = 0
    while True:
        datagram, peer = server.recvfrom(65535)
        got += 1
        said = b'%d ' % os.getpid()
        server.sendto(said + datagram if len(datagram) <= 65000 else datagram, peer)
        print(got, flush=True)


def meet(server):
    while True:
        _, peer = server.recvfrom(65535)
        mine = bound(server.getsockname()[1])
        mine.connect(peer)
        if os.fork() == 0:
            until_parent_ends()
            server.close()
            mine.send(b'%d met' % os.getpid())
            while True:
                mine.send(b'%d ' % os.getpid() + mine.recv(65535))
        mine.close()


server = bound(port)
print(server.getsockname()[1], flush=True)
meet(server) if mode == 'meet' else echo(server)
