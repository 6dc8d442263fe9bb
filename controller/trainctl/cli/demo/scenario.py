"""The demo from the first process to the last: start, submit, look on, strike, sum up, clean up."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainctl.cli.connection.client import Client, connect, list_figures
from trainctl.cli.context import Context
from trainctl.cli.demo.failures import FAILURES
from trainctl.cli.demo.guard import clean_up, only_demo
from trainctl.cli.demo.guard import start as start_guard
from trainctl.cli.demo.job import NAME, job_file
from trainctl.cli.demo.summary import summarize
from trainctl.cli.local.folder import make as make_folder
from trainctl.cli.phases import has_ended
from trainctl.cli.plot.curves import DEFAULT, metrics_of, plot_of
from trainctl.cli.plot.picture import draw_picture
from trainctl.cli.render.figures import progress
from trainctl.core.errors import TrainctlError
from trainctl.protos.v1.job_pb2 import Event, GetJobRequest, Job, WatchJobRequest
from trainctl.protos.v1.records_pb2 import StepFigures

PROGRESS_EVERY_S = 4.0
PROMPT = "class Test"
TITLE = "one run, its failures, nothing lost"


class DemoError(TrainctlError):
    """A part of the demo did not work; its message says which."""

    code = "DEMO_FAILED"


@dataclass(slots=True)
class Demo:
    """One run of the demo in a folder of its own.

    Attributes:
        context: the command's context; its environment names the demo's own installation.
        folder: where the results stay: ``loss.png`` and ``model/``.
        corpus: what to train on.
        started_s: for the times in the timeline.
    """

    context: Context
    folder: Path
    corpus: str
    started_s: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Runs everything and leaves no process behind: should this one be killed, a guard cleans up."""
        make_folder(self.folder)
        with only_demo(self.folder):
            self._run()

    def _run(self) -> None:
        self._remove_old()
        guard = start_guard(self.home, self.context.env)
        try:
            self._say("starting a controller and two agents with two workers each")
            self._trainctl("local", "up", "--agents", "2", "--slots", "2")
            path = self.folder / "job.json"
            path.write_text(job_file(self.corpus))
            self._trainctl("submit", "-f", str(path), "-o", "name")
            with connect(self.context) as client:
                job = self._look_on(client)
                self._sum_up(job, list_figures(client, job.uid))
        finally:
            self._trainctl("local", "down", "--purge", "-y")
            shutil.rmtree(self.home, ignore_errors=True)
            guard.kill()
            guard.communicate()

    @property
    def home(self) -> Path:
        """The demo's own TRAINCTL_HOME; gone when the demo ends."""
        return self.folder / "home"

    def _remove_old(self) -> None:
        if self.home.exists():  # an earlier demo was killed, and so was its guard
            self._say("cleaning up after a demo that was killed")
            clean_up(self.home, self.context.env)
        shutil.rmtree(self.folder / "model", ignore_errors=True)
        self.home.mkdir()

    def _look_on(self, client: Client) -> Job:
        """Prints the timeline as it happens, strikes when a failure is due; returns the finished job."""
        request = WatchJobRequest(name=NAME)
        pending, shown_s = list(FAILURES), 0.0
        for update in client.stream(client.stub.WatchJob, request):
            for event in update.events:
                self._show(event)
            job = update.job
            if has_ended(job.status.phase):
                break
            if pending and pending[0].due(job):
                self._say(self.context.console.style().paint(pending.pop(0).strike(client, job), "red"))
            elif job.status.step and time.monotonic() > shown_s + PROGRESS_EVERY_S:
                shown_s = time.monotonic()
                self._say(progress(job.status, phase=job.status.phase, now_s=time.time()))
        job = client.call(client.stub.GetJob, GetJobRequest(name=NAME)).job
        if job.status.phase != "SUCCEEDED":
            raise DemoError(f"the job ended {job.status.phase}: {job.status.message}", hint=job.status.error.traceback)
        return job

    def _show(self, event: Event) -> None:
        self._say(f"{event.type}: {event.message}")

    def _sum_up(self, job: Job, figures: Sequence[StepFigures]) -> None:
        model = self.folder / "model"
        self._trainctl("checkpoints", "export", NAME, str(model))
        plot = plot_of(TITLE, figures, job.status.recoveries, metrics_of(DEFAULT))
        draw_picture(plot, self.folder / "loss.png")
        self.context.console.data(["", *summarize(job, figures)])
        command = [sys.executable, "-m", "trainctl.parallel.generate", str(model), "--prompt", PROMPT]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise DemoError(
                f"the exported model could not generate text:\n{done.stderr.strip()}",
                hint=f"the model is kept in {model}; what this machine lacks shows: trainctl doctor",
            )
        text = [f"           | {line}" for line in done.stdout.strip().splitlines()]
        self.context.console.data([f"model      {model}  (transformers loads it; it writes:)", *text])
        self.context.console.data(f"picture    {self.folder / 'loss.png'}")

    def _trainctl(self, *arguments: str) -> None:
        """Runs another command of ours in this process, in the demo's own home."""
        from trainctl.cli.main import main

        with (self.folder / "demo.log").open("a") as log:
            code = main(arguments, out=log, err=log, env=self.context.env)
        if code != 0:
            path = self.folder / "demo.log"
            said = "\n".join(path.read_text().splitlines()[-5:])
            raise DemoError(
                f"trainctl {' '.join(arguments)} ended with exit code {code}:\n{said}", hint=f"{path} has more"
            )

    def _say(self, text: str) -> None:
        self.context.console.data(f"{time.monotonic() - self.started_s:7.1f} s  {text}")
