"""A few threads that share independent tasks, and the choice of how many of them pay."""

import contextlib
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

Task = tuple[Callable, tuple]  # a function that works without Python's lock, and its arguments


_before: list[int] = []  # torch's number of threads outside of `alone`


def allowed() -> int:
    """How many threads may be used: as many as torch would."""
    return _before[0] if _before else torch.get_num_threads()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, torch uses one thread: its own wait, awake, for each small operation. Ours are as many as `allowed`."""
    _before.append(torch.get_num_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_before.pop())


def take_all(tasks: deque[Task]) -> None:
    """Take tasks from a queue that others take from as well, until it is empty."""
    while True:
        try:
            function, arguments = tasks.popleft()
        except IndexError:
            return
        function(*arguments)


class Helper:
    """A thread that sleeps until it is sent for tasks; `wait` returns when it found no more, or raises what it met."""

    def __init__(self):
        self.sent, self.done = threading.Lock(), threading.Lock()
        self.sent.acquire()
        self.done.acquire()
        self.error: BaseException | None = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            self.sent.acquire()
            try:
                take_all(self.tasks)
            except BaseException as error:  # it belongs to the thread that waits
                self.error = error
            self.done.release()

    def send(self, tasks: deque[Task]) -> None:
        self.tasks, self.error = tasks, None
        self.sent.release()

    def wait(self) -> None:
        self.done.acquire()
        if self.error:
            raise self.error


_idle: list[Helper] = []  # of the whole process; a fork has none of their threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


class Team:
    """Threads, this one included, that share tasks; `sizes` says how many there may be.

    `with team:` around work that comes again and again lets the team find out how many of them pay: now and then it
    tries every size, and keeps to the fastest. On a machine that has other work to do that may be one."""

    TRIALS, AGAIN = 3, 500  # times that each number is tried, and after how many times of work all of them are again

    def __init__(self, sizes: Sequence[int]):
        self.sizes = list(sizes)
        self.size, self.count = self.sizes[-1], 0
        self.seconds: dict[int, list[float]] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        """Take every task; returns when all are done."""
        queue = deque(tasks)
        with contextlib.ExitStack() as stack:
            for _ in range(min(self.size, len(tasks)) - 1):
                helper = _idle.pop() if _idle else Helper()
                stack.callback(_idle.append, helper)
                stack.callback(helper.wait)
                helper.send(queue)
            take_all(queue)

    def __enter__(self) -> None:
        place = self.count % self.AGAIN
        if place == 0:
            self.seconds = {size: [] for size in self.sizes}
        if place < self.TRIALS * len(self.sizes):
            self.size = self.sizes[place % len(self.sizes)]
        elif place == self.TRIALS * len(self.sizes):
            self.size = min(self.sizes, key=lambda size: statistics.median(self.seconds[size]))
        self.started = time.perf_counter()

    def __exit__(self, *error) -> None:
        self.seconds[self.size].append(time.perf_counter() - self.started)
        self.count += 1
