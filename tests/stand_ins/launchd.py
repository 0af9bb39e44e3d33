"""A stand-in for launchd of macOS, the resident part behind launchctl.py.

It keeps launchd's rules and really runs the jobs. Enforced, from launchd.plist(5),
launchctl(1) and what people report of macOS 13 to 15:

- property lists as launchd_plist.py has them; a bad one, a label that is loaded or
  still drains, and a socket that cannot listen are all "5: Input/output error"
- bootout is asynchronous: it returns while the process is told to end, which is killed
  after ExitTimeOut, and the label stays for some seconds more
- ThrottleInterval is the distance between two starts, a kickstart included; 10 by
  default, at least 1
- KeepAlive as true, SuccessfulExit, Crashed; a job with one runs at load. A clean end
  with KeepAlive=true is followed late
- a socket starts its job at a connection; the rest of a job's process group is killed
  after it unless AbandonProcessGroup
- exit codes: 3 no such process, 5, 36 in progress, 37 already, 113 not found, 119
  disabled, 125 no such domain; gui/UID is there only if the file `gui` is in the folder
- a program that cannot run ends with 78, as launchd has it

Other than launchd: launch_activate_socket(3) cannot be had on Linux, so descriptors are
passed as LISTEN_FDS and LISTEN_FDNAMES, by the name of their entry in Sockets. That a
socket which cannot listen makes bootstrap fail is an assumption.

It ends when its folder is gone, and ends its jobs before.
"""
import json
import os
import pwd
import resource
import selectors
import signal
import socket
import sys
import time

import launchd_plist

ENOENT_SERVICE, DISABLED, NO_DOMAIN = 113, 119, 125
# Seconds for which a label stays after its job's process is gone.
LINGER = 1.5
# Seconds by which a job with KeepAlive=true is late after an end with 0.
LATE = 3.0
DEFAULT_THROTTLE, DEFAULT_EXIT_TIMEOUT = 10, 20
CRASHES = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS,
           signal.SIGSEGV, signal.SIGSYS}
WORDS = {3: "No such process", 5: "Input/output error", 36: "Operation now in progress",
         37: "Operation already in progress", 113: "Could not find service",
         119: "Service is disabled", 125: "Domain does not support specified action",
         22: "Invalid argument"}


class Failure(Exception):
    def __init__(self, code, detail=""):
        super().__init__(detail)
        self.code, self.detail = code, detail


