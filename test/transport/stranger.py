"""A foreign end of a tunnel, written from docs/protocol.md alone: `stranger.py dial|listen PATH` on a Unix socket.

Says on standard output, one JSON object a line, what it sees. It opens what `foreign.test.ts` expects, answers what is
opened to it with the same octets, and leaves with GOAWAY once the other end has asked for that (a SIGNAL `leave`).
"""
import hashlib
import json
import select
import socket
import struct
import sys

HELLO, OPEN, ACCEPT, REFUSE, DATA, DATAGRAM, WINDOW, FIN, RESET, SIGNAL, PING, PONG, GOAWAY = range(1, 14)
TCP, UDP = 1, 2
# Smaller than the other end's, so that it has to wait for ours and we for theirs.
INITIAL, MAX_FRAME = 65_536, 16_384


def short(octets):
    return bytes([len(octets)]) + octets


def cut(payload):
    """A code and its message."""
    size = payload[0]
    return payload[1 : 1 + size].decode(), payload[1 + size :].decode()


def tell(**what):
    print(json.dumps(what), flush=True)


class Stream:
    def __init__(self, number, kind, credit):
        self.number, self.kind, self.credit = number, kind, credit
        self.state = 'opening'
        self.given = INITIAL
        self.used = 0
        self.waiting = bytearray()
        self.ending = self.finished = self.heard_end = False
        self.received = hashlib.sha256()
        self.count = 0
        self.answers = False
        self.datagrams = []
        self.signals = []
        self.end = None


class Tunnel:
    def __init__(self, connection, first):
        self.connection, self.next = connection, first
        connection.setblocking(False)
        self.peer = None
        self.streams = {}
        self.reset_streams = set()
        self.graces = {}
        self.pings = 0
        self.inbox, self.outbox = bytearray(), bytearray()
        self.last = 0
        self.leaving = self.left = self.over = False
        body = struct.pack('>HHBIIIIIQ', 1, 1, 2, 100, INITIAL, MAX_FRAME, INITIAL, 0, 1)
        self.frame(HELLO, 0, body + short(b'stranger'))

    def frame(self, kind, stream, payload=b''):
        if self.left:
            return
        self.outbox += bytes([kind]) + len(payload).to_bytes(3, 'big') + struct.pack('>I', stream) + payload

    # What this end does.

    def open(self, kind, metadata, number_of_kind=None):
        stream = Stream(self.next, kind, self.peer['window'])
        self.next += 2
        self.streams[stream.number] = stream
        self.frame(OPEN, stream.number, bytes([number_of_kind or kind]) + metadata)
        return stream

    def send(self, stream, octets):
        stream.waiting += octets
        self.flow(stream)

    def finish(self, stream):
        stream.ending = True
        self.flow(stream)

    def flow(self, stream):
        while stream.waiting and stream.credit > 0:
            size = min(len(stream.waiting), stream.credit, self.peer['frame'])
            self.frame(DATA, stream.number, bytes(stream.waiting[:size]))
            del stream.waiting[:size]
            stream.credit -= size
        if stream.ending and not stream.waiting and not stream.finished:
            stream.finished = True
            self.frame(FIN, stream.number)
            self.forget(stream)

    def forget(self, stream):
        if stream.finished and stream.heard_end:
            stream.state = 'closed'
            self.streams.pop(stream.number, None)

    def reset(self, stream, code):
        self.frame(RESET, stream.number, short(code))
        del self.streams[stream.number]
        self.reset_streams.add(stream.number)
        self.pings += 1
        self.graces[self.pings] = stream.number
        self.frame(PING, 0, struct.pack('>Q', self.pings))

    def leave(self, code):
        self.frame(GOAWAY, 0, struct.pack('>IIH', self.last, 0, 0) + short(code) + b'\0')
        self.leaving = True

    # What it hears.

    def until(self, done):
        while not done() and not self.over:
            readable, writable, _ = select.select([self.connection], [self.connection] if self.outbox else [], [])
            if writable:
                del self.outbox[: self.connection.send(self.outbox)]
            if readable:
                try:
                    octets = self.connection.recv(65_536)
                except ConnectionError:
                    octets = b''
                self.over = not octets
                self.inbox += octets
                self.hear()

    def hear(self):
        while len(self.inbox) >= 8:
            kind, size = self.inbox[0], int.from_bytes(self.inbox[1:4], 'big')
            if len(self.inbox) < 8 + size:
                return
            number = struct.unpack('>I', self.inbox[4:8])[0]
            payload = bytes(self.inbox[8 : 8 + size])
            del self.inbox[: 8 + size]
            if kind < 0x80:
                self.act(kind, number, payload)

    def act(self, kind, number, payload):
        if kind == HELLO:
            least, most, role, streams, window, frame, _, _, epoch = struct.unpack('>HHBIIIIIQ', payload[:33])
            self.peer = {'window': window, 'frame': frame, 'streams': streams}
            tell(hello=role, versions=[least, most], instance=payload[34 : 34 + payload[33]].decode(), epoch=epoch)
        elif kind == PING:
            self.frame(PONG, 0, payload)
        elif kind == PONG:
            self.reset_streams.discard(self.graces.pop(struct.unpack('>Q', payload)[0]))
        elif kind == GOAWAY:
            last, retry, error = struct.unpack('>IIH', payload[:10])
            tell(goaway=payload[11 : 11 + payload[10]].decode(), error=error, last=last)
        elif kind == OPEN:
            self.offered(number, payload[0], payload[1:])
        elif number in self.streams:
            self.on_stream(self.streams[number], kind, payload)
        elif number not in self.reset_streams and kind not in (WINDOW, SIGNAL, RESET, REFUSE):
            tell(wrong=f'type {kind} on {number}')

    def offered(self, number, kind, metadata):
        self.last = number
        if kind not in (TCP, UDP):
            return self.frame(REFUSE, number, short(b'tunnel.kind'))
        stream = self.streams[number] = Stream(number, kind, self.peer['window'])
        stream.answers, stream.state = True, 'open'
        self.frame(ACCEPT, number, b'seen ' + metadata)

    def on_stream(self, stream, kind, payload):
        if kind == ACCEPT:
            stream.state, stream.end = 'open', payload.decode()
        elif kind in (REFUSE, RESET):
            stream.state, stream.end = 'closed', cut(payload)
            del self.streams[stream.number]
        elif kind == WINDOW:
            stream.credit += struct.unpack('>I', payload)[0]
            self.flow(stream)
        elif kind == DATAGRAM:
            stream.datagrams.append(payload)
            if stream.answers:
                self.frame(DATAGRAM, stream.number, payload)
        elif kind == SIGNAL:
            stream.signals.append((payload.decode(), stream.count))
            if payload == b'leave':
                self.leave(b'stranger.done')
        elif kind == FIN:
            stream.heard_end = True
            if stream.answers:
                self.finish(stream)
            self.forget(stream)
        elif kind == DATA:
            self.data(stream, payload)

    def data(self, stream, payload):
        stream.given -= len(payload)
        if stream.given < 0:
            tell(wrong=f'more than the credit of {stream.number}')
        stream.received.update(payload)
        stream.count += len(payload)
        if stream.answers:
            self.send(stream, payload)
        # Credit for what is dealt with, when half a window of it has come together.
        stream.used += len(payload)
        if stream.used >= INITIAL // 2 and not stream.heard_end:
            self.frame(WINDOW, stream.number, struct.pack('>I', stream.used))
            stream.given += stream.used
            stream.used = 0


