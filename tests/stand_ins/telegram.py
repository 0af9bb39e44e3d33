#!/usr/bin/env python3
"""A stand-in for Telegram's Bot API (https://core.telegram.org/bots/api), for tests.

    telegram.py --port 0 --state FILE [--token 123456:TEST-token] [--fast]

It listens on 127.0.0.1 and writes {"port": N, "token": "..."} to FILE once it does. It is
strict where a client can go wrong:

- the token in the path (else 401, or 404 where it has not the form of one), one of the
  methods below (else 404), parameters of the right types, in JSON or multipart/form-data
- getUpdates: offset confirms, limit, long poll; a second poller ends the first (409)
- texts of 1 to 4096 and captions of up to 1024 UTF-16 code units after the marks are taken
  out; parse_mode HTML with Telegram's tags, well nested; "message is not modified"
- chats that are known (a chat is, once it has written) and have not blocked the bot
- the limits of the FAQ: a message a second in a chat with bursts of 3, 20 a minute in a
  group, 30 a second in all; edits count. Too many are 429 with retry_after. A call for a
  chat that comes before its retry_after is over is a violation.

Methods: getMe, getUpdates, sendMessage, editMessageText, sendPhoto, sendDocument,
sendChatAction, getFile, setMyCommands, deleteMessage; GET /file/bot<token>/<file_path>.

What tests ask of it, as JSON, on the same port:

    POST /admin/update    {"chat": {...}, "text"|"photo"|"document"|...}  or {"raw": {...}}
    POST /admin/fail      {"method", "times", "kind", "retry_after"?, "seconds"?, "chat"?}
                          kinds: 429, 500, 502 (HTML), 400 with "description", 403, cut
                          (connection closed, nothing done), slow, lost (done, answer cut)
    POST /admin/block     {"chat": id}            the user blocks the bot
    POST /admin/migrate   {"chat": id, "to": id}  the group becomes a supergroup
    GET  /admin/chat?id=  messages of the bot in order: text, html, edits, deleted, photo
    GET  /admin/calls     every call: method, chat, time, status
    GET  /admin/state     offset, violations, pending updates, commands, conflicts
"""

import argparse
import base64
import collections
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from telegram_reading import Refused, bad, integer, kind_of, multipart, parse_html, units

MESSAGE, CAPTION = 4096, 1024
LARGEST_FILE = 20 << 20
BURST, APART, GROUP_MINUTE, ALL_SECOND = 3, 1.0, 20, 30
BOT = {"id": 0, "is_bot": True, "first_name": "Test", "username": "aegis_test_bot",
       "can_join_groups": True, "can_read_all_group_messages": False,
       "supports_inline_queries": False}


# -- state -----------------------------------------------------------------------------------

