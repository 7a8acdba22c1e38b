"""ModelNet40 in its three releases."""

from __future__ import annotations

import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from lit_ssl.datamodules import ModelNet40DataModule, Subset
from lit_ssl.datamodules.points.clouds import CorruptPointsError
from lit_ssl.errors import InputError
from lit_ssl.transforms import PointAugmentation

TRAIN_LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2]
TEST_LABELS = [0, 1, 1, 2, 2]

pytestmark = pytest.mark.filterwarnings(
    "ignore:ModelNet40 has 40 classes", "ignore:ModelNet40. .*the official split has"
)


@pytest.fixture
def make():
    def build(root, **options):
        options = {"num_points": 8, "points_per_mesh": 40, "num_workers": 0, **options}
        return ModelNet40DataModule(root=str(root), **options)

    return build


def all_points(loader):
    points, labels = zip(*loader, strict=True)
    return torch.cat(points), torch.cat(labels).tolist()


@pytest.mark.parametrize("release", ["meshes", "resampled"])
@pytest.mark.parametrize("inside", [False, True], ids=["above", "itself"])
def test_a_release_is_found_and_read(request, make, release, inside):
    folder = request.getfixturevalue(release)
    data = make(folder if inside else folder.parent, batch_size=4)
    data.setup()
    assert data.release == (release, folder)
    assert list(data.class_names) == ["airplane", "night_stand", "sofa"]
    assert data.labels("train").tolist() == TRAIN_LABELS
    assert data.labels("val").tolist() == data.labels("test").tolist() == TEST_LABELS
    assert data.validates_on_test
    points, labels = all_points(data.test_dataloader())  # batches of four and one
    assert points.shape == (5, 8, 3)
    assert points.dtype == torch.float32
    assert labels == TEST_LABELS
    assert torch.isfinite(points).all()
    assert points.norm(dim=2).max() <= 1 + 1e-6


def test_hdf5(make, hdf5):
    import h5py

    data = make(hdf5.parent, num_points=16)
    data.setup()
    assert data.release == ("hdf5", hdf5)
    assert data.labels("train").tolist() == [0, 2, 1, 2, 0]
    assert data.labels("test").tolist() == [1, 1, 0]
    points, _ = all_points(data.bank_dataloader())
    with h5py.File(hdf5 / "ply_data_train1.h5") as file:
        cloud = file["data"][0]
    cloud = cloud - cloud.mean(0)
    cloud = cloud / np.linalg.norm(cloud, axis=1).max()
    found = sorted(map(tuple, points[3].tolist()))
    np.testing.assert_allclose(found, sorted(map(tuple, cloud.tolist())), atol=1e-6)


def test_hdf5_that_is_another(make, hdf5):
    import h5py

    with h5py.File(hdf5 / "ply_data_test0.h5", "a") as file:
        del file["label"]
        file["label"] = h5py.ExternalLink("ply_data_train0.h5", "label")
    with pytest.raises(InputError, match=r"ply_data_test0\.h5 is no HDF5 file of ModelNet40"):
        make(hdf5).setup("test")
    (hdf5 / "ply_data_test0.h5").write_bytes(b"no")
    with pytest.raises(InputError, match=r"ply_data_test0\.h5 is no HDF5 file of ModelNet40"):
        make(hdf5).setup("test")
    (hdf5 / "shape_names.txt").write_text("airplane\nsofa\n")
    with pytest.raises(InputError, match=r"labels from 0 to 2, but shape_names\.txt has 2 names"):
        make(hdf5).setup("fit")