def main(how, path):
    end = socket.socket(socket.AF_UNIX)
    if how == 'listen':
        end.bind(path)
        end.listen(1)
        tell(listening=path)
        end = end.accept()[0]
    else:
        end.connect(path)
    tunnel = Tunnel(end, 1 if how == 'dial' else 2)
    tunnel.until(lambda: tunnel.peer is not None)
    tunnel.frame(0x9C, 7, b'what no version knows yet')
    octets = bytes(at * 7 % 251 for at in range(1_000_000))
    bulk = tunnel.open(TCP, b'bulk')
    tunnel.until(lambda: bulk.state == 'open')
    tunnel.send(bulk, octets)
    tunnel.finish(bulk)
    tunnel.until(lambda: bulk.state == 'closed')
    same = bulk.received.digest() == hashlib.sha256(octets).digest()
    tell(bulk=bulk.count, same=same, answer=bulk.end)
    for name, number in (('refused', None), ('kind', 99)):
        asked = tunnel.open(TCP, name.encode(), number)
        tunnel.until(lambda: asked.state == 'closed')
        tell(**{name: asked.end})
    order = tunnel.open(TCP, b'order')
    tunnel.until(lambda: order.state == 'open')
    tunnel.send(order, b'before')
    tunnel.frame(SIGNAL, order.number, b'between')
    tunnel.send(order, b'after')
    tunnel.until(lambda: order.signals and order.count >= 11)
    tell(signals=order.signals, count=order.count)
    tunnel.reset(order, b'stranger.bored')
    packets = tunnel.open(UDP, b'packets')
    tunnel.until(lambda: packets.state == 'open')
    for one in (b'', b'x', b'y' * 1400):
        tunnel.frame(DATAGRAM, packets.number, one)
    tunnel.until(lambda: len(packets.datagrams) == 3)
    tell(datagrams=[len(one) for one in packets.datagrams], graced=len(tunnel.reset_streams))
    tunnel.until(lambda: tunnel.leaving and not tunnel.outbox)
    # Nothing follows a GOAWAY with which an end leaves, whatever is still asked of it.
    tunnel.left = True
    end.shutdown(socket.SHUT_WR)
    tunnel.until(lambda: False)


main(*sys.argv[1:])
