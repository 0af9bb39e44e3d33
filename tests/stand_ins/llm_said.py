"""What the stand-in for models "says": a plan made from directives, which llm.py lists."""

import itertools
import json
import re

TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
IMAGE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
NUMBERS = itertools.count(1)


class Refusal(Exception):
    """A request that the provider refuses."""

    def __init__(self, message, status=400, kind="invalid_request_error", code=None):
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code


def need(condition, message, **more):
    if not condition:
        raise Refusal(message, **more)


def fresh(prefix):
    """An id that is used once. Counting is one step, whatever thread does it."""
    return f"{prefix}{next(NUMBERS):08d}"


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


def check_tool(name, schema, where):
    need(isinstance(name, str) and TOOL_NAME.match(name), f"Invalid tool name: {name!r}")
    need(isinstance(schema, dict) and schema.get("type") == "object",
         f"Invalid schema for function '{name}': {where} must be of type object")
    need(isinstance(schema.get("properties", {}), dict), f"Invalid schema for function '{name}'")
    need(set(schema.get("required", [])) <= set(schema.get("properties", {})),
         f"Invalid schema for function '{name}': 'required' names unknown properties")


def parts(text, size):
    for at in range(0, len(text), size):
        yield text[at : at + size]
