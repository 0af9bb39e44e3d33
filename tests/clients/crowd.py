"""Many exec sessions at once: crowd.py HANDLE COUNT

Opens COUNT sessions of `cat`, each by a client of its own, and has each give back a
line of its own while all are open. Prints `open SECONDS` then, waits for a line of
standard input, closes all and prints `closed SECONDS`. Exits 1 if a session fails.
"""

import resource
import subprocess
import sys
import time

# A client has three pipes to here.
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

handle, count = sys.argv[1], int(sys.argv[2])
failures = 0


def fail(number, what, client):
    global failures
    failures += 1
    client.kill()
    words = client.stderr.read().decode(errors="replace").strip()
    print(f"session {number}: {what}: {words}", file=sys.stderr)


begin = time.monotonic()
clients = [
    subprocess.Popen(
        ["aegisctl", "exec", handle, "--", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(count)
]
for number, client in enumerate(clients):
    try:
        client.stdin.write(b"line %d\n" % number)
        client.stdin.flush()
    except BrokenPipeError:
        # What it says is read below.
        pass
for number, client in enumerate(clients):
    line = client.stdout.readline()
    if line != b"line %d\n" % number:
        fail(number, f"gave back {line!r}", client)
print(f"open {time.monotonic() - begin:.1f}", flush=True)
sys.stdin.readline()

begin = time.monotonic()
for client in clients:
    try:
        client.stdin.close()
    except BrokenPipeError:
        pass
for number, client in enumerate(clients):
    rest = client.stdout.read()
    code = client.wait()
    if client.returncode == -9:
        continue
    if code != 0 or rest:
        fail(number, f"ended with {code} and {rest!r}", client)
print(f"closed {time.monotonic() - begin:.1f}", flush=True)
sys.exit(1 if failures else 0)
