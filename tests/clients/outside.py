"""What is on the network of a machine: servers that say who they are.

    outside.py serve LOG    greets on port 80 and holds connections on port 81, of every
                            address; writes what comes to UDP port 9 into LOG
    outside.py names ADDRESS ANSWER
                            a name server at ADDRESS that answers ANSWER; a name that
                            begins with "long" only by TCP
"""

import socket
import socketserver
import sys
import threading


class Greeter(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"outside")


class Holder(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1)


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


def serve(log):
    for port, handler in [(80, Greeter), (81, Holder)]:
        server = Server(("::", port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", 9))
    with open(log, "ab", buffering=0) as file:
        while True:
            file.write(datagrams.recv(1000) + b"\n")


def answer(question, address, cut):
    flags = b"\x83\x80" if cut else b"\x81\x80"
    body = question[12:]
    # A name of the question, type A, class IN, a minute, four bytes.
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address)
    if question[-3] != 1 or cut:
        return question[:2] + flags + b"\0\1\0\0\0\0\0\0" + body
    return question[:2] + flags + b"\0\1\0\1\0\0\0\0" + body + record


def names(own, address):
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((own, 53))
    streams = socket.create_server((own, 53))

    def by_tcp():
        while True:
            stream, _ = streams.accept()
            question = stream.recv(1000)[2:]
            message = answer(question, address, False)
            stream.sendall(len(message).to_bytes(2, "big") + message)
            stream.close()

    threading.Thread(target=by_tcp, daemon=True).start()
    while True:
        question, client = datagrams.recvfrom(1000)
        cut = question[13:17] == b"long"
        datagrams.sendto(answer(question, address, cut), client)


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    names(sys.argv[2], sys.argv[3])
