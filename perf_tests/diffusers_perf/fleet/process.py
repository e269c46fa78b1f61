"""One job's process on the machine that this runs on."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic

from diffusers_perf.compare.guard import GRACE_S
from diffusers_perf.compare.guarded import end, guarded, signal_to
from diffusers_perf.fleet.jobs import LOG, OUT, Finished, Job, Place
from diffusers_perf.measurement.visibility import VISIBLE

KEPT = (".json", ".png", ".log")
"""What comes back: runs, images, and the logs of processes that a job starts itself."""
IMAGES = "-images"
"""End of the name of the folders that come back."""
PREFIX = "diffusers-perf-"
"""Of a job's own folder, which a driver that is killed leaves behind."""


def here(gpu_uuid: str | None, *, node: str) -> Place:
    """A place on this machine."""
    return Place(host=socket.gethostname(), gpu_uuid=gpu_uuid, node=node)


class Process:
    """A job that runs. It ends with the process that made this, whatever that dies of."""

    def __init__(
        self,
        job: Job,
        place: Place,
        *,
        root: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        lock: int | None = None,
    ) -> None:
        """Start it in the folder `root`; it writes below `folder` (default: the system's for
        temporary files). `lock` as `guarded` takes it.
        """
        self.job, self.place = job, place
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder)
        self._out = Path(self._folder.name)
        self._start = monotonic()
        only = {VISIBLE: place.gpu_uuid} if place.gpu_uuid else {}
        with (self._out / LOG).open("wb") as log:
            self._process = guarded(
                [sys.executable, *(part.replace(OUT, str(self._out)) for part in job.command)],
                cwd=root,
                env={**environment, **only},
                log=log,
                lock=lock,
            )

    def finished(self) -> Finished | None:
        """What it gave, if it has ended."""
        code = self._process.poll()
        if code is None:
            return None
        seconds = monotonic() - self._start
        files = {
            path.relative_to(self._out).as_posix(): path.read_bytes() for path in _kept(self._out)
        }
        self.end()
        return Finished(job=self.job, place=self.place, code=code, seconds=seconds, files=files)

    def wait(self) -> Finished:
        """The same, once it has ended."""
        self._process.wait()
        found = self.finished()
        assert found is not None
        return found

    def ask_to_end(self) -> None:
        """Of several, ask all before any is waited for."""
        signal_to(self._process, signal.SIGTERM)

    def end(self) -> None:
        """End it with all that it started."""
        end(self._process, stopping_s=GRACE_S)
        self._folder.cleanup()


def _kept(out: Path) -> Iterator[Path]:
    for path in sorted(out.iterdir()):
        if path.is_dir() and path.name.endswith(IMAGES):
            yield from sorted(image for image in path.iterdir() if image.suffix in KEPT)
        elif path.is_file() and (path.name == LOG or path.suffix in KEPT):
            yield path