class Telegram:
    def __init__(self, token, fast):
        self.token, self.fast = token, fast
        self.lock = threading.Condition()
        self.bot = dict(BOT, id=int(token.split(":")[0]))
        self.updates = collections.deque()
        self.next_update, self.next_message = 1000, 1
        self.offset = 0
        self.poller = 0
        self.chats = {}
        self.blocked = set()
        self.moved = {}
        self.files = {}
        self.messages = collections.defaultdict(list)
        self.sent = collections.defaultdict(collections.deque)
        self.buckets = {}
        self.all_sent = collections.deque()
        self.retry_at = {}
        self.all_retry_at = 0.0
        self.violations, self.calls, self.failures = [], [], []
        self.commands, self.conflicts, self.actions = None, 0, collections.Counter()
        self.given = collections.Counter()

    # -- limits

    def limit(self, chat):
        """Counts a message, or refuses it."""
        now = time.monotonic()
        until = self.retry_at.get(chat, 0)
        if now < until:
            self.violations.append({"kind": "retry_after", "chat": chat, "early": until - now})
        if now < max(until, self.all_retry_at):
            raise self.too_many(max(until, self.all_retry_at) - now)
        if self.fast:
            return
        tokens, last = self.buckets.get(chat, (BURST, now))
        tokens = min(BURST, tokens + (now - last) / APART)
        minute, second = self.sent[chat], self.all_sent
        while minute and minute[0] <= now - 60:
            minute.popleft()
        while second and second[0] <= now - 1:
            second.popleft()
        wait = 0
        if tokens < 1:
            wait = (1 - tokens) * APART + 1
        if chat < 0 and len(minute) >= GROUP_MINUTE:
            wait = max(wait, minute[0] + 60 - now)
        if wait:
            self.retry_at[chat] = now + int(wait + 1)
            self.violations.append({"kind": "rate", "chat": chat})
            raise self.too_many(int(wait + 1))
        if len(second) >= ALL_SECOND:
            self.all_retry_at = now + 2
            self.violations.append({"kind": "rate of all", "chat": chat})
            raise self.too_many(2)
        self.buckets[chat] = (tokens - 1, now)
        minute.append(now)
        second.append(now)

    @staticmethod
    def too_many(seconds):
        seconds = max(1, int(seconds + 0.999))
        return Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)

    # -- methods

    def get_me(self, _):
        return self.bot

    def get_updates(self, p):
        offset, limit = integer(p, "offset", 0), integer(p, "limit", 100)
        timeout = integer(p, "timeout", 0)
        if not 1 <= limit <= 100:
            limit = 100
        allowed = p.get("allowed_updates")
        if allowed is not None and not (isinstance(allowed, list) and all(isinstance(a, str) for a in allowed)):
            raise bad("can't parse allowed updates: Expected an Array of String")
        with self.lock:
            self.poller += 1
            mine = self.poller
            self.lock.notify_all()
            if offset > 0:
                self.offset = max(self.offset, offset)
                while self.updates and self.updates[0]["update_id"] < offset:
                    self.updates.popleft()
            end = time.monotonic() + min(timeout, 50)
            while True:
                if self.poller != mine:
                    self.conflicts += 1
                    raise Refused(409, "Conflict: terminated by other getUpdates request; "
                                       "make sure that only one bot instance is running")
                updates = list(self.updates)[:limit]
                if updates:
                    for update in updates:
                        self.given[update["update_id"]] += 1
                    return updates
                left = end - time.monotonic()
                if left <= 0:
                    return []
                self.lock.wait(min(left, 1))

    def text_of(self, p, field, most, required):
        text = p.get(field, "")
        if not isinstance(text, str):
            raise bad(f"{field} must be a String")
        mode = p.get("parse_mode")
        if mode not in (None, "HTML"):
            raise bad("unsupported parse_mode")
        plain, entities = parse_html(text) if mode == "HTML" else (text, [])
        plain = plain.strip()
        if required and not plain:
            raise bad("message text is empty" if text == "" or not plain else "text must be non-empty")
        if units(plain) > most:
            raise bad("message is too long" if field == "text" else "message caption is too long")
        return plain, entities, text

    def chat(self, p):
        chat = p.get("chat_id")
        if isinstance(chat, str) and re.fullmatch(r"-?[0-9]+", chat):
            chat = int(chat)
        if chat is None or chat == "":
            raise bad("chat_id is empty")
        if not isinstance(chat, int) or chat not in self.chats:
            raise bad("chat not found")
        if chat in self.moved:
            raise Refused(400, "Bad Request: group chat was upgraded to a supergroup chat",
                          migrate_to_chat_id=self.moved[chat])
        if chat in self.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        return chat

    def post(self, chat, p, **content):
        message = {"message_id": self.next_message, "from": self.bot, "chat": self.chats[chat],
                   "date": int(time.time())}
        self.next_message += 1
        reply = p.get("reply_parameters")
        if isinstance(reply, str):
            reply = json.loads(reply)
        record = dict(content, message_id=message["message_id"], edits=0, deleted=False,
                      time=time.time(), reply_to=(reply or {}).get("message_id"))
        self.messages[chat].append(record)
        if "text" in content:
            message["text"] = content["text"]
        return message

    def send_message(self, p):
        chat = self.chat(p)
        plain, entities, raw = self.text_of(p, "text", MESSAGE, True)
        self.limit(chat)
        return self.post(chat, p, kind="text", text=plain, raw=raw, entities=entities,
                         first=plain)

    def edit_message_text(self, p):
        chat = self.chat(p)
        number = integer(p, "message_id", None)
        plain, entities, raw = self.text_of(p, "text", MESSAGE, True)
        found = [m for m in self.messages[chat] if m["message_id"] == number and not m["deleted"]]
        if not found:
            raise bad("message to edit not found")
        message = found[0]
        if message["kind"] != "text":
            raise bad("there is no text in the message to edit")
        self.limit(chat)
        if (message["text"], message["entities"]) == (plain, entities):
            raise bad("message is not modified: specified new message content and reply markup are "
                      "exactly the same as a current content and reply markup of the message")
        message.update(text=plain, raw=raw, entities=entities, edits=message["edits"] + 1)
        return {"message_id": number, "from": self.bot, "chat": self.chats[chat],
                "date": int(time.time()), "edit_date": int(time.time()), "text": plain}

    def delete_message(self, p):
        chat = self.chat(p)
        number = integer(p, "message_id", None)
        for message in self.messages[chat]:
            if message["message_id"] == number and not message["deleted"]:
                message["deleted"] = True
                return True
        raise bad("message to delete not found")

    def send_file(self, p, field):
        chat = self.chat(p)
        plain, entities, raw = self.text_of(p, "caption", CAPTION, False)
        upload = p.get(field)
        if not isinstance(upload, dict):
            raise bad(f"there is no {field} in the request")
        if not upload["data"]:
            raise bad("file must be non-empty")
        if not upload["name"]:
            raise bad("file name is empty")
        if field == "photo":
            if len(upload["data"]) > 10 << 20:
                raise bad("file of size %d bytes is too big for a photo; the maximum size is "
                          "10485760 bytes" % len(upload["data"]))
            if kind_of(upload["data"]) is None:
                raise bad("IMAGE_PROCESS_FAILED")
            if kind_of(upload["data"]) != upload["type"]:
                raise bad("the type of the file is not that of its content")
        self.limit(chat)
        return self.post(chat, p, kind=field, text=plain, raw=raw, entities=entities,
                         name=upload["name"], type=upload["type"], size=len(upload["data"]),
                         data=base64.b64encode(upload["data"][:4096]).decode())

    def send_chat_action(self, p):
        chat = self.chat(p)
        if p.get("action") not in ("typing", "upload_photo", "upload_document"):
            raise bad("wrong parameter action in request")
        self.actions[chat] += 1
        return True

    def get_file(self, p):
        file = self.files.get(p.get("file_id"))
        if file is None:
            raise bad("wrong file_id or the file is temporarily unavailable")
        if file["size"] > LARGEST_FILE:
            raise bad("file is too big")
        return {"file_id": p["file_id"], "file_unique_id": "u" + p["file_id"],
                "file_size": file["size"], "file_path": file["path"]}

    def set_my_commands(self, p):
        commands = p.get("commands")
        if isinstance(commands, str):
            commands = json.loads(commands)
        if not isinstance(commands, list) or len(commands) > 100:
            raise bad("can't parse commands: expected an Array of BotCommand")
        for command in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", command.get("command", "")):
                raise bad("BOT_COMMAND_INVALID")
            if not 1 <= len(command.get("description", "")) <= 256:
                raise bad("BOT_COMMAND_DESCRIPTION_INVALID")
        self.commands = commands
        return True

    METHODS = {
        "getme": get_me, "getupdates": get_updates, "sendmessage": send_message,
        "editmessagetext": edit_message_text, "deletemessage": delete_message,
        "sendphoto": lambda self, p: self.send_file(p, "photo"),
        "senddocument": lambda self, p: self.send_file(p, "document"),
        "sendchataction": send_chat_action, "getfile": get_file,
        "setmycommands": set_my_commands,
    }

    # -- what tests do

    def inject(self, order):
        """A message of a person; the ids it got."""
        with self.lock:
            if "raw" in order:
                update = dict(order["raw"], update_id=self.next_update)
                self.next_update += 1
                self.updates.append(update)
                self.lock.notify_all()
                return {"update_id": update["update_id"]}
            chat = order["chat"]
            self.chats.setdefault(chat["id"], chat)
            message = {"message_id": order.get("message_id", self.next_message),
                       "from": order.get("from", {"id": abs(chat["id"]), "is_bot": False,
                                                  "first_name": "Ann", "username": "ann"}),
                       "chat": chat, "date": int(time.time())}
            self.next_message = max(self.next_message, message["message_id"]) + 1
            for field in ("text", "caption", "entities", "caption_entities", "media_group_id",
                          "reply_to_message", "migrate_to_chat_id", "migrate_from_chat_id", "voice", "sticker", "location", "contact", "poll"):
                if field in order:
                    message[field] = order[field]
            text = order.get("text", "")
            if text.startswith("/") and "entities" not in order:
                word = text.split()[0]
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": units(word)}]
            if "photo" in order:
                data = base64.b64decode(order["photo"]["data"])
                sizes = []
                for number, (side, part) in enumerate(((90, data[:8]), (800, data), (320, data[:9]))):
                    file_id = self.keep(part, f"photos/file_{len(self.files)}.jpg")
                    sizes.append({"file_id": file_id, "file_unique_id": "u" + file_id,
                                  "width": side, "height": side, "file_size": len(part)})
                message["photo"] = sizes
            for kind in ("document", "audio", "video"):
                if kind not in order:
                    continue
                spec = order[kind]
                data = base64.b64decode(spec.get("data", ""))
                file_id = self.keep(data, f"{kind}s/file_{len(self.files)}", spec.get("size"))
                file = {"file_id": file_id, "file_unique_id": "u" + file_id,
                        "file_size": self.files[file_id]["size"]}
                for key in ("file_name", "mime_type"):
                    if key in spec:
                        file[key] = spec[key]
                message[kind] = file
            field = order.get("as", "message")
            update = {"update_id": self.next_update, field: message}
            self.next_update += 1
            self.updates.append(update)
            self.lock.notify_all()
            return {"update_id": update["update_id"], "message_id": message["message_id"]}

    def keep(self, data, path, size=None):
        file_id = f"AgAD{len(self.files):04d}"
        self.files[file_id] = {"data": data, "path": path, "size": len(data) if size is None else size}
        return file_id

    def failure(self, method, chat):
        with self.lock:
            for failure in self.failures:
                if failure["method"].lower() not in (method, "*") or failure["times"] <= 0:
                    continue
                if "chat" in failure and str(failure["chat"]) != str(chat):
                    continue
                failure["times"] -= 1
                return dict(failure)
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "nginx/1.18.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve(b"")

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def serve(self, body):
        telegram = self.server.telegram
        url = urlsplit(self.path)
        path = unquote(url.path)
        try:
            if path.startswith("/admin/"):
                return self.admin(path[len("/admin/"):], parse_qs(url.query), body)
            file = re.fullmatch(r"/file/bot([^/]+)/(.+)", path)
            if file:
                return self.file(file.group(1), file.group(2))
            call = re.fullmatch(r"/bot([^/]*)/([A-Za-z]+)", path)
            if not call or not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", call.group(1)):
                return self.refuse(Refused(404, "Not Found"))
            if call.group(1) != telegram.token:
                return self.refuse(Refused(401, "Unauthorized"))
            self.method(call.group(2).lower(), url, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def parameters(self, url, body):
        fields = {key: values[0] for key, values in parse_qs(url.query).items()}
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("application/json"):
            try:
                fields.update(json.loads(body or b"{}"))
            except ValueError:
                raise bad("can't parse JSON object") from None
        elif kind.startswith("multipart/form-data"):
            fields.update(multipart(kind, body))
        elif kind.startswith("application/x-www-form-urlencoded"):
            fields.update({key: values[0] for key, values in parse_qs(body.decode()).items()})
        for key in ("allowed_updates", "reply_parameters", "link_preview_options"):
            if isinstance(fields.get(key), str) and fields[key]:
                fields[key] = json.loads(fields[key])
        return fields

    def method(self, name, url, body):
        telegram = self.server.telegram
        call = {"method": name, "time": time.time(), "status": None}
        telegram.calls.append(call)
        try:
            p = self.parameters(url, body)
            call["chat"] = p.get("chat_id")
            call["offset"] = p.get("offset")
            run = Telegram.METHODS.get(name)
            if run is None:
                raise Refused(404, "Not Found: method not found")
            failure = telegram.failure(name, p.get("chat_id"))
            if failure and self.fail(failure, call, p):
                return
            if name == "getupdates":
                result = run(telegram, p)
            else:
                with telegram.lock:
                    result = run(telegram, p)
            call["status"] = 200
            if failure and failure["kind"] == "lost":
                call["status"] = "lost"
                return self.cut()
            self.answer(200, {"ok": True, "result": result})
        except Refused as refused:
            call["status"] = refused.code
            call["description"] = refused.description
            self.refuse(refused)

    def fail(self, failure, call, p):
        """Does what a test has ordered. Whether that was all."""
        telegram, kind = self.server.telegram, str(failure["kind"])
        call["failure"] = kind
        if kind == "slow":
            time.sleep(failure.get("seconds", 2))
            return False
        if kind == "lost":
            return False
        if kind == "cut":
            call["status"] = "cut"
            self.cut()
            return True
        if kind == "502":
            call["status"] = 502
            page = b"<html><head><title>502 Bad Gateway</title></head></html>"
            self.send_response(502)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
            return True
        if kind == "429":
            seconds = failure.get("retry_after", 1)
            chat = integer(p, "chat_id", 0)
            if chat:
                with telegram.lock:
                    now = time.monotonic()
                    until = telegram.retry_at.get(chat, 0)
                    if now < until:
                        telegram.violations.append({"kind": "retry_after", "chat": chat, "early": until - now})
                    telegram.retry_at[chat] = now + seconds
            raise Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
        raise Refused(int(kind), failure.get("description", "Internal Server Error"))

    def file(self, token, path):
        telegram = self.server.telegram
        failure = telegram.failure("download", None)
        if failure and failure["kind"] == "cut":
            return self.cut()
        found = [file for file in telegram.files.values() if file["path"] == path]
        if token != telegram.token or not found or failure:
            return self.answer(404 if not failure else 500, {"ok": False, "error_code": 404, "description": "Not Found"})
        data = found[0]["data"]
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def admin(self, what, query, body):
        telegram = self.server.telegram
        order = json.loads(body) if body else {}
        if what == "update":
            return self.answer(200, telegram.inject(order))
        if what == "fail":
            with telegram.lock:
                telegram.failures.append(dict(order, times=order.get("times", 1)))
            return self.answer(200, {})
        if what == "block":
            telegram.blocked.add(order["chat"])
            return self.answer(200, {})
        if what == "migrate":
            old, new = order["chat"], order["to"]
            with telegram.lock:
                telegram.moved[old] = new
                telegram.chats[new] = dict(telegram.chats[old], id=new, type="supergroup")
            for chat, field, other in ((old, "migrate_to_chat_id", new), (new, "migrate_from_chat_id", old)):
                telegram.inject({"chat": telegram.chats[chat], field: other})
            return self.answer(200, {})
        if what == "know":
            telegram.chats.setdefault(order["chat"]["id"], order["chat"])
            return self.answer(200, {})
        if what == "forget":
            with telegram.lock:
                for message in telegram.messages[order["chat"]]:
                    message["deleted"] = True
            return self.answer(200, {})
        if what == "chat":
            with telegram.lock:
                messages = list(telegram.messages[int(query["id"][0])])
            return self.answer(200, messages)
        if what == "calls":
            return self.answer(200, list(telegram.calls))
        if what == "state":
            with telegram.lock:
                state = {"offset": telegram.offset, "violations": telegram.violations,
                         "pending": len(telegram.updates), "commands": telegram.commands,
                         "conflicts": telegram.conflicts, "actions": telegram.actions,
                         "given": telegram.given}
                return self.answer(200, state)
        return self.answer(404, {"error": "no such order"})

    def cut(self):
        """Ends the connection so that the other side sees an error, not an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def refuse(self, refused):
        answer = {"ok": False, "error_code": refused.code, "description": refused.description}
        if refused.parameters:
            answer["parameters"] = refused.parameters
        self.answer(refused.code, answer)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ValueError)):
            super().handle_error(request, client_address)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--state", required=True, help="where the port is written")
    arguments.add_argument("--token", default="123456:TEST-token_of-the-stand-in")
    arguments.add_argument("--fast", action="store_true", help="without the limits")
    options = arguments.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.telegram = Telegram(options.token, options.fast)
    aside = options.state + ".new"
    with open(aside, "w", encoding="utf-8") as file:
        json.dump({"port": server.server_address[1], "token": options.token}, file)
    os.replace(aside, options.state)
    server.serve_forever()


if __name__ == "__main__":
    main()
