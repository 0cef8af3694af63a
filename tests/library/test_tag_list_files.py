"""Lists of tags on disk, in the form that a1111-sd-webui-tagcomplete reads; what cannot be used says so."""

import gzip
import logging
from pathlib import Path

import pytest

from webui.core.words import Tag, TagList
from webui.library import tag_lists
from webui.library.library import Library
from webui.library.tag_lists import find_tag_lists, read_tags

SITE = '''name,category,count,alias
1girl,0,6008644,"1girls,sole_female"
highres,5,5256195,"high_res,high_resolution,hires"
dress,0,1285746,

,0,33
fate_(series),3,324179
edit,8,176413,"manip,edited,""edit"""
:3,0,116830,
pokémon,x,265951,"a, b",c
best_quality,5,Quality tag,
solo
'''
READ = [
    Tag("1girl", 0, "6008644", ("1girls", "sole_female")),
    Tag("highres", 5, "5256195", ("high_res", "high_resolution", "hires")),
    Tag("dress", 0, "1285746"),
    Tag("fate_(series)", 3, "324179"),
    Tag("edit", 8, "176413", ("manip", "edited", '"edit"')),
    Tag(":3", 0, "116830"),
    Tag("pokémon", 0, "265951", ("a", "b", "c")),
    Tag("best_quality", 5, "Quality tag"),
    Tag("solo"),
]


def found(settings, content: str | bytes, name: str = "site.csv") -> TagList:
    path = settings.data_dir / "tags" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return find_tag_lists(settings)[Path(name).with_suffix("").as_posix()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_are_name_category_count_and_aliases(settings, encoding, end):
    assert [*found(settings, SITE.replace("\n", end).encode(encoding)).read()] == READ


def test_what_is_sent_are_lines_the_most_used_first(settings):
    lines = gzip.decompress(found(settings, SITE).lines.packed).decode().split("\n")
    assert lines[0] == "0\t6008644\t1girl\t1girls\tsole_female"
    assert lines[-2:] == ["5\tQuality tag\tbest_quality", "0\t\tsolo"]
    assert [line.split("\t")[2] for line in lines[:4]] == ["1girl", "highres", "dress", "fate_(series)"]
    assert found(settings, SITE).lines.tags == len(lines) == len(READ)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no tags"),
        ("name,category,count\n", "has no tags"),
        (b"\xff\xff,0,1\n", "is not text in UTF-8"),
        ("a\0b,0,1\n", "is not text"),
        ('solo,0,1,"a,b\nhat,0,1,"c"\n', "has a quote in line 1 that is never closed there"),
        ("solo,0,1\n" + "x" * 201 + ",0,1\n", "has a tag of 201 characters in line 2"),
        ("solo,0,1\n" + "x" * 200_000, "cannot be read as CSV, line 2"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text in UTF-8"),
    ],
)
def test_a_broken_list_is_left_out_with_a_word_in_the_log(settings, caplog, content, reason):
    with caplog.at_level(logging.WARNING, "webui"):
        broken = found(settings, content)
        assert reason in broken.problem and broken.lines.tags == 0
    assert len(caplog.records) == 1 and "tags site " + broken.problem in caplog.text
    assert str(settings.data_dir) not in broken.problem


def test_a_huge_list_is_refused(settings, monkeypatch):
    monkeypatch.setattr(tag_lists, "MAX_TAGS", 3)
    assert found(settings, SITE).problem == "has more than 3 tags"
    monkeypatch.setattr(tag_lists, "MAX_FILE_BYTES", 2**20)
    assert found(settings, b"a" * (2**20 + 1)).problem == "is larger than 1 MiB"


def test_lists_are_named_by_where_they_lie_and_nothing_is_read_outside(settings, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("password,0,1\n")
    found(settings, SITE, "sites/Danbooru.CSV")
    (settings.data_dir / "tags/out.csv").symlink_to(secret)
    (settings.data_dir / "tags/notes.txt").write_text("solo,0,1")
    lists = find_tag_lists(settings)
    assert sorted(lists) == ["out", "sites/Danbooru"]
    assert "leads out" in lists["out"].problem and lists["sites/Danbooru"].problem == ""


def test_a_list_that_changes_is_another_version(settings):
    found(settings, SITE)
    library = Library(settings)
    first = library.snapshot(0).tag_lists["site"]
    assert library.snapshot(0).tag_lists["site"] == first and first.lines.tags == len(READ)
    found(settings, SITE + "hat,0,9\n")
    library.reload()
    second = library.snapshot(0).tag_lists["site"]
    assert second.version != first.version and second.lines.tags == len(READ) + 1
    (settings.data_dir / "tags/site.csv").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        next(read_tags(settings.data_dir / "tags/site.csv"))
