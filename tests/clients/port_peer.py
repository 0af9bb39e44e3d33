"""The host's end of connections through exposed ports: port_peer.py WHAT PORT [COUNT]

half      sends, closes its side, and prints what comes back until the end
reset     sends, and prints how the connection ends when the other side breaks it off
break     sends, and breaks the connection off itself
flood     sends until nobody takes any more, and prints how many bytes that were
crowd     opens COUNT connections at once, asks each for a page, prints how many gave it
"""

import resource
import selectors
import socket
import struct
import sys
import time

PATIENCE = 100


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def half(port):
    with connect(port) as peer:
        peer.sendall(b"there and back")
        peer.shutdown(socket.SHUT_WR)
        print(b"".join(iter(lambda: peer.recv(4096), b"")).decode())


def reset(port):
    with connect(port) as peer:
        peer.sendall(b"unread")
        try:
            print("end" if peer.recv(1) == b"" else "data")
        except ConnectionResetError:
            print("reset")


def break_off(port):
    peer = connect(port)
    peer.sendall(b"then nothing")
    time.sleep(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def flood(port):
    sent, chunk = 0, bytes(65536)
    with connect(port) as peer:
        peer.settimeout(5)
        try:
            while sent < 1 << 28:
                sent += peer.send(chunk)
        except TimeoutError:
            pass
    print(sent)


def crowd(port, count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    waiting = selectors.DefaultSelector()
    for _ in range(count):
        peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", port))
        waiting.register(peer, selectors.EVENT_WRITE, bytearray())
    served, failures = 0, {}
    deadline = time.monotonic() + 3 * PATIENCE
    while waiting.get_map() and time.monotonic() < deadline:
        for key, events in waiting.select(timeout=1):
            peer, page = key.fileobj, key.data
            try:
                if events & selectors.EVENT_WRITE:
                    peer.send(b"GET /index.html HTTP/1.0\r\n\r\n")
                    waiting.modify(peer, selectors.EVENT_READ, page)
                    continue
                data = peer.recv(4096)
                page += data
                if data:
                    continue
                served += page.endswith(b"served\n")
            except OSError as error:
                failures[error.strerror] = failures.get(error.strerror, 0) + 1
            waiting.unregister(peer)
            peer.close()
    print(served, failures or "")


what, port = sys.argv[1], int(sys.argv[2])
if what == "crowd":
    crowd(port, int(sys.argv[3]))
else:
    {"half": half, "reset": reset, "break": break_off, "flood": flood}[what](port)