def test_without_h5py(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("airplane\n")
    (folder / "train_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_train0.h5\n")
    with pytest.raises(ImportError, match=r"needs the package h5py: pip install 'lit-ssl\[points"):
        make(tmp_path).setup("fit")


def test_several_releases(make, meshes, resampled, caplog):
    with caplog.at_level("INFO"):
        data = make(meshes.parent)
        assert data.release == ("resampled", resampled)
        assert data.up_axis == 1
    assert "has the releases resampled, meshes; resampled is read" in caplog.text
    other = make(meshes.parent, layout="meshes")
    assert other.release == ("meshes", meshes)
    assert other.up_axis == 2


def test_what_is_found_is_said(make, meshes, caplog):
    data = make(meshes)
    with (
        caplog.at_level("INFO"),
        pytest.warns(UserWarning, match="9 train shapes; the official split has 9,843") as caught,
    ):
        data.setup("fit")
    assert f"train: 9 shapes of 3 classes in {meshes}" in caplog.text
    assert any("ModelNet40 has 40 classes" in str(w.message) for w in caught)


# Meshes


def test_points_of_a_mesh_lie_on_it_and_are_always_the_same(make, meshes, tmp_path):
    data = make(meshes)
    clouds = data.load_rows("train").source
    cloud = clouds.read(2)  # the third box: 1 x 1 x 3
    assert cloud.shape == (40, 3)
    assert cloud.dtype == np.float32
    assert (cloud.min(0) >= 0).all()
    assert (cloud.max(0) <= [1, 1, 3]).all()
    on_a_side = (np.isclose(cloud, 0) | np.isclose(cloud, [1, 1, 3])).any(axis=1)
    assert on_a_side.all()
    moved = shutil.copytree(meshes, tmp_path / "elsewhere" / "ModelNet40")
    assert (make(moved).load_rows("train").source.read(2) == cloud).all()
    assert (make(meshes, points_per_mesh=9).load_rows("train").source.read(2) == cloud[:9]).all()
    assert not np.array_equal(cloud[:, :2], clouds.read(3)[:, :2])  # another file, other points


def test_evaluation_is_always_the_same_and_training_never(make, meshes):
    data = make(meshes, batch_size=9, drop_last=False)
    first, labels = all_points(data.bank_dataloader())
    assert labels == TRAIN_LABELS
    assert torch.equal(first, all_points(data.bank_dataloader())[0])
    part = all_points(data.bank_dataloader(np.array([3, 5])))[0]
    assert torch.equal(part, first[[3, 5]])
    loader = data.train_dataloader()
    (seen, _), (again, _) = next(iter(loader)), next(iter(loader))
    assert torch.equal(seen, again)  # nothing advanced the epoch
    loader.sampler.set_epoch(1)
    other, _ = next(iter(loader))
    assert not torch.equal(seen.sum((1, 2)).sort().values, other.sum((1, 2)).sort().values)


def test_rotation_is_about_the_axis_that_is_up(make, meshes):
    data = make(
        meshes,
        num_points=40,
        batch_size=9,
        train_transform=PointAugmentation(scale=(1, 1), shift=0, rotate=True),
    )
    data.setup("fit")
    bank, _ = all_points(data.bank_dataloader())
    points, _ = next(iter(data.train_dataloader()))
    heights = {tuple(z) for z in bank[..., 2].sort().values.numpy().round(4).tolist()}
    assert {tuple(z) for z in points[..., 2].sort().values.numpy().round(4).tolist()} == heights
    widths = {tuple(x) for x in bank[..., 0].sort().values.numpy().round(4).tolist()}
    assert not {tuple(x) for x in points[..., 0].sort().values.numpy().round(4).tolist()} & widths


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_meshes_stop_or_are_skipped_and_counted(make, meshes, workers):
    path = meshes / "night_stand" / "train" / "night_stand_0002.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 one 0\n3 0 1 2\n")
    message = r"night_stand_0002\.off, line 5: expected three coordinates.*on_corrupt: skip"
    with pytest.raises(CorruptPointsError, match=message):
        list(make(meshes).bank_dataloader())
    data = make(meshes, on_corrupt="skip", num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        points, labels = all_points(data.bank_dataloader())
    assert data.num_corrupt == 1
    assert labels == TRAIN_LABELS  # the next one is of the same class
    assert torch.equal(points[5], points[6])
    if not workers:
        text = [str(w.message) for w in caught if "Skipped" in str(w.message)]
        assert len(text) == 1
        assert "line 5" in text[0]


def test_a_mesh_without_surface(make, meshes):
    path = meshes / "airplane" / "train" / "airplane_0001.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n")
    with pytest.raises(CorruptPointsError, match=r"airplane_0001\.off: the mesh has no surface"):
        list(make(meshes).bank_dataloader())


