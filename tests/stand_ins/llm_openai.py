"""OpenAI's chat completions, as the stand-in for models enforces and answers them."""

import json
import re
import time

from llm_said import IMAGE_TYPES, TOOL_NAME, Refusal, View, check_tool, fresh, need, parts


def check(headers, body, options):
    if not options.no_auth:
        auth = headers.get("authorization", "")
        right = auth.startswith("Bearer ") and auth[7:].strip()
        if right and options.key:
            right = auth[7:] == options.key
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
    check_messages(messages)


def check_messages(messages):
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


def view(body):
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


def events(body, plan):
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
        yield 0, "data: " + json.dumps(dict(base, choices=[], usage=usage_of(body, plan))) + "\n\n"
    yield 0, "data: [DONE]\n\n"


def usage_of(body, plan):
    prompt, completion = len(json.dumps(body["messages"])) // 4, max(1, len(plan.text) // 4)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def whole(body, plan):
    message = {"role": "assistant", "content": plan.text or None, "refusal": None}
    if plan.calls:
        message["tool_calls"] = [
            {"id": fresh("call_"), "type": "function", "function": {"name": n, "arguments": a}}
            for n, a in plan.calls
        ]
    finish = {"end": "stop", "tools": "tool_calls", "length": "length", "refused": "stop"}[plan.stop]
    return {"id": fresh("chatcmpl-"), "object": "chat.completion", "created": int(time.time()),
            "model": body["model"], "usage": usage_of(body, plan),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]}


def error(refusal):
    kind = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"}
    return {"error": {"message": str(refusal), "type": kind.get(refusal.status, refusal.kind),
                      "param": None, "code": refusal.code}}
