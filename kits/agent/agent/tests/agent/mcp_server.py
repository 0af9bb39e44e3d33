"""A stand-in for an MCP server on standard input and output, for the agent's tests.

It enforces the order of the protocol: initialize, notifications/initialized, then the rest.
Tools: add(a, b), fail(), picture(), sleep(seconds), die(), pid(), noise().
What it is told is written to the file named by its first argument.
"""

import json
import os
import sys
import threading
import time

LOG = open(sys.argv[1], "a", encoding="utf-8")
LOCK = threading.Lock()
PNG = "iVBORw0KGgo="
STATE = {"initialize": False, "initialized": False}


def log(text):
    LOG.write(text + "\n")
    LOG.flush()


def send(message):
    with LOCK:
        sys.stdout.write(json.dumps(dict(message, jsonrpc="2.0")) + "\n")
        sys.stdout.flush()


def text(value, **more):
    return dict(content=[{"type": "text", "text": str(value)}], **more)


def call(name, arguments):
    if name == "add":
        return text(arguments["a"] + arguments["b"])
    if name == "fail":
        return text("it went wrong", isError=True)
    if name == "picture":
        return {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]}
    if name == "sleep":
        time.sleep(arguments["seconds"])
        return text("slept")
    if name == "pid":
        return text(os.getpid())
    if name == "noise":
        # What a client has to tell from the answer.
        send({"method": "notifications/message", "params": {"level": "info", "data": "x"}})
        send({"id": 987654, "result": text("of another call")})
        return text("quiet")
    if name == "die":
        os._exit(1)
    return text("no such tool", isError=True)


def tool(name, **properties):
    return {"name": name, "description": name,
            "inputSchema": {"type": "object", "properties": {k: {"type": v} for k, v in properties.items()}}}


TOOLS = [tool("add", a="number", b="number"), tool("fail"), tool("picture"), tool("sleep", seconds="number"),
         tool("die"), tool("pid"), tool("noise")]


def answer(message):
    params = message.get("params") or {}
    result = call(params["name"], params.get("arguments") or {})
    send({"id": message["id"], "result": result})


def main():
    log("start")
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        log(method or "response")
        if method == "initialize":
            STATE["initialize"] = True
            send({"id": number, "result": {
                "protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                "serverInfo": {"name": "stand-in", "version": "1"}}})
        elif method == "notifications/initialized":
            STATE["initialized"] = True
        elif method in ("tools/list", "tools/call") and not STATE["initialized"]:
            send({"id": number, "error": {"code": -32600, "message": "not initialized"}})
        elif method == "tools/list":
            send({"id": number, "result": {"tools": TOOLS}})
        elif method == "tools/call":
            threading.Thread(target=answer, args=(message,), daemon=True).start()
        elif number is not None:
            send({"id": number, "error": {"code": -32601, "message": "unknown"}})


main()
