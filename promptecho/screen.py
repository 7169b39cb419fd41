"""What a command shows on a terminal or in a log: how wide, and again and again until all is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.segment import SegmentLines
from rich.text import Text

from promptecho.errors import counted

LOG_WIDTH = 110
LOG_INTERVAL_S = 60.0  # between pictures where the output is no terminal


def screen() -> Console:
    """The terminal, as wide as it is, or a log."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def show_live(look: Callable[[], tuple[RenderableType, bool]], *, refresh_s: float, whole_screen: bool = False) -> None:
    """Show what `look` returns until it says that all is done, or Ctrl-C.

    On a terminal the picture is drawn again in its place; elsewhere a new one is printed every minute.

    Args:
        look: the picture of now, and whether all is done; what it raises ends the view.
        refresh_s: seconds between two looks on a terminal.
        whole_screen: take the whole terminal, and give it back at the end with the last picture below what was there.
            Else the picture grows where the cursor is, and must not be higher than the terminal.
    """
    console = screen()
    picture, done = look()
    with contextlib.suppress(KeyboardInterrupt), _place(console, whole_screen) as draw:  # Ctrl-C: the way to leave
        draw(picture)
        while not done:
            time.sleep(refresh_s if console.is_terminal else LOG_INTERVAL_S)
            picture, done = look()
            draw(picture)
    if console.is_terminal and whole_screen:
        console.print(picture)


@contextlib.contextmanager
def _place(console: Console, whole_screen: bool) -> Iterator[Callable[[RenderableType], None]]:
    if not console.is_terminal:
        yield console.print
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=whole_screen) as live:

        def draw(picture: RenderableType) -> None:
            live.update(_fitting(picture, console) if whole_screen else picture, refresh=True)

        yield draw


def _fitting(picture: RenderableType, console: Console) -> RenderableType:
    """A picture that is higher than the terminal, with a line that says so in place of its end."""
    lines = console.render_lines(picture, pad=False)
    kept = console.height - 1
    if len(lines) <= console.height:
        return picture
    more = Text(f"{counted(len(lines) - kept, 'more line')} than this terminal has room for", style="yellow")
    return Group(SegmentLines(lines[:kept], new_lines=True), more)
