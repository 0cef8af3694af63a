"""Each visitor's folder, and when a guest's is dropped."""

from webui.core.visitor import OWNER, Visitor, asked_by
from webui.workspace.served import served_dir
from webui.workspace.workspace import UNUSED_S, Workspaces

ANN, BOB, NEW = Visitor("a" * 32), Visitor("b" * 32), Visitor("c" * 32, is_new=True)


class Clock:
    now_s = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_the_owners_is_the_data_folder_and_each_guests_is_apart(tmp_path):
    workspaces = Workspaces(tmp_path)
    assert workspaces.of(OWNER).root == tmp_path
    roots = [workspaces.of(visitor).root for visitor in (ANN, BOB, NEW)]
    assert [root.parent for root in roots] == [tmp_path / "visitors"] * 3 and len(set(roots)) == 3
    with asked_by(ANN):
        assert workspaces.here() is workspaces.of(ANN)
    assert not (tmp_path / "visitors").exists(), "looking makes no folder"


def test_one_that_was_not_used_for_a_week_is_dropped_with_its_uploads(tmp_path):
    clock = Clock()
    workspaces = Workspaces(tmp_path, served=tmp_path / "served", clock=clock)
    for visitor in (ANN, BOB):
        for folder in (workspaces.of(visitor).root, served_dir(tmp_path / "served", visitor)):
            folder.mkdir(parents=True)
            (folder / "picture.png").write_bytes(b"x")
        workspaces.of(visitor)
    (tmp_path / "outputs").mkdir()
    clock.now_s += UNUSED_S - 1
    workspaces.of(BOB)
    assert workspaces.drop_unused() == []
    clock.now_s += 1
    assert workspaces.drop_unused() == [ANN.id]
    assert not workspaces.of(ANN).root.exists() and not served_dir(tmp_path / "served", ANN).exists()
    assert workspaces.of(BOB).root.exists() and served_dir(tmp_path / "served", BOB).exists()
    clock.now_s += 10 * UNUSED_S
    assert workspaces.drop_unused() == [BOB.id]
    assert (tmp_path / "outputs").exists()
