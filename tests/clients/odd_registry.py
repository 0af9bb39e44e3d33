"""A stand-in for registries that misbehave, each repository in a way of its own.

    odd_registry.py PORT

Every repository has the tag `v1` of an image of one small layer, but for what its
name says.
"""

import hashlib
import io
import json
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def descriptor(kind, content, **more):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    BLOBS[digest] = content
    return {"mediaType": kind, "digest": digest, "size": len(content), **more}


def archive(text):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        file = tarfile.TarInfo("which")
        file.size = len(text)
        tar.addfile(file, io.BytesIO(text))
    return out.getvalue()


def document(value):
    return json.dumps(value).encode()


def manifest(architecture):
    layer = descriptor(LAYER, archive(architecture.encode() * 2000))
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    return document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, document(config)),
            "layers": [layer],
        }
    )


def index(*architectures):
    manifests = [
        descriptor(MANIFEST, MANIFESTS[name], platform={"os": "linux", "architecture": name})
        for name in architectures
    ]
    return document({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})


BLOBS = {}
MANIFESTS = {name: manifest(name) for name in ("amd64", "arm64", "s390x")}
TAGS = {
    "only-others": (INDEX, index("arm64", "s390x")),
    "both": (INDEX, index("arm64", "amd64")),
    "no-json": (MANIFEST, b'{"schemaVersion": 2, "layers": ['),
}


class Handler(BaseHTTPRequestHandler):
    asked = set()

    def answer(self, status, kind, content, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", len(content))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        _, _, repository, kind, name = (self.path + "////").split("/")[:5]
        is_new = self.path not in self.asked
        self.asked.add(self.path)
        if repository == "private":
            realm = 'Basic realm="the vault"'
            return self.answer(401, "text/plain", b"", WWW_Authenticate=realm)
        if repository == "busy-soon" and is_new:
            return self.answer(429, "text/plain", b"", Retry_After="1")
        if repository == "busy-late":
            return self.answer(429, "text/plain", b"", Retry_After="3600")
        if kind == "manifests" and name == "v1":
            return self.answer(200, *TAGS.get(repository, (MANIFEST, MANIFESTS["amd64"])))
        content = BLOBS.get(name)
        if content is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}
            return self.answer(404, "application/json", document(error))
        is_layer = len(content) > 5000
        if repository == "wrong" and is_layer:
            content = content.replace(b"amd64amd64", b"and64amd64", 1)
        if repository == "short" and is_layer:
            content = content[:-1000]
        return self.answer(200, MANIFEST if b'"config":' in content else CONFIG, content)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
