"""Fetching a job's outputs: where to, how far, what came."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, ProgressBar, Static

from computeswarm.buyer.folder import WouldOverwrite
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.text import clean_line
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.format import file_size, short_job
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import Download, JobItem
from computeswarm.tui.widgets.pane import line, lines

LISTED = 8


class DownloadModal(Dialog[None]):
    def __init__(self, job: JobItem, backend: BuyerBackend, folder: str = "") -> None:
        super().__init__(f"Download outputs · {short_job(job.job_id)}")
        self._job, self._backend = job, backend
        self._folder = folder or f"outputs/{short_job(job.job_id)}"
        self._busy = False
        self._agreed: Path | None = None
        """A folder that holds other files of the same names, which was said."""

    def content(self) -> ComposeResult:
        yield Static("Into which folder?", markup=False)
        yield Input(self._folder, compact=True, select_on_focus=False)
        yield ProgressBar(show_eta=False)
        yield Static("", id="download-text", markup=False)

    def on_mount(self) -> None:
        self.query_one(ProgressBar).display = False
        self.query_one(Input).focus()
        self.foot(("⏎ fetch · esc close", "$muted"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._busy:
            return
        self._busy = True
        event.input.disabled = True
        self.query_one(ProgressBar).display = True
        folder = Path(event.value).expanduser()
        self.run_worker(self._fetch(folder), group="download", exit_on_error=False)

    async def _fetch(self, folder: Path) -> None:
        try:
            got = await self._backend.download(
                self._job.job_id, folder, self._report, overwrite=folder == self._agreed
            )
        except WouldOverwrite as error:
            self._agreed = folder
            names = ", ".join(clean_line(path, limit=40) for path in error.extra["files"][:3])
            self._say(line((f"Other files are there ({names}); ⏎ again overwrites.", "$warning")))
        except ComputeSwarmError as error:
            self._say(line((error.detail, "$error")))
        except OSError as error:
            self._say(line((f"It can't be written: {error.strerror}.", "$error")))
        else:
            self._done(got)
            return
        self._busy = False
        field = self.query_one(Input)
        field.disabled = False
        field.focus()

    def _report(self, word: str, done: int, total: int) -> None:
        self.query_one(ProgressBar).update(total=total or None, progress=done)
        self._say(line((f"{word} · {file_size(done)} of {file_size(total)}", "$muted")))

    def _done(self, got: Download) -> None:
        self.query_one(ProgressBar).update(total=1, progress=1)
        count = "1 file" if len(got.files) == 1 else f"{len(got.files)} files"
        rows = [line(("✓ ", "$success"), f"{count}, digests checked")]
        rows += [line((f"  {path}", "$muted")) for path in got.files[:LISTED]]
        if len(got.files) > LISTED:
            rows.append(line((f"  and {len(got.files) - LISTED} more", "$muted")))
        self._say(lines(*rows))
        self.foot(("esc close", "$muted"))

    def _say(self, text: Content) -> None:
        self.query_one("#download-text", Static).update(text)
