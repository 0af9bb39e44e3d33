"""A stand-in for aegis-vmm: serves inherited listening sockets.

Answers each connection with its process id.
"""
import os
import selectors
import signal
import socket


def notify(text):
    if "NOTIFY_SOCKET" not in os.environ:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        try:
            to.connect(os.environ["NOTIFY_SOCKET"])
            to.send(text.encode())
        except ConnectionRefusedError:
            # With launchd aegisd listens, and may be gone.
            pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
selector = selectors.DefaultSelector()
for descriptor in range(3, 3 + int(os.environ["LISTEN_FDS"])):
    selector.register(socket.socket(fileno=descriptor), selectors.EVENT_READ)
notify("READY=1\nSTATUS=serving")
while True:
    for key, _ in selector.select(timeout=5):
        with key.fileobj.accept()[0] as connection:
            connection.sendall(b"%d\n" % os.getpid())
    notify("WATCHDOG=1")
