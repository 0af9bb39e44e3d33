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

Options: --port N (0 chooses one), --state FILE (the port is written there as JSON),
--key KEY (only this one is right; any otherwise), --no-auth.
"""

import argparse
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
LOCK = threading.Lock()
REQUESTS = []
VIOLATIONS = []
FAILURES = []
COUNTER = [0]
OPTIONS = None


class Refusal(Exception):
    """A request that the provider refuses."""

    def __init__(self, message, status=400, kind="invalid_request_error", code=None):
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code


def need(condition, message, **more):
    if not condition:
        raise Refusal(message, **more)


def fresh(prefix):
    with LOCK:
        COUNTER[0] += 1
        return f"{prefix}{COUNTER[0]:08d}"


# What the model "says"


class Plan:
    """What is answered: text, reasoning, calls, and how it stops."""

    def __init__(self, text="", calls=(), reasoning="", stop=None, seconds=0.0):
        self.text, self.calls, self.reasoning = text, list(calls), reasoning
        self.stop = stop or ("tools" if self.calls else "end")
        self.seconds = seconds


class View:
    """A conversation as both protocols have it."""

    def __init__(self, system, user_texts, last_user, images, results, rounds, everything, tools):
        self.system, self.user_texts, self.last_user = system, user_texts, last_user
        # Results of tools and rounds of calls since the user's last text.
        self.images, self.results, self.rounds = images, results, rounds
        self.everything, self.tools = everything, tools


DIRECTIVE = re.compile(
    r"^(?:\[[^\]\n]*\]: )?(say|echo|count|long|slow|tool|talk|empty-tool|tools|both|forever|bash|think|cut"
    r"|refuse|images|seen|tool-list)(?::(.*))?$",
    re.S,
)


def plan(view):
    if view.system.startswith("Summarise"):
        kept = re.findall(r"keep:(\S+)", view.last_user)
        return Plan(f"SUMMARY of {view.last_user.count('User: ')} messages {' '.join(kept)}")
    name, rest = "echo", ""
    for line in view.last_user.split("\n"):
        match = DIRECTIVE.match(line.strip())
        if match:
            name, rest = match.group(1), (match.group(2) or "").strip()
            break
    result = "\n".join(view.results[-2:]) if name == "both" else (view.results or [""])[-1]

    def call(text):
        tool, _, arguments = text.partition(" ")
        return (tool, arguments.strip() or "{}")

    def rounds(text, limit, before=""):
        tool, arguments = call(text)
        if view.rounds < limit:
            return Plan(before, [(tool, arguments)])
        return Plan(f"tool {tool} said: {result}")

    if name == "say":
        return Plan(rest)
    if name == "echo":
        return Plan(view.last_user)
    if name == "count":
        return Plan(str(len(view.user_texts)))
    if name == "long":
        return Plan(("0123456789" * (int(rest) // 10 + 1))[: int(rest)])
    if name == "slow":
        seconds, _, text = rest.partition(" ")
        return Plan(text or "slow", seconds=float(seconds))
    if name == "bash":
        return rounds("bash " + json.dumps({"command": rest}), 1)
    if name == "tool":
        return rounds(rest, 1)
    if name == "talk":
        return rounds(rest, 1, "I will look.")
    if name == "empty-tool":
        return Plan("", [(rest, "")]) if view.rounds < 1 else Plan(f"tool {rest} said: {result}")
    if name == "tools":
        count, _, more = rest.partition(" ")
        return rounds(more, int(count))
    if name == "forever":
        return rounds(rest, 10**9)
    if name == "both":
        if view.rounds < 1:
            return Plan("", [call(rest), call(rest)])
        return Plan(f"tools said: {result}")
    if name == "think":
        return Plan(rest, reasoning="Let me think about it.")
    if name == "cut":
        return Plan(rest, stop="length")
    if name == "refuse":
        return Plan("", stop="refused")
    if name == "images":
        return Plan(f"{view.images} images")
    if name == "seen":
        return Plan("yes" if rest in view.everything else "no")
    if name == "tool-list":
        return Plan(" ".join(sorted(view.tools)))
    return Plan(view.last_user)


# OpenAI


def check_openai(headers, body):
    if not OPTIONS.no_auth:
        auth = headers.get("authorization", "")
        right = auth.startswith("Bearer ") and auth[7:].strip()
        if right and OPTIONS.key:
            right = auth[7:] == OPTIONS.key
        need(right, "Incorrect API key provided: " + auth[7:], status=401, code="invalid_api_key")
    need(isinstance(body.get("model"), str) and body["model"], "you must provide a model parameter")
    messages = body.get("messages")
    need(isinstance(messages, list) and messages, "Missing required parameter: 'messages'")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        need(limit is None or (isinstance(limit, int) and limit >= 1), f"Invalid value: '{name}'")
    model = body["model"]
    if re.match(r"^(gpt-5|o\d)", model):
        need("max_tokens" not in body, "Unsupported parameter: 'max_tokens' is not supported with "
             "this model. Use 'max_completion_tokens' instead.", code="unsupported_parameter")
    need(isinstance(body.get("stream", False), bool), "Invalid type for 'stream'")
    if "stream_options" in body:
        need(body.get("stream"), "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    tools = body.get("tools")
    if tools is not None:
        need(isinstance(tools, list) and tools, "Invalid 'tools': empty array")
        for tool in tools:
            function = tool.get("function") or {}
            need(tool.get("type") == "function", "Missing required parameter: 'tools[].type'")
            check_tool(function.get("name"), function.get("parameters"), "parameters")
        names = [tool["function"]["name"] for tool in tools]
        need(len(names) == len(set(names)), "Tool names must be unique.")
    check_openai_messages(messages)


def check_tool(name, schema, where):
    need(isinstance(name, str) and TOOL_NAME.match(name), f"Invalid tool name: {name!r}")
    need(isinstance(schema, dict) and schema.get("type") == "object",
         f"Invalid schema for function '{name}': {where} must be of type object")
    need(isinstance(schema.get("properties", {}), dict), f"Invalid schema for function '{name}'")
    need(set(schema.get("required", [])) <= set(schema.get("properties", {})),
         f"Invalid schema for function '{name}': 'required' names unknown properties")


def check_openai_messages(messages):
    waiting = []
    for at, message in enumerate(messages):
        need(isinstance(message, dict), f"messages[{at}] is not an object")
        role, content = message.get("role"), message.get("content")
        need(role in ("system", "developer", "user", "assistant", "tool"),
             f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'tool'.")
        if role == "tool":
            call = message.get("tool_call_id")
            need(call in waiting, "messages with role 'tool' must be a response to a preceding "
                 "message with 'tool_calls'.")
            need(isinstance(content, str), f"Invalid type for 'messages[{at}].content'")
            waiting.remove(call)
            continue
        need(not waiting, "An assistant message with 'tool_calls' must be followed by tool "
             f"messages responding to each 'tool_call_id': {', '.join(waiting)}")
        if role == "assistant":
            calls = message.get("tool_calls")
            need(calls is None or (isinstance(calls, list) and calls), "Invalid 'tool_calls': empty array")
            need(isinstance(content, str) or calls, f"messages[{at}].content must be a string")
            for call in calls or []:
                need(call.get("type") == "function" and call.get("id"), "Missing 'tool_calls[].id'")
                function = call.get("function") or {}
                need(TOOL_NAME.match(function.get("name", "")), "Invalid 'tool_calls[].function.name'")
                try:
                    arguments = json.loads(function.get("arguments"))
                except (TypeError, ValueError):
                    raise Refusal("Invalid 'tool_calls[].function.arguments'") from None
                need(isinstance(arguments, dict), "arguments must be a JSON object")
                waiting.append(call["id"])
            continue
        if isinstance(content, str):
            continue
        need(isinstance(content, list) and content, f"Invalid type for 'messages[{at}].content'")
        for part in content:
            if part.get("type") == "text":
                need(isinstance(part.get("text"), str), "Missing 'content[].text'")
            elif part.get("type") == "image_url":
                need(role == "user", "Image URLs are only allowed for messages with role 'user'")
                match = re.match(r"^data:([^;]+);base64,([A-Za-z0-9+/]+=*)$", part["image_url"]["url"])
                need(match and match.group(1) in IMAGE_TYPES, "You uploaded an unsupported image.",
                     code="invalid_image_format")
            else:
                raise Refusal(f"Invalid value: '{part.get('type')}'")
    need(not waiting, "An assistant message with 'tool_calls' must be followed by tool messages "
         f"responding to each 'tool_call_id': {', '.join(waiting)}")


def view_openai(body):
    def text(content):
        if isinstance(content, str):
            return content
        return "\n".join(part["text"] for part in content or [] if part["type"] == "text")

    messages = body["messages"]
    system = "\n".join(text(m["content"]) for m in messages if m["role"] in ("system", "developer"))
    # What carries the images of tools is not what a user wrote.
    users = [(at, m) for at, m in enumerate(messages)
             if m["role"] == "user" and not text(m["content"]).startswith("Images that the tools")]
    last, message = users[-1] if users else (0, {"content": ""})
    content = message["content"]
    images = 0 if isinstance(content, str) else sum(p["type"] == "image_url" for p in content)
    after = messages[last + 1 :]
    return View(
        system,
        [text(m["content"]) for _, m in users],
        text(content),
        images,
        [m["content"] for m in after if m["role"] == "tool"],
        sum(bool(m.get("tool_calls")) for m in after),
        system + json.dumps([m for at, m in enumerate(messages) if at != last], ensure_ascii=False),
        [tool["function"]["name"] for tool in body.get("tools") or []],
    )


def openai_events(body, plan):
    """Chunks as (seconds to wait, text)."""
    base = {"id": fresh("chatcmpl-"), "object": "chat.completion.chunk", "created": int(time.time()),
            "model": body["model"], "system_fingerprint": "fp_stand_in"}

    def chunk(delta, finish=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        value = dict(base, choices=[choice])
        if (body.get("stream_options") or {}).get("include_usage"):
            value["usage"] = None
        return "data: " + json.dumps(value) + "\n\n"

    yield 0, chunk({"role": "assistant", "content": "" if not plan.calls else None, "refusal": None})
    for part in parts(plan.reasoning, 7):
        yield 0, chunk({"reasoning_content": part})
    pieces = list(parts(plan.text, 1 if plan.seconds else 5))
    for piece in pieces:
        yield plan.seconds / len(pieces), chunk({"content": piece})
    for at, (name, arguments) in enumerate(plan.calls):
        yield 0, chunk({"tool_calls": [{"index": at, "id": fresh("call_"), "type": "function",
                                        "function": {"name": name, "arguments": ""}}]})
        for piece in parts(arguments, 3):
            yield 0, chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    if plan.stop == "refused":
        yield 0, chunk({"refusal": "I cannot help with that."})
    finish = {"end": "stop", "tools": "tool_calls", "length": "length", "refused": "stop"}
    yield 0, chunk({}, finish[plan.stop])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield 0, "data: " + json.dumps(dict(base, choices=[], usage=openai_usage(body, plan))) + "\n\n"
    yield 0, "data: [DONE]\n\n"


def openai_usage(body, plan):
    prompt, completion = len(json.dumps(body["messages"])) // 4, max(1, len(plan.text) // 4)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def openai_whole(body, plan):
    message = {"role": "assistant", "content": plan.text or None, "refusal": None}
    if plan.calls:
        message["tool_calls"] = [
            {"id": fresh("call_"), "type": "function", "function": {"name": n, "arguments": a}}
            for n, a in plan.calls
        ]
    finish = {"end": "stop", "tools": "tool_calls", "length": "length", "refused": "stop"}[plan.stop]
    return {"id": fresh("chatcmpl-"), "object": "chat.completion", "created": int(time.time()),
            "model": body["model"], "usage": openai_usage(body, plan),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]}


def openai_error(refusal):
    kind = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"}
    return {"error": {"message": str(refusal), "type": kind.get(refusal.status, refusal.kind),
                      "param": None, "code": refusal.code}}


# Anthropic


def check_anthropic(headers, body):
    if not OPTIONS.no_auth:
        bearer = headers.get("authorization", "")
        key = headers.get("x-api-key", "") or (bearer[7:] if bearer.startswith("Bearer ") else "")
        need(key and (not OPTIONS.key or key == OPTIONS.key), "invalid x-api-key", status=401,
             kind="authentication_error")
    version = headers.get("anthropic-version")
    need(version in ("2026-10-21", "2023-06-01"), "anthropic-version: header is required")
    need(isinstance(body.get("model"), str) and body["model"], "model: Field required")
    limit = body.get("max_tokens")
    need(isinstance(limit, int) and limit >= 1, "max_tokens: Field required")
    need(isinstance(body.get("system", ""), (str, list)), "system: Input should be a valid string")
    for tool in body.get("tools") or []:
        check_tool(tool.get("name"), tool.get("input_schema"), "input_schema")
    known = {"model", "max_tokens", "messages", "stream", "system", "tools", "tool_choice", "metadata",
             "stop_sequences", "thinking", "service_tier", "cache_control", "container", "diagnostics",
             "inference_geo", "output_config", "speed"}
    if version == "2023-06-01":
        known |= {"temperature", "top_k", "top_p"}
    need(set(body) <= known, f"{', '.join(set(body) - known)}: Extra inputs are not permitted")
    messages = body.get("messages")
    need(isinstance(messages, list) and messages, "messages: at least one message is required")
    need(messages[0].get("role") == "user", "messages: first message must use the \"user\" role")
    waiting, last = [], None
    for at, message in enumerate(messages):
        role = message.get("role")
        need(role in ("user", "assistant"), f"messages.{at}.role: Input should be 'user' or 'assistant'")
        # The API joins those that follow each other; a client of ours must not rely on it.
        need(role != last, f"messages.{at}: roles must take turns")
        last = role
        waiting = check_anthropic_content(at, role, message.get("content"), waiting)
    need(not waiting, f"`tool_use` ids were found without `tool_result` blocks: {', '.join(waiting)}")


def check_anthropic_content(at, role, content, waiting):
    """Gives the calls that have to be answered by the next message."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    need(isinstance(content, list) and content, f"messages.{at}: content must be non-empty")
    answered, calls, other = [], [], False
    for block in content:
        kind = block.get("type")
        if kind == "text":
            need(block.get("text", "").strip(), f"messages.{at}: text content blocks must be non-empty")
            other = True
        elif kind == "image":
            source = block.get("source") or {}
            need(role == "user" and source.get("type") == "base64", f"messages.{at}: invalid image")
            need(source.get("media_type") in IMAGE_TYPES and source.get("data"), "invalid image source")
            other = True
        elif kind == "tool_use":
            need(role == "assistant" and block.get("id"), f"messages.{at}: unexpected `tool_use`")
            need(TOOL_NAME.match(block.get("name", "")), f"messages.{at}: tool_use.name is invalid")
            need(isinstance(block.get("input"), dict),
                 f"messages.{at}: tool_use.input: Input should be a valid dictionary")
            calls.append(block["id"])
        elif kind == "tool_result":
            need(role == "user" and not other, f"messages.{at}: tool_result blocks must come first")
            need(block.get("tool_use_id") in waiting, "unexpected `tool_use_id` found in `tool_result` "
                 f"blocks: {block.get('tool_use_id')}")
            inner = block.get("content", "")
            need(isinstance(inner, (str, list)), "tool_result.content is invalid")
            for part in inner if isinstance(inner, list) else []:
                need(part.get("type") in ("text", "image"), "tool_result.content is invalid")
                need(part["type"] != "text" or part.get("text", "").strip(), "text must be non-empty")
            answered.append(block["tool_use_id"])
        else:
            raise Refusal(f"messages.{at}: Input tag '{kind}' is not expected")
    missing = [call for call in waiting if call not in answered]
    need(not missing, f"messages.{at}: `tool_use` ids were found without `tool_result` blocks "
         f"immediately after: {', '.join(missing)}")
    return calls


