#!/usr/bin/python3
"""Kills the daemons of instances, aegisd and QEMUs at random moments, side by side.

kill_storm.py HOME PREFIX INSTANCES KILLS_OF_EACH_DAEMON KILLS_OF_AEGISD KILLS_OF_QEMU

SCOPE in the environment is the option of systemctl that means their service manager,
HOME the folder of its control group. Prints one JSON object: for each daemon how long
it took after each kill, in seconds, until the service manager had made another process
of it, and how often the others were killed.
"""
import glob
import json
import os
import random
import signal
import sys
import threading
import time

# Longest pause between two kills of one thing: longer than a start takes on a busy
# machine, so that kills meet daemons that run, that start and that are waited for.
PAUSE = 1.5
# Far above any back-off here; only a hang meets it.
DEADLINE = 120
LOOK = 0.02


def processes(group):
    """The processes of a control group and those below it, with their arguments."""
    found = {}
    for path in glob.glob(f"{glob.escape(group)}/**/cgroup.procs", recursive=True):
        try:
            with open(path) as file:
                pids = file.read().split()
        except OSError:
            continue
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().split(b"\0")[:-1]
            except OSError:
                pass
    return found


def of_daemon(words):
    """Whether it is aegis-shim that becomes the daemon, or the daemon."""
    return b"daemon" in words or b"31536000" in words or b"storm-daemon" in b"".join(words)


def daemons(group):
    return {pid for pid, words in processes(group).items() if of_daemon(words)}


def wait_for(found, what):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(LOOK)
    raise TimeoutError(f"waited {DEADLINE} s for {what}")


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def storm_of_a_daemon(group, kills, gaps):
    while len(gaps) < kills:
        time.sleep(random.uniform(0, PAUSE))
        pid = max(wait_for(lambda: daemons(group), group))
        if not kill(pid):
            continue
        killed = time.monotonic()
        wait_for(lambda: daemons(group) - {pid}, f"another process of {group}")
        gaps.append(round(time.monotonic() - killed, 3))


def storm_of_aegisd(group, kills, count):
    while len(count) < kills:
        time.sleep(random.uniform(0, PAUSE))
        pid = max(wait_for(lambda: processes(group), group))
        count.extend([pid] * kill(pid))


def storm_of_qemu(home, prefix, instances, kills, count):
    number = 0
    while len(count) < kills:
        handle = f"{prefix}-{number % instances}"
        number += 1
        unit = f"aegis-vm-{handle}.service"
        # What a connection does, without one that would wait for the guest.
        start = f"systemctl {SCOPE} start --no-block {unit}"
        groups = f"{home}/aegis.slice/*/{unit}"

        def qemu():
            for group in glob.glob(groups):
                for pid, words in processes(group).items():
                    if words and b"qemu-system" in words[0]:
                        return pid
            return None

        if os.system(start) != 0:
            continue
        pid = wait_for(qemu, f"QEMU of {handle}")
        time.sleep(random.uniform(0, 2 * PAUSE))
        count.extend([pid] * kill(pid))


def main():
    home, prefix = sys.argv[1:3]
    instances, of_daemons, of_aegisd, of_qemu = map(int, sys.argv[3:])
    gaps, aegisds, qemus, failures = {}, [], [], []

    def guarded(body, *arguments):
        def run():
            try:
                body(*arguments)
            except Exception as error:
                failures.append(f"{body.__name__}: {error}")

        return threading.Thread(target=run)

    threads = []
    for number in range(instances):
        for daemon in ("first", "second"):
            unit = f"aegis-kit-{prefix}-{number}:{daemon}.service"
            [group] = glob.glob(f"{home}/aegis.slice/*/{unit}")
            gaps[unit] = []
            threads.append(guarded(storm_of_a_daemon, group, of_daemons, gaps[unit]))
    [group] = glob.glob(f"{home}/**/aegisd.service", recursive=True)
    threads.append(guarded(storm_of_aegisd, group, of_aegisd, aegisds))
    threads.append(guarded(storm_of_qemu, home, prefix, instances, of_qemu, qemus))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(
        {"gaps": gaps, "aegisd": len(aegisds), "qemu": len(qemus), "failures": failures},
        sys.stdout,
    )


SCOPE = os.environ["SCOPE"]
main()
