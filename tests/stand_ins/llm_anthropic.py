"""Anthropic's Messages API, as the stand-in for models enforces and answers it."""

import json

from llm_said import IMAGE_TYPES, TOOL_NAME, Refusal, View, check_tool, fresh, need, parts


def check(headers, body, options):
    if not options.no_auth:
        bearer = headers.get("authorization", "")
        key = headers.get("x-api-key", "") or (bearer[7:] if bearer.startswith("Bearer ") else "")
        need(key and (not options.key or key == options.key), "invalid x-api-key", status=401,
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
        waiting = check_content(at, role, message.get("content"), waiting)
    need(not waiting, f"`tool_use` ids were found without `tool_result` blocks: {', '.join(waiting)}")


def check_content(at, role, content, waiting):
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


def view(body):
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


def usage_of(body, plan):
    return {"input_tokens": len(json.dumps(body["messages"])) // 4, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": max(1, len(plan.text) // 4)}


STOP = {"end": "end_turn", "tools": "tool_use", "length": "max_tokens", "refused": "refusal"}


def events(body, plan):
    def event(kind, **more):
        return f"event: {kind}\ndata: {json.dumps(dict(type=kind, **more))}\n\n"

    usage = usage_of(body, plan)
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
    yield 0, event("message_delta", delta={"stop_reason": STOP[plan.stop], "stop_sequence": None},
                   usage={"output_tokens": usage["output_tokens"]})
    yield 0, event("message_stop")


def whole(body, plan):
    content = [{"type": "text", "text": plan.text}] if plan.text else []
    for name, arguments in plan.calls:
        content.append({"type": "tool_use", "id": fresh("toolu_"), "name": name,
                        "input": json.loads(arguments or "{}")})
    return {"id": fresh("msg_"), "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": STOP[plan.stop], "stop_sequence": None,
            "usage": usage_of(body, plan)}


def error(refusal):
    kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "api_error",
             503: "api_error", 529: "overloaded_error", 413: "request_too_large"}
    return {"type": "error", "error": {"type": kinds.get(refusal.status, refusal.kind),
                                       "message": str(refusal)}, "request_id": fresh("req_")}
