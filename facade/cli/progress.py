"""How far long work is: a bar on a terminal, a line per tag in a pipe, both on stderr.

Guarantees: prints nothing on stdout; survives events it does not know (a newer server).
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from facade.cli.output import clean, note
from facade.cli.session import Session

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

WARMING = "warming"
AFTER_THE_WALK = frozenset({"keeping", WARMING})
"""Steps of an import that come once its image was walked and checked."""


class Progress:
    """Shows the API's `progress` events.

    Arguments:
        total: tags (or artifacts) in all.
        doing: what is done to them.
    """

    def __init__(self, session: Session, total: int, doing: str = "importing") -> None:
        self._session = session
        self._total = total
        self._doing = doing
        self._done = 0  # tags of the batches that ended
        self._checked: set[str] = set()  # tags of this batch whose image was walked
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._session.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                console=Console(file=self._session.stderr),
                transient=True,
            )
            self._task = self._bar.add_task(self._doing, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: dict[str, Any]) -> None:
        """Show one event: `tag` and `step`, or `status` once that tag is done.

        Tags are signed all at once in the end, so the bar counts those whose image was checked.
        """
        tag, status = clean(event.get("tag", "")), event.get("status")
        if status or event.get("step") in AFTER_THE_WALK:
            self._checked.add(tag)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=self._done + len(self._checked),
                description=f"{tag} {clean(status or event.get('step', ''))}{_blobs(event)}",
            )
        elif status:
            error = f": {clean(event['error'])}" if event.get("error") else ""
            note(self._session, f"{tag} {clean(status)}{error}")

        elif event.get("step") == WARMING and event.get("done") == event.get("total"):
            note(self._session, f"{tag} warmed{_blobs(event)}")

    def finished(self, tags: int) -> None:
        """A batch of `tags` ended."""
        self._done += tags
        self._checked = set()


def _blobs(event: dict[str, Any]) -> str:
    """How many blobs of a tag are in the cache so far."""
    done, total = event.get("done"), event.get("total")
    return "" if done is None or total is None else f" {clean(done)}/{clean(total)} blobs"
