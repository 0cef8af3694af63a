"""``webui`` in a process of its own that begins behind the imports, which take a new one four seconds.

Each is forked off one that has imported all and done nothing else yet. What a test says of the start itself, such as
the environment or what is loaded, needs one that really is new.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

IMPORTED = ("webui.app", "webui.ui.layout", "webui.engine.manager", "webui.cli.serve")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*IMPORTED])


class Forked:
    """As much of ``subprocess.Popen`` as tests ask for; its output goes into files, which may be one."""

    def __init__(self, arguments: Sequence[str | Path], out: Path, err: Path, cwd: Path) -> None:
        words = [*map(str, arguments)]
        self._process = _context.Process(target=_run, args=(words, (out, err), cwd), daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("webui", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: Sequence[str], files: Sequence[Path], cwd: Path) -> None:
    import atexit

    from webui.cli import main

    os.setsid()
    os.chdir(cwd)
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # workers are children
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    status = 1
    try:
        status = main(arguments)
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out
    sys.exit(status)
