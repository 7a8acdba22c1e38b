"""Pictures of a split: maps, neighbours, attention, prototypes, supports."""

from __future__ import annotations

import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from lit_ssl.callbacks import (
    AttentionMaps,
    EmbeddingMap,
    KNNEvaluator,
    NeighbourGrid,
    PrototypeGallery,
    SupportAssignments,
)
from lit_ssl.callbacks.pictures import neighbour_grid, prototypes, support_assignments
from lit_ssl.callbacks.pictures.split_images import spread_rows
from lit_ssl.metrics import soft_nearest_neighbor
from lit_ssl.trainer.pictures import kept_pictures

SMALL = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2,
         "num_heads": 3, "num_classes": 0}  # fmt: skip


@pytest.fixture(scope="module")
def module_class(toys):
    class Network(toys.ToyModule):
        """Has what every picture asks for."""

        def __init__(self):
            super().__init__()
            self.vit = timm.create_model("vit_tiny_patch16_224", **SMALL)
            self.prototypes = nn.Parameter(torch.randn(7, 16))

        @property
        def encoder(self):
            return self.vit

        def project(self, images):
            return self(images)

        def embed(self, images):
            return 2 * self(images)

        def looking(self, images):
            return self.vit(images)

    return Network


def every_kind():
    return [
        EmbeddingMap(),
        EmbeddingMap(split="bank", max_rows=20),
        NeighbourGrid(num_images=3, k=4),
        AttentionMaps(num_images=2, feature_method="looking"),
        PrototypeGallery(num_prototypes=3, images_per_prototype=2),
        SupportAssignments(num_images=3, num_supports=2),
    ]


NAMES = ["attention_maps", "embedding_map_pca", "embedding_map_pca_bank", "neighbour_grid",
         "prototype_gallery", "support_assignments"]  # fmt: skip


def test_every_kind_is_drawn_at_the_end_of_a_fit_and_in_a_test(
    module_class, toys, make_trainer, tmp_path
):
    trainer = make_trainer(max_epochs=3, callbacks=[*every_kind(), KNNEvaluator()])
    module, data = module_class(), toys.ToyData()
    trainer.fit(module, data)
    steps = trainer.global_step
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert written == [f"{name}/step_{steps:08d}.png" for name in NAMES]
    passes = data.bank_passes
    trainer.test(module, data, verbose=False)
    assert len(kept_pictures(trainer)) == 2 * len(NAMES)
    assert sorted(path.parent.name for path in tmp_path.rglob("test.png")) == NAMES
    for picture in kept_pictures(trainer):
        assert min(Image.open(picture.path).size) > 50
    assert data.bank_passes > passes


def test_pictures_of_a_test_of_another_checkpoint_stand_beside_those_of_the_fit(
    module_class, toys, make_trainer, tmp_path
):
    trainer = make_trainer(max_epochs=1, callbacks=[EmbeddingMap()])
    trainer.fit(module_class(), toys.ToyData())
    trainer.test(module_class(), toys.ToyData(), verbose=False)
    trainer.test(module_class(), toys.ToyData(), verbose=False)  # of another module: kept apart
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == [
        "embedding_map_pca/step_00000005.png",
        "embedding_map_pca/test.png",
        "lit_ssl_runs/version_0/embedding_map_pca/test.png",
    ]


