#!/usr/bin/env python3
"""A stand-in for launchctl(1) of macOS: the front of launchd.py.

It reads a command line as launchctl does, hands it to the resident part, which it
starts where there is none, and says and returns what that answers. $LAUNCHD_STAND_IN
names the folder of this launchd; two folders are two machines that know nothing of
each other.

Enforced of the protocol: exactly these subcommands and options (a usage error is 64, as
`bootout --wait` is on macOS 15), targets of the form DOMAIN/LABEL, absolute paths.

    bootstrap DOMAIN PLIST...   bootout DOMAIN/LABEL   kickstart [-k] [-p] DOMAIN/LABEL
    kill SIGNAL DOMAIN/LABEL    print DOMAIN[/LABEL]   enable|disable DOMAIN/LABEL
"""
import fcntl
import json
import os
import socket
import subprocess
import sys
import time

USAGE = 64
# Options each subcommand has, and how many words follow them.
SUBCOMMANDS = {
    "bootstrap": ("", 2, None),
    "bootout": ("", 1, 1),
    "kickstart": ("kp", 1, 1),
    "kill": ("", 2, 2),
    "print": ("", 1, 1),
    "enable": ("", 1, 1),
    "disable": ("", 1, 1),
}
# How long the resident part may take to listen, in seconds.
PATIENCE = 20


def usage(words):
    sys.stderr.write(f"Usage: launchctl {words}\n")
    sys.exit(USAGE)


def parse(argv):
    """The subcommand, its options and its words."""
    if not argv or argv[0] not in SUBCOMMANDS:
        usage("subcommand [arguments ...]")
    name = argv[0]
    known, least, most = SUBCOMMANDS[name]
    options, words = set(), []
    for word in argv[1:]:
        if word.startswith("-") and not words:
            if word.startswith("--") or not set(word[1:]) <= set(known) or word == "-":
                usage(f"{name}: unrecognized option {word}")
            options |= set(word[1:])
        else:
            words.append(word)
    if len(words) < least or (most is not None and len(words) > most):
        usage(f"{name}: {least} arguments are needed")
    return {"name": name, "options": sorted(options), "words": words}


def connect(folder):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(os.path.join(folder, "launchd.sock"))
    return stream


def reach(folder):
    """A connection to the resident part, which is started where there is none."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    with open(os.path.join(folder, "launchd.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return connect(folder)
        except OSError:
            pass
        program = os.path.join(os.path.dirname(os.path.realpath(__file__)), "launchd.py")
        with open(os.path.join(folder, "launchd.log"), "ab") as log:
            subprocess.Popen(
                [sys.executable, "-E", "-s", program, folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/",
            )
        while True:
            try:
                return connect(folder)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def main():
    request = parse(sys.argv[1:])
    folder = os.environ.get("LAUNCHD_STAND_IN")
    if not folder or not os.path.isabs(folder):
        sys.exit("launchctl.py: LAUNCHD_STAND_IN must name an absolute folder")
    with reach(folder) as stream:
        stream.sendall(json.dumps(request).encode() + b"\n")
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := stream.recv(1 << 16):
            answer += piece
    answer = json.loads(answer)
    sys.stdout.write(answer["out"])
    sys.stderr.write(answer["err"])
    sys.exit(answer["code"])


if __name__ == "__main__":
    main()
