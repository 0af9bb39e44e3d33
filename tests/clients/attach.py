"""Plays people at terminals that share the command of an instance. The argument is
the instance's name. Exits 0 if all went well; prints what aegisd's killer needs."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

DEADLINE = 120
DETACH = b"\x10\x11"
NAME = sys.argv[1]


class Terminal:
    def __init__(self, *argv, size=(30, 100)):
        self.main, replica = pty.openpty()
        # The replica stays open here, so that its settings can be looked at.
        self.replica = replica
        self.resize(*size)
        self.before = termios.tcgetattr(replica)
        self.seen = b""
        self.child = os.fork()
        if self.child == 0:
            os.setsid()
            fcntl.ioctl(replica, termios.TIOCSCTTY, 0)
            for stream in (0, 1, 2):
                os.dup2(replica, stream)
            os.execvp(argv[0], argv)

    def resize(self, rows, columns):
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, size)

    def type(self, data):
        os.write(self.main, data)

    def expect(self, text):
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            readable, _, _ = select.select([self.main], [], [], end - time.monotonic())
            if not readable:
                sys.exit(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.main, 65536)
        self.seen = self.seen.split(text, 1)[1]

    def end(self):
        _, status = os.waitpid(self.child, 0)
        check(termios.tcgetattr(self.replica) == self.before, "the terminal is not restored")
        return os.waitstatus_to_exitcode(status)


def check(condition, what):
    if not condition:
        sys.exit(what)


def aegisctl(*words):
    done = subprocess.run(["aegisctl", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


# The shell that the user's kits document shows, under a name of the test's.
first = Terminal("aegisctl", "instance", "start", "--name", NAME, "--", "sh")
first.expect(b"# ")
first.type(b"stty size\r")
first.expect(b"30 100")
first.type(b"echo o''ne; MARK=kept\r")
first.expect(b"one")
first.resize(41, 121)
time.sleep(1)
first.type(b"stty size\r")
first.expect(b"41 121")
first.type(DETACH)
first.expect(b"detached")
code = first.end()
check(code == 0, f"detaching ended with {code}")

# The shell is the same, and its last lines are shown.
second = Terminal("aegisctl", "attach", NAME, size=(24, 80))
second.expect(b"41 121")
second.type(b"echo $MARK-x\r")
second.expect(b"kept-x")
second.type(b"stty size\r")
second.expect(b"24 80")

# A third sees and types the same; aegisd's death is no news to either.
third = Terminal("aegisctl", "attach", NAME, size=(24, 80))
third.expect(b"24 80")
subprocess.run("pkill -KILL -x aegisd", shell=True)
third.type(b"echo b''oth\r")
third.expect(b"both")
second.expect(b"both")

# A terminal that is closed detaches.
os.kill(third.child, signal.SIGHUP)
code = third.end()
check(code == 0, f"a hang-up ended with {code}")
second.type(b"echo still $MARK\r")
second.expect(b"still kept")

# Half of the keys are typed; other keys may be chosen.
second.type(b"\x10x\x15")
second.type(DETACH)
second.expect(b"detached")
second.end()
fourth = Terminal("aegisctl", "attach", "--detach-keys", "ctrl-a,d", NAME)
fourth.expect(b"still kept")
fourth.type(b"\x01d")
fourth.expect(b"detached")
fourth.end()

# The end of the command is the end of everybody who is attached.
fifth = Terminal("aegisctl", "attach", NAME)
fifth.expect(b"still kept")
fifth.type(b"exit 7\r")
code = fifth.end()
check(code == 7, f"the command's code became {code}")
code, out, err = aegisctl("logs", NAME)
for line in ("one", "kept-x", "both"):
    check(line in out.splitlines(), f"no {line!r} in the log: {out!r}")