def test_a_run_with_pictures_trains_to_the_same_weights(module_class, toys, make_trainer):
    states = []
    for callbacks in ([], [type(kind)(**options(kind)) for kind in every_kind()]):
        pl.seed_everything(3)
        module = module_class()
        make_trainer(callbacks=callbacks, max_epochs=2).fit(module, toys.ToyData())
        states.append(module.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def options(kind):
    given = {"feature_method": "looking"} if isinstance(kind, AttentionMaps) else {}
    return {**given, "every_n_epochs": 1}


@pytest.mark.parametrize("labelled", [True, False])
def test_maps_of_images_with_and_without_labels(
    module_class, toys, make_trainer, tmp_path, labelled, monkeypatch
):
    seen = {}

    def draw(points, labels, names, title, axes, thumbnails):
        seen.update(points=points, labels=labels, title=title, thumbnails=thumbnails)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr("lit_ssl.callbacks.pictures.embedding_map.draw_map", draw)
    data = toys.ToyData(labelled=labelled)
    callbacks = [EmbeddingMap(max_rows=9, seed=5), NeighbourGrid(num_images=20, k=50)]
    make_trainer(callbacks=callbacks).validate(module_class(), data, verbose=False)
    assert seen["points"].shape == (9, 2)
    assert "9 of 13 validation images (drawn by seed 5)" in seen["title"]
    rows = np.sort(np.random.default_rng(5).permutation(13)[:9])
    assert seen["labels"].tolist() == data.val.labels[rows].tolist()
    assert (seen["thumbnails"] is None) is labelled
    for place, image in (seen["thumbnails"] or {}).items():
        pixels = torch.from_numpy(np.array(image))[..., 0]
        assert (pixels.int() - data.val.images[rows[place], 0].int()).abs().max() <= 1
    assert (tmp_path / "neighbour_grid/validate.png").exists()


def drawn(monkeypatch, home):
    """Take the rows that a picture is made of."""
    seen = {}

    def draw(rows, **words):
        seen.update(rows=rows, **words)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(home, "draw_rows", draw)
    return seen


def features(module, data, images):
    module.eval()
    with torch.no_grad():
        return module(data.normalise(images))


def same_pixels(image, tensor):
    return np.abs(np.array(image)[..., 0].astype(int) - tensor[0].numpy().astype(int)).max() <= 1


def test_neighbours_are_those_of_the_features(module_class, toys, make_trainer, monkeypatch):
    seen = drawn(monkeypatch, neighbour_grid)
    module, data = module_class(), toys.ToyData()
    make_trainer(callbacks=[NeighbourGrid(num_images=4, k=3)]).validate(module, data, verbose=False)
    bank = nn.functional.normalize(features(module, data, data.bank.images), dim=1)
    queries = nn.functional.normalize(features(module, data, data.val.images), dim=1)
    chosen = spread_rows(data.val.labels, 4, 0)
    assert sorted(data.val.labels[chosen].tolist()) == [0, 1, 2, 3]
    found = (queries[chosen] @ bank.T).topk(3)
    same = 0
    for row, query, cosines, others in zip(
        seen["rows"], chosen, found.values, found.indices, strict=True
    ):
        assert same_pixels(row.head.image, data.val.images[query])
        for tile, cosine, other in zip(row.tiles, cosines, others, strict=True):
            assert same_pixels(tile.image, data.bank.images[other])
            assert tile.caption == f"{data.bank.labels[other]}\n{cosine:.3f}"
            is_same = data.bank.labels[other] == data.val.labels[query]
            assert (tile.frame == neighbour_grid.RIGHT) == is_same
            same += int(is_same)
    assert seen["title"].endswith(f"of the same class (green): {same} of 12")


def test_prototypes_have_their_nearest_images(module_class, toys, make_trainer, monkeypatch):
    seen = drawn(monkeypatch, prototypes)
    module, data = module_class(), toys.ToyData()
    gallery = PrototypeGallery(num_prototypes=20, images_per_prototype=2)
    make_trainer(callbacks=[gallery]).validate(module, data, verbose=False)
    x = nn.functional.normalize(features(module, data, data.val.images), dim=1)
    cosine, owner = (x @ nn.functional.normalize(module.prototypes, dim=1).T).max(1)
    used = owner.unique()
    assert len(seen["rows"]) == len(used)
    assert f"; {len(used)} prototypes have an image" in seen["title"]
    counts = []
    for row in seen["rows"]:
        number = int(row.lines[0].split()[1])
        own = (owner == number).nonzero().flatten()
        counts.append(len(own))
        assert row.lines[1] == f"{100 * len(own) / 13:.1f} % ({len(own)})"
        best = own[cosine[own].argmax()]
        assert same_pixels(row.tiles[0].image, data.val.images[best])
        assert len(row.tiles) == min(2, len(own))
    assert counts == sorted(counts, reverse=True)


def test_supports_weigh_as_in_soft_nearest_neighbours(
    module_class, toys, make_trainer, monkeypatch
):
    seen = drawn(monkeypatch, support_assignments)
    module, data = module_class(), toys.ToyData()
    data.bank.labels[::3] = -1
    make_trainer(callbacks=[SupportAssignments(num_images=4, num_supports=3)]).validate(
        module, data, verbose=False
    )
    known = (data.bank.labels >= 0).nonzero().flatten()
    supports = features(module, data, data.bank.images)[known]
    chosen = spread_rows(data.val.labels, 4, 0)
    queries = features(module, data, data.val.images)[chosen]
    classes = soft_nearest_neighbor(queries, supports, data.bank.labels[known], 0.1, 4)
    cosine = nn.functional.normalize(queries, dim=1) @ nn.functional.normalize(supports, dim=1).T
    weights = (cosine / 0.1).softmax(1).topk(3)
    for row, query, probabilities, shares, others in zip(
        seen["rows"], chosen, classes, weights.values, weights.indices, strict=True
    ):
        assert row.lines[0] == f"predicted: {int(probabilities.argmax())}"
        assert row.lines[1] == f"{100 * probabilities.max():.1f} %"
        assert same_pixels(row.head.image, data.val.images[query])
        for tile, share, other in zip(row.tiles, shares, others, strict=True):
            assert same_pixels(tile.image, data.bank.images[known[other]])
            assert tile.caption.endswith(f"{100 * share:.3g} %")


def test_little_data_is_drawn(module_class, toys, make_trainer, tmp_path):
    data = toys.ToyData(val=1, train=9)
    make_trainer(callbacks=every_kind()).validate(module_class(), data, verbose=False)
    assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == NAMES


def test_features_that_are_not_finite_are_left_out(module_class, toys, make_trainer, tmp_path):
    class Broken(module_class):
        rows = slice(1, 3)

        def forward(self, images):
            found = super().forward(images).clone()
            found[self.rows] = torch.nan
            return found

    make_trainer(callbacks=[EmbeddingMap()]).validate(Broken(), toys.ToyData(), verbose=False)
    picture = tmp_path / "embedding_map_pca/validate.png"
    assert picture.exists()
    picture.unlink()
    Broken.rows = slice(None)
    with pytest.warns(UserWarning, match="draws nothing: pca needs 1 images with finite"):
        make_trainer(callbacks=[EmbeddingMap()]).validate(Broken(), toys.ToyData(), verbose=False)
    assert not picture.exists()


def test_rows_of_features_that_are_not_finite_are_left_out(
    module_class, toys, make_trainer, tmp_path, monkeypatch
):
    class Broken(module_class):
        rows = slice(1, 3)

        def forward(self, images):
            found = super().forward(images).clone()
            found[self.rows] = torch.nan
            return found

    drawn = []
    for module in (neighbour_grid, prototypes, support_assignments):
        monkeypatch.setattr(
            module,
            "draw_rows",
            lambda rows, **words: drawn.append((rows, words)) or Image.new("RGB", (9, 9)),
        )
    callbacks = [NeighbourGrid(50, 50), PrototypeGallery(50, 50), SupportAssignments(50, 50)]
    make_trainer(callbacks=callbacks).validate(Broken(), toys.ToyData(), verbose=False)
    assert len(drawn) == 3
    for rows, words in drawn:
        assert "with NaN or infinite features are left out" in words["title"]
        text = [line for row in rows for line in row.lines]
        text += [tile.caption for row in rows for tile in (row.head, *row.tiles) if tile]
        assert rows
        assert not [line for line in text if "nan" in line]
    Broken.rows = slice(None)
    for callback in callbacks:
        with pytest.warns(UserWarning, match="draws nothing: all are"):
            make_trainer(callbacks=[callback]).validate(Broken(), toys.ToyData(), verbose=False)
    assert len(drawn) == 3


def test_umap_without_enough_images_warns(module_class, toys, make_trainer):
    pytest.importorskip("umap")
    with pytest.warns(UserWarning, match="umap needs 5 images with finite features, and of 4"):
        make_trainer(callbacks=[EmbeddingMap("umap")]).validate(
            module_class(), toys.ToyData(val=4), verbose=False
        )


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (AttentionMaps(), "AttentionMaps: ToyModule has no attention maps: they are drawn of timm"),
        (PrototypeGallery(), "PrototypeGallery needs a module with prototypes, such as MSN"),
        (EmbeddingMap(feature_method="nothing"), "has no method 'nothing'"),
    ],
)
def test_modules_without_what_is_drawn_are_refused_at_the_start(
    toys, make_trainer, callback, message
):
    module = toys.ToyModule()
    with (
        pytest.raises(ValueError, match=message)
        if isinstance(callback, AttentionMaps)
        else pytest.raises(AttributeError, match=message)
    ):
        make_trainer(callbacks=[callback]).fit(module, toys.ToyData())
    assert module.forwards == 0


