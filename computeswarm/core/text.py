"""Making a stranger's text harmless: one function where it enters, one filter for streams.

Terminals obey escape sequences wherever they come from, and every widget passes them through. So
what a node calls itself, what a job prints and what a server answers goes through here before a
person's terminal sees it.
"""

from __future__ import annotations

import codecs
import re

LINE_LIMIT = 2_000
TAB = 8

# CSI, OSC/DCS/APC/PM/SOS strings up to their end, and two-byte escapes. Every repeat is bounded by
# a fixed end or a character class without overlap, so hostile text costs linear time.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# C0 but tab and newline, DEL, C1; bidi controls; zero-width and other invisible formats;
# line and paragraph separators; tag characters; lone surrogates
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_UNSEEN = re.compile(f"[\\t\\n]|{_INVISIBLE.pattern}")
# More marks than this on one letter only serve to smear over the neighbouring lines.
_ZALGO = re.compile(
    r"([\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})"
    r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)


def clean(text: str, *, line_limit: int = LINE_LIMIT) -> str:
    """Text that is safe on a terminal and in a widget (with markup off).

    Strips escape sequences, control, bidi and invisible characters; expands tabs; keeps newlines;
    turns CR LF and a lone CR into one newline; cuts each line at ``line_limit`` characters.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text))
    text = _ZALGO.sub(r"\1", text)
    return "\n".join(_cut(line.expandtabs(TAB), line_limit) for line in text.split("\n"))


def clean_line(text: str, *, limit: int = 200) -> str:
    """One line for a label: cleaned, white space folded, cut at ``limit`` characters."""
    # cut before cleaning too: a megabyte of name is not worth a millisecond
    return _cut(" ".join(clean(text[: limit * 8]).split()), limit)


def visible(text: str) -> str:
    """The same text with ``�`` for each character that a terminal would obey or hide.

    For names that have to stay tellable apart, and editable in place: nothing is dropped, so the
    result is exactly as long.
    """
    return _UNSEEN.sub("�", text)


def squeeze(text: str) -> str:
    """Lower case letters and digits only, so that ``rtx-4090`` finds ``RTX 4090``."""
    return "".join(c for c in text.lower() if c.isalnum())


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


class StreamDecoder:
    """Bytes of one output stream to clean lines, whatever their chunks.

    Holds back an unfinished UTF-8 character and an unfinished line, so a sequence cut between two
    chunks is still seen whole. A line longer than the limit is given out in pieces.
    """

    def __init__(self, *, line_limit: int = LINE_LIMIT) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._limit = line_limit
        self._pending = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines completed by ``data``."""
        self._pending += self._decoder.decode(data)
        lines = self._pending.split("\n")
        self._pending = lines.pop()
        while len(self._pending) > self._limit:
            lines.append(self._pending[: self._limit])
            self._pending = self._pending[self._limit :]
        return [self._finish(line) for line in lines]

    def flush(self) -> list[str]:
        """The last line, if it had no newline."""
        rest = self._pending + self._decoder.decode(b"", final=True)
        self._pending = ""
        return [self._finish(rest)] if rest else []

    def _finish(self, line: str) -> str:
        # a progress bar redraws its line with CR: what stands at the end is what a person would see
        kept = line.rstrip("\r").rpartition("\r")[2]
        return clean(kept, line_limit=self._limit)
