"""Many instances at once: fleet.py COUNT ENABLED

Asks for COUNT instances without waiting for one of them, and for those beyond ENABLED to
be disabled at once. Waits until all have come to rest. Exits 1 if one does not.
"""

import sys
import time

import dbus

NAME = "org.aegisvm.Aegis1"
ROOT = "/org/aegisvm/Aegis1"
PATIENCE = 240

count, enabled = int(sys.argv[1]), int(sys.argv[2])
bus = dbus.SessionBus()
root = bus.get_object(NAME, ROOT)
manager = dbus.Interface(root, NAME + ".Manager")
objects = dbus.Interface(root, "org.freedesktop.DBus.ObjectManager")
nothing = dbus.Dictionary({}, signature="sv")

begin = time.monotonic()
for number in range(count):
    path, _ = manager.CreateInstance(f"fleet-{number}", nothing, {"start": False})
    if number >= enabled:
        dbus.Interface(bus.get_object(NAME, path), NAME + ".Instance").Disable(nothing)
while True:
    found = objects.GetManagedObjects()
    jobs = [kinds[NAME + ".Job"] for kinds in found.values() if NAME + ".Job" in kinds]
    running = sum(job["State"] == "running" for job in jobs)
    failed = sum(job["State"] == "failed" for job in jobs)
    disabled = sum(
        not kinds[NAME + ".Instance"]["Enabled"]
        for kinds in found.values()
        if NAME + ".Instance" in kinds
    )
    if not running:
        break
    if time.monotonic() - begin > PATIENCE:
        sys.exit(f"{running} jobs do not end")
    time.sleep(1)
if failed or disabled != count - enabled:
    sys.exit(f"{failed} jobs failed, {disabled} instances are disabled")
print(f"{time.monotonic() - begin:.0f}")
