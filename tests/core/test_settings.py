"""Settings: one frozen value from flags and environment."""

from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from webui.core.engine_options import EngineOptions
from webui.core.settings import DEVICES, DTYPES, Settings


def test_the_data_folder_is_the_environment_s(monkeypatch, tmp_path):
    monkeypatch.setenv("WEBUI_DATA_DIR", str(tmp_path / "elsewhere"))
    assert Settings().data_dir == tmp_path / "elsewhere"


def test_a_given_data_folder_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WEBUI_DATA_DIR", str(tmp_path / "elsewhere"))
    assert Settings(data_dir=tmp_path / "here").data_dir == tmp_path / "here"


def test_without_either_the_data_folder_is_beside_launch_py(monkeypatch, repository):
    monkeypatch.delenv("WEBUI_DATA_DIR")
    assert Settings().data_dir == repository / "data"


def test_relative_and_home_paths_become_absolute_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = Settings(data_dir=Path("data"), out=Path("~/pictures"), models_dir=(Path("a"), Path("~/b")))
    monkeypatch.chdir("/")
    assert settings.data_dir == tmp_path / "data"
    assert settings.out == tmp_path / "home/pictures"
    assert settings.models_dir == (tmp_path / "a", tmp_path / "home/b")
    assert settings.cache_dir == tmp_path / "data/cache"


def test_pictures_go_to_a_folder_of_the_task_and_the_day_or_to_out_itself(tmp_path):
    today = date.today().isoformat()
    assert Settings(data_dir=tmp_path).output_dir("txt2img") == tmp_path / "outputs/txt2img" / today
    assert Settings(data_dir=tmp_path, out=tmp_path / "mine").output_dir("txt2img") == tmp_path / "mine"


@pytest.mark.parametrize("values", [{"port": 0}, {"port": 65536}, {"device": "tpu"}, {"dtype": "int8"}, {"colour": 1}])
def test_what_cannot_be_is_refused(values):
    with pytest.raises(ValidationError):
        Settings(**values)


def test_every_device_and_dtype_on_the_command_line_is_a_setting():
    assert [Settings(device=name).device for name in DEVICES] == list(DEVICES)
    assert [Settings(dtype=name).dtype for name in DTYPES] == list(DTYPES)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), (12345, 12345), ("500MB", 500_000_000), ("1.5GiB", 3 * 2**29), ("64 mib", 2**26), (None, None)],
)
def test_the_memory_for_merged_loras_is_a_size_with_a_unit(text, size_bytes):
    assert Settings(lora_cache=text).lora_cache == size_bytes
    assert Settings().lora_cache is None


@pytest.mark.parametrize("text", ["much", "5 apples", "-1", -1, "nan"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ValidationError):
        Settings(lora_cache=text)


def test_settings_cannot_be_changed(settings):
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 80


def test_the_server_listens_on_this_machine_only_unless_told_otherwise():
    assert Settings().host == "127.0.0.1" and Settings().share is False


@pytest.mark.parametrize(
    ("flags", "has_guests"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"auth": (("a", "b"),)}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "my-machine"}, True),
        ({"share": True}, True),
        ({"guests": True}, True),
        ({"share": True, "auth": (("a", "b"),)}, True),
    ],
)
def test_there_are_guests_where_others_come_in_with_a_login_or_without(flags, has_guests):
    assert Settings(**flags).has_guests is has_guests


@pytest.mark.parametrize(("text", "path"), [("/sd", "/sd"), ("sd/", "/sd"), ("/a/b.c/", "/a/b.c"), ("/", ""), ("", "")])
def test_a_root_path_has_a_slash_before_it_and_none_behind(text, path):
    assert Settings(root_path=text).root_path == path


@pytest.mark.parametrize("text", ["/a b", "https://a.example/sd", "/../x", "/a//b", "/a?b"])
def test_a_root_path_that_is_none_is_refused(text):
    with pytest.raises(ValidationError, match="is not a path such as /darkroom"):
        Settings(root_path=text)


def test_an_engine_is_told_what_concerns_it(tmp_path):
    given = {"device": "cpu", "dtype": "bfloat16", "memory": "offload", "compile": True, "cuda_graphs": True}
    settings = Settings(**given, data_dir=tmp_path, lora_cache="2MB", cpu_kernels=False)
    options = EngineOptions(tmp_path / "cache", **given, lora_cache_bytes=2_000_000, cpu_kernels=False)
    assert settings.engine_options == options
    assert Settings(data_dir=tmp_path).engine_options == EngineOptions(tmp_path / "cache")
