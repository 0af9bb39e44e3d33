#!/usr/bin/env python3
"""TLS in front of another stand-in, for programs that are told an https address.

    tls.py --certificate FILE --key FILE --to 127.0.0.1:PORT [--at ADDRESS:PORT]

It listens there, or on a port of 127.0.0.1, which it prints, speaks TLS 1.2 or later with the
certificate, and passes what is within on as it is. It stands in for nothing by itself: the
TLS is OpenSSL's.
"""

import argparse
import socket
import ssl
import threading


def pump(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    # No half is left open: both stand-ins end a connection as a whole.
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(plain, context, to):
    try:
        client = context.wrap_socket(plain, server_side=True)
        server = socket.create_connection(to)
    except OSError:
        plain.close()
        return
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)


def main():
    parser = argparse.ArgumentParser(description="TLS in front of a stand-in")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--at", default="127.0.0.1:0")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    host, port = options.to.rsplit(":", 1)
    address, at = options.at.rsplit(":", 1)
    listener = socket.create_server((address, int(at)))
    print(listener.getsockname()[1], flush=True)
    while True:
        plain, _ = listener.accept()
        threading.Thread(target=serve, args=(plain, context, (host, int(port))), daemon=True).start()


if __name__ == "__main__":
    main()
