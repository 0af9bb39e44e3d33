#!/usr/bin/env python3
"""Stand-in for the providers of models: OpenAI's and Anthropic's APIs, without a model.

It is no model: what it "says" follows from directives in the last message of the user.

What of the protocols it enforces (a violation is answered as the provider answers it, and
recorded under "violations"):

  POST /v1/chat/completions   OpenAI, and thereby Ollama, LM Studio and vLLM
      Authorization: Bearer KEY (unless --no-auth), Content-Type: application/json;
      model, messages: roles system|developer|user|assistant|tool with the content each may
      have; each call of an assistant answered by tool messages that follow at once, no
      answer without a call; arguments that are JSON objects; tools with names of
      [a-zA-Z0-9_-]{1,64} and schemas of objects; token limits that are positive;
      images only of users, as data: URLs of known types; max_tokens refused for models of
      the names gpt-5* and o*, as OpenAI does.
  POST /v1/messages           Anthropic
      x-api-key, or Authorization: Bearer as Anthropic's own client sends it since 2.0;
      anthropic-version 2026-10-21, or 2023-06-01 as older clients send it; Content-Type;
      with 2026-10-21 no temperature, top_p, top_k; model, max_tokens, messages: the first
      by the user, roles taking turns, no empty text, each tool_use answered by a
      tool_result at the start of the next message, no other results; tools with
      input_schema; images base64 of known types.

Both answer in server-sent events of the provider's own framing ("stream": true) or whole.

Directives, each on a line of its own in the last text of the user; what is on other lines
is repeated by `echo`. Only the first directive counts:

  say:TEXT            says TEXT
  echo                says the user's text again; so does a text without directive
  count               says how many messages of the user it sees
  long:N              says N characters
  slow:SECONDS [TEXT] says TEXT (or "slow") letter by letter over that time
  tool:NAME JSON      calls the tool, then says "tool NAME said: RESULT"
  talk:NAME JSON      the same with a text before the call
  empty-tool:NAME     calls the tool with no arguments at all
  tools:N NAME JSON   calls the tool in N rounds, one after another
  both:NAME JSON      calls the tool twice in one answer
  forever:NAME JSON   calls the tool in each round
  bash:COMMAND        tool:bash with that command
  think:TEXT          reasons (OpenAI-compatible: reasoning_content), then says TEXT
  cut:TEXT            says TEXT and stops at its longest length
  refuse              refuses
  images              says how many images the user's last message has
  seen:WORD           says whether WORD is anywhere in the messages or the system prompt
  tool-list           says the names of the tools that it was given

A text that starts with "Summarise" in the system prompt is answered "SUMMARY of N messages"
with the words after `keep:` of the text.

Admin, on the same port:

  POST /admin/fail    {"kind", "count", "retry_after"?, "after"?}: the next COUNT requests fail:
                      429, 500, 503, 529, 401, too-long, malformed, cut, cut-early, stall,
                      stall-early, error-event, html
                      "after": characters sent before a cut or stall
  GET  /admin/requests  what was received, without keys: [{"path","headers","body","time"}]
  GET  /admin/violations
  POST /admin/reset   forgets requests, violations and failures
  GET  /admin/health

It is in four files that lie together: llm_said.py decides what is said, llm_openai.py and
llm_anthropic.py have the protocols, this one serves.

Options: --port N (0 chooses one), --state FILE (the port is written there as JSON),
--key KEY (only this one is right; any otherwise), --no-auth.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The folder may be read-only, and is under version control.
sys.dont_write_bytecode = True

import llm_anthropic
import llm_openai
from llm_said import Refusal, need, parts, plan

LOCK = threading.Lock()
REQUESTS = []
VIOLATIONS = []
FAILURES = []
OPTIONS = None

APIS = {"/v1/chat/completions": llm_openai, "/v1/messages": llm_anthropic}
MESSAGES = {"429": "Rate limit reached", "500": "The server had an error", "503": "Overloaded",
            "529": "Overloaded", "401": "Incorrect API key provided"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stand-in"

    def log_message(self, *_):
        pass

    def json(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        lists = {"/admin/requests": REQUESTS, "/admin/violations": VIOLATIONS, "/admin/health": {"ok": True}}
        if self.path in lists:
            with LOCK:
                return self.json(200, lists[self.path])
        api = APIS.get(self.path)
        error = api.error(Refusal("Not allowed to GET", 405)) if api else {"error": {"message": "Not found"}}
        return self.json(405 if api else 404, error)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        if self.path.startswith("/admin/"):
            return self.admin(raw)
        api = APIS.get(self.path.split("?")[0])
        if api is None:
            return self.json(404, {"error": {"message": f"Invalid URL (POST {self.path})", "type": "invalid_request_error"}})
        try:
            need("application/json" in self.headers.get("Content-Type", ""), "Content-Type must be application/json")
            try:
                body = json.loads(raw)
            except ValueError:
                raise Refusal("We could not parse the JSON body of your request.") from None
            need(isinstance(body, dict), "The body must be an object")
            self.record(body)
            failure = self.failure()
            if failure and self.refuse_by(failure, api.error):
                return None
            api.check({name.lower(): value for name, value in self.headers.items()}, body, OPTIONS)
            said = plan(api.view(body))
        except Refusal as refusal:
            with LOCK:
                VIOLATIONS.append({"path": self.path, "message": str(refusal)[:500]})
            return self.json(refusal.status, api.error(refusal))
        if not body.get("stream"):
            return self.json(200, api.whole(body, said))
        return self.stream(api.events(body, said), failure)

    def record(self, body):
        secret = ("authorization", "x-api-key")
        headers = {name.lower(): "[key]" if name.lower() in secret else value for name, value in self.headers.items()}
        with LOCK:
            REQUESTS.append({"path": self.path, "headers": headers, "body": body, "time": time.time()})

    def failure(self):
        with LOCK:
            if not FAILURES:
                return None
            failure = FAILURES[0]
            failure["count"] -= 1
            if failure["count"] <= 0:
                FAILURES.pop(0)
            return dict(failure)

    def refuse_by(self, failure, error):
        kind = failure["kind"]
        headers = {}
        if failure.get("retry_after") is not None:
            headers["Retry_After"] = str(failure["retry_after"])
        if kind in MESSAGES:
            self.json(int(kind), error(Refusal(MESSAGES[kind], int(kind))), **headers)
        elif kind == "too-long":
            refusal = Refusal("This model's maximum context length is 10 tokens (prompt is too long)",
                              code="context_length_exceeded")
            self.json(400, error(refusal))
        elif kind == "html":
            body = b"<html><h1>502 Bad Gateway</h1></html>"
            self.send_response(502)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif kind == "cut-early":
            self.close_connection = True
        elif kind == "stall-early":
            time.sleep(float(failure.get("seconds", 600)))
            self.close_connection = True
        else:
            return False
        return True

    def stream(self, events, failure):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        kind = failure and failure["kind"]
        left = failure.get("after", 300) if failure else 0

        def send(data):
            # Cut at odd places: providers' bytes do not keep to events.
            for piece in parts(data.encode(), 97):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()

        try:
            for wait, text in events:
                if wait:
                    time.sleep(wait)
                if kind in ("malformed", "cut", "stall", "error-event"):
                    if left <= 0:
                        return self.break_off(kind, send, failure)
                    left -= len(text)
                send(text)
            if kind in ("malformed", "cut", "stall", "error-event"):
                # Too short an answer to be broken off within.
                return self.break_off(kind, send, failure)
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def break_off(self, kind, send, failure):
        self.close_connection = True
        if kind == "malformed":
            send('data: {"choices": [{"delta": {"content": "bro\n\n')
        elif kind == "stall":
            time.sleep(float(failure.get("seconds", 600)))
        elif kind == "error-event":
            if self.path.startswith("/v1/messages"):
                send('event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n')
            else:
                send('data: {"error": {"message": "The server had an error", "type": "server_error"}}\n\n')

    def admin(self, raw):
        body = json.loads(raw or b"{}")
        with LOCK:
            if self.path == "/admin/fail":
                FAILURES.append(dict(body, count=int(body.get("count", 1)), kind=str(body["kind"])))
            elif self.path == "/admin/reset":
                REQUESTS.clear()
                VIOLATIONS.clear()
                FAILURES.clear()
            else:
                return self.json(404, {"error": "no such path"})
        return self.json(200, {"ok": True})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        # A client that went away.
        pass


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description="Stand-in for the providers of models")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", help="file that the port is written to")
    parser.add_argument("--key", help="the only right key")
    parser.add_argument("--no-auth", action="store_true", help="keys are not asked for")
    OPTIONS = parser.parse_args()
    server = Server(("127.0.0.1", OPTIONS.port), Handler)
    port = server.server_address[1]
    if OPTIONS.state:
        with open(OPTIONS.state + ".new", "w", encoding="utf-8") as file:
            json.dump({"port": port, "pid": os.getpid()}, file)
        os.replace(OPTIONS.state + ".new", OPTIONS.state)
    print(port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
