"""A device that stops working: it hangs in a step, or reports an error that CUDA repeats from then on."""

import pytest
from job_events import WAIT_S, events_of, request, wait_for

from webui.core.events import Cancelled, Done, Failed, Loading, Step
from webui.jobs.protocols import QueueFull
from webui.jobs.watchdog import FIRST_S, LEAST_S, STEPS, Watchdog, is_lost

pytestmark = pytest.mark.timeout(60)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestWatchdog:
    @pytest.mark.parametrize("step_s", [1.0, 100.0])
    def test_the_silence_that_counts_depends_on_the_longest_step(self, step_s):
        clock = Clock()
        watchdog = Watchdog(clock)
        watchdog.begin()
        for taken_s in (step_s, step_s / 2):
            clock.now += taken_s
            watchdog.ping(is_step=True)
        limit_s = max(LEAST_S, STEPS * step_s)
        clock.now += limit_s
        assert watchdog.silent_s is None and watchdog.trouble == ""
        clock.now += 1
        assert watchdog.silent_s == limit_s + 1 and f"{limit_s / 60:.0f} minutes" in watchdog.trouble
        watchdog.ping()
        assert watchdog.silent_s is None

    def test_before_the_first_step_it_is_patient_and_with_nothing_to_do_asleep(self):
        clock = Clock()
        watchdog = Watchdog(clock)
        clock.now += 10 * FIRST_S
        assert watchdog.silent_s is None
        watchdog.begin()
        clock.now += FIRST_S
        assert watchdog.silent_s is None
        clock.now += 1
        assert watchdog.silent_s
        watchdog.end()
        assert watchdog.silent_s is None


class TestHungStep:
    def test_health_and_the_job_say_it_until_it_goes_on(self, executor, engine):
        clock = Clock()
        executor._crew.hands[0].watchdog = Watchdog(clock)
        engine.hold()
        job = executor.submit(request())
        engine.begun.get(timeout=WAIT_S)
        executor.check_device()
        assert executor.status()["status"] == "ok"
        clock.now += FIRST_S + 60
        executor.check_device()
        assert wait_for(job, Loading).what.startswith("No step for 31 minutes: the device may have stopped answering")
        assert executor.status()["status"] == "degraded" and "31 minutes" in executor.status()["trouble"]
        engine.let()
        assert wait_for(job, Step).index == 1
        assert executor.status()["status"] == "ok"
        engine.go_on()
        assert isinstance(events_of(job)[-1], Done)

    def test_a_job_that_hangs_can_be_given_up_and_the_next_one_runs_when_the_device_is_back(self, executor, engine):
        clock = Clock()
        executor._crew.hands[0].watchdog = Watchdog(clock)
        engine.hold()
        engine.deaf = True
        job, other = executor.submit(request()), executor.submit(request(seed=6))
        engine.begun.get(timeout=WAIT_S)
        clock.now += FIRST_S + 1
        job.cancel()
        assert isinstance(events_of(job)[-1], Cancelled)
        assert executor.status()["status"] == "degraded", "the device is still not there"
        engine.go_on()
        assert isinstance(events_of(other)[-1], Done)
        assert executor.status()["status"] == "ok"
        assert executor.totals().jobs == {"done": 1, "failed": 0, "cancelled": 1}


class TestLostDevice:
    ERROR = "CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA in /srv/secret/place.cu"

    def test_jobs_are_refused_until_a_restart_in_words_of_our_own(self, executor, engine):
        engine.hold()
        engine.failure = RuntimeError(self.ERROR)
        job, waiting = executor.submit(request()), executor.submit(request())
        engine.go_on()
        for one in (job, waiting):
            failed = events_of(one)[-1]
            assert isinstance(failed, Failed) and not failed.bad_input
            assert failed.message.startswith("Restart needed: the GPU reported an error")
        assert engine.begun.qsize() == 1, "the second one is not even begun"
        with pytest.raises(QueueFull, match="Restart needed"):
            executor.submit(request())
        assert executor.status()["status"] == "degraded"
        assert executor.status()["trouble"].startswith("Restart needed")

    @pytest.mark.parametrize(
        ("text", "lost"),
        [
            ("CUDA error: an illegal memory access was encountered", True),
            ("CUDA error: unspecified launch failure", True),
            ("HIP error: unknown error", True),
            ("CUDA error: out of memory", False),
            ("CUDA error: no kernel image is available for execution on the device", False),
            ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False),
            ("mat1 and mat2 shapes cannot be multiplied", False),
        ],
    )
    def test_it_is_told_from_errors_that_pass(self, text, lost):
        assert is_lost(RuntimeError(text)) == lost
        wrapped = ValueError("while loading")
        wrapped.__cause__ = RuntimeError(text)
        assert is_lost(wrapped) == lost


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("cannot open /srv/secret/place.bin"), "RuntimeError: cannot open place.bin"),
        (FileNotFoundError(2, "No such file", "/srv/my secret/x.json"), "[Errno 2] No such file: 'x.json'"),
        (OSError(r"C:\Users\me\model.bin is locked"), "OSError: model.bin is locked"),
        (ValueError("half of 1/2 and/or more"), "ValueError: half of 1/2 and/or more"),
    ],
)
def test_no_folder_of_the_server_reaches_people(executor, engine, error, message):
    engine.failure = error
    assert events_of(executor.submit(request()))[-1].message.endswith(message)
