import threading

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.prediction.threads import WriteBehind, read_ahead

THREADS = pytest.mark.parametrize("n_threads", [0, 1, 3])


def fail_at(bad, error=UserError):
    def work(job):
        if job == bad:
            raise error(f"job {job}")
        return 10 * job

    return work


@THREADS
def test_results_come_in_order(n_threads):
    first_may_end = threading.Event()

    def work(job):
        if job == 0 and n_threads > 1:
            assert first_may_end.wait(10)
        if job == 1:
            first_may_end.set()
        return 10 * job

    assert list(read_ahead(work, range(7), n_threads)) == [(job, 10 * job) for job in range(7)]


@THREADS
def test_a_users_error_is_a_result(n_threads):
    done = list(read_ahead(fail_at(1), range(4), n_threads))
    assert [job for job, _ in done] == [0, 1, 2, 3]
    assert isinstance(done[1][1], UserError)
    assert [result for job, result in done if job != 1] == [0, 20, 30]


@THREADS
def test_other_errors_are_raised(n_threads):
    reading = read_ahead(fail_at(2, ZeroDivisionError), range(9), n_threads)
    assert [next(reading), next(reading)] == [(0, 0), (1, 10)]
    with pytest.raises(ZeroDivisionError, match="job 2"):
        next(reading)


@pytest.mark.parametrize(("n_threads", "most"), [(0, 1), (1, 2), (3, 4)])
def test_reading_does_not_run_away(n_threads, most):
    started = []
    reading = read_ahead(started.append, range(50), n_threads)
    assert started == []
    for n_taken in range(1, 5):
        next(reading)
        assert n_taken <= len(started) + most
        assert len(started) <= n_taken + most - 1
    reading.close()
    assert len(started) < 10


@THREADS
def test_nothing_to_read(n_threads):
    assert list(read_ahead(fail_at(0), [], n_threads)) == []


@THREADS
def test_what_is_written_has_results_in_order(n_threads):
    with WriteBehind(n_threads) as writer:
        for job in range(8):
            writer.submit(lambda job=job: 10 * job)
    assert writer.results == [10 * job for job in range(8)]


def test_writing_without_threads_happens_at_once():
    with WriteBehind(0) as writer:
        writer.submit(lambda: "done")
        assert writer.results == ["done"]


@THREADS
def test_an_error_of_a_writer_reaches_the_caller(n_threads):
    done = []
    with pytest.raises(OSError, match="disk"), WriteBehind(n_threads) as writer:  # noqa: PT012 - either line may raise
        writer.submit(lambda: (_ for _ in ()).throw(OSError("disk")))
        writer.submit(lambda: done.append(1))
    assert done == ([] if n_threads == 0 else [1])


@THREADS
def test_what_was_computed_is_written_even_if_the_caller_fails(n_threads):
    done = []
    with pytest.raises(KeyboardInterrupt), WriteBehind(n_threads) as writer:  # noqa: PT012
        for job in range(3):
            writer.submit(lambda job=job: done.append(job))
        raise KeyboardInterrupt
    assert sorted(done) == [0, 1, 2]


def test_a_full_queue_makes_the_caller_wait():
    may_end, submitted = threading.Event(), []

    def caller():
        with WriteBehind(1) as writer:
            for job in range(4):
                writer.submit(lambda: may_end.wait(10))
                submitted.append(job)

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join(0.3)
    assert submitted == [0, 1], "one is written, one waits; the third does not return"
    may_end.set()
    thread.join(10)
    assert submitted == [0, 1, 2, 3]
