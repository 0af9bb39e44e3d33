"""Drives one instance through its whole life with stock python3-dbus.

    life_cycle.py HANDLE [--system]

What it knows of aegisd it knows from GetManagedObjects once and from signals
ever after: it reads no property and asks for no state again. Prints one line
for each step and each state that it was told of; exits 1 with the reason if
something does not happen.
"""

import json
import os
import socket
import sys
import time

import dbus
import dbus.mainloop.glib
from gi.repository import GLib

NAME = "org.aegisvm.Aegis1"
ROOT = "/org/aegisvm/Aegis1"
ERROR = NAME + ".Error."
DEADLINE = 120


class Mirror:
    """All objects of aegisd, kept up to date by its signals."""

    def __init__(self, bus):
        self.objects = {}
        self.completed = {}
        self.states = []
        self.watched = None
        for member, interface, handler in [
            ("InterfacesAdded", "org.freedesktop.DBus.ObjectManager", self.added),
            ("InterfacesRemoved", "org.freedesktop.DBus.ObjectManager", self.removed),
        ]:
            bus.add_signal_receiver(handler, member, interface, NAME, ROOT)
        bus.add_signal_receiver(
            self.changed, "PropertiesChanged", dbus.PROPERTIES_IFACE, NAME, path_keyword="path"
        )
        bus.add_signal_receiver(
            self.job_completed, "Completed", NAME + ".Job", NAME, path_keyword="path"
        )
        manager = dbus.Interface(bus.get_object(NAME, ROOT), "org.freedesktop.DBus.ObjectManager")
        for path, interfaces in manager.GetManagedObjects().items():
            self.added(path, interfaces)

    def added(self, path, interfaces):
        known = self.objects.setdefault(str(path), {})
        for interface, properties in interfaces.items():
            known[str(interface)] = dict(properties)
            self.note(path, properties)

    def removed(self, path, interfaces):
        known = self.objects.get(str(path), {})
        for interface in interfaces:
            known.pop(str(interface), None)
        if not any(name.startswith(NAME) for name in known):
            self.objects.pop(str(path), None)

    def changed(self, interface, properties, invalidated, path):
        if invalidated:
            sys.exit(f"{interface} of {path} hides the new values of {list(invalidated)}")
        self.objects.setdefault(str(path), {}).setdefault(str(interface), {}).update(properties)
        self.note(path, properties)

    def note(self, path, properties):
        if path == self.watched and "State" in properties:
            state = str(properties["State"])
            if not self.states or self.states[-1] != state:
                self.states.append(state)

    def job_completed(self, state, error, message, hint, path):
        self.completed[str(path)] = (str(state), str(error))

    def property(self, path, interface, name):
        return self.objects.get(path, {}).get(f"{NAME}.{interface}", {}).get(name)


def wait(what, condition):
    """Lets the main loop deliver signals until the condition holds."""
    context = GLib.MainContext.default()
    end = time.monotonic() + DEADLINE
    late = GLib.timeout_add_seconds(DEADLINE, lambda: True)
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {DEADLINE} s for {what}")
        context.iteration(True)
    GLib.source_remove(late)


def refused(symbol, call, *arguments):
    try:
        call(*arguments)
    except dbus.DBusException as error:
        if error.get_dbus_name() == ERROR + symbol and error.get_dbus_message():
            print(f"refused: {symbol}")
            return
        sys.exit(f"{error} instead of {symbol}")
    sys.exit(f"{call} was not refused with {symbol}")


def options(**entries):
    return dbus.Dictionary(entries, signature="sv")


def main():
    handle = sys.argv[1]
    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    bus = dbus.SystemBus() if "--system" in sys.argv else dbus.SessionBus()
    mirror = Mirror(bus)
    manager = dbus.Interface(bus.get_object(NAME, ROOT), NAME + ".Manager")

    def job(path, expected="done"):
        path = str(path)
        wait(f"the end of {path}", lambda: path in mirror.completed)
        if mirror.completed[path][0] != expected:
            sys.exit(f"{path}: {mirror.completed[path]} instead of {expected}")

    def state(wanted):
        wait(f"the state {wanted}", lambda: mirror.property(path, "Instance", "State") == wanted)

    refused("NotFound", manager.GetInstance, handle)
    refused("InvalidHandle", manager.CreateInstance, "a b", options(), options())
    refused("InvalidArgument", manager.CreateInstance, handle, options(ram=dbus.UInt32(5)), options())
    refused("InvalidArgument", manager.CreateInstance, handle, options(memory=dbus.UInt32(1)), options())
    refused("KitNotFound", manager.CreateInstance, handle, options(kit="no-such-kit"), options())

    spec = options(memory=dbus.UInt32(160), command=dbus.Array(["sleep", "1000"], signature="s"))
    path, creation = manager.CreateInstance(handle, spec, options(start=False))
    path = mirror.watched = str(path)
    job(creation)
    wait("the new object", lambda: mirror.property(path, "Instance", "Handle") == handle)
    state("stopped")
    print("created")
    refused("AlreadyExists", manager.CreateInstance, handle.upper(), options(), options())

    instance = dbus.Interface(bus.get_object(NAME, path), NAME + ".Instance")
    refused("WrongState", instance.Pause, options())
    mirror.states.clear()
    job(instance.Start(options()))
    state("running")
    wait("a QEMU", lambda: mirror.property(path, "Instance", "QemuPid"))
    job(instance.Start(options()), "unchanged")

    assert instance.Pause(options()) == "changed"
    state("paused")
    assert instance.Pause(options()) == "unchanged"
    assert instance.Resume(options()) == "changed"
    state("running")

    stdin, stdout, stderr, control = (
        descriptor.take()
        for descriptor in instance.Exec(["sh", "-c", "cat; echo warned >&2; exit 7"], options())
    )
    wait("the exec to be counted", lambda: mirror.property(path, "Instance", "Execs") == 1)
    os.write(stdin, b"said\n")
    os.close(stdin)
    with open(stdout, "rb") as out, open(stderr, "rb") as err:
        assert out.read() == b"said\n"
        assert err.read() == b"warned\n"
    with socket.socket(fileno=control) as stream, stream.makefile("r") as events:
        assert [json.loads(line) for line in events] == [{"started": {}}, {"exited": {"code": 7}}]
    wait("the exec to be over", lambda: mirror.property(path, "Instance", "Execs") == 0)
    print("executed")

    job(instance.Stop(options()))
    state("stopped")
    wait("no QEMU", lambda: mirror.property(path, "Instance", "QemuPid") == 0)
    job(instance.Stop(options()), "unchanged")
    job(instance.Disable())
    state("disabled")
    assert not mirror.property(path, "Instance", "Enabled")
    refused("Disabled", instance.Exec, ["true"], options())
    job(instance.Enable())
    state("stopped")
    job(instance.Delete(options()))
    wait("the object to go", lambda: path not in mirror.objects)
    refused("NotFound", manager.GetInstance, handle)
    print("deleted")
    print("states: " + " ".join(mirror.states))


main()
