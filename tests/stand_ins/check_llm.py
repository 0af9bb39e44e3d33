#!/usr/bin/env python3
"""Checks the stand-in for models with the providers' own clients.

Needs the packages `openai` and `anthropic` of PyPI, pinned in clients.txt; starts llm.py
by itself on loopback. What the clients parse without complaint is what the stand-in may
send; what they raise is what it should refuse.
"""

import json
import os
import subprocess
import sys
import urllib.request

import anthropic
import openai

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Stand:
    def __init__(self):
        command = [sys.executable, os.path.join(HERE, "llm.py"), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.openai = openai.OpenAI(api_key="sk-check", base_url=self.url + "/v1", max_retries=0)
        self.anthropic = anthropic.Anthropic(api_key="sk-check", base_url=self.url, max_retries=0)

    def admin(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + "/admin/" + path, data)) as answer:
            return json.load(answer)

    def chat(self, text, **more):
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return self.openai.chat.completions.create(model="gpt-test", messages=messages, **more)

    def message(self, text, **more):
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return dict(model="claude-test", max_tokens=100, messages=messages, **more)


@check
def openai_streams_text_and_usage(stand):
    stream = stand.chat("say:hello world", stream=True, stream_options={"include_usage": True})
    text, usage, finish = "", None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert (text, finish) == ("hello world", "stop"), (text, finish)
    assert usage.prompt_tokens > 0 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@check
def openai_streams_calls_and_takes_their_results(stand):
    tools = [{"type": "function", "function": {"name": "bash", "parameters": TOOL}}]
    text = 'tool:bash {"command": "ls"}'
    with stand.openai.chat.completions.stream(
        model="gpt-test", messages=[{"role": "user", "content": text}], tools=tools
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    call = message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"command": "ls"}, call
    answer = {"role": "tool", "tool_call_id": call.id, "content": "a.txt"}
    said = stand.chat([{"role": "user", "content": text}, message.to_dict(), answer], tools=tools)
    assert said.choices[0].message.content == "tool bash said: a.txt"


@check
def openai_refuses_a_call_without_a_result(stand):
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
    try:
        stand.chat(messages + [{"role": "user", "content": "y"}])
    except openai.BadRequestError as error:
        assert "tool_call_id" in str(error)
    else:
        raise AssertionError("it was taken")


@check
def openai_errors_have_their_class(stand):
    kinds = {"401": openai.AuthenticationError, "429": openai.RateLimitError, "500": openai.InternalServerError,
             "too-long": openai.BadRequestError}
    for kind, expected in kinds.items():
        stand.admin("fail", {"kind": kind, "count": 1, "retry_after": 1})
        try:
            stand.chat("say:x")
        except expected as error:
            assert error.body["message"], error.body
        else:
            raise AssertionError(kind)


@check
def openai_reports_a_failure_within_a_stream(stand):
    stand.admin("fail", {"kind": "error-event", "count": 1})
    try:
        list(stand.chat("long:500", stream=True))
    except openai.APIError as error:
        assert "server had an error" in str(error)
    else:
        raise AssertionError("no error")


@check
def openai_length_and_whole_answers(stand):
    choice = stand.chat("cut:abc").choices[0]
    assert (choice.message.content, choice.finish_reason) == ("abc", "length")


@check
def anthropic_streams_text_and_usage(stand):
    with stand.anthropic.messages.stream(**stand.message("say:hello world")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "hello world" and final.stop_reason == "end_turn"
    assert final.usage.input_tokens > 0 and final.usage.output_tokens > 0


@check
def anthropic_streams_calls_and_takes_their_results(stand):
    tools = [{"name": "bash", "description": "x", "input_schema": TOOL}]
    text = 'talk:bash {"command": "ls"}'
    with stand.anthropic.messages.stream(**stand.message(text, tools=tools)) as stream:
        final = stream.get_final_message()
    spoken, call = final.content
    assert (spoken.text, call.input, final.stop_reason) == ("I will look.", {"command": "ls"}, "tool_use")
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "a.txt"}]}
    own = {"role": "assistant", "content": [
        {"type": "text", "text": spoken.text},
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]}
    messages = [{"role": "user", "content": text}, own, result]
    said = stand.anthropic.messages.create(**stand.message(messages, tools=tools))
    assert said.content[0].text == "tool bash said: a.txt"


@check
def anthropic_gives_empty_arguments_as_an_empty_object(stand):
    tools = [{"name": "info", "input_schema": {"type": "object", "properties": {}}}]
    with stand.anthropic.messages.stream(**stand.message("empty-tool:info", tools=tools)) as stream:
        assert stream.get_final_message().content[0].input == {}


@check
def anthropic_refuses_what_breaks_its_rules(stand):
    use = {"type": "tool_use", "id": "c", "name": "bash", "input": {}}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [use]}]
    for messages in (
        turns + [{"role": "user", "content": "y"}],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": [{"type": "text", "text": ""}]}],
    ):
        try:
            stand.anthropic.messages.create(**stand.message(messages))
        except anthropic.BadRequestError as error:
            assert error.body["type"] == "error", error.body
        else:
            raise AssertionError(messages)


@check
def anthropic_removed_its_sampling_parameters(stand):
    try:
        stand.anthropic.messages.create(**stand.message("say:x", extra_body={"temperature": 0.5}))
    except anthropic.BadRequestError as error:
        assert "temperature" in str(error)
    else:
        raise AssertionError("it was taken")


@check
def anthropic_errors_have_their_class(stand):
    kinds = {"401": anthropic.AuthenticationError, "429": anthropic.RateLimitError,
             "500": anthropic.InternalServerError, "529": anthropic.InternalServerError}
    for kind, expected in kinds.items():
        stand.admin("fail", {"kind": kind, "count": 1})
        try:
            stand.anthropic.messages.create(**stand.message("say:x"))
        except expected as error:
            assert error.status_code == int(kind)
        else:
            raise AssertionError(kind)


@check
def anthropic_reports_a_failure_within_a_stream(stand):
    stand.admin("fail", {"kind": "error-event", "count": 1, "after": 800})
    try:
        with stand.anthropic.messages.stream(**stand.message("long:500")) as stream:
            stream.get_final_message()
    except anthropic.APIError as error:
        assert "Overloaded" in str(error)
    else:
        raise AssertionError("no error")


def main():
    stand = Stand()
    failed = 0
    try:
        for function in CHECKS:
            stand.admin("reset", {})
            try:
                function(stand)
                print(f"ok      {function.__name__}")
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                print(f"failed  {function.__name__}: {type(error).__name__}: {error}")
    finally:
        stand.process.kill()
        stand.process.wait()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
