"""How the stand-in telegram.py reads what it is sent: parameters, files, and texts with the
marks of HTML as the Bot API has them (https://core.telegram.org/bots/api, "Formatting
options"); and how it refuses."""

import re

TAGS = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "span", "tg-spoiler",
        "a", "tg-emoji", "code", "pre", "blockquote"}


class Refused(Exception):
    """An answer with ok: false."""

    def __init__(self, code, description, **parameters):
        super().__init__(description)
        self.code, self.description, self.parameters = code, description, parameters


def units(text):
    return len(text.encode("utf-16-le")) // 2


def bad(description):
    return Refused(400, "Bad Request: " + description)


# -- marks -----------------------------------------------------------------------------------

ENTITY = re.compile(r"&(#x[0-9a-fA-F]+|#[0-9]+|lt|gt|amp|quot);")
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
TAG = re.compile(r"<(/?)([a-zA-Z0-9-]*)((?:\s+[a-zA-Z-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]*))?)*)\s*>")


def unescape(text):
    def one(found):
        name = found.group(1)
        if name in NAMED:
            return NAMED[name]
        number = int(name[2:], 16) if name[1] == "x" else int(name[1:])
        return chr(number) if 0 < number < 0x110000 else found.group(0)
    return ENTITY.sub(one, text)


def parse_html(html):
    """The text and its entities as (type, offset, length); what Telegram refuses, refused."""
    text, entities, open_tags, at = "", [], [], 0
    while at < len(html):
        if html[at] != "<":
            end = html.find("<", at)
            end = len(html) if end < 0 else end
            text += unescape(html[at:end])
            at = end
            continue
        offset = len(html[:at].encode())
        found = TAG.match(html, at)
        if not found:
            name = re.match(r"</?([^\s>]*)", html[at:]).group(1)
            raise bad(f"can't parse entities: Unsupported start tag \"{name}\" at byte offset {offset}")
        closing, name, rest = found.group(1), found.group(2).lower(), found.group(3)
        at = found.end()
        if closing:
            if not open_tags:
                raise bad(f"can't parse entities: Unexpected end tag at byte offset {offset}")
            last, start = open_tags.pop()
            if name and name != last:
                raise bad(f"can't parse entities: Unmatched end tag at byte offset {offset}, "
                          f"expected \"</{last}>\", found \"</{name}>\"")
            if start < units(text):
                entities.append((last, start, units(text) - start))
            continue
        if name not in TAGS:
            raise bad(f"can't parse entities: Unsupported start tag \"{name}\" at byte offset {offset}")
        if name == "span" and "tg-spoiler" not in rest:
            raise bad(f"can't parse entities: Tag \"span\" must have class \"tg-spoiler\" at byte offset {offset}")
        open_tags.append((name, units(text)))
    if open_tags:
        raise bad(f"can't parse entities: Can't find end tag corresponding to start tag \"{open_tags[-1][0]}\"")
    return text, entities


# -- parameters and files ---------------------------------------------------------------------

def integer(p, name, default):
    value = p.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(f"{name} must be an Integer")
    return value


def kind_of(data):
    for start, kind in ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif")):
        if data.startswith(start):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def multipart(kind, body):
    found = re.search(r'boundary="?([^";]+)"?', kind)
    if not found:
        raise bad("there is no boundary in the content type")
    fields = {}
    mark = b"--" + found.group(1).encode()
    parts = body.split(mark)
    if not parts[-1].startswith(b"--"):
        raise bad("the multipart body has no end")
    for part in parts[1:-1]:
        head, _, data = part[2:].partition(b"\r\n\r\n")
        head, data = head.decode(), data[:-2]
        name = re.search(r'name="([^"]*)"', head).group(1)
        file = re.search(r'filename="([^"]*)"', head)
        if file:
            media = re.search(r"Content-Type: *(\S+)", head, re.I)
            fields[name] = {"name": file.group(1), "type": media.group(1) if media else None, "data": data}
        else:
            fields[name] = data.decode()
    return fields
