"""The dashboard's side of analyst processes: jobs with progress, an end in time, and cancelling."""

import asyncio
import contextlib
import secrets
import sys
import time

import msgspec

from steelyard.dashboard.messages import Answer, Line, Progress, Question, Setup
from steelyard.dashboard.sheets import Sheet

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_MAX_LINE_BYTES = 16 * 1024 * 1024
# A process that nobody asks anything gives its memory back.
_IDLE_S = 600.0
_MOST_JOBS = 50


class Job:
    """Something that takes a while.

    Attributes:
        job_id: Names it in URLs.
        question: What is asked.
        what: What is being done.
        done_frac: Share that is done, roughly.
        sheet: What came out; None before the end.
        error: Why nothing did; empty otherwise.
        ended_s: When it ended, on the process's monotonic clock; None before.
    """

    def __init__(self, question: Question) -> None:
        self.job_id = secrets.token_urlsafe(9)
        self.question = question
        self.what = "waiting for its turn"
        self.done_frac = 0.0
        self.sheet: Sheet | None = None
        self.error = ""
        self.ended_s: float | None = None

    def ended_before(self, ago_s: float) -> bool:
        """Did it end longer ago than this?"""
        return self.ended_s is not None and time.monotonic() - self.ended_s > ago_s

    @property
    def ended(self) -> bool:
        """Is there a result, or a reason for none?"""
        return self.sheet is not None or bool(self.error)


class AnalystClient:
    """One analyst process, started when it is first asked; it answers one question at a time.

    Args:
        setup: What there is to read.
        limit_s: Seconds after which a question is given up, the process with it.
    """

    def __init__(self, setup: Setup, limit_s: float) -> None:
        self._setup = setup
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._jobs: dict[str, Job] = {}
        self._running: set[asyncio.Task[None]] = set()

    def start(self, question: Question) -> Job:
        """Begin a job.

        Args:
            question: What is asked. Jobs of its kind that have not begun make way for it.
        """
        for other in self._jobs.values():
            if not other.ended and other.done_frac == 0.0 and other.question.kind == question.kind:
                other.error = "a newer question took its place"
        job = Job(question)
        while len(self._jobs) >= _MOST_JOBS:
            self._jobs.pop(next(iter(self._jobs)))
        self._jobs[job.job_id] = job
        task = asyncio.create_task(self._run(job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    def job(self, job_id: str) -> Job | None:
        """The job of this id; None when it is forgotten."""
        return self._jobs.get(job_id)

    async def wait(self, job: Job, for_s: float) -> None:
        """Wait for a job's end, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while not job.ended and self._running:
                    await asyncio.wait(set(self._running), timeout=0.05)

    async def cancel(self, job: Job) -> None:
        """End a job; the process ends with one that has begun."""
        if job.ended:
            return
        began = job.done_frac > 0.0
        job.error = "cancelled"
        if began:
            await self._stop()

    async def close(self) -> None:
        """End the process."""
        for task in self._running:
            task.cancel()
        await self._stop()

    async def _run(self, job: Job) -> None:
        async with self._turn:
            if not job.ended:
                await self._tried(job)
        job.ended_s = time.monotonic()

    async def _tried(self, job: Job) -> None:
        job.what, job.done_frac = "starting", 0.01
        try:
            async with asyncio.timeout(self._limit_s):
                await self._asked(job)
        except TimeoutError:
            job.error = job.error or f"not done within {self._limit_s:g} s, and given up"
            await self._stop()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            job.error = job.error or f"the analyst process broke off: {error}"
            await self._stop()

    async def _asked(self, job: Job) -> None:
        process = self._process or await self._started()
        if process.stdin is None or process.stdout is None:
            raise OSError("the process has no pipes")
        self._stay(_IDLE_S)
        process.stdin.write(msgspec.json.encode(job.question) + b"\n")
        await process.stdin.drain()
        while not job.ended:
            told = await process.stdout.readline()
            if not told:
                self._process = None
                raise OSError("it ended; the log of the gateway may say why")
            line = _decoder.decode(told)
            if isinstance(line, Answer):
                job.sheet, job.error = line.sheet, job.error or line.error
            else:
                _take(job, line)

    async def _started(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "steelyard.dashboard.analyst"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
        )
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(self._setup) + b"\n")
        return self._process

    def _stay(self, idle_s: float) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(idle_s, self._leave)

    def _leave(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if self._idle is not None:
            self._idle.cancel()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _take(job: Job, line: Progress) -> None:
    job.what, job.done_frac = line.what, max(0.01, line.done_frac)
