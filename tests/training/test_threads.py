"""Threads that share tasks, and the choice of how many."""

import threading
import time

import pytest
import torch

from tvae_lib.training import threads
from tvae_lib.training.threads import Team, allowed, alone


def test_every_task_is_taken_once():
    for size in (1, 2, 5):
        team, taken = Team([size]), []
        for _ in range(200):
            taken.clear()
            team.run([(taken.append, (i,)) for i in range(7)])
            assert sorted(taken) == list(range(7))
    assert len(threads._idle) < 16, "helpers are used again, by whatever team"


def test_tasks_are_taken_side_by_side():
    together = threading.Barrier(3, timeout=5)
    Team([3]).run([(together.wait, ())] * 3)


def test_a_team_keeps_to_the_size_that_is_fastest_and_looks_again(monkeypatch):
    monkeypatch.setattr(Team, "AGAIN", 50)
    now, pace = [0.0], {1: 1.0, 2: 0.6, 4: 0.7}
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    team, sizes = Team([1, 2, 4]), []
    for call in range(120):
        if call == 60:
            pace[2] = 3.0  # somebody else wants the second core
        with team:
            sizes.append(team.size)
            now[0] += pace[team.size]
    assert sizes[:9] == [1, 2, 4] * 3
    assert set(sizes[9:50]) == {2}
    assert set(sizes[109:]) == {4}


def test_what_a_helper_meets_comes_to_the_caller_and_the_helper_lives_on():
    def fail(barrier):
        barrier.wait()
        raise ValueError("no such kernel")

    for _ in range(3):
        with pytest.raises(ValueError, match="no such kernel"):
            Team([2]).run([(fail, (threading.Barrier(2, timeout=5),))] * 2)
    taken: list[int] = []
    Team([2]).run([(taken.append, (i,)) for i in range(4)])
    assert sorted(taken) == [0, 1, 2, 3]


def test_alone_gives_torch_its_threads_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with alone():
            assert (torch.get_num_threads(), allowed()) == (1, 2)
            with alone():
                assert torch.get_num_threads() == 1
        assert (torch.get_num_threads(), allowed()) == (2, 2)
    finally:
        torch.set_num_threads(before)


def test_a_helper_sleeps_between_tasks():
    team = Team([2])
    team.run([(time.sleep, (0.01,))] * 2)
    used = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - used < 0.05
