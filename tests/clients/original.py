"""Plays the original AegisVM, the Go program, as far as its folder shows it.

`original.py make FOLDER VALUE PORT` makes the folder: a database in the state that a
crash leaves (a write-ahead log), the key, a secret IMPORTED_KEY with that value, two
instances, messages, a socket and a pid file of a daemon that is gone.
`original.py serve FOLDER` is its daemon: it answers at the socket until it is killed.

AES-256-GCM is written here anew from FIPS 197 and NIST SP 800-38D, so that it is not the
code under test that decides what a value looks like.
"""

import json
import os
import socket
import sqlite3
import sys

TABLES = """
CREATE TABLE instances (
    id TEXT PRIMARY KEY, state TEXT NOT NULL DEFAULT 'stopped', command TEXT NOT NULL,
    expose_ports TEXT NOT NULL DEFAULT '[]', vm_id TEXT NOT NULL DEFAULT '',
    handle TEXT NOT NULL DEFAULT '', image_ref TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL DEFAULT (datetime('now')),
    updated_at TEXT NOT NULL DEFAULT (datetime('now')));
CREATE TABLE secrets (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, value BLOB NOT NULL,
    created_at TEXT NOT NULL DEFAULT (datetime('now')));
CREATE TABLE tether_frames (
    instance_id TEXT NOT NULL, seq INTEGER NOT NULL, frame TEXT NOT NULL,
    PRIMARY KEY (instance_id, seq));
CREATE TABLE tether_watermarks (
    instance_id TEXT NOT NULL, channel TEXT NOT NULL, seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (instance_id, channel));
ALTER TABLE instances ADD COLUMN workspace TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN env TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN secret_keys TEXT NOT NULL DEFAULT '[]';
ALTER TABLE instances ADD COLUMN public_ports TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;
ALTER TABLE instances ADD COLUMN memory_mb INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN vcpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN stopped_at TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN parent_id TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN capabilities TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN kit TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN auto_workspace INTEGER NOT NULL DEFAULT 0;
"""
COMMAND = (
    'printf "hash %s\\n" "$(printf %s "$IMPORTED_KEY" | sha256sum | cut -c1-64)"; '
    'cat /workspace/greeting; echo "user $(id -u) in $PWD, $PLAIN"; exec sleep 100000'
)


def double(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = double(a), b >> 1
    return product


def make_box():
    box = []
    for byte in range(256):
        inverse = next((x for x in range(256) if times(byte, x) == 1), 0)
        turned = inverse
        for turn in range(1, 5):
            turned ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
        box.append(turned ^ 0x63)
    return box


BOX = make_box()


def expand(key):
    words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
    constant = 1
    for number in range(8, 60):
        word = list(words[-1])
        if number % 8 == 0:
            word = [BOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = double(constant)
        elif number % 8 == 4:
            word = [BOX[byte] for byte in word]
        words.append([a ^ b for a, b in zip(words[-8], word)])
    return [sum(words[at : at + 4], []) for at in range(0, 60, 4)]


def encrypt_block(keys, block):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for number, key in enumerate(keys[1:], 1):
        state = [BOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if number < 14:
            mixed = []
            for at in range(0, 16, 4):
                a, b, c, d = state[at : at + 4]
                for w, x, y, z in ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):
                    mixed.append(double(w) ^ double(x) ^ x ^ y ^ z)
            state = mixed
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


def ghash(subkey, data):
    state = 0
    for at in range(0, len(data), 16):
        factor = state ^ int.from_bytes(data[at : at + 16], "big")
        state, other = 0, subkey
        for bit in range(127, -1, -1):
            if factor >> bit & 1:
                state ^= other
            other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
    return state.to_bytes(16, "big")


def seal(key, nonce, text):
    keys = expand(key)
    blocks = (encrypt_block(keys, nonce + number.to_bytes(4, "big")) for number in range(1, 1 << 20))
    mask = next(blocks)
    stream = b"".join(next(blocks) for _ in range(0, len(text), 16))
    sealed = bytes(a ^ b for a, b in zip(text, stream))
    subkey = int.from_bytes(encrypt_block(keys, bytes(16)), "big")
    padded = sealed + bytes(-len(sealed) % 16) + bytes(8) + (8 * len(sealed)).to_bytes(8, "big")
    tag = bytes(a ^ b for a, b in zip(ghash(subkey, padded), mask))
    return nonce + sealed + tag


def test_vector():
    # Test case 14 of the specification of GCM that NIST was given.
    assert seal(bytes(32), bytes(12), bytes(16))[12:].hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


def make(folder, value, port):
    test_vector()
    os.makedirs(f"{folder}/data/workspaces/teller")
    os.makedirs(f"{folder}/data/overlays/inst-1772000000000000000")
    with open(f"{folder}/data/workspaces/teller/greeting", "w") as greeting:
        greeting.write("greetings from the workspace\n")
    key = os.urandom(32)
    with open(f"{folder}/master.key", "wb", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(key)
    left = socket.socket(socket.AF_UNIX)
    left.bind(f"{folder}/aegisd.sock")
    left.close()
    with open(f"{folder}/data/aegisd.pid", "w") as file:
        file.write("1")
    database = sqlite3.connect(f"{folder}/data/aegis.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(TABLES)
    columns = dict(
        id="inst-1772000000000000000",
        handle="teller",
        command=json.dumps(["sh", "-c", COMMAND]),
        expose_ports="null",
        public_ports=json.dumps({"80": port}),
        env=json.dumps({"PLAIN": "plain"}),
        secret_keys=json.dumps(["IMPORTED_KEY"]),
        workspace=f"{folder}/data/workspaces/teller",
        auto_workspace=1,
        memory_mb=192,
        vcpus=1,
        capabilities=json.dumps({"sub": "", "iat": 0, "exp": 0, "spawn": True, "spawn_depth": 1,
            "max_children": 2, "max_memory_mb": 0, "max_vcpus": 0, "max_expose_ports": 0}),
    )
    insert(database, columns)
    # Has the same port, which does not matter: it is disabled.
    other = dict(
        columns, id="inst-1772000000000000001", handle="", enabled=0, secret_keys="null",
        env="null", workspace="", auto_workspace=0, parent_id=columns["id"],
        command=json.dumps(["true"]),
    )
    insert(database, other)
    database.execute(
        "INSERT INTO secrets (id, name, value) VALUES ('sec-1', 'IMPORTED_KEY', ?)",
        (seal(key, os.urandom(12), value.encode()),),
    )
    for number in range(1, 4):
        frame = dict(
            v=1, type="user.message", ts="2026-02-25T06:13:20Z", seq=number,
            session=dict(channel="ui", id="default"), msg_id=f"ui-{number}",
            payload=dict(text=f"message {number}"),
        )
        database.execute(
            "INSERT INTO tether_frames VALUES (?, ?, ?)",
            (columns["id"], number, json.dumps(frame)),
        )
    database.execute("INSERT INTO tether_frames VALUES ('inst-of-nobody', 1, '{}')")
    database.commit()
    assert os.path.getsize(f"{folder}/data/aegis.db-wal") > 0
    # Without closing the database, which would put the log into it.
    os._exit(0)


def insert(database, columns):
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    database.execute(f"INSERT INTO instances ({names}) VALUES ({marks})", [*columns.values()])


def serve(folder):
    path = f"{folder}/aegisd.sock"
    os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("listening", flush=True)
    while True:
        listener.accept()[0].close()


if sys.argv[1] == "make":
    make(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    serve(sys.argv[2])
