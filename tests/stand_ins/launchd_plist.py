"""A part of the stand-in for launchd: what a property list may say.

Enforced of launchd.plist(5): the keys that are known here and no other, the type of each
value, absolute program and log paths, a file that belongs to who loads it and that
nobody else may write, named LABEL.plist.
"""
import os
import plistlib
import re
import stat

STRING, INTEGER, BOOLEAN, STRINGS, LIMITS = "string", "integer", "boolean", "strings", "limits"
KEYS = {
    "Label": STRING,
    "ProgramArguments": STRINGS,
    "Program": STRING,
    "UserName": STRING,
    "GroupName": STRING,
    "RunAtLoad": BOOLEAN,
    "KeepAlive": "keep-alive",
    "ThrottleInterval": INTEGER,
    "ExitTimeOut": INTEGER,
    "AbandonProcessGroup": BOOLEAN,
    "ProcessType": STRING,
    "Umask": INTEGER,
    "WorkingDirectory": STRING,
    "StandardOutPath": STRING,
    "StandardErrorPath": STRING,
    "EnvironmentVariables": "environment",
    "HardResourceLimits": LIMITS,
    "SoftResourceLimits": LIMITS,
    "Sockets": "sockets",
}
KEEP_ALIVE = {"SuccessfulExit", "Crashed"}
SOCKET = {
    "SockPathName": STRING, "SockPathMode": INTEGER, "SockNodeName": STRING,
    "SockServiceName": STRING, "SockFamily": STRING, "SockType": STRING,
    "SockPathOwner": INTEGER, "SockPassive": BOOLEAN, "SockProtocol": STRING,
}
RESOURCES = {"Core", "CPU", "Data", "FileSize", "MemoryLock", "NumberOfFiles",
             "NumberOfProcesses", "ResidentSetSize", "Stack"}
PROCESS_TYPES = {"Background", "Standard", "Adaptive", "Interactive"}
ABSOLUTE = ("Program", "WorkingDirectory", "StandardOutPath", "StandardErrorPath")


class Refused(Exception):
    """The property list is not loaded."""


def need(holds, words):
    if not holds:
        raise Refused(words)


def is_of(kind, value):
    if kind == STRING:
        return isinstance(value, str) and value != "" and "\0" not in value
    if kind == INTEGER:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind == BOOLEAN:
        return isinstance(value, bool)
    if kind == STRINGS:
        return (isinstance(value, list) and value != []
                and all(isinstance(word, str) and "\0" not in word for word in value))
    if kind == "environment":
        return isinstance(value, dict) and all(isinstance(word, str) for word in value.values())
    if kind == LIMITS:
        return (isinstance(value, dict) and set(value) <= RESOURCES
                and all(is_of(INTEGER, number) for number in value.values()))
    if kind == "keep-alive":
        return isinstance(value, bool) or (
            isinstance(value, dict) and value != {} and set(value) <= KEEP_ALIVE
            and all(isinstance(wanted, bool) for wanted in value.values()))
    if kind == "sockets":
        return isinstance(value, dict) and value != {}
    raise AssertionError(kind)


def check_socket(name, entry):
    need(isinstance(entry, dict), f"Sockets.{name} holds something that is no dictionary")
    for key, value in entry.items():
        need(key in SOCKET, f"unknown key Sockets.{name}.{key}")
        need(is_of(SOCKET[key], value), f"Sockets.{name}.{key} is of the wrong type")
    if "SockPathName" in entry:
        need(os.path.isabs(entry["SockPathName"]), f"Sockets.{name}.SockPathName is relative")
        need(len(entry["SockPathName"].encode()) <= 103,
             f"Sockets.{name}.SockPathName is longer than sun_path of macOS")
        need(not set(entry) & {"SockNodeName", "SockServiceName"},
             f"Sockets.{name} has a path and a port")
        need(entry.get("SockPathMode", 0) <= 0o777, f"Sockets.{name}.SockPathMode is no mode")
    else:
        need("SockServiceName" in entry, f"Sockets.{name} names neither path nor port")
        need(entry.get("SockFamily") in (None, "IPv4", "IPv6"), f"Sockets.{name}.SockFamily")
    need(entry.get("SockType", "stream") == "stream", f"Sockets.{name}.SockType is not stream")


def read(path, uid):
    """The job of a file, or Refused."""
    need(os.path.isabs(path), f"{path} is relative")
    try:
        status = os.lstat(path)
        need(stat.S_ISREG(status.st_mode), f"{path} is no file")
        need(status.st_uid == uid, f"{path} belongs to another user")
        need(not status.st_mode & 0o022, f"{path} can be written by others")
        with open(path, "rb") as file:
            job = plistlib.load(file, fmt=plistlib.FMT_XML)
    except OSError as error:
        raise Refused(str(error)) from error
    except Exception as error:
        raise Refused(f"{path} is no property list: {error}") from error
    need(isinstance(job, dict), f"{path} is no dictionary")
    for key, value in job.items():
        need(key in KEYS, f"unknown key {key}")
        need(is_of(KEYS[key], value), f"{key} is of the wrong type")
    need("Label" in job, "there is no Label")
    need(re.fullmatch(r"[A-Za-z0-9._:@\[\]-]+", job["Label"]), f"odd label {job['Label']!r}")
    need(os.path.basename(path) == job["Label"] + ".plist", f"{path} is not named by its label")
    need("ProgramArguments" in job or "Program" in job, "there is no program")
    program = job.get("Program") or job["ProgramArguments"][0]
    need(os.path.isabs(program), f"the program {program} is relative")
    for key in ABSOLUTE:
        need(key not in job or os.path.isabs(job[key]), f"{key} is relative")
    need(job.get("ProcessType", "Standard") in PROCESS_TYPES, "unknown ProcessType")
    need(job.get("Umask", 0) <= 0o777, "Umask is no mode")
    for name, entries in job.get("Sockets", {}).items():
        for entry in entries if isinstance(entries, list) else [entries]:
            check_socket(name, entry)
    return job