class Job:
    """One loaded job and its process."""

    def __init__(self, path, plist, domain):
        self.path, self.plist, self.domain = path, plist, domain
        self.label = plist["Label"]
        self.sockets = []
        self.pid = self.last = self.kill_at = None
        self.runs = 0
        self.started = -1e9
        self.due = None
        self.gone_at = None
        self.draining = False

    def target(self):
        return f"{self.domain}/{self.label}"

    def throttle(self):
        return max(1, self.plist.get("ThrottleInterval") or DEFAULT_THROTTLE)

    def exit_timeout(self):
        return self.plist.get("ExitTimeOut") or DEFAULT_EXIT_TIMEOUT

    def listen(self):
        """Opens its sockets, all or none."""
        try:
            for name, entries in self.plist.get("Sockets", {}).items():
                for entry in entries if isinstance(entries, list) else [entries]:
                    self.sockets.append((name, listening(entry)))
        except OSError as error:
            self.close()
            raise Failure(5, f"a socket of {self.label} cannot listen: {error}") from error

    def close(self):
        for _, listener in self.sockets:
            listener.close()
        self.sockets = []

    def ask(self, now):
        """Has it run as soon as the distance to its last start allows."""
        if self.pid is None and not self.draining and self.due is None:
            self.due = max(now, self.started + self.throttle())

    def spawn(self, now):
        self.due, self.started = None, now
        self.runs += 1
        pid = os.fork()
        if pid == 0:
            try:
                become(self)
            except BaseException as error:
                os.write(2, f"launchd: {self.label}: {error}\n".encode())
            os._exit(os.EX_CONFIG)
        self.pid = pid

    def ended(self, status, now):
        if not self.plist.get("AbandonProcessGroup"):
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.pid = self.kill_at = None
        code = os.waitstatus_to_exitcode(status)
        self.last = code
        if self.draining:
            self.gone_at = now + LINGER
            self.close()
            return
        keep = self.plist.get("KeepAlive")
        if keep is True:
            self.ask(now)
            if code == 0:
                self.due += LATE
        elif isinstance(keep, dict):
            if keep.get("SuccessfulExit") == (code == 0) and "SuccessfulExit" in keep:
                self.ask(now)
            if keep.get("Crashed") == (-code in CRASHES) and "Crashed" in keep:
                self.ask(now)

    def runs_at_load(self):
        keep = self.plist.get("KeepAlive")
        implied = keep is True or isinstance(keep, dict) and "SuccessfulExit" in keep
        return self.plist.get("RunAtLoad", False) or implied

    def state(self):
        if self.draining:
            return "SIGTERMed" if self.pid else "exited"
        if self.pid:
            return "running"
        return "spawn scheduled" if self.due is not None else "not running"

    def text(self):
        """As `launchctl print` shows a service."""
        program = self.plist.get("Program") or self.plist["ProgramArguments"][0]
        lines = [f"{self.target()} = {{", f"\tactive count = {int(self.pid is not None)}",
                 f"\tpath = {self.path}", "\ttype = Submitted", f"\tstate = {self.state()}", "",
                 f"\tprogram = {program}", "\targuments = {"]
        lines += [f"\t\t{word}" for word in self.plist.get("ProgramArguments", [])]
        lines += ["\t}", "", "\tenvironment = {", f"\t\tXPC_SERVICE_NAME => {self.label}", "\t}",
                  "", f"\tdomain = {self.domain}", f"\tminimum runtime = {self.throttle()}",
                  f"\texit timeout = {self.exit_timeout()}", f"\truns = {self.runs}"]
        if self.pid:
            lines.append(f"\tpid = {self.pid}")
        lines.append("\timmediate reason = inefficient")
        if self.last is not None and self.last < 0:
            lines.append(f"\tlast terminating signal = {signal.strsignal(-self.last)}: {-self.last}")
        elif self.last is not None:
            name = ": EX_CONFIG" if self.last == os.EX_CONFIG else ""
            lines.append(f"\tlast exit code = {self.last}{name}")
        else:
            lines.append("\tlast exit code = (never exited)")
        lines += ["", "\tresource coalition = {", "\t\ttype = resource", "\t\tstate = active",
                  "\t\tactive count = 1", "\t}", "}"]
        return "\n".join(lines) + "\n"


def listening(entry):
    if "SockPathName" in entry:
        path = entry["SockPathName"]
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, entry.get("SockPathMode", 0o666))
        os.chown(path, entry.get("SockPathOwner", -1), -1)
    else:
        family = socket.AF_INET6 if entry.get("SockFamily") == "IPv6" else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((entry.get("SockNodeName", ""), int(entry["SockServiceName"])))
    listener.listen(128)
    return listener


