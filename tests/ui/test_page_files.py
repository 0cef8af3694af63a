"""The files that a page is made of: kept in memory, asked for at once, and Gradio's that are changed."""

import asyncio
import json
import subprocess
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from tests.ui.scripts import NODE
from webui.ui import mended as changes
from webui.ui import preloads
from webui.ui.page_files import FOR_EVER, KeptFiles, bundle

ASSETS = preloads.FRONTEND / "assets"


class Site:
    """A server with the files it is given, which counts what it was asked."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/assets/{name}": body for name, body in files.items()}
        self.asked: list[str] = []
        self.kept = KeptFiles(self._answer)

    async def _answer(self, scope, receive, send) -> None:
        self.asked.append(scope["path"])
        body = self.files.get(scope["path"])
        answer = Response(status_code=404) if body is None else Response(body, headers={"etag": '"one"'})
        await answer(scope, receive, send)

    def ask(self, *paths: str, **headers: str) -> list[httpx.Response]:
        async def go() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.kept)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return [await client.get(path, headers=headers) for path in paths]

        return asyncio.run(go())


def test_a_file_is_made_ready_once():
    site = Site(**{"Index-abcdefgh.js": b"1", "plain.js": b"2"})
    named, again, plain = site.ask(*["/assets/Index-abcdefgh.js"] * 2, "/assets/plain.js")
    assert named.content == again.content == b"1" and plain.content == b"2"
    assert site.asked == ["/assets/Index-abcdefgh.js", "/assets/plain.js"]
    assert named.headers["cache-control"] == FOR_EVER, "its name says what is in it"
    assert "cache-control" not in plain.headers


def test_who_has_a_file_is_told_so():
    site = Site(**{"a.js": b"1"})
    for _ in range(2):
        (answer,) = site.ask("/assets/a.js", **{"if-none-match": '"one"'})
        assert answer.status_code == 304 and not answer.content
    assert site.ask("/assets/a.js", **{"if-none-match": '"other"'})[0].content == b"1"


def test_compressed_files_are_for_who_reads_them():
    site = Site(**{"a.js": b"1"})
    for accepted in ("br, gzip", "gzip", "identity", "gzip, br"):
        site.ask("/assets/a.js", **{"accept-encoding": accepted})
    assert len(site.asked) == 3


def test_what_is_no_file_of_the_page_is_asked_for_each_time():
    site = Site(**{"a.js": b"1"})
    site.ask("/assets/none.js", "/assets/none.js", "/api/health", "/api/health")
    site.ask("/assets/a.js", "/assets/a.js", range="bytes=0-0")
    assert len(site.asked) == 6


def test_the_name_of_a_bundle_is_another_one_for_other_files(tmp_path):
    first, second = tmp_path / "1.js", tmp_path / "2.js"
    first.write_text("a();\n")
    second.write_text("b();\n")
    name, text = bundle([first, second])
    assert text == "a();\nb();\n" and name.endswith(".js")
    assert bundle([second, first])[0] != name == bundle([first, second])[0]


def test_gradio_still_has_each_place_that_is_changed():
    """A release that has another: does it still do what took so long? ``bench page`` says it."""
    assert sorted(name.partition("-")[0] for name, _ in changes.mended(ASSETS)) == ["Blocks", "core", "statustracker"]


def test_a_file_without_a_place_is_left_as_it_is(tmp_path):
    (tmp_path / "core-1.js").write_text("".join(old for old, _ in changes.TREE[1:]))
    (tmp_path / "Blocks-1.js").write_text(f"before {' '.join(old for old, _ in changes.PAGE)} after")
    assert [*changes.mended(tmp_path)] == [("Blocks-1.js", f"before {' '.join(new for _, new in changes.PAGE)} after")]


def test_components_have_the_same_events_as_gradio_finds():
    old, new = changes.TREE[0]
    run = """
    const events = [[[1, "click"], [2, "change"]], [], [[2, "input"], [2, "blur"]], [[3, ""]], [[1, "load"], [3, "x"]]];
    const functions = events.map((targets) => ({ targets }));
    const found = [Old, New].map((Tree) => {
      const tree = new Tree();
      const find = (id, of) => tree.find_attached_events({ id, props: { shared_props: {} } }, of);
      return [functions, functions.slice(2), []].map((of) => [1, 2, 3, 4].map((id) => find(id, of)));
    });
    console.log(JSON.stringify(found));
    """
    code = f"class Old {{ {old} }}\nclass New {{ {new} }}\n{run}"
    told = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=120, check=True).stdout
    before, now = json.loads(told)
    assert now == before and before[0][1]["props"]["shared_props"]["attached_events"] == ["change", "input"]


def test_what_a_kind_of_component_needs_is_asked_for_at_once():
    plain, more = preloads.tags(["textbox"]), preloads.tags(["textbox", "gallery"])
    assert "index-" in plain and "Blocks-" in plain and 'as="style"' in plain and "hls-" not in plain
    assert plain != more and "hls-" in more
    names = {part.partition('"')[0] for part in more.split('href="assets/')[1:]}
    assert all((ASSETS / name).is_file() for name in names)


def test_a_frontend_that_says_nothing_is_asked_for_in_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "index.html").write_text("<html></html>")
    monkeypatch.setattr(preloads, "FRONTEND", tmp_path)
    assert preloads.tags(["textbox"]) == preloads.styles() == ""


def test_how_far_an_event_is_is_told_to_its_own_components():
    [[_, (_, tell)], [_, (_, keep)]] = changes.PAGE, changes.STATUS
    run = """
    const told = [], page = new Page();
    page.update_state_cb = (id, { loading_status }) => told.push([id, loading_status.status]);
    const tell = async (event) => (page.loading_stati.update(event), await page.update_loading_stati_state());
    (async () => {
      for (const status of ["pending", "generating"]) await tell({ fn_index: 1, outputs: [1, 2], status });
      await tell({ fn_index: 2, outputs: [3], status: "pending", used_cache: "full" });
      await tell({ fn_index: 1, outputs: [1, 2], status: "complete" });
      console.log(JSON.stringify([told, page.loading_stati.current]));
    })();
    """
    update = f"""
    update(e) {{
      {keep}...n, used_cache: null, cache_duration: null, avg_time: null, cache_event_id: null }});
      for (const id of e.outputs) this.current[id] = {{ ...e }};
    }}"""
    page = f"class Page {{ loading_stati = new Stati(); {tell} }}"
    code = f"class Stati {{ current = {{}}; {update} }}\n{page}\n{run}"
    said = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=120, check=True).stdout
    told, current = json.loads(said)
    first = [[id, status] for status in ("pending", "generating") for id in (1, 2)]
    assert told == [*first, [3, "pending"], [1, "complete"], [2, "complete"], [3, "pending"]]  # no longer from a cache
    assert current["3"]["used_cache"] is None and current["2"]["status"] == "complete"
