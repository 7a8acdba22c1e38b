"""Tiny trainings: a method, a strategy and a number of processes each."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import split

__all__ = ["EVERY", "SCENARIOS", "STEPS", "Scenario"]

# Of all: 3 epochs of 4 steps, a validation each, and a checkpoint in the middle of epochs 1 and 2.
STEPS, EVERY = 12, 5
_COMMON = split(
    "--trainer.max_epochs=3 --trainer.limit_train_batches=4 --trainer.limit_val_batches=1"
    " --trainer.num_sanity_val_steps=0 --trainer.check_val_every_n_epoch=1"
    " --trainer.log_every_n_steps=2 --trainer.enable_progress_bar=false"
    " --trainer.enable_model_summary=false --trainer.accelerator=cpu"
    " --trainer.callbacks=ModelCheckpoint"
    f" --trainer.callbacks.every_n_train_steps={EVERY} --trainer.callbacks.save_top_k=-1"
    " --trainer.callbacks.filename={step} --trainer.callbacks.save_last=true"
    " --trainer.callbacks+=soak.beacon.Beacon --trainer.default_root_dir=run"
)

_VIT = (
    " --model.backbone_kwargs.depth=1 --model.backbone_kwargs.embed_dim=16"
    " --model.backbone_kwargs.num_heads=2"
)
_MSN = f"{_VIT} --model.proj_hidden_dim=32 --model.warmup_epochs=1 --data.batch_size=16"
_SUPERVISED = (
    "--config supervised/mnist5k.yaml --model.backbone_kwargs.channels=[8,8,16,16]"
    " --data.batch_size=16"
)
_PAWS = (
    "--config paws/mnist5k.yaml --data.images_per_class=2 --data.dataset.batch_size=16"
    " --model.proj_hidden_dim=16 --model.proj_output_dim=8 --data.dataset.train_transform.crops"
    " '[{size: 20, count: 2, scale: [0.75, 1.0], rotation: 15}]'"
)
_SMALL_NAC = (
    " --model.net.num_modules=8 --model.net.num_output_modules=2 --model.net.depth=1"
    " --model.warmup_epochs=1 --data.batch_size=16"
)
_VIDEO = (
    " --trainer.max_steps=12 --data.sizes=[32,4,4] --data.batch_size=4 --model.channels=2"
    " --model.d_channels=2 --model.z_dim=4 --model.embed_dim=4 --model.standing_stats_batches=1"
)
_LEVEL_2 = "--config video/moving_digits_level2.yaml --model.previous={0}" + _VIDEO
_TWO = " --trainer.devices=2 --trainer.strategy="
_ALONE = " --model.gather=false"  # a loss that gathers is no local step
_DILOCO = "DiLoCoStrategy --trainer.strategy.sync_every=4"
_SLOWMO = (
    "SlowMomentumStrategy --trainer.strategy.sync_every=3 --trainer.strategy.slow_momentum=0.5"
)


@dataclass(frozen=True)
class Scenario:
    """A training that is disturbed.

    Args:
        words: of ``lit-ssl fit``; ``{0}`` stands for the last checkpoint of ``needs``.
        ranks: processes.
        needs: name of the scenario that is trained before.
        more: words after those that all have in common.
    """

    words: str
    ranks: int = 1
    needs: str | None = None
    more: str = ""

    def command(self, checkpoint: str = "") -> tuple[str, ...]:
        """The words after ``lit-ssl fit``."""
        return (*split(self.words.replace("{0}", checkpoint)), *_COMMON, *split(self.more))


SCENARIOS = {
    "msn": Scenario(
        f"--config msn/mnist5k.yaml {_MSN}", more="--trainer.callbacks+=LinearProbeEvaluator"
    ),
    "msn_workers": Scenario(
        f"--config msn/mnist5k.yaml {_MSN} --data.augment=worker --data.num_workers=1"
    ),
    "msn_ddp": Scenario(
        f"--config msn/mnist5k.yaml {_MSN} {_TWO}ddp",
        ranks=2,
        more="--trainer.callbacks+=LinearProbeEvaluator",
    ),
    "msn_slowmo": Scenario(f"--config msn/mnist5k.yaml {_MSN} {_ALONE} {_TWO}{_SLOWMO}", 2),
    "pmsn": Scenario(f"--config pmsn/mnist5k_lt.yaml {_MSN}"),
    "pmsn_diloco": Scenario(f"--config pmsn/mnist5k_lt.yaml {_MSN} {_ALONE} {_TWO}{_DILOCO}", 2),
    "paws": Scenario(_PAWS),
    "paws_ddp": Scenario(f"{_PAWS} {_TWO}ddp", 2),
    "supervised": Scenario(_SUPERVISED),
    "supervised_ddp": Scenario(f"{_SUPERVISED} {_TWO}ddp", 2),
    "supervised_local_sgd": Scenario(
        f"{_SUPERVISED} {_TWO}LocalSGDStrategy --trainer.strategy.sync_every=3", 2
    ),
    "supervised_slowmo": Scenario(f"{_SUPERVISED} {_TWO}{_SLOWMO}", 2),
    "supervised_accumulated": Scenario(
        f"{_SUPERVISED} --trainer.accumulate_grad_batches=2",
        more="--trainer.limit_train_batches=8",
    ),
    "finetune": Scenario(
        f"--config finetune/mnist5k.yaml {_VIT} --model.pretrained={{0}} --model.warmup_epochs=1"
        " --data.subset.per_class=10 --data.batch_size=25",
        needs="msn",
    ),
    "linear": Scenario(
        f"--config eval/linear_mnist5k.yaml {_VIT} --model.weights={{0}} --data.batch_size=25"
        " --model.features=[token-1,mean] --model.learning_rates=[0.4,0.8]"
        " --model.weight_decays=[0]",
        needs="msn",
    ),
    "barack": Scenario(
        "--config barack/coloured_mnist.yaml --model.predictor_epochs=1 --data.batch_size=16"
    ),
    "attribute_predictor": Scenario(
        "--config barack/coloured_mnist_predictor.yaml --data.batch_size=16"
    ),
    "group_dro": Scenario("--config group_dro/coloured_mnist.yaml --data.batch_size=16"),
    "jtt": Scenario("--config jtt/coloured_mnist.yaml --model.first_epochs=1 --data.batch_size=16"),
    "nac": Scenario("--config nac/mnist5k.yaml" + _SMALL_NAC),
    "nac_listops": Scenario(
        "--config nac/listops_small.yaml --model.net.graph_prior.steps=20 --data.sizes=[64,16,16]"
        + _SMALL_NAC
    ),
    "vl": Scenario("--config vl/digit_scenes.yaml --data.sizes=[64,0,16]"),
    "vl_ddp": Scenario(
        "--config vl/digit_scenes.yaml --data.sizes=[128,0,16]"
        f" {_TWO}ddp_find_unused_parameters_true",
        2,
    ),
    "nlvr2": Scenario(
        "--config vl/digit_scenes_nlvr2.yaml --model.pretrained={0} --data.sizes=[16,0,5]",
        needs="vl",
    ),
    "retrieval": Scenario(
        "--config vl/digit_scenes_retrieval.yaml --model.pretrained={0} --data.sizes=[64,0,9]"
        " --data.num_negatives=3",
        needs="vl",
        more="--trainer.limit_val_batches=1.0",
    ),
    "video_level1": Scenario("--config video/moving_digits_level1.yaml" + _VIDEO),
    "video_level2": Scenario(_LEVEL_2, needs="video_level1"),
    "video_supervised": Scenario(
        "--config video/moving_digits_supervised.yaml --model.backbone_kwargs.channels=[8,8,16,16]"
        " --data.sizes=[64,16,16] --data.batch_size=16"
    ),
}
