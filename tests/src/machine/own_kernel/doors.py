"""Runs the host's commands in a machine with a kernel of its own.

Every virtio-serial port is a door: `ID ARGV INPUT` comes in, `ID CODE OUT. ERR.` goes
out, a line each. ARGV is words that each end in NUL; it, the input and both
streams are in base64, of which the dots are no part.
"""

import base64
import glob
import os
import subprocess
import threading


def answer(line):
    identity, words, *given = line.split()
    argv = base64.b64decode(words).split(b"\0")[:-1]
    ended = subprocess.run(
        argv, input=base64.b64decode(b"".join(given)), capture_output=True, check=False
    )
    # As a shell shows an end by a signal.
    code = ended.returncode if ended.returncode >= 0 else 128 - ended.returncode
    streams = [base64.b64encode(stream) + b"." for stream in (ended.stdout, ended.stderr)]
    return b" ".join([identity, str(code).encode(), *streams]) + b"\n"


def serve(path):
    # A port can be opened once.
    port = os.open(path, os.O_RDWR)
    for line in open(port, "rb"):
        try:
            reply = answer(line)
        except ValueError:
            # Half a request, of a client that was killed.
            continue
        while reply:
            reply = reply[os.write(port, reply) :]


for path in glob.glob("/dev/vport*"):
    threading.Thread(target=serve, args=[path]).start()
