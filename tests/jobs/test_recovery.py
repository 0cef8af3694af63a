"""A server is killed, or ends, and the next one goes on with its jobs."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator

import pytest
from job_events import WAIT_S, events_of, request, wait_for
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.events import TERMINAL, Cancelled, Done, Failed, Image, Queued, Step
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.visitor import OWNER, Visitor
from webui.core.work import Batch
from webui.jobs import keeper as keepers
from webui.jobs import saving
from webui.jobs.executor import LocalExecutor
from webui.jobs.protocols import unfinished
from webui.jobs.recovery import GIVEN_UP
from webui.jobs.store import Store
from webui.jobs.workers.thread import ThreadWorker
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.timeout(60)
GUEST = Visitor("0123")


class Life:
    """One server after the other on one data folder; each has an engine of its own."""

    def __init__(self, settings, make_engine) -> None:
        self.settings, self.make_engine = settings, make_engine
        self.engines: list = []
        self.executors: list[LocalExecutor] = []

    def start(self, held: bool = False) -> LocalExecutor:
        self.engines.append(self.make_engine())
        if held:
            self.engine.hold()
        worker = ThreadWorker(self.settings.engine_options, self.engine)
        self.executors.append(LocalExecutor(self.settings, worker, Store(self.settings.queue_path)))
        self.executors[-1].warm_up()
        return self.executors[-1]

    @property
    def engine(self):
        return self.engines[-1]

    def kill(self) -> None:
        """From now on nothing that the newest one does reaches the disk."""
        executor = self.executors[-1]
        executor._keeper.close()
        executor._keeper._store = None

    def restart(self, held: bool = False) -> LocalExecutor:
        self.kill()
        return self.start(held)

    def close(self) -> None:
        for executor, engine in zip(self.executors, self.engines, strict=True):
            engine.go_on()
            executor.close()


@pytest.fixture
def life(settings, make_engine) -> Iterator[Life]:
    life = Life(settings, make_engine)
    yield life
    life.close()


def begun(engine) -> Request:
    return engine.begun.get(timeout=WAIT_S)


class TestKilled:
    def test_what_waited_and_what_ran_is_drawn_once_in_the_order_it_was_sent(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in range(4)]
        life.engine.let(5)  # the first is done, the second in its second step
        events_of(jobs[0])
        wait_for(jobs[1], Step, index=2)
        executor = life.restart()
        ends = [events_of(executor.job(job.id)) for job in jobs]
        assert [begun(life.engine).seed for _ in range(3)] == [1, 2, 3] and life.engine.begun.empty()
        assert all(isinstance(events[-1], Done) for events in ends)
        assert len(list(life.settings.outputs_dir.rglob("*.png"))) == 4

    def test_jobs_that_were_moved_come_in_their_new_order(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in range(4)]
        assert begun(life.engine).seed == 0
        assert executor.move(jobs[3].id, jobs[1].id) and not executor.move(jobs[0].id, None)
        executor = life.restart()
        assert [begun(life.engine).seed for _ in range(4)] == [0, 3, 1, 2]

    def test_what_was_skipped_stays_left_out(self, life):
        executor = life.start(held=True)
        job = executor.submit(request(seed=1, count=2, repeat=3))
        wait_for(job, Queued)
        begun(life.engine)
        job.skip()
        begun(life.engine)  # the second batch
        executor = life.restart()
        job = executor.job(job.id)
        assert events_of(job)[-1].warnings == ("Pictures 1 and 2 were skipped.",)
        assert [picture.seed for picture in job.images] == [3, 4, 5, 6]

    def test_what_is_drawn_is_the_very_same_request(self, life):
        executor = life.start(held=True)
        job = executor.submit(request(seed=-1, sampler="euler a karras", count=2, repeat=2, guidance=4.7))
        begun(life.engine)
        life.restart()
        again = begun(life.engine)
        assert again == job.request and again.seed == job.request.seed >= 0

    def test_finished_pictures_of_the_running_one_are_kept_and_only_the_others_drawn(self, life, monkeypatch):
        orders, draw = [], life.make_engine.draw

        def note(engine, order, cancelled):
            orders.append(order)
            return draw(engine, order, cancelled)

        monkeypatch.setattr(life.make_engine, "draw", note)
        executor = life.start(held=True)
        job = executor.submit(Batch((request(seed=1, count=2), request(seed=7, count=2), request(seed=9))))
        life.engine.let(4)
        wait_for(job, Image, index=1)
        executor = life.restart()
        job = executor.job(job.id)
        pictures = [event for event in events_of(job) if isinstance(event, Image)]
        assert [(picture.index, picture.seed) for picture in pictures] == list(enumerate([1, 2, 7, 8, 9]))
        assert [order.request.seed for order in orders][2:] == [7, 9]
        assert len(list(life.settings.outputs_dir.rglob("*.png"))) == 5

    def test_of_a_batch_that_was_saved_in_part_each_picture_comes_out_once(self, life, monkeypatch):
        held, go, save = threading.Event(), threading.Event(), saving.save_picture

        def save_first(picture, *what):
            if picture.index == 1 and len(life.executors) == 1:
                held.set()
                go.wait(WAIT_S)
                raise OSError("killed")
            return save(picture, *what)

        monkeypatch.setattr(saving, "save_picture", save_first)
        executor = life.start()
        job = executor.submit(request(count=3))
        assert held.wait(WAIT_S)
        executor = life.restart()
        assert [event.index for event in events_of(executor.job(job.id)) if isinstance(event, Image)] == [0, 1, 2]
        assert len(list(life.settings.outputs_dir.rglob("*.png"))) == 3
        go.set()

    def test_a_name_that_was_claimed_and_not_used_is_no_picture(self, life, monkeypatch):
        claimed = threading.Event()

        def die(picture, folder, file_format, filename, claim, *_):
            claim(folder / "00001-5-a-cat.png")
            claimed.set()
            raise OSError("killed")

        monkeypatch.setattr(saving, "save_picture", die)
        executor = life.start()
        executor._keeper.end = lambda *_: None
        job = executor.submit(request())
        assert claimed.wait(WAIT_S)
        monkeypatch.undo()
        executor = life.restart()
        assert isinstance(events_of(executor.job(job.id))[-1], Done)
        assert begun(life.engine).seed == 5 and len(executor.job(job.id).images) == 1

    def test_jobs_that_were_stopped_stay_stopped(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in range(3)]
        begun(life.engine)
        life.engine.deaf = True
        jobs[0].cancel()  # and the server is killed before the step ends
        jobs[2].cancel()
        executor = life.restart()
        assert isinstance(events_of(executor.job(jobs[1].id))[-1], Done)
        assert [executor.job(job.id).state for job in jobs] == ["cancelled", "done", "cancelled"]
        assert begun(life.engine).seed == 1 and life.engine.begun.empty()

    def test_start_pictures_come_back_pixel_by_pixel(self, life):
        start, mask = PilImages.effect_noise((64, 64), 90).convert("RGBA"), PilImages.new("1", (64, 64), 1)
        start.putalpha(PilImages.linear_gradient("L").resize((64, 64)))
        executor = life.start(held=True)
        job = executor.submit(request(init=Init(image=start, mask=mask, strength=0.3)))
        begun(life.engine)
        life.restart()
        again = begun(life.engine)
        assert again == job.request and again.init.image.tobytes() == start.tobytes() and again.init.mask

    def test_the_queue_is_as_it_was_for_everybody(self, life):
        executor = life.start(held=True)
        for _ in range(2):
            executor.submit(request())
        mine = [executor.submit(request(), visitor=GUEST) for _ in range(2)]
        begun(life.engine)
        executor = life.restart(held=True)
        begun(life.engine)
        assert [job.id for job in executor.jobs(GUEST)] == [job.id for job in mine]
        assert len(executor.jobs(OWNER)) == 4
        assert [wait_for(executor.job(job.id), Queued).position for job in mine] == [1, 3]

    def test_what_ended_goes_on_answering(self, life):
        executor = life.start()
        done = executor.submit(request(count=2))
        before = events_of(done)
        life.engine.failure = RuntimeError("no memory")
        failed = executor.submit(request())
        events_of(failed)
        last = max(number for number, _ in done.follow())
        executor = life.restart()
        job = executor.job(done.id)
        assert (job.state, job.request, job.position) == ("done", done.request, None)
        assert [image.pixels_sha256 for image in job.images] == [image.pixels_sha256 for image in done.images]
        assert [image.recipe.request for image in job.images] == [image.recipe.request for image in done.images]
        assert events_of(job)[-1].seconds == pytest.approx(before[-1].seconds, abs=1e-3)
        assert isinstance(list(job.follow(after=last))[-1][1], Done), "who resumes hears the end"
        assert events_of(executor.job(failed.id)) == [Failed("RuntimeError: no memory")]
        assert executor.job("nobody's") is None
        job.images[0].path.unlink()
        executor = life.restart()
        assert [image.index for image in executor.job(done.id).images] == [1]

    def test_answers_that_nobody_wants_saved_are_not_kept(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(), keep=False) for _ in range(2)]
        begun(life.engine)
        executor = life.restart()
        assert [executor.job(job.id) for job in jobs] == [None, None] and life.engine.begun.empty()

    def test_of_a_visitor_who_is_gone_nothing_is_left(self, life):
        executor = life.start(held=True)
        theirs = [executor.submit(request(), visitor=GUEST) for _ in range(3)]
        other = executor.submit(request(seed=6))
        begun(life.engine)
        executor.forget(GUEST)
        assert theirs[0].state == "cancelled" or wait_for(theirs[0], Cancelled)
        assert not executor.jobs(GUEST) and executor.job(theirs[1].id) is None
        executor = life.restart()
        assert isinstance(events_of(executor.job(other.id))[-1], Done)
        assert not executor.jobs(GUEST) and [job.id for job in executor.jobs(OWNER)] == [other.id]


class TestTries:
    def crash(self, life: Life, times: int, steps: int = 0) -> LocalExecutor:
        for _ in range(times):
            executor = life.restart(held=True)
            begun(life.engine)
            if steps:
                (job,) = [job for job in executor.jobs(OWNER) if not job.ended]
                life.engine.let(steps)
                wait_for(job, Step, index=steps)
        return life.restart(held=True)

    def test_three_unclean_ends_at_one_picture_and_the_job_is_given_up_and_listed(self, life):
        executor = life.start(held=True)
        job, other = executor.submit(request()), executor.submit(request(seed=6))
        begun(life.engine)
        executor = self.crash(life, 2)
        assert begun(life.engine).seed == 6
        assert [known.state for known in executor.jobs(OWNER)][0] == "failed"
        assert events_of(executor.job(job.id)) == [Failed(GIVEN_UP)]
        again = executor.submit(unfinished(executor.job(job.id)))
        assert again.request == job.request and again.id != job.id
        life.engine.go_on()
        assert isinstance(events_of(again)[-1], Done) and isinstance(events_of(executor.job(other.id))[-1], Done)

    def test_a_finished_step_in_between_begins_the_count_anew(self, life):
        executor = life.start(held=True)
        job = executor.submit(request())
        begun(life.engine)
        executor = self.crash(life, 4, steps=1)
        assert begun(life.engine) == job.request

    def test_a_clean_end_does_not_count(self, life):
        executor = life.start(held=True)
        job = executor.submit(request())
        for _ in range(4):
            begun(life.engine)
            executor.close()
            executor = life.start(held=True)
        assert begun(life.engine) == job.request

    def test_neither_does_waiting(self, life):
        executor = life.start(held=True)
        executor.submit(request(steps=9))
        job = executor.submit(request(seed=6))
        begun(life.engine)
        executor = self.crash(life, 3)
        assert begun(life.engine).seed == 6 and executor.job(job.id).state != "failed"


class TestChangedFiles:
    @pytest.fixture
    def lora(self, settings):
        folder = settings.data_dir / "models/Lora"
        folder.mkdir(parents=True)
        return shutil.copy(DEMO_MODEL / "loras/sepia.safetensors", folder / "mine.safetensors")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda path: path.write_bytes(path.read_bytes() + b" "), "mine.safetensors has changed"),
            (lambda path: path.unlink(), "“mine”"),
        ],
        ids=["another file", "no file"],
    )
    def test_the_job_fails_and_names_it_and_the_others_are_drawn(self, life, lora, change: Callable, words):
        executor = life.start(held=True)
        executor.submit(request(seed=1))
        begun(life.engine)
        job, other = executor.submit(request(loras=({"name": "mine"},))), executor.submit(request(seed=2))
        life.kill()
        change(lora)
        executor = life.start()
        assert isinstance(events_of(executor.job(other.id))[-1], Done)
        (failed,) = events_of(executor.job(job.id))
        assert isinstance(failed, Failed) and words in failed.message

    def test_a_start_picture_that_is_gone_is_named(self, life):
        executor = life.start(held=True)
        job = executor.submit(request(init=Init(image=PilImages.new("RGB", (64, 64)))))
        begun(life.engine)
        life.kill()
        shutil.rmtree(life.settings.start_dir)
        (failed,) = events_of(life.start().job(job.id))
        assert "init.image is no longer here" in failed.message
        with pytest.raises(RequestError, match="no longer"):
            unfinished(life.executors[-1].job(job.id))


class TestClose:
    def test_jobs_wait_for_the_next_server_and_their_watchers_are_let_go_without_an_end(self, life):
        executor = life.start(held=True)
        running, waiting = executor.submit(request()), executor.submit(request(seed=6))
        begun(life.engine)
        seen: list = []
        watchers = [threading.Thread(target=lambda job=job: seen.extend(events_of(job))) for job in (running, waiting)]
        for watcher in watchers:
            watcher.start()
        executor.close()
        for watcher in watchers:
            watcher.join(WAIT_S)
        assert not [event for event in seen if isinstance(event, TERMINAL)]
        executor = life.start()
        assert all(isinstance(events_of(executor.job(job.id))[-1], Done) for job in (running, waiting))

    def test_without_a_disk_they_end(self, life, monkeypatch):
        executor = life.start(held=True)
        job = executor.submit(request())
        begun(life.engine)
        monkeypatch.setattr(Store, "put", no_space)
        executor.close()
        assert isinstance(events_of(job)[-1], Cancelled)


def no_space(*_):
    import sqlite3

    raise sqlite3.OperationalError("database or disk is full")


class TestDisks:
    def test_a_full_disk_is_said_and_the_queue_lives_in_memory_until_there_is_room(self, life, monkeypatch):
        executor = life.start(held=True)
        first = executor.submit(request(seed=1))
        with monkeypatch.context() as full:
            full.setattr(Store, "put", no_space)
            second = executor.submit(request(seed=2))
            assert (
                "disk is full" in executor.status()["warning"] and "end with the server" in executor.status()["warning"]
            )
            life.engine.let(3)
            assert isinstance(events_of(first)[-1], Done)
        executor._keeper.check()
        assert "warning" not in executor.status()
        executor = life.restart(held=True)
        assert executor.job(first.id).state == "done" and begun(life.engine).seed == 2
        assert executor.job(second.id).state != "failed"

    def test_a_folder_that_vanishes_and_comes_back_loses_nothing(self, life):
        data, away = life.settings.data_dir, life.settings.data_dir.with_name("away")
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in (1, 2)]
        begun(life.engine)  # and the disk knows
        data.rename(away)
        data.write_text("no folder")
        jobs.append(executor.submit(request(seed=3)))
        assert "warning" in executor.status()
        life.engine.let(3)
        last = events_of(jobs[0])[-1]
        assert isinstance(last, Done) and "could not be saved" in last.warnings[0]
        data.unlink()
        away.rename(data)
        executor._keeper.check()
        assert "warning" not in executor.status()
        executor = life.restart()
        assert [events_of(executor.job(job.id))[-1].__class__ for job in jobs] == [Done] * 3

    def test_a_folder_that_is_deleted_is_made_anew_with_all_that_is_known(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in (1, 2)]
        begun(life.engine)
        shutil.rmtree(life.settings.data_dir)
        executor._keeper.check()
        executor = life.restart()
        assert [events_of(executor.job(job.id))[-1].__class__ for job in jobs] == [Done] * 2

    def test_a_second_server_says_so_and_draws_none_of_the_first_one_s_jobs(self, life, monkeypatch):
        monkeypatch.setattr(keepers, "WAIT_FOR_OTHER_S", 0.5)
        first = life.start(held=True)
        jobs = [first.submit(request(seed=seed)) for seed in (1, 2)]
        begun(life.engine)
        second = life.start()
        own = second.submit(request(seed=3))
        assert isinstance(events_of(own)[-1], Done)
        assert begun(life.engine).seed == 3 and life.engine.begun.empty()
        assert second.status()["warning"].startswith("Another Darkroom uses this data folder")
        assert "warning" not in first.status() and second.job(jobs[0].id) is None

    def test_a_server_that_is_just_ending_is_waited_for(self, life):
        first = life.start(held=True)
        job = first.submit(request(seed=1))
        begun(life.engine)
        second = life.start(held=True)
        life.executors[0].close()
        assert begun(life.engine).seed == 1 and "warning" not in second.status() and second.job(job.id)

    def test_rows_that_cannot_be_read_harm_no_other(self, life):
        executor = life.start(held=True)
        jobs = [executor.submit(request(seed=seed)) for seed in (1, 2)]
        begun(life.engine)
        life.kill()
        store = Store(life.settings.queue_path)
        broken = store.find(jobs[0].id)[0]
        store.put([broken.__class__(**{**vars(broken), "work": json.dumps([{"steps": -1}])})])
        store.close()
        executor = life.start()
        assert isinstance(events_of(executor.job(jobs[1].id))[-1], Done)
        assert executor.job(jobs[0].id).state == "failed"