def test_points_are_kept_where_the_user_says_and_nowhere_else(make, meshes, tmp_path):
    before = sorted(meshes.rglob("*"))
    cache = tmp_path / "cache"
    plain, _ = all_points(make(meshes).bank_dataloader())
    data = make(meshes, cache_dir=str(cache))
    assert torch.equal(all_points(data.bank_dataloader())[0], plain)
    kept = cache / "modelnet40_meshes_40" / "airplane" / "train" / "airplane_0001.off.npy"
    assert sorted(meshes.rglob("*")) == before
    assert len(list(cache.rglob("*.npy"))) == len([p for p in cache.rglob("*") if p.is_file()]) == 9
    # They are read: another array in its place is what comes.
    np.save(kept, np.eye(3, dtype=np.float32))
    assert data.load_rows("train").source.read(0).tolist() == np.eye(3).tolist()
    # Broken, foreign or older than the mesh: made anew.
    kept.write_bytes(b"\x93NUMPY")
    original = make(meshes).load_rows("train").source.read(0)
    assert (data.load_rows("train").source.read(0) == original).all()
    np.save(kept, np.array([{}], dtype=object), allow_pickle=True)
    assert (data.load_rows("train").source.read(0) == original).all()
    np.save(kept, np.eye(3, dtype=np.float32))
    os.utime(kept, ns=(0, 0))
    assert (data.load_rows("train").source.read(0) == original).all()
    more = make(meshes, cache_dir=str(cache), points_per_mesh=50)
    assert more.load_rows("train").source.read(0).shape == (50, 3)


def test_a_cache_that_cannot_be_written(make, meshes, tmp_path):
    (tmp_path / "file").write_text("")
    data = make(meshes, cache_dir=str(tmp_path / "file"))
    with pytest.raises(InputError, match="set cache_dir to a folder where files can be written"):
        list(data.bank_dataloader())


# Text files


def test_text_files_are_points_in_the_order_of_the_list(make, resampled, tmp_path):
    clouds = make(resampled, cache_dir=str(tmp_path / "c")).load_rows("train").source
    assert [clouds.read(row)[0, 0] for row in range(9)] == list(range(9))
    assert clouds.read(0).shape == (30, 3)
    assert clouds.name(4) == "night_stand/night_stand_0001.txt"
    assert (clouds.read(8) == clouds.read(8)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("1,2,3,0,0,1\n1,two,3,0,0,1\n", r"could not convert string 'two'.* row 1"),
        ("1,2,3,0,0,1\n1,2\n", "column"),
        ("1,2,inf,0,0,1\n", "not all numbers in it are finite"),
        ("1 2 3 0 0 1\n", "could not convert"),
        ("\u00e9", "codec can't decode"),
    ],
)
def test_broken_text_files(make, resampled, text, message):
    path = resampled / "sofa" / "sofa_0001.txt"
    path.write_text(text, encoding="utf-8")
    clouds = make(resampled).load_rows("train").source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CorruptPointsError, match=rf"sofa_0001\.txt: .*{message}"):
            clouds.read(7)


def test_lists_that_do_not_fit(make, resampled):
    (resampled / "sofa" / "sofa_0002.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 9 shapes that .*: sofa/sofa_0002\.txt"):
        make(resampled).setup("fit")
    (resampled / "modelnet40_test.txt").write_text("sofa_0003\nlamp_0001\n")
    with pytest.raises(InputError, match=r"names 1 shapes of unknown classes \(lamp_0001\)"):
        make(resampled).setup("test")
    (resampled / "modelnet40_test.txt").write_text("sofa_0003\nsofa_0003\n")
    with pytest.raises(InputError, match="has sofa_0003 more than once"):
        make(resampled).setup("test")
    (resampled / "modelnet40_test.txt").write_text("\n")
    with pytest.raises(InputError, match=r"modelnet40_test\.txt is empty"):
        make(resampled).setup("test")
    (resampled / "modelnet40_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*modelnet40_test\.txt\. Found"):
        make(resampled).setup("test")


# Layouts