def view_anthropic(body):
    def blocks(message):
        content = message["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    def text(parts_):
        if isinstance(parts_, str):
            return parts_
        return "\n".join(part["text"] for part in parts_ if part["type"] == "text")

    messages = body["messages"]
    system = text(body.get("system", ""))
    users = [(at, m) for at, m in enumerate(messages)
             if m["role"] == "user" and any(b["type"] in ("text", "image") for b in blocks(m))]
    last, message = users[-1] if users else (0, {"content": ""})
    own = [block for block in blocks(message) if block["type"] != "tool_result"]
    # A text that is joined to one before it, as of a message without an answer.
    texts = [block["text"] for block in own if block["type"] == "text"]
    after = messages[last + 1 :]
    results = [text(block.get("content", "")) for m in after if m["role"] == "user"
               for block in blocks(m) if block["type"] == "tool_result"]
    return View(
        system,
        [block["text"] for _, m in users for block in blocks(m) if block["type"] == "text"],
        texts[-1] if texts else "",
        sum(block["type"] == "image" for block in own),
        results,
        sum(any(b["type"] == "tool_use" for b in blocks(m)) for m in after if m["role"] == "assistant"),
        system + json.dumps([m for at, m in enumerate(messages) if at != last], ensure_ascii=False),
        [tool["name"] for tool in body.get("tools") or []],
    )


def anthropic_usage(body, plan):
    return {"input_tokens": len(json.dumps(body["messages"])) // 4, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": max(1, len(plan.text) // 4)}


ANTHROPIC_STOP = {"end": "end_turn", "tools": "tool_use", "length": "max_tokens", "refused": "refusal"}


def anthropic_events(body, plan):
    def event(kind, **more):
        return f"event: {kind}\ndata: {json.dumps(dict(type=kind, **more))}\n\n"

    usage = anthropic_usage(body, plan)
    message = {"id": fresh("msg_"), "type": "message", "role": "assistant", "model": body["model"],
               "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": dict(usage, output_tokens=1)}
    yield 0, event("message_start", message=message)
    at = 0
    if plan.text:
        yield 0, event("content_block_start", index=at, content_block={"type": "text", "text": ""})
        yield 0, event("ping")
        pieces = list(parts(plan.text, 1 if plan.seconds else 5))
        for piece in pieces:
            yield plan.seconds / len(pieces), event(
                "content_block_delta", index=at, delta={"type": "text_delta", "text": piece})
        yield 0, event("content_block_stop", index=at)
        at += 1
    for name, arguments in plan.calls:
        block = {"type": "tool_use", "id": fresh("toolu_"), "name": name, "input": {}}
        yield 0, event("content_block_start", index=at, content_block=block)
        # The first part is always empty; a call without arguments has no other.
        for piece in [""] + list(parts("" if arguments == "{}" else arguments, 3)):
            yield 0, event("content_block_delta", index=at,
                           delta={"type": "input_json_delta", "partial_json": piece})
        yield 0, event("content_block_stop", index=at)
        at += 1
    yield 0, event("message_delta", delta={"stop_reason": ANTHROPIC_STOP[plan.stop], "stop_sequence": None},
                   usage={"output_tokens": usage["output_tokens"]})
    yield 0, event("message_stop")


def anthropic_whole(body, plan):
    content = [{"type": "text", "text": plan.text}] if plan.text else []
    for name, arguments in plan.calls:
        content.append({"type": "tool_use", "id": fresh("toolu_"), "name": name,
                        "input": json.loads(arguments or "{}")})
    return {"id": fresh("msg_"), "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": ANTHROPIC_STOP[plan.stop], "stop_sequence": None,
            "usage": anthropic_usage(body, plan)}


def anthropic_error(refusal):
    kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "api_error",
             503: "api_error", 529: "overloaded_error", 413: "request_too_large"}
    return {"type": "error", "error": {"type": kinds.get(refusal.status, refusal.kind),
                                       "message": str(refusal)}, "request_id": fresh("req_")}


def parts(text, size):
    for at in range(0, len(text), size):
        yield text[at : at + size]


# The server

APIS = {
    "/v1/chat/completions": (check_openai, view_openai, openai_events, openai_whole, openai_error),
    "/v1/messages": (check_anthropic, view_anthropic, anthropic_events, anthropic_whole, anthropic_error),
}
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
        error = api[4](Refusal("Not allowed to GET", 405)) if api else {"error": {"message": "Not found"}}
        return self.json(405 if api else 404, error)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        if self.path.startswith("/admin/"):
            return self.admin(raw)
        api = APIS.get(self.path.split("?")[0])
        if api is None:
            return self.json(404, {"error": {"message": f"Invalid URL (POST {self.path})", "type": "invalid_request_error"}})
        check, view, events, whole, error = api
        try:
            need("application/json" in self.headers.get("Content-Type", ""), "Content-Type must be application/json")
            try:
                body = json.loads(raw)
            except ValueError:
                raise Refusal("We could not parse the JSON body of your request.") from None
            need(isinstance(body, dict), "The body must be an object")
            self.record(body)
            failure = self.failure()
            if failure and self.refuse_by(failure, error):
                return None
            check({name.lower(): value for name, value in self.headers.items()}, body)
            said = plan(view(body))
        except Refusal as refusal:
            with LOCK:
                VIOLATIONS.append({"path": self.path, "message": str(refusal)[:500]})
            return self.json(refusal.status, error(refusal))
        if not body.get("stream"):
            return self.json(200, whole(body, said))
        return self.stream(events(body, said), failure)

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
