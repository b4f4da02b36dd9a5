"""Keep the status of a sweep on a terminal."""

import contextlib
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sweep.cli.status_text import cell_lines, summary_lines
from sweep.status import SweepStatus
from sweep.store.files import StoreError
from trainer.config.config_errors import ConfigError
from trainer.system.printable import printable


def keep_on_screen(console: Console, every_s: float, look: Callable[[], SweepStatus]) -> None:
    """What ``look`` sees, again and again, until Ctrl-C; the last picture stays.

    A place that cannot be read now is said, and looked at again.
    """
    if not console.is_terminal:
        raise ConfigError("watch: this is no terminal. `make status` says once where it stands.")
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                shown = picture(look(), console.height)
            except StoreError as error:
                shown = Text(printable(f"{error} Trying again."))
            live.update(shown, refresh=True)
            time.sleep(every_s)


def picture(status: SweepStatus, height: int) -> Text:
    """The summary, counts first, and as many cells as there is room for."""
    *details, counts = summary_lines(status)
    room = max(1, (height - len(details) - 5) // 2)
    lines = [counts, *details, "", *cell_lines(status, room)]
    return Text(printable("\n".join(lines)), no_wrap=True, overflow="ellipsis")
