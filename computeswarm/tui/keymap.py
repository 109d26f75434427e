"""Every key of the app, once. Footer, help, palette and bindings are all made from this table."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True)
class Key:
    """One thing a person can do.

    Args:
        id: its stable name, for remapping.
        keys: as Textual spells them, separated by commas.
        action: the action it runs, on the screen or widget that binds its ``where``.
        shown: the key as the footer and the help write it.
        label: what it does, in a word or two for the footer.
        help: one line for the help.
        footer: its rank in the footer, 0 when it is only in the help.
    """

    id: str
    keys: str
    action: str
    shown: str
    label: str
    help: str
    where: str
    footer: int = 0


GROUPS = {
    "app": "Everywhere",
    "buyer": "Buyer",
    "seller": "Seller",
    "wallet": "Wallet",
    "table": "Tables",
    "log": "Log",
    "wizard": "New job",
    "files": "Choosing files",
    "pay": "Payment",
}

KEYS: tuple[Key, ...] = (
    Key("mode.buyer", "1", "app.mode('buyer')", "1", "buyer", "Buyer mode", "app", 81),
    Key("mode.seller", "2", "app.mode('seller')", "2", "seller", "Seller mode", "app", 80),
    Key("mode.wallet", "3", "app.mode('wallet')", "3", "wallet", "Wallet", "app", 82),
    Key("pane.next", "tab", "app.focus_next", "tab", "pane", "Next pane", "app", 70),
    Key("pane.back", "shift+tab", "app.focus_previous", "⇧tab", "pane", "Previous pane", "app"),
    Key("pane.zoom", "z", "zoom", "z", "zoom", "Zoom the pane, and back", "app", 60),
    Key("copy", "y", "copy", "y", "copy", "Copy what the cursor is on", "app", 55),
    Key("palette", "ctrl+p", "app.command_palette", "^p", "commands", "Find a command", "app", 85),
    Key("welcome", "W", "app.welcome", "W", "welcome", "What this is, how to begin", "app"),
    Key("help", "question_mark", "app.help", "?", "help", "This help", "app", 90),
    Key("back", "escape", "back", "esc", "back", "Back, close, clear", "app"),
    Key("quit", "q", "app.ask_quit", "q", "quit", "Leave; asks when a job runs", "app", 95),
    Key("node.rent", "enter", "rent", "⏎", "rent", "Rent the node for a job", "buyer", 10),
    Key("job.new", "n", "new_job", "n", "new job", "New job on the best node", "buyer", 12),
    Key("filter", "slash", "filter", "/", "filter", "Filter nodes, or find in a log", "buyer", 14),
    Key("facets", "c", "facets", "c", "count", "Count what matches, and narrow it", "buyer", 15),
    Key("searches", "v", "searches", "v", "views", "Saved searches: choose, save, delete", "buyer"),
    Key("node.favourite", "f", "favourite", "f", "favourite", "Mark the node, or not", "buyer", 17),
    Key("sort.next", "s", "sort", "s", "sort", "Sort by the next column", "buyer", 16),
    Key("sort.flip", "S", "sort_flip", "S", "reverse", "Reverse the order", "buyer"),
    Key("node.detail", "i", "detail", "i", "info", "All about the node", "buyer", 18),
    Key("job.again", "R", "again", "R", "again", "The job once more, changed or not", "buyer"),
    Key("job.logs", "l", "logs", "l", "log", "To the job's log", "buyer", 20),
    Key("job.cancel", "x", "cancel_job", "x", "cancel", "Cancel the job", "buyer", 22),
    Key("job.download", "d", "download", "d", "download", "Download its outputs", "buyer", 24),
    Key("job.receipt", "r", "receipt", "r", "receipt", "Its receipt", "buyer", 26),
    Key("seller.price", "p", "price", "p", "price", "Change your price", "seller", 10),
    Key("seller.pause", "o", "pause", "o", "pause", "Take no new jobs, or again", "seller", 12),
    Key("seller.drain", "d", "drain", "d", "drain", "Finish what is paid, then rest", "seller", 13),
    Key("seller.accept", "a", "accept", "a", "accept", "Let the waiting job in", "seller", 8),
    Key("seller.reject", "r", "reject", "r", "reject", "Turn it away, all paid back", "seller", 9),
    Key("seller.hold", "space", "hold", "␣", "hold", "Keep the GPU for yourself", "seller", 15),
    Key("seller.evict", "x", "evict", "x", "evict", "End the job, refund all of it", "seller", 14),
    Key("seller.csv", "e", "export", "e", "csv", "Save the earnings as CSV", "seller", 16),
    Key("row.down", "j,down", "down", "j ↓", "down", "Next row", "table"),
    Key("row.up", "k,up", "up", "k ↑", "up", "Previous row", "table"),
    Key("row.page_down", "pagedown,ctrl+d", "page_down", "PgDn", "page", "A page on", "table"),
    Key("row.page_up", "pageup,ctrl+u", "page_up", "PgUp", "page", "A page back", "table"),
    Key("row.first", "g,home", "first", "g", "first", "First row", "table"),
    Key("row.last", "G,end", "last", "G", "last", "Last row", "table"),
    Key("log.follow", "f", "follow", "f", "follow", "Follow the end", "log"),
    Key("log.wrap", "w", "wrap", "w", "wrap", "Wrap long lines", "log"),
    Key("log.save", "ctrl+s", "save", "^s", "save", "Save the log to a file", "log"),
    Key("log.error", "e", "next_error", "e", "error", "To the first error, then the next", "log"),
    Key("log.next", "n", "next_match", "n", "next", "Next match", "log"),
    Key("log.previous", "N", "previous_match", "N", "previous", "Previous match", "log"),
    Key("log.down", "j,down", "scroll_down", "j ↓", "down", "A line on", "log"),
    Key("log.up", "k,up", "scroll_up", "k ↑", "up", "A line back", "log"),
    Key("log.top", "g,home", "top", "g", "top", "First line", "log"),
    Key("log.end", "G,end", "end", "G", "end", "Last line, and follow", "log"),
    Key("ledger.entry", "enter", "entry", "⏎", "entry", "Entry whole, or new wallet", "wallet", 10),
    Key("ledger.find", "slash", "filter", "/", "find", "Find in the books", "wallet", 14),
    Key("ledger.csv", "e", "export", "e", "csv", "Save the books as CSV", "wallet", 16),
    Key("wallet.qr", "Q", "qr", "Q", "QR", "The address as a QR code", "wallet", 18),
    Key("next", "enter", "next", "⏎", "next", "Next step; a quote from the last", "wizard"),
    Key("back", "escape", "leave", "esc", "back", "A step back, and out", "wizard"),
    Key("files", "ctrl+o,f2", "browse", "^o", "browse", "Choose the field's files", "wizard"),
    Key("fresh", "ctrl+n", "fresh", "^n", "fresh", "Start with empty fields", "wizard"),
    Key("copy", "y", "copy", "y", "copy", "Copy the command line, on Review", "wizard"),
    Key("down", "pagedown", "page_down", "PgDn", "page", "A page on in a step", "wizard"),
    Key("up", "pageup", "page_up", "PgUp", "page", "A page back in a step", "wizard"),
    Key("choose", "enter", "choose", "⏎", "choose", "Choose the file, open the folder", "files"),
    Key("mark", "space", "mark", "␣", "mark", "Mark one of several", "files"),
    Key("done", "ctrl+o,f2", "done", "^o", "done", "Take what is marked", "files"),
    Key("open", "right", "open", "→", "open", "Into the folder", "files"),
    Key("parent", "left", "parent", "←", "parent", "The folder above", "files"),
    Key("hidden", "ctrl+t", "hidden", "^t", "hidden", "Hidden files, or not", "files"),
    Key("pay.confirm", "p", "pay", "p", "pay", "Pay; only in the payment dialog", "pay"),
)


def bindings(*places: str) -> list[BindingType]:
    """Textual's bindings for one or more places, with their ids."""
    return [
        Binding(key.keys, key.action, key.label, show=False, id=f"{key.where}.{key.id}")
        for key in KEYS
        if key.where in places
    ]