def become(job):
    """In the child: the process of a job."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    plist = job.plist
    descriptors = [listener.fileno() for _, listener in job.sockets]
    places = [os.open("/dev/null", os.O_RDONLY)]
    for key in ("StandardOutPath", "StandardErrorPath"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        path = plist.get(key)
        places.append(os.open(path, flags, 0o644) if path else os.open("/dev/null", os.O_WRONLY))
    high = [os.dup2(old, 200 + number) for number, old in enumerate(places + descriptors)]
    for number, old in enumerate(high):
        os.dup2(old, number, inheritable=True)
    os.closerange(len(high), 1024)
    limits = {"Core": resource.RLIMIT_CORE, "NumberOfFiles": resource.RLIMIT_NOFILE}
    soft, hard = plist.get("SoftResourceLimits", {}), plist.get("HardResourceLimits", {})
    for name in {*soft, *hard}:
        now = resource.getrlimit(limits[name])
        resource.setrlimit(limits[name], (soft.get(name, now[0]), hard.get(name, now[1])))
    user = pwd.getpwuid(os.getuid())
    if "UserName" in plist:
        user = pwd.getpwnam(plist["UserName"])
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    os.umask(plist.get("Umask", 0o022))
    os.chdir(plist.get("WorkingDirectory", "/"))
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": user.pw_dir,
                   "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": "/bin/sh",
                   "XPC_SERVICE_NAME": job.label, "XPC_FLAGS": "0x0"}
    environment |= plist.get("EnvironmentVariables", {})
    if descriptors:
        environment |= {"LISTEN_FDS": str(len(descriptors)), "LISTEN_PID": str(os.getpid()),
                        "LISTEN_FDNAMES": ":".join(name for name, _ in job.sockets)}
    argv = plist.get("ProgramArguments") or [plist["Program"]]
    os.execve(plist.get("Program") or argv[0], argv, environment)


class Launchd:
    def __init__(self, folder):
        self.folder, self.uid = folder, os.getuid()
        self.jobs, self.disabled = {}, set()

    def domain(self, name):
        """Whether a domain is there for who asks."""
        if name == f"user/{self.uid}" or name == "system" and self.uid == 0:
            return
        if name == f"gui/{self.uid}" and os.path.exists(os.path.join(self.folder, "gui")):
            return
        raise Failure(NO_DOMAIN, f"no domain {name} here")

    def find(self, target):
        parts = target.split("/", 1 if target.startswith("system") else 2)
        if len(parts) < 2 or target.startswith(("gui/", "user/")) and len(parts) < 3:
            raise Failure(22, f"{target} names no service")
        domain, label = "/".join(parts[:-1]), parts[-1]
        self.domain(domain)
        return domain, label, self.jobs.get((domain, label))

    def found(self, target):
        domain, label, job = self.find(target)
        if job is None:
            raise Failure(ENOENT_SERVICE, f'"{label}" in domain {domain}')
        return job

    def bootstrap(self, options, words):
        domain, paths = words[0], words[1:]
        self.domain(domain)
        for path in paths:
            try:
                plist = launchd_plist.read(path, self.uid)
            except launchd_plist.Refused as error:
                raise Failure(5, str(error)) from error
            if (domain, plist["Label"]) in self.disabled:
                raise Failure(DISABLED)
            if (domain, plist["Label"]) in self.jobs:
                raise Failure(5, f"{plist['Label']} is loaded or drains")
            job = Job(path, plist, domain)
            job.listen()
            self.jobs[domain, job.label] = job
            if job.runs_at_load():
                job.ask(time.monotonic())
        return ""

    def bootout(self, options, words):
        _, _, job = self.find(words[0])
        if job is None:
            raise Failure(3)
        if job.draining:
            raise Failure(36)
        now = time.monotonic()
        job.draining, job.due = True, None
        if job.pid:
            os.kill(job.pid, signal.SIGTERM)
            job.kill_at = now + job.exit_timeout()
        else:
            job.close()
            job.gone_at = now + LINGER
        return ""

    def kickstart(self, options, words):
        job = self.found(words[0])
        if job.draining:
            raise Failure(37)
        now = time.monotonic()
        if job.pid and "k" not in options:
            raise Failure(37)
        if job.pid:
            os.kill(job.pid, signal.SIGKILL)
            job.ended(os.waitpid(job.pid, 0)[1], now)
        job.due = None
        job.ask(now)
        if job.due <= now:
            job.spawn(now)
        return f"service spawned with pid: {job.pid}\n" if "p" in options and job.pid else ""

    def kill(self, options, words):
        name, job = words[0], self.found(words[1])
        try:
            number = int(name) if name.isdigit() else signal.Signals[
                name if name.startswith("SIG") else f"SIG{name}"]
            number = signal.Signals(number)
        except (KeyError, ValueError) as error:
            raise Failure(22, f"no signal {name}") from error
        if job.pid is None:
            raise Failure(3)
        os.kill(job.pid, number)
        return ""

    def print(self, options, words):
        name = words[0]
        if name == "system" or name.count("/") == 1 and not name.startswith("system/"):
            self.domain(name)
            return self.text(name)
        return self.found(name).text()

    def text(self, domain):
        """As `launchctl print` shows a domain."""
        jobs = [job for job in self.jobs.values() if job.domain == domain]
        lines = [f"{domain} = {{", f"\ttype = {domain.split('/')[0]}", f"\thandle = {self.uid}",
                 f"\tactive count = {len(jobs)}", f"\tservice count = {len(jobs)}",
                 "\tsecurity context = {", f"\t\tuid = {self.uid}", "\t\tasid = 100008", "\t}", "",
                 "\tservices = {"]
        for job in jobs:
            last = "-" if job.last is None else str(job.last)
            lines.append(f"\t\t{job.pid or 0:8} {last:>6} \t{job.label}")
        lines += ["\t}", "", "\tdisabled services = {"]
        lines += [f'\t\t"{label}" => disabled' for of, label in self.disabled if of == domain]
        return "\n".join([*lines, "\t}", "}"]) + "\n"

    def enable(self, options, words):
        domain, label, _ = self.find(words[0])
        self.disabled.discard((domain, label))
        return ""

    def disable(self, options, words):
        domain, label, _ = self.find(words[0])
        self.disabled.add((domain, label))
        return ""

    def answer(self, request):
        name = request["name"]
        try:
            out = getattr(self, name)(set(request["options"]), request["words"])
            return {"code": 0, "out": out, "err": ""}
        except Failure as failure:
            verb = {"bootstrap": "Bootstrap", "bootout": "Boot-out"}.get(name, name)
            words = WORDS[failure.code]
            err = f"{verb} failed: {failure.code}: {words}\n"
            if failure.code == ENOENT_SERVICE:
                err = f"Bad request.\n{words} {failure.detail}\n"
            print(f"{name} {request['words']}: {words}: {failure.detail}", flush=True)
            return {"code": failure.code, "out": "", "err": err}

    def turn(self, now):
        """What is due; how long nothing more will be, in seconds."""
        nexts = [now + 0.25]
        for key, job in list(self.jobs.items()):
            if job.pid:
                pid, status = os.waitpid(job.pid, os.WNOHANG)
                if pid:
                    job.ended(status, now)
            if job.pid and job.kill_at is not None and job.kill_at <= now:
                os.kill(job.pid, signal.SIGKILL)
                job.kill_at = None
            if job.gone_at is not None and job.gone_at <= now:
                del self.jobs[key]
                continue
            if job.due is not None and job.due <= now and job.pid is None:
                job.spawn(now)
            nexts += [at for at in (job.due, job.gone_at, job.kill_at) if at is not None]
        return max(0.0, min(nexts) - now)

    def end(self):
        for job in self.jobs.values():
            if job.pid:
                os.killpg(job.pid, signal.SIGKILL)

    def wanted_sockets(self):
        """The sockets at which a connection would start a job."""
        return {listener: job for job in self.jobs.values()
                if job.pid is None and not job.draining and job.due is None
                for _, listener in job.sockets}


def serve(stream, launchd):
    """One request; a client that says nonsense is not answered."""
    with stream:
        stream.settimeout(5)
        text = b""
        while piece := stream.recv(1 << 16):
            text += piece
        if text:
            stream.sendall(json.dumps(launchd.answer(json.loads(text))).encode())


def main():
    folder = sys.argv[1]
    launchd = Launchd(folder)
    path = os.path.join(folder, "launchd.sock")
    if os.path.exists(path):
        os.unlink(path)
    front = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    front.bind(path)
    front.listen(64)
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    while os.path.exists(path):
        now = time.monotonic()
        pause = launchd.turn(now)
        wanted = launchd.wanted_sockets()
        with selectors.DefaultSelector() as selector:
            for readable in (front, wake, *wanted):
                selector.register(readable, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(pause)]
        for readable in ready:
            if readable is wake:
                wake.recv(4096)
            elif readable is front:
                try:
                    serve(front.accept()[0], launchd)
                except (OSError, ValueError) as error:
                    print(f"a request: {error}", flush=True)
            elif readable in wanted:
                wanted[readable].ask(time.monotonic())
    launchd.end()


if __name__ == "__main__":
    main()
