"""Videos classified by a network for images: features, training, weights of frames, errors."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_ssl import FrozenEncoder, ImageClassifier, SupervisedVideo
from lit_ssl.callbacks.evaluators.features import sample_places


class Net(nn.Module):
    """Convolution and BatchNorm, pooled."""

    embed_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images):
        return self.norm(self.conv(images)).relu().mean((2, 3))


def classifier(**kwargs):
    arguments = {"backbone": Net(), "num_classes": 3, "warmup_epochs": 0, "lr": 0.1}
    return SupervisedVideo(**{**arguments, **kwargs})


def batches(count=4, size=8, frames=3, seed=1):
    """Clips in which one frame in three is bright in the channel of the class."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        labels = torch.randint(3, (size,), generator=generator)
        videos = torch.randn(size, frames, 3, 5, 7, generator=generator)
        bright = torch.randint(frames, (size,), generator=generator)
        videos[torch.arange(size), bright, labels] += 4
        made.append((videos, labels))
    return made


@pytest.mark.parametrize("shape", [(1, 1, 3, 5, 3), (2, 5, 3, 4, 7)])
def test_features_are_the_mean_over_frames_in_any_order(shape):
    module = classifier().eval()
    videos = torch.randn(shape)
    by_hand = torch.stack([module.backbone(video).mean(0) for video in videos])
    torch.testing.assert_close(module(videos), by_hand)
    torch.testing.assert_close(module(videos.flip(1)), by_hand)
    torch.testing.assert_close(module.logits(videos), module.classifier(by_hand))


def test_clips_of_one_frame_are_images():
    module = classifier()
    images = ImageClassifier(module.backbone, num_classes=3)
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(module(x[:, None]), images(x))


def test_training_finds_the_class_and_logs_the_accuracy(tiny):
    module, data = classifier(lr=0.3), batches(6)
    trainer = tiny.trainer(max_epochs=8)
    trainer.fit(module, tiny.loader(data), tiny.loader(data))
    module.eval()
    with torch.no_grad():
        hits = torch.cat([module.logits(x).argmax(1) == y for x, y in data])
    assert hits.float().mean() > 0.8
    assert trainer.logged_metrics["val/acc1"] == pytest.approx(hits.float().mean().item())
    rows = torch.cat(trainer.predict(module, tiny.loader(data)))
    torch.testing.assert_close(rows.sum(1), torch.ones(48))


def test_steps_give_what_evaluators_need(tiny):
    module = classifier()
    module.trainer = tiny.trainer()
    trainer = tiny.trainer(limit_train_batches=1)
    seen = {}

    def look(outputs, batch, batch_idx):
        seen.update(outputs)

    module.on_train_batch_end = look
    trainer.fit(module, tiny.loader(batches(1)))
    assert seen["features"].shape == (8, module.embed_dim)
    assert not seen["features"].requires_grad
    assert module.encoder is module.backbone


def test_a_classifier_of_frames_is_the_start(tiny, tmp_path):
    kwargs = {"stem_width": 8, "channels": [8, 8, 8, 8]}
    images = ImageClassifier("resnet10t", kwargs, num_classes=5)
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(images)
    trainer.save_checkpoint(tmp_path / "frames.ckpt")
    module = SupervisedVideo(
        backbone="resnet10t", backbone_kwargs=kwargs, num_classes=3, freeze_backbone=True,
        pretrained=str(tmp_path / "frames.ckpt"),
    )  # fmt: skip
    module.setup("fit")
    x = torch.randn(2, 3, 3, 32, 32)
    expected = images.eval()(x.flatten(0, 1)).view(2, 3, -1).mean(1)
    torch.testing.assert_close(module(x), expected)
    assert not module(x).requires_grad


def test_hyper_parameters_reload(tiny, tmp_path):
    kwargs = {"stem_width": 8, "channels": [8, 8, 8, 8]}
    module = SupervisedVideo(backbone="resnet10t", backbone_kwargs=kwargs, num_classes=3, lr=0.5)
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = SupervisedVideo.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    x = torch.randn(2, 3, 3, 32, 32)
    torch.testing.assert_close(loaded.eval().logits(x), module.eval().logits(x))
    assert loaded.lr == 0.5


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.randn(2, 3, 5, 5), torch.zeros(2).long()), "SupervisedVideo needs batches of clip"),
        ((torch.randn(2, 3, 3, 5, 5), torch.full((2,), 3)), "labels from 3 to 3"),
        (torch.randn(2, 3, 3, 5, 5), "needs batches of clips"),
    ],
)
def test_other_batches_are_refused(tiny, batch, message):
    trainer = tiny.trainer()
    for run in (trainer.fit, trainer.validate, trainer.test):
        with pytest.raises(ValueError, match=message):
            run(classifier(), tiny.loader([batch]))


def test_images_where_predictions_are_asked_for_and_too_few_classes(tiny):
    with pytest.raises(ValueError, match=r"takes videos \[B, T, C, H, W\], got \[2, 3, 5, 5\]"):
        tiny.trainer().predict(classifier(), tiny.loader([torch.randn(2, 3, 5, 5)]))
    with pytest.raises(ValueError, match="SupervisedVideo needs at least 2 classes"):
        classifier(num_classes=1)


def test_methods_over_images_say_what_is_for_clips(tiny):
    with pytest.raises(ValueError, match=r"FrozenEncoder takes images, got .* VideoFramesDat"):
        tiny.trainer().validate(FrozenEncoder(Net()), tiny.loader(batches(1)))
    module = ImageClassifier(Net(), num_classes=3, warmup_epochs=0)
    with pytest.raises(ValueError, match="for videos use SupervisedVideo, or take their frames"):
        tiny.trainer().fit(module, tiny.loader(batches(1)))


class Clips(pl.LightningDataModule):
    """Three clips of each video follow each other."""

    num_classes, clips_per_video = 3, 3

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def test_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None)

    val_dataloader = predict_dataloader = test_dataloader


def test_accuracies_and_predictions_are_those_of_videos(tiny):
    module = classifier().eval()
    videos = [(x, y.repeat_interleave(3)) for (x, _), (_, y) in zip(
        batches(2, 15), batches(2, 5), strict=True
    )]  # fmt: skip
    with torch.no_grad():
        scores = torch.cat([module.logits(x).view(5, 3, -1).mean(1) for x, _ in videos])
    labels = torch.cat([y[::3] for _, y in videos])
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    alone = torch.cat([module.logits(x).argmax(1) == y for x, y in videos]).float().mean().item()
    assert accuracy != pytest.approx(alone)
    data = Clips(videos)
    found = tiny.trainer().test(module, datamodule=data, verbose=False)[0]
    assert found["test/acc1"] == pytest.approx(accuracy)
    predicted = torch.cat(tiny.trainer().predict(module, datamodule=data))
    torch.testing.assert_close(predicted, scores.softmax(1))
    with pytest.raises(ValueError, match="SupervisedVideo got a batch of 4 clips where the data"):
        tiny.trainer().test(module, datamodule=Clips([(videos[0][0][:4], videos[0][1][:4])]))


def test_evaluators_know_the_places_of_clips():
    loader = torch.utils.data.DataLoader(range(8), batch_size=2, sampler=[4, 1, 6, 0])
    assert sample_places(loader, 6, 3).tolist() == [12, 13, 14, 3, 4, 5]
    assert sample_places(loader, 3).tolist() == [4, 1, 6]
