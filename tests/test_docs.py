"""What is written for people: links lead somewhere, commands exist, nothing that was added is left out."""

import re
import tomllib
from pathlib import Path

import pytest

from webui.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("", "docs", "docs/decisions", "benchmarks", "training", "webui/demo")
PAGES = sorted(file for folder in FOLDERS for file in (REPOSITORY / folder).glob("*.md"))
LAUNCHED = {*COMMANDS, "update"}
README_LINES = 150


def without_code(text):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def links(file):
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(file.read_text("utf-8")))
    return [link for link in found if not link.startswith(("http:", "https:", "mailto:"))]


def anchors(file):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(file.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_to_what_is_there(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short_and_leads_to_every_page():
    readme = REPOSITORY / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= README_LINES
    linked = {(REPOSITORY / link.partition("#")[0]).resolve() for link in links(readme)}
    assert {*(REPOSITORY / "docs").glob("*.md")} - linked == set()


def test_commands_that_are_shown_exist():
    shown = {
        command
        for page in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md"))
        for command in re.findall(r"python3? launch\.py (?:--offline )?([a-z]+)", page.read_text("utf-8"))
    }
    assert shown >= {"generate", "update", "doctor"} and shown <= LAUNCHED


def test_every_package_says_why_it_is_there():
    """In the table of CONTRIBUTING.md: those that are installed for everybody, and the extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(package for name in extras if name != "test" for package in extras[name])]
    names = {re.split(r"[<>=;\[ ]", package)[0] for package in needed}
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8").partition("## What it is built on")[2]
    told = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))))
    assert "torch" in names and names - told == set()
