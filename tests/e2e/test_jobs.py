"""More than one job of a page: what waits is seen and can be taken back, what is finished can be found."""

from .server import SMALL, wait_for
from .tab import Tab

LONG = {"steps": 150, "width": 256, "height": 256}


def queue_rows(tab: Tab) -> list[str]:
    return tab.find("queue").get_by_role("listitem").all_inner_texts()


def test_what_waits_is_seen_and_can_be_taken_back(open_tab, server):
    tab = open_tab()
    tab.set(prompt="the first", **LONG)
    first = tab.generate()
    assert not tab.find("queue").is_visible()
    second, third = tab.add_job(prompt="the second"), tab.add_job(prompt="the third", **SMALL)
    tab.wait_for_queue("2 more wait.", "the first", "the second", "the third")
    tab.wait_for_step()
    assert tab.job == first  # the status stays with the one that is drawn
    tab.wait_for_queue("2 more", "Drawing", "Next", "1 ahead")
    tab.find("queue").get_by_role("button", name="Stop: the second").click()
    tab.wait_for_queue("1 more waits.", "the first", "the third")
    assert server.show(second)["state"] == "cancelled"
    assert len(queue_rows(tab)) == 2
    tab.find("stop").click()
    tab.wait_for_state("done")
    assert tab.job == third
    assert server.show(first)["state"] == "cancelled"
    tab.find("queue").wait_for(state="hidden")


def test_a_reload_finds_every_job_and_one_press_stops_all(open_tab, server):
    tab = open_tab()
    tab.set(prompt="the first", **LONG)
    jobs = [tab.generate(), tab.add_job(prompt="the second"), tab.add_job(prompt="the third")]
    tab.page.get_by_role("tab", name="img2img").click()
    tab.leaving = True
    tab.page.reload()  # on a tab that has none
    tab.page.locator("#img2img-generate").wait_for()
    tab.leaving = False
    tab.page.get_by_role("tab", name="txt2img").click()
    tab.wait_for_queue("2 more wait.", "the first", "the second", "the third")
    tab.wait_for_step()
    assert tab.job == jobs[0]
    tab.find("queue").get_by_role("button", name="Stop all").click()
    tab.find("queue").wait_for(state="hidden")
    assert [server.finish(job)["event"] for job in jobs] == ["cancelled"] * 3
    tab.wait_for_state("cancelled")


def test_stop_says_that_another_job_begins(open_tab):
    tab = open_tab()
    tab.set(prompt="the first", **LONG)
    tab.generate()
    tab.add_job(prompt="the second")
    tab.wait_for_queue("1 more waits.")
    tab.wait_for_step()
    tab.find("stop").click()
    tab.wait_for_queue("Stopped one. This is the last one.")
    tab.find("queue").get_by_role("button", name="Stop all").click()
    tab.wait_for_state("cancelled")


def test_every_finished_picture_can_be_found_again(open_tab, server):
    tab = open_tab()
    jobs = [tab.draw(prompt=prompt, seed=seed, **SMALL) for seed, prompt in enumerate(("the first", "the second"), 1)]
    finished = tab.find("finished").get_by_role("button")
    tab.page.wait_for_function("document.querySelectorAll('#txt2img-finished button').length === 2")
    assert finished.first.get_attribute("aria-label") == "Show: the second"  # newest first
    assert finished.first.get_attribute("aria-pressed") == "true"
    tab.add_job(prompt="the third", seed=3, **LONG)
    tab.find("preview").locator("img").wait_for()
    tab.find("finished").get_by_role("button", name="Show: the first").click()
    tab.wait_for_infotext("Seed: 1,")  # beside the job that goes on
    tab.picture.wait_for()
    assert jobs[0] in tab.picture.get_attribute("src")
    assert not tab.find("preview").locator("img").is_visible()
    assert tab.state == "running"
    tab.find("finished").get_by_role("button", name="Now").click()
    tab.find("preview").locator("img").wait_for()
    tab.find("stop").click()
    tab.wait_for_state("cancelled")
    tab.find("finished").get_by_role("button", name="Show: the first").click()
    tab.wait_for_infotext("Seed: 1,")
    tab.page.get_by_role("button", name="Reuse last").click()  # what is shown is what is meant
    tab.wait_for_value("seed", "1")


def test_a_double_click_counts_once(open_tab, server):
    tab = open_tab()
    tab.set(**SMALL)
    held = []

    def hold(route) -> None:
        held.append(route) if not held else route.continue_()

    before = len(server.pictures())
    tab.page.route("**/gradio_api/queue/join*", hold)
    tab.find("generate").dblclick()
    held[0].continue_()
    tab.wait_for_state("done")
    server.settle()
    assert len(server.pictures()) == before + 1
    assert len(tab.jobs) == 1


def test_no_more_than_thirty_jobs_that_ended_are_remembered(open_tab):
    tab = open_tab()
    tab.page.evaluate(
        "() => sessionStorage.setItem('darkroom.txt2img.jobs', JSON.stringify([...Array(40)].map((_, at) => ("
        "{ ids: [`${at}`], prompt: '', state: 'done', seen: true, at, server: gradio_config.app_id }))))"
    )
    tab.reload()
    job = tab.draw(**SMALL)
    wait_for(lambda: tab.jobs == [*map(str, range(11, 40)), job], "the oldest to be forgotten")
