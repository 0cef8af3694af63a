"""More than one job of a page: what waits is seen, moved and taken back, what is finished can be found."""

from .server import SMALL, wait_for

LONG = {"steps": 150, "width": 256, "height": 256}


def test_what_waits_is_seen_moved_and_taken_back_and_a_reload_finds_all_of_it(open_tab, server):
    tab = open_tab()
    tab.set(prompt="the first", **LONG)
    jobs = [tab.generate()]
    assert not tab.find("queue").is_visible()
    jobs += [tab.add_job(prompt="the second"), tab.add_job(prompt="the third")]
    tab.page.get_by_role("button", name="Generate (2 waiting)").wait_for()
    tab.wait_for_queue("2 more wait.", "the first", "the second", "the third")
    tab.wait_for_step()
    assert tab.job == jobs[0]  # the status stays with the one that is drawn
    tab.wait_for_queue("2 more", "Drawing", "Next", "Place 2")
    rows = tab.queue.get_by_role("listitem")
    rows.first.locator("img").wait_for()
    up = tab.queue.get_by_role("button", name="Move up: the third")
    up.press("Enter")
    tab.wait_for_queue("2 more", "the first", "the third", "the second")
    assert up.evaluate("(button) => button === document.activeElement")
    rows.nth(2).drag_to(rows.nth(1), target_position={"x": 90, "y": 4})
    tab.wait_for_queue("2 more", "the first", "the second", "the third")
    assert [job["id"] for job in server.client.get("/api/queue").json()] == jobs
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#darkroom-queue-panel").is_visible() and tab.state == "running"

    tab.page.get_by_role("tab", name="img2img").click()
    tab.leaving = True
    tab.page.reload()  # on a tab that has none
    tab.page.locator("#img2img-generate").wait_for()
    tab.leaving = False
    tab.page.get_by_role("tab", name="txt2img").click()
    tab.find("queue").get_by_role("button", name="Show queue").click()
    tab.wait_for_queue("2 more wait.", "the first", "the second", "the third")
    tab.wait_for_step()
    assert tab.job == jobs[0]
    up.click()
    tab.wait_for_queue("2 more", "the first", "the third", "the second")
    tab.find("stop").click()
    tab.wait_for_queue("Stopped one. 1 more waits.", "the third", "the second")
    tab.page.wait_for_function("(job) => darkroom.statusOf('txt2img').dataset.job === job", arg=jobs[2])
    tab.queue.get_by_role("button", name="Stop: the second").click()
    tab.wait_for_queue("Stopped one. This is the last one.", "the third")
    assert server.show(jobs[1])["state"] == "cancelled"
    wait_for(lambda: rows.count() == 1, "the one that is left")
    tab.queue.get_by_role("button", name="Stop all").click()
    tab.find("queue").wait_for(state="hidden")
    tab.wait_for_state("cancelled")
    assert tab.job == jobs[2]
    assert [server.finish(job)["event"] for job in jobs] == ["cancelled"] * 3
    tab.queue.get_by_text("Nothing waits.").wait_for()


def test_every_finished_picture_of_the_last_thirty_jobs_can_be_found_again(open_tab, server):
    tab = open_tab()
    tab.set(prompt="the first", seed=1, **SMALL)
    before, held = len(server.pictures()), []
    tab.page.route("**/gradio_api/queue/join*", lambda route: route.continue_() if held else held.append(route))
    with tab.page.expect_request("**/gradio_api/queue/join*"):
        tab.find("generate").dblclick()  # counts once
    while not held:
        tab.page.evaluate("0")  # lets what holds it be called
    held[0].continue_()
    tab.wait_for_state("done")
    server.settle()
    assert len(server.pictures()) == before + 1 and len(tab.jobs) == 1
    tab.page.unroute_all()
    jobs = [*tab.jobs, tab.draw(prompt="the second", seed=2)]
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
    tab.page.evaluate(
        "() => { sessionStorage.setItem('darkroom.txt2img.jobs', JSON.stringify([...Array(40)].map((_, at) => ("
        "{ ids: [`${at}`], prompt: '', state: 'done', seen: true, at, server: gradio_config.app_id }))));"
        "return darkroomJobs.begin('txt2img'); }"
    )
    job = tab.draw(**SMALL)
    wait_for(lambda: tab.jobs == [*map(str, range(11, 40)), job], "the oldest to be forgotten")


def test_what_a_stopped_job_left_is_no_picture_that_could_be_deleted(open_tab):
    tab = open_tab()
    tab.draw(prompt="a red apple, flat style", steps=2, width=64, height=64)
    tab.page.locator("#txt2img-gallery img").first.wait_for()
    tab.set(steps=150, count=4)
    tab.generate()
    tab.find("preview").locator(".preview-live").wait_for()
    tab.find("stop").click()
    tab.wait_for_state("cancelled")
    tools = tab.page.locator("#tab-txt2img .sending [data-act=delete]")
    tools.wait_for(state="hidden")
    before = tab.page.locator(".finished[data-page=txt2img] button[aria-pressed]")  # beside it may be "Now"
    before.click()
    tools.wait_for()
    assert tab.picture.is_visible()
    before.click()
    tools.wait_for(state="hidden")
