"""Plays a person at a terminal before the command in its arguments, which is to
run a shell in a guest with `sh -c SCRIPT` appended. Exits 0 if all went well."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

DEADLINE = 120
SCRIPT = r"""
tty >/dev/null && stty size
trap 'stty size' WINCH
trap 'echo interrupted' INT
echo ready
while :; do
    read -r line || continue
    [ "$line" = quit ] && exit 3
    echo "got <$line>"
done
"""


class Terminal:
    def __init__(self, argv):
        self.main, replica = pty.openpty()
        # The replica stays open here, so that its settings can be looked at.
        self.replica = replica
        self.resize(30, 100)
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

    def local_modes(self):
        return termios.tcgetattr(self.replica)[3]


def check(condition, what):
    if not condition:
        sys.exit(what)


terminal = Terminal([*sys.argv[1:], "sh", "-c", SCRIPT])
terminal.expect(b"30 100\r\n")
terminal.expect(b"ready\r\n")
raw = termios.ICANON | termios.ECHO | termios.ISIG
check(terminal.local_modes() & raw == 0, "the local terminal is not raw")

terminal.type(b"hello\r")
terminal.expect(b"hello\r\n")  # the guest's terminal echoes
terminal.expect(b"got <hello>\r\n")

terminal.resize(40, 120)
terminal.expect(b"40 120\r\n")

terminal.type(b"\x03")
terminal.expect(b"interrupted\r\n")
check(os.waitpid(terminal.child, os.WNOHANG) == (0, 0), "Ctrl-C ended the client")

terminal.type(b"quit\r")
_, status = os.waitpid(terminal.child, 0)
code = os.waitstatus_to_exitcode(status)
check(code == 3, f"exit code {code} instead of 3: {terminal.seen!r}")
check(termios.tcgetattr(terminal.replica) == terminal.before, "the terminal is not restored")
