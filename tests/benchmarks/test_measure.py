"""Rows in JSON, and what is said of the machine while they were taken."""

import json
from pathlib import Path

import pytest

from benchmarks.measure import Conditions, Row, compared, describe


def test_a_rows_figures_are_numbers_in_json():
    stock = Row("diffusers", "ms", [4.0], floor_share=0.5, peak_mib=512.0, versions={"diffusers": "0.42"})
    ours = compared("darkroom", "ms", [2.0], stock, "(note)", max_difference=1, psnr_db=80.0, ssim=0.9)
    row = stock.as_dict()
    assert (row["floor_share"], row["peak_mib"], row["versions"]) == (0.5, 512.0, {"diffusers": "0.42"})
    assert not {"max_difference", "psnr_db", "ssim", "note"} & row.keys()
    row = ours.as_dict()
    assert (row["ratio"], row["max_difference"], row["psnr_db"], row["ssim"]) == (0.5, 1.0, 80.0, 0.9)
    assert row["note"] == "(note)" and "versions" not in row


def test_equal_pictures_have_no_psnr_in_json():
    row = Row("darkroom", "ms", [2.0], max_difference=0, psnr_db=float("inf")).as_dict()
    assert row["max_difference"] == 0 and "psnr_db" not in row
    json.dumps(row, allow_nan=False)


def test_stolen_time_is_a_share_of_what_passed(tmp_path: Path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 1000 0 0 0 40 7 0\ncpu0 1 2 3\n")
    conditions = Conditions(stat)
    stat.write_text("cpu  160 0 60 1020 0 0 0 50 9 0\ncpu0 1 2 3\n")
    found = conditions.as_dict()
    assert found["stolen"] == pytest.approx(0.1)  # 10 of 60 + 10 + 20 + 10; guests are counted in the first
    assert found["load"] == pytest.approx(conditions.load, abs=1e-4)
    assert describe({"load": 1.5, "stolen": 0.1}) == "load 1.50 at the start, 10.0% of the processors' time stolen"


def test_a_system_that_tells_nothing_of_it(tmp_path: Path):
    assert "stolen" not in Conditions(tmp_path / "stat").as_dict()
    assert describe({}) == ""
