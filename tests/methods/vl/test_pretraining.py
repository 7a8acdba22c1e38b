"""VLPretraining: the reference's losses in one pass, masks by step, resume, processes."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lit_ssl.callbacks import StepSeeder
from lit_ssl.contracts.vision_language import GuessesWords, can_match, guesses_words
from lit_ssl.datamodules import DigitScenesDataModule
from lit_ssl.errors import InputError
from lit_ssl.losses.matching import Matching
from lit_ssl.methods import VLPretraining
from lit_ssl.models import CoAttentionBackbone, ViltBackbone
from lit_ssl.strategies import SlowMomentumStrategy
from lit_ssl.text import (
    ContentWordMasker,
    LinearRate,
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
    fixed_word_mask,
)

pytest.importorskip("transformers")

FIELDS = {
    "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "image_size": 32, "patch_size": 16, "max_position_embeddings": 24,
}  # fmt: skip
HEADS = {
    "mlm_head.dense.weight": "mlm_score.transform.dense.weight",
    "mlm_head.dense.bias": "mlm_score.transform.dense.bias",
    "mlm_head.norm.weight": "mlm_score.transform.LayerNorm.weight",
    "mlm_head.norm.bias": "mlm_score.transform.LayerNorm.bias",
    "mlm_head.decoder.weight": "mlm_score.decoder.weight",
    "mlm_head.decoder.bias": "mlm_score.bias",
    "itm_head.weight": "itm_score.fc.weight",
    "itm_head.bias": "itm_score.fc.bias",
}


def backbone(**fields):
    return ViltBackbone({**FIELDS, **fields}, initialization="fan_in")


def module(masker=None, net=None, **kwargs):
    torch.manual_seed(0)
    return VLPretraining(net or backbone(), masker or UniformMasker(0.6), **kwargs)


def trainer(**kwargs):
    arguments = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }  # fmt: skip
    callbacks = [StepSeeder(0), *kwargs.pop("callbacks", [])]
    return pl.Trainer(**{**arguments, **kwargs}, callbacks=callbacks)


def scenes(sizes=(40, 0, 11), **kwargs):
    return DigitScenesDataModule(sizes=sizes, **{"batch_size": 8, **kwargs})


def pairs(rows=6, seed=0, length=9):
    """A batch of captions with images whose pixels all are the number of the image."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 73, (rows, length), generator=generator)
    lengths = torch.randint(3, length + 1, (rows, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    words = (torch.arange(length).expand(rows, -1) - 1).clone()
    words[(torch.arange(length) >= lengths - 1) | (torch.arange(length) == 0)] = -1
    numbers = torch.arange(rows)
    images = numbers.float()[:, None, None, None].expand(-1, 3, 32, 32).clone()
    inputs = {"images": images, "input_ids": ids * mask, "attention_mask": mask, "word_ids": words}
    return inputs, numbers


class Listed(DataLoader):
    """Batches as they are."""

    def __init__(self, batches):
        super().__init__(batches, batch_size=None)


class Seen(pl.Callback):
    """What a step gave, and the gradients of it."""

    def __init__(self):
        self.losses, self.gradients = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        self.gradients.append({k: p.grad.clone() for k, p in named if p.grad is not None})


class Keep(pl.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = {k: p.grad for k, p in pl_module.named_parameters()}
        torch.save(gradients, f"{trainer.world_size}_{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


# ------------------------------------------------------------- the reference


@pytest.fixture(params=["vilt_square", "vilt_rect"])
def reference(request, golden):
    return golden(f"vl_masking/{request.param}")


def of_reference(data, **kwargs):
    """The module with the weights of a file, and what it masks is what the file masks."""
    vocab, hidden, layers, heads, inner, text, image, patch, _ = data["cfg"].tolist()
    net = ViltBackbone(
        {
            "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": inner, "image_size": image,
            "max_position_embeddings": text, "patch_size": patch,
        }
    )  # fmt: skip
    chosen = data["in.text_labels_mlm"] != -100
    found = VLPretraining(
        net, lambda *args: chosen, mask_replace_prob=1.0, random_replace_prob=0.0, mask_id=4,
        **kwargs,
    )  # fmt: skip
    weights = {k.removeprefix("w."): v.float() for k, v in data.items() if k.startswith("w.")}
    state = {f"backbone.model.{k}": v for k, v in weights.items() if not k.startswith("head.")}
    state |= {ours: weights[f"head.{theirs}"] for ours, theirs in HEADS.items()}
    found.load_state_dict(state)
    return found


def batch_of_reference(data):
    ids, mask = data["in.text_ids"].long(), data["in.text_masks"].long()
    words = torch.arange(ids.shape[1]).expand_as(ids).masked_fill((mask == 0) | (ids < 4), -1)
    inputs = {"input_ids": ids, "attention_mask": mask, "word_ids": words}
    inputs |= {"images": data["in.image"].float(), "pixel_mask": data["in.pixel_mask"]}
    inputs |= {"other_images": data["in.false_image"].float()}
    inputs |= {"other_pixel_mask": data["in.pixel_mask"]}
    return inputs, torch.arange(len(ids))


def test_a_fused_step_has_the_losses_and_gradients_of_the_references_two_passes(
    reference, monkeypatch
):
    labels = reference["out.itm_labels"].long()
    monkeypatch.setattr(
        "lit_ssl.methods.vl.pretraining.draw_matching", lambda *args: Matching(labels, labels)
    )
    seen = Seen()
    run = trainer(callbacks=[seen])
    run.fit(of_reference(reference), Listed([batch_of_reference(reference)]))
    logged = {k: float(v) for k, v in run.callback_metrics.items()}
    wanted = {
        "train/mlm_loss": float(reference["out.mlm_loss"]),
        "train/itm_loss": float(reference["out.itm_loss"]),
        "train/wpa_loss": 10 * float(reference["out.itm_wpa_loss"]),
    }
    assert {k: logged[k] for k in wanted} == pytest.approx(wanted, abs=1e-5)
    total = wanted["train/mlm_loss"] + wanted["train/itm_loss"] + 0.1 * wanted["train/wpa_loss"]
    assert seen.losses == pytest.approx([total], abs=1e-5)
    names = {
        "word": "backbone.model.embeddings.text_embeddings.word_embeddings.weight",
        "patch": "backbone.model.embeddings.patch_embeddings.projection.weight",
        "pos": "backbone.model.embeddings.position_embeddings",
        "modality": "backbone.model.embeddings.token_type_embeddings.weight",
    }
    compared = 0
    for part, name in names.items():
        stored = [reference.get(f"grad.{loss}.{part}") for loss in ("mlm", "itm", "wpa")]
        if all(gradient is not None for gradient in stored):
            compared += 1
            torch.testing.assert_close(seen.gradients[0][name], sum(stored), rtol=0, atol=1e-4)
    assert compared


def test_text_is_masked_for_words_only_and_their_image_is_the_true_one():
    """Images are constant and name their row, so that a wrong one shows."""
    found = module(wpa_weight=0)
    calls = []
    plain = found.backbone.forward
    embed = found.backbone.embed_images
    patched = {}

    def embed_images(images, pixel_mask=None):
        patched["numbers"] = images[:, 0, 0, 0]
        out = embed(images, pixel_mask)
        return out._replace(embeds=images[:, 0, 0, :1, None].expand_as(out.embeds))

    def forward(batch):
        calls.append(batch)
        return plain(batch)

    found.backbone.embed_images = embed_images
    found.backbone.forward = forward
    inputs, numbers = pairs(rows=7)
    run = trainer()
    found.mask_id = 4
    run.fit(found, Listed([(inputs, numbers)]))
    (batch,) = calls
    shown = batch["image_embeds"][:, 0, 0].long()
    masked, clean = batch["input_ids"][:7], batch["input_ids"][7:]
    assert torch.equal(clean, inputs["input_ids"])
    changed = masked != clean
    assert changed.any()
    assert not changed[inputs["word_ids"] < 0].any()
    assert shown[:7].tolist() == list(range(7))
    own = (shown[7:] == torch.arange(7)).sum()
    assert own == 3  # half of seven, rounded down


# ------------------------------------------------------------- learning


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    data = scenes((32, 0, 8), batch_size=32)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    found = module(
        net=backbone(
            hidden_size=64, num_hidden_layers=3, intermediate_size=128, num_attention_heads=4
        ),
        itm_weight=0, wpa_weight=0, mask_replace_prob=1.0, random_replace_prob=0.0, lr=1e-2,
        mask_id=4,
    )  # fmt: skip
    seen = Seen()
    run = trainer(max_epochs=300, callbacks=[seen], gradient_clip_val=1.0)
    run.fit(found, Listed([batch]))
    assert seen.losses[0] > 3
    assert sum(seen.losses[-10:]) / 10 < 0.05


@pytest.mark.parametrize("masker", [WholeWordMasker(0.4), SpanMasker(0.3), ContentWordMasker(0.3)])
def test_maskers_of_every_kind_train_on_scenes(masker):
    run = trainer()
    run.fit(module(masker, replace_per_unit=True), datamodule=scenes((16, 0, 11)))
    assert run.callback_metrics["val/mlm_loss"].isfinite()
    assert 0 <= run.callback_metrics["val/itm_acc"] <= 1


def test_two_streams_train_too():
    text = {
        "model_type": "bert", "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    image = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    net = CoAttentionBackbone("vit_tiny_patch16_224", text, image, 16, 1, 2)
    run = trainer(max_steps=2)
    run.fit(module(net=net, lr_mult_cross_modal=5, lr_mult_head=5), datamodule=scenes())
    rates = {group["name"]: group["lr_scale"] for group in run.optimizers[0].param_groups}
    assert rates["cross_modal_decay"] == rates["heads_decay"] == 5
    assert rates["backbone_decay"] == 1
    assert run.callback_metrics["train/loss"].isfinite()


def test_rates_follow_their_schedule():
    seen = []

    class Rates(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            seen.append(float(trainer.callback_metrics["train/mask_rate"]))

    data = scenes((400, 0, 8), batch_size=100)
    found = module(UniformMasker(0.1), rate_schedule=LinearRate(1.0, 0.0))
    trainer(max_epochs=1, callbacks=[Rates()]).fit(found, datamodule=data)
    assert seen == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=0.06)


def test_fewer_predictions_than_masked_words():
    data = scenes((200, 0, 8), batch_size=200)
    run = trainer()
    run.fit(module(UniformMasker(0.6), prediction_rate=0.15), datamodule=data)
    metrics = run.callback_metrics
    tokens = metrics["train/num_predictions"] / 0.15
    assert metrics["train/mask_rate"] == pytest.approx(0.6, abs=0.05)
    assert tokens == pytest.approx(200 * 6.5, rel=0.25)


def test_no_masked_token_gives_finite_losses_and_gradients():
    seen = Seen()
    run = trainer(callbacks=[seen])
    found = module(UniformMasker(0.0), mask_id=4)
    run.fit(found, Listed([pairs(), pairs(rows=1)]))
    assert all(gradient.isfinite().all() for gradient in seen.gradients[0].values())
    assert seen.losses == pytest.approx([seen.losses[0], seen.losses[1]], nan_ok=False)


@pytest.mark.parametrize("weights", [{"itm_weight": 0, "wpa_weight": 0}, {"mlm_weight": 0}])
def test_one_loss_alone_leaves_no_parameter_without_gradient(weights):
    seen = Seen()
    found = module(mask_id=4, **weights)
    trainer(callbacks=[seen]).fit(found, Listed([pairs()]))
    assert {name for name, _ in found.named_parameters()} == set(seen.gradients[0])


def test_bf16():
    run = trainer(max_steps=2, precision="bf16-mixed")
    run.fit(module(), datamodule=scenes())
    assert run.callback_metrics["train/loss"].isfinite()


def test_slow_momentum():
    run = trainer(max_steps=4, strategy=SlowMomentumStrategy(sync_every=2))
    found = module()
    before = found.mlm_head.decoder.weight.clone()
    run.fit(found, datamodule=scenes())
    assert not torch.equal(before, found.mlm_head.decoder.weight)


# ------------------------------------------------------------- evaluation


def test_what_an_evaluation_masks_is_a_function_of_the_text():
    inputs, _ = pairs(rows=64, length=12)
    ids, words = inputs["input_ids"], inputs["word_ids"]
    mask = fixed_word_mask(ids, words)
    assert not mask[words < 0].any()
    order = torch.randperm(64)
    assert torch.equal(fixed_word_mask(ids[order], words[order]), mask[order])
    longer = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(words, (0, 3), value=-1)
    assert torch.equal(fixed_word_mask(*longer)[:, :12], mask)
    many = torch.randint(5, 73, (2000, 10))
    numbers = torch.arange(10).expand(2000, -1) // 2  # words of two tokens
    mask = fixed_word_mask(many, numbers)
    assert torch.equal(mask[:, ::2], mask[:, 1::2])
    assert mask.float().mean() == pytest.approx(0.15, abs=0.01)


def test_validation_does_not_depend_on_batches():
    found = {}
    for size in (3, 11):
        run = trainer()
        data = scenes(batch_size=size)
        found[size] = run.validate(module(), datamodule=data, verbose=False)[0]
    for name in ("val/mlm_loss", "val/mlm_acc"):
        assert found[3][name] == pytest.approx(found[11][name], abs=1e-5)


class Scores(pl.Callback):
    def on_validation_end(self, trainer, pl_module):
        scores = {k: float(v) for k, v in trainer.callback_metrics.items()}
        torch.save(scores, f"scores_{trainer.world_size}_{trainer.global_rank}.pt")

    teardown = Keep.teardown


@pytest.mark.slow
@pytest.mark.distributed
def test_validation_on_three_processes_is_that_of_one(tmp_path, monkeypatch):
    """Eleven captions: processes have 4, 4 and 3, with different numbers of masked tokens."""
    monkeypatch.chdir(tmp_path)
    for devices in (1, 3):
        run = trainer(
            devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", callbacks=[Scores()]
        )
        run.validate(module(), datamodule=scenes(batch_size=3), verbose=False)
    one, three = (torch.load(tmp_path / name) for name in ("scores_1_0.pt", "scores_3_2.pt"))
    for name in ("val/mlm_loss", "val/mlm_acc"):
        assert three[name] == pytest.approx(one[name], abs=1e-5)


@pytest.mark.parametrize(
    ("weights", "words", "matches"),
    [
        ({}, True, True),
        ({"mlm_weight": 0}, False, True),
        ({"itm_weight": 0, "wpa_weight": 0}, True, False),
    ],
)
def test_callbacks_are_told_which_heads_there_are(weights, words, matches):
    found = module(**weights)
    assert can_match(found) == matches
    if words:
        assert guesses_words(found) is found
    else:
        with pytest.raises(InputError, match="has no head for them: give it an mlm_weight"):
            guesses_words(found)


def test_it_is_what_callbacks_ask_for():
    found = module(mask_id=4).eval()
    assert isinstance(found, GuessesWords)
    inputs, _ = pairs()
    mask = found.fixed_mask(inputs)
    embedded = found.embed(inputs)
    assert "images" not in embedded
    with torch.no_grad():
        logits = found.guess(inputs, mask)
        torch.testing.assert_close(found.guess(embedded, mask), logits)
        assert logits.shape == (int(mask.sum()), 73)
        assert found.match(inputs).shape == (6,)
        plan = found.align(inputs)
    assert plan.shape == (6, 5, 9)
    torch.testing.assert_close(plan.sum(dim=(1, 2)), torch.ones(6), rtol=0, atol=1e-3)


# ------------------------------------------------------------- runs


def weights_of(found):
    return {name: value.clone() for name, value in found.state_dict().items()}


class SaveAt(pl.Callback):
    """Saves in the middle of an epoch."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("more", [{}, {"other_images": True}], ids=["in_batch", "other_images"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, more):
    middle = tmp_path / "middle.ckpt"
    whole, resumed = module(), module()
    trainer(max_epochs=2, callbacks=[SaveAt(7, middle)]).fit(whole, datamodule=scenes(**more))
    again = trainer(max_epochs=2)
    again.fit(resumed, datamodule=scenes(num_workers=2, **more), ckpt_path=middle)
    assert again.global_step == 10
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


class Parts(Dataset):
    """Batches of different numbers of masked tokens, for one or two processes."""

    def __init__(self, join):
        self.join = join

    def __len__(self):
        return 1 if self.join else 2

    def __getitem__(self, index):
        parts = [pairs(rows=4, seed=1), pairs(rows=4, seed=2)]
        if not self.join:
            return parts[index]
        both = {k: torch.cat([part[0][k] for part in parts]) for k in parts[0][0]}
        return both, torch.arange(8)


def every_second(ids, maskable, *args):
    """A mask of different size in both parts."""
    return maskable & (ids % 3 == 0)


@pytest.mark.distributed
def test_two_processes_learn_words_as_one_with_the_joined_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for devices in (1, 2):
        found = module(
            every_second, itm_weight=0, wpa_weight=0, mask_replace_prob=1, random_replace_prob=0,
            mask_id=4,
        )  # fmt: skip
        run = trainer(
            devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", callbacks=[Keep()]
        )
        run.fit(found, DataLoader(Parts(devices == 1), batch_size=None))
    one, two = (torch.load(tmp_path / name) for name in ("1_0.pt", "2_1.pt"))
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-4, atol=1e-6)


def test_weights_of_another_run_start_it_and_are_named(tmp_path, capsys):
    first = module()
    run = trainer(max_steps=2)
    run.fit(first, datamodule=scenes())
    run.save_checkpoint(tmp_path / "first.ckpt")
    second = module(pretrained=str(tmp_path / "first.ckpt"), lr=0.0)
    trainer(max_steps=1).fit(second, datamodule=scenes())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# ------------------------------------------------------------- wrong input


def test_another_vocabulary_of_the_same_size_is_refused(tmp_path):
    from lit_ssl.datamodules.vision_language.digit_scenes.text import PIECES

    run = trainer(max_steps=1)
    run.fit(module(), datamodule=scenes())
    run.save_checkpoint(tmp_path / "first.ckpt")
    swapped = [*PIECES[:-2], PIECES[-1], PIECES[-2]]
    other = scenes(tokenizer=swapped)
    second = module(pretrained=str(tmp_path / "first.ckpt"))
    with pytest.raises(InputError, match="another vocabulary"):
        trainer(max_steps=1).fit(second, datamodule=other)
    with pytest.raises(InputError, match="another vocabulary"):
        trainer(max_steps=2).fit(module(), datamodule=other, ckpt_path=tmp_path / "first.ckpt")
    with pytest.raises(InputError, match="another vocabulary"):
        trainer().validate(module(), datamodule=other, ckpt_path=tmp_path / "first.ckpt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mlm_weight": 0, "itm_weight": 0, "wpa_weight": 0}, "nothing is learned"),
        ({"itm_weight": 0}, "wpa_weight needs"),
        ({"mlm_weight": -1}, "mlm_weight"),
        ({"prediction_rate": 0.7}, "only a share of"),
        ({"prediction_rate": 15}, "write 0.15"),
        ({"mask_replace_prob": 0.9, "random_replace_prob": 0.2}, "at most 1"),
        ({"warmup_ratio": 2.0}, "warmup_ratio"),
        ({"lr": float("nan")}, "finite lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        module(**arguments)


def test_a_vocabulary_that_is_larger_than_the_embeddings():
    with pytest.raises(InputError, match="73 tokens, but the backbone has embeddings of 50"):
        trainer().fit(module(net=backbone(vocab_size=50)), datamodule=scenes())


def test_texts_that_are_longer_than_the_positions_are_refused_before_the_first_step():
    few = {"max_position_embeddings": 9}
    message = r"up to 1\d tokens.* positions for 9: give the data max_length: 9"
    stop = Seen()
    with pytest.raises(InputError, match=message):
        trainer(callbacks=[stop]).fit(module(net=backbone(**few)), datamodule=scenes())
    assert not stop.losses
    with pytest.warns(UserWarning, match="longer than max_length = 9"):
        trainer(fast_dev_run=1).fit(module(net=backbone(**few)), datamodule=scenes(max_length=9))


def test_a_batch_of_one_pair_says_that_matching_learns_nothing():
    with pytest.warns(UserWarning, match="no other image.*larger batch_size") as caught:
        trainer(max_steps=3, limit_val_batches=0).fit(
            module(), datamodule=scenes((3, 0, 2), batch_size=1)
        )
    assert sum("no other image" in str(warning.message) for warning in caught) == 1


def test_what_is_masked_is_said(caplog):
    def mine(ids, maskable, *_):
        return maskable

    caplog.set_level("INFO", logger="lightning.pytorch")
    for masker in (mine, WholeWordMasker(0.3)):
        trainer(fast_dev_run=1).fit(module(masker), datamodule=scenes())
    assert "mine masks at a rate of its own" in caplog.text
    assert "WholeWordMasker masks at the rate 0.3" in caplog.text


def test_batches_of_another_form():
    found = module(mask_id=4)
    inputs, numbers = pairs()
    del inputs["word_ids"]
    with pytest.raises(InputError, match="word_ids is missing"):
        trainer().fit(found, Listed([(inputs, numbers)]))
    with pytest.raises(InputError, match="image numbers"):
        trainer().fit(module(mask_id=4), Listed([pairs()[0]]))


def test_data_that_do_not_say_what_mask_is():
    with pytest.raises(InputError, match="mask_id"):
        trainer().fit(module(), Listed([pairs()]))


def test_a_tied_decoder_never_takes_the_place_of_the_word_embeddings(tmp_path):
    path = str(tmp_path / "apart.ckpt")
    run = trainer(max_steps=1)
    run.fit(module(), datamodule=scenes())
    run.save_checkpoint(path)
    tied = module(pretrained=path, tie_mlm_decoder=True)
    with pytest.raises(InputError, match=r"decoder of its own.*leave out tie_mlm_decoder"):
        trainer(max_steps=1).fit(tied, datamodule=scenes())


def test_a_tied_run_starts_tied_and_other_ones(tmp_path):
    path = str(tmp_path / "tied.ckpt")
    first = module(tie_mlm_decoder=True)
    run = trainer(max_steps=1)
    run.fit(first, datamodule=scenes())
    run.save_checkpoint(path)
    for tie in (True, False):
        found = module(pretrained=path, tie_mlm_decoder=tie, lr=0.0)
        trainer(max_steps=1).fit(found, datamodule=scenes())
        assert torch.equal(found.mlm_head.decoder.weight, first.backbone.word_embeddings.weight)


def two_streams():
    return CoAttentionBackbone(
        "vit_tiny_patch16_224",
        {
            "model_type": "bert", "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 24,
        },
        image_kwargs={
            "img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 1, "num_heads": 2,
        },
        hidden_size=16, num_layers=1, num_heads=2,
    )  # fmt: skip


def test_a_compiled_backbone_has_the_rates_of_its_parts_and_takes_weights(tmp_path):
    run = trainer(max_steps=1)
    plain = module(net=two_streams(), wpa_weight=0)
    run.fit(plain, datamodule=scenes())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    compiled = VLPretraining(
        torch.compile(two_streams(), backend="eager"), UniformMasker(0.6), wpa_weight=0, lr=0.0,
        pretrained=str(tmp_path / "plain.ckpt"), lr_mult_cross_modal=5.0,
    )  # fmt: skip
    run = trainer(max_steps=1)
    run.fit(compiled, datamodule=scenes())
    groups = {g["name"]: (g["lr_scale"], len(g["params"])) for g in run.optimizers[0].param_groups}
    wanted = {"cross_modal_decay": 5.0, "backbone_decay": 1.0, "heads_decay": 1.0}
    assert wanted.items() <= {name: scale for name, (scale, _) in groups.items()}.items()
    joining = ("text_projection.", "image_projection.", "fusion.")
    names = [n for n, _ in plain.backbone.named_parameters() if n.startswith(joining)]
    assert sum(n for name, (_, n) in groups.items() if name.startswith("cross")) == len(names)
    state = compiled.state_dict()
    for name, value in plain.backbone.state_dict().items():
        assert torch.equal(state[f"backbone._orig_mod.{name}"], value), name


def test_an_evaluation_without_masked_words_says_so():
    inputs, numbers = pairs(rows=2)
    inputs["word_ids"] = torch.full_like(inputs["word_ids"], -1)
    with pytest.warns(UserWarning, match="val/mlm_loss and val/mlm_acc are NaN: the fixed mask"):
        trainer().validate(module(mask_id=4), Listed([(inputs, numbers)]), verbose=False)


def test_what_is_no_masker():
    with pytest.raises(InputError, match="masker must be a masker of"):
        VLPretraining(backbone(), "uniform")


def test_batches_of_one_step_have_masks_of_their_own():
    """The same pairs again: only the masks can differ."""
    batch = pairs(rows=6)
    seen = Seen()
    masks = []
    masker = UniformMasker(0.6)

    def watched(*args):
        masks.append(masker(*args))
        return masks[-1]

    found = module(watched, mask_id=4, lr=0.0)
    trainer(accumulate_grad_batches=3, callbacks=[seen]).fit(found, Listed([batch] * 6))
    assert len(masks) == 6
    assert len(seen.gradients) == 2
    assert not any(torch.equal(a, b) for k, a in enumerate(masks) for b in masks[k + 1 :])


def test_tables_of_relative_positions_are_biases_without_decay():
    text = {
        "model_type": "bert", "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    swin = {
        "img_size": 32, "patch_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2),
        "window_size": 4,
    }  # fmt: skip
    net = CoAttentionBackbone(
        "swin_tiny_patch4_window7_224", text, swin, hidden_size=16, num_layers=1, num_heads=2
    )
    found = module(net=net, wpa_weight=0)
    run = trainer(max_steps=1)
    run.fit(found, datamodule=scenes())
    names = {id(parameter): name for name, parameter in found.named_parameters()}
    without = set()
    for group in run.optimizers[0].param_groups:
        if not group["weight_decay"]:
            without |= {names[id(parameter)] for parameter in group["params"]}
    assert any("relative_position_bias_table" in name for name in without)
    trained = {name for name, p in found.named_parameters() if p.requires_grad}
    assert without == {n for n in trained if found.get_parameter(n).ndim == 1 or "bias" in n}
