from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lit_ssl.trainer.pictures import KeptPicture, keep_picture, kept_pictures

PICTURE = torch.zeros(3, 4, 5, dtype=torch.uint8)


class Trainer(SimpleNamespace):  # what weak references may point to
    __hash__ = object.__hash__


@pytest.fixture
def trainer():
    return Trainer(global_step=1, loggers=[], lightning_module=nn.Linear(1, 1))


def test_pictures_of_a_run_are_known_in_their_order(trainer, tmp_path):
    for name in ("b", "a", "b"):
        keep_picture(trainer, tmp_path / f"{name}.png", name, PICTURE)
    assert kept_pictures(trainer) == [
        KeptPicture("b", tmp_path / "b.png"),
        KeptPicture("a", tmp_path / "a.png"),
    ]
    (tmp_path / "b.png").unlink()
    assert [picture.name for picture in kept_pictures(trainer)] == ["a"]


def test_those_of_another_module_are_of_another_run(trainer, tmp_path):
    keep_picture(trainer, tmp_path / "a.png", "a", PICTURE)
    trainer.lightning_module = nn.Linear(1, 1)
    assert kept_pictures(trainer) == []


def test_what_the_disk_lost_is_not_kept(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be written"):
        keep_picture(trainer, tmp_path / "file" / "a.png", "a", PICTURE)
    assert kept_pictures(trainer) == []
