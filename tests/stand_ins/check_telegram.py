#!/usr/bin/env python3
"""Checks the stand-in telegram.py against a published client of the Bot API.

The client's own types read every answer, and its own errors are raised for every refusal.
The client is python-telegram-bot of PyPI, pinned in clients.txt.
"""

import asyncio
import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
# The client's package has the name of the stand-in.
sys.path = [path for path in sys.path if pathlib.Path(path).resolve() != HERE]

import telegram  # noqa: E402
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, RetryAfter  # noqa: E402

CHAT = {"id": 42, "type": "private", "first_name": "Ann"}


def order(base, what, value):
    request = urllib.request.Request(f"{base}/admin/{what}", json.dumps(value).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def refused(kind, call, text=""):
    try:
        await call
    except kind as error:
        assert text.lower() in str(error).lower(), (text, error)
        return error
    raise AssertionError(f"not refused: {kind} {text}")


async def check(base, token):
    def client(token):
        return telegram.Bot(token, base_url=f"{base}/bot", base_file_url=f"{base}/file/bot")

    async with client(token) as bot:
        assert bot.username == "aegis_test_bot" and (await bot.get_me()).is_bot
        photo = base64.b64encode(b"\xff\xd8 photo").decode()
        order(base, "update", {"chat": CHAT, "text": "/start now"})
        order(base, "update", {"chat": CHAT, "photo": {"data": photo}, "caption": "see"})
        order(base, "update", {"chat": CHAT, "document": {"data": photo, "file_name": "a.jpg", "mime_type": "image/jpeg"}})
        updates = await bot.get_updates(timeout=1, allowed_updates=["message"])
        first, second, third = [update.message for update in updates]
        assert first.entities[0].type == "bot_command" and first.from_user.username == "ann"
        largest = max(second.photo, key=lambda size: size.width)
        file = await bot.get_file(largest.file_id)
        assert bytes(await file.download_as_bytearray()) == b"\xff\xd8 photo"
        assert third.document.mime_type == "image/jpeg"
        assert len(await bot.get_updates(offset=updates[-1].update_id)) == 1
        assert await bot.get_updates(offset=updates[-1].update_id + 1, timeout=0) == ()

        sent = await bot.send_message(42, "<b>bold</b> &amp; <code>x</code>", parse_mode="HTML")
        assert sent.text == "bold & x"
        edited = await bot.edit_message_text("other", 42, sent.message_id)
        assert edited.text == "other"
        await refused(BadRequest, bot.edit_message_text("other", 42, sent.message_id), "not modified")
        await asyncio.sleep(3)
        await refused(BadRequest, bot.edit_message_text("x", 42, 99999), "Message to edit not found")
        await refused(BadRequest, bot.send_message(42, "<x>a</x>", parse_mode="HTML"), "Unsupported start tag \"x\"")
        await refused(BadRequest, bot.send_message(42, "<b>a", parse_mode="HTML"), "Can't find end tag")
        await refused(BadRequest, bot.send_message(42, "x" * 4097), "Message is too long")
        await refused(BadRequest, bot.send_message(42, " "), "Message text is empty")
        await refused(BadRequest, bot.send_message(1, "x"), "Chat not found")
        await bot.send_photo(42, b"\x89PNG", caption="c", filename="a.png")
        await bot.send_document(42, b"bytes", filename="a.bin")
        await bot.send_chat_action(42, "typing")
        assert await bot.set_my_commands([("help", "What this bot can do")])
        assert await bot.delete_message(42, sent.message_id)

        too_many = None
        for _ in range(5):
            try:
                await bot.send_message(42, "again")
            except RetryAfter as error:
                too_many = error
                break
        assert too_many is not None
        wait = too_many.retry_after
        time.sleep(wait if isinstance(wait, (int, float)) else wait.total_seconds())
        await bot.send_message(42, "after the wait")
        order(base, "block", {"chat": 42})
        await refused(Forbidden, bot.send_message(42, "x"), "blocked by the user")

        async with client(token) as other:
            slow = asyncio.create_task(bot.get_updates(offset=updates[-1].update_id + 1, timeout=5))
            await asyncio.sleep(0.5)
            await other.get_updates(offset=updates[-1].update_id + 1, timeout=0)
            await refused(Conflict, slow, "terminated by other getUpdates request")
    wrong = client("1:wrong")
    await refused(InvalidToken, wrong.initialize())


def main():
    with tempfile.TemporaryDirectory() as folder:
        state = pathlib.Path(folder) / "state"
        program = [sys.executable, HERE / "telegram.py", "--port", "0", "--state", state]
        process = subprocess.Popen(program)
        try:
            while not state.exists():
                time.sleep(0.05)
            told = json.loads(state.read_text())
            asyncio.run(check(f"http://127.0.0.1:{told['port']}", told["token"]))
        finally:
            process.terminate()
            process.wait()
    print(f"the stand-in answers as python-telegram-bot {telegram.__version__} expects")


if __name__ == "__main__":
    main()