def test_wrong_layouts(make, meshes, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"resampled/ \(resampled\) or .* \(meshes\) in"):
        make(empty).setup("fit")
    with pytest.raises(FileNotFoundError, match="expected modelnet40_ply_hdf5_2048/"):
        make(meshes.parent, layout="hdf5").setup("fit")
    shutil.rmtree(meshes / "sofa" / "test")
    with pytest.raises(FileNotFoundError, match="meshes of the class sofa"):
        make(meshes).setup("test")
    with pytest.raises(InputError, match="layout must be 'auto', 'resampled', 'hdf5' or 'meshes'"):
        make(meshes, layout="off")
    with pytest.raises(InputError, match="points_per_mesh must be at least num_points = 50"):
        make(meshes, num_points=50)
    with pytest.raises(InputError, match="num_points must be at least 1"):
        make(meshes, num_points=0)


def test_subset_and_hold_out(make, meshes):
    data = make(meshes, val_size=3)
    assert sorted(data.labels("val").tolist()) == [0, 1, 2]
    assert not data.validates_on_test
    names = [data.rows("train").name(row) for row in range(6)]
    assert names[0].startswith("airplane/train/airplane_0")


def test_from_yaml(meshes):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_object(
        {
            "data": {
                "class_path": "lit_ssl.datamodules.ModelNet40DataModule",
                "init_args": {
                    "root": str(meshes),
                    "train_transform": {"shift": 0.1, "rotate": True},
                    "subset": {"per_class": 1},
                    "num_workers": 0,
                },
            }
        }
    )
    data = parser.instantiate_classes(config).data
    assert data.train_transform == PointAugmentation(shift=0.1, rotate=True)
    data.setup("fit")
    assert data.labels("train").tolist() == [0, 1, 2]
    points, _ = next(iter(data.train_dataloader()))
    assert points.shape == (3, 1024, 3)


# Numbers and lists that would go wrong in silence


def test_coordinates_beyond_float32(make, meshes):
    path = meshes / "airplane" / "train" / "airplane_0001.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1e60 0 0\n0 1e60 0\n3 0 1 2\n")
    with pytest.raises(CorruptPointsError, match=r"airplane_0001\.off: it has coordinates beyond"):
        list(make(meshes).bank_dataloader())
    with pytest.warns(UserWarning, match="Skipped: .*beyond float32"):
        points, _ = all_points(make(meshes, on_corrupt="skip").bank_dataloader())
    assert torch.isfinite(points).all()


@pytest.mark.parametrize("value", [np.nan, 1e60])
def test_hdf5_with_points_that_are_no_numbers(make, hdf5, value):
    h5py = pytest.importorskip("h5py")
    with h5py.File(hdf5 / "ply_data_train1.h5", "a") as file:
        del file["data"]
        file["data"] = np.full((2, 16, 3), value)
    with pytest.raises(InputError, match=r"ply_data_train1\.h5 has points that are no finite"):
        make(hdf5).setup("fit")


def test_hdf5_labels_of_any_size(make, hdf5):
    h5py = pytest.importorskip("h5py")
    with h5py.File(hdf5 / "ply_data_train1.h5", "a") as file:
        file["label"][...] = 0
        del file["label"]
        file["label"] = np.full((2, 1), 2**63, dtype=np.uint64)
    with pytest.raises(InputError, match=f"has labels from {2**63} to {2**63}, but"):
        make(hdf5).setup("fit")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_shape_in_both_lists(make, resampled, stage):
    with (resampled / "modelnet40_train.txt").open("a") as file:
        file.write("sofa_0003\n")
    with pytest.raises(InputError, match=r"both name 1 shapes \(sofa_0003\)"):
        make(resampled).setup(stage)


def test_messages_say_shapes(make, meshes, tmp_path):
    (tmp_path / "list.txt").write_text("sofa_0009.off\n")
    options = {
        "Cannot hold out 99 of 9 training shapes": {"val_size": 99},
        "1 of the 1 shapes in .* are not among the 9 training shapes": {
            "subset": Subset(file=str(tmp_path / "list.txt"))
        },
        "3 classes have fewer training shapes": {"subset": Subset(per_class=99)},
        "fewer training shapes, for": {"subset": Subset(exponential=2, min_per_class=99)},
        "holds out the shapes of x": {"val_size": 1, "val_file": "x"},
    }
    for message, arguments in options.items():
        with pytest.raises(InputError, match=message):
            make(meshes, **arguments).setup("fit")
    data = make(meshes)
    data.setup("fit")
    with pytest.warns(UserWarning, match="Only 9 training shapes per process"):
        data.train_dataloader()