def test_data_without_a_bank_or_classes(module_class, toys, make_trainer):
    class Bare(toys.ToyData):
        bank_dataloader = None
        num_classes = 0

    for callback, message in ((NeighbourGrid(), "no bank_dataloader"), (SupportAssignments(), "0")):
        with pytest.raises(AttributeError, match=message):
            make_trainer(callbacks=[callback]).validate(module_class(), Bare(), verbose=False)


def test_a_stream_has_no_rows(module_class, toys, make_trainer):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from toys.ToyImages(6, seed=1)

    class Streamed(toys.ToyData):
        def val_dataloader(self):
            return torch.utils.data.DataLoader(Stream(), batch_size=3)

    with pytest.raises(ValueError, match=r"rows can be read one by one, got Stream"):
        make_trainer(callbacks=[EmbeddingMap()]).validate(module_class(), Streamed(), verbose=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EmbeddingMap("tsne"),
        lambda: EmbeddingMap(max_rows=0),
        lambda: EmbeddingMap(every_n_epochs=0),
        lambda: NeighbourGrid(k=0),
        lambda: AttentionMaps(0),
        lambda: PrototypeGallery(0),
        lambda: SupportAssignments(temperature=0),
    ],
)
def test_wrong_options(make):
    with pytest.raises(ValueError, match=r"needs|must be"):
        make()


def test_a_full_disk_costs_the_picture(module_class, toys, make_trainer, tmp_path):
    def lost(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("lit_ssl.trainer.pictures.write_file", lost)
        trainer = make_trainer(callbacks=[EmbeddingMap()])
        trainer.fit(module_class(), toys.ToyData())
    assert trainer.state.finished
    assert kept_pictures(trainer) == []
    assert not list(tmp_path.rglob("*.png"))


def test_rows_are_spread_over_classes():
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] + [-1] * 3)
    rows = spread_rows(labels, 4, seed=0)
    assert labels[rows].tolist() == [-1, 0, 1, 2]
    assert rows == spread_rows(labels, 4, seed=0)
    assert sorted(spread_rows(labels, 100, seed=1)) == list(range(56))
