"""The network: a circuit of modules that share their weights and differ by codes and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.nac.attention import Backend, KernelAttention, Modules, Propagator, join
from lit_ssl.models.nac.checks import check_ranges, check_same_size, freeze
from lit_ssl.models.nac.generator import check_generator
from lit_ssl.models.nac.graph_priors import GraphPrior
from lit_ssl.models.nac.kernel import KernelOptions, SignatureKernel
from lit_ssl.models.nac.modulated import ModulatedFFN, Modulation
from lit_ssl.models.nac.pruning import checked_positions
from lit_ssl.models.nac.read_in import ReadIn
from lit_ssl.models.nac.readout import OutputPooling, SlotHead
from lit_ssl.models.nac.smaller import Smaller
from lit_ssl.models.nac.states import (
    InitialState,
    StateSeeder,
    check_initial_state,
    noisy_codes,
)
from lit_ssl.models.nac.tokenizers.tokens import Tokens, checked_tokens, checked_width
from lit_ssl.models.nac.wiring import Wiring
from lit_ssl.precision import kept_wide

__all__ = ["CircuitOutput", "NeuralAttentiveCircuit"]

_EPS = 1e-5


class CircuitOutput(NamedTuple):
    """What a circuit gives.

    Attributes:
        logits: ``[B, K]``; None without classes.
        features: ``[B, D]``.
        states: of the output modules, ``[B, O, D]``.
    """

    logits: Tensor | None
    features: Tensor
    states: Tensor


class NeuralAttentiveCircuit(Wiring, Smaller):
    """Neural Attentive Circuit: modules read tokens, talk along a learned sparse graph, answer.

    Each module has a code (what it computes: it scales the channels of shared layers), a signature
    (whom it talks to: near ones are linked) and a state that starts from its code. Training draws
    a graph for each sample and depth; evaluation is deterministic.

        states = read_in(initial states, tokens)
        for each depth: states = propagator(states)      attention along the graph, then an FFN
        outputs = read_out(initial states, states)  →  features, logits

    Wirings: ``from_input``: all modules read the tokens and then talk among themselves, a Perceiver
    IO with codes and a graph; ``persistent``: a few input modules read, and the mediators hear them
    and each other at each depth.

    Args:
        tokenizer: inputs → ``Tokens`` (values ``[B, V, token_dim]`` and a mask), with an attribute
            ``token_dim``; such as [`ConvNeXtTokenizer`][lit_ssl.models.ConvNeXtTokenizer].
        num_classes: K; 0: features only, until
            [`reset_classifier`][lit_ssl.models.NeuralAttentiveCircuit.reset_classifier].
        state_dim: channels D of a state.
        code_dim: channels C of a code; None: D.
        signature_dim: channels G of a signature.
        num_modules: number U of mediators.
        num_input_modules: number of input modules of the wiring ``persistent``; None: U / 4.
        num_output_modules: number O of output modules; 1 for the read-out ``slot``.
        depth: number of propagators.
        num_heads: heads H.
        head_dim: channels d of a head.
        read_in_heads: heads of the read-in; None: H.
        read_out_heads: heads of the read-out; None: H.
        ffn_mult: hidden channels of the feed-forward blocks, per channel of a state.
        activation: ``geglu`` or ``gelu``.
        wiring: ``from_input`` or ``persistent``, see above.
        input_to_output: whether the read-out also hears the input modules (``persistent``).
        initial_state: of a module: ``code``, its code; ``seeder``, drawn from a Gaussian that its
            code gives; ``learned``, a parameter.
        state_noise: whether the ``seeder`` draws states in training; else it gives their means.
        kernel: of the propagators, each with a bandwidth of its own; None: the defaults.
        read_out_kernel: of the read-out; None: the bandwidth of ``kernel``, without truncation and
            without sampling.
        graph: whether signatures decide who is linked; without, every module hears every module,
            and there are no signatures.
        graph_prior: graph that the signatures start from, see ``init_signatures``; None: random
            signatures.
        learn_signatures: whether signatures are trained; else the wiring stays what it starts from,
            but for the bandwidths.
        learn_codes: whether codes are trained.
        layer_scale: start of the factors on residual branches (in the read-in's attention: 1);
            None, best for short runs: no factors.
        drop_path: share of samples for which a propagator's branch is left out in training.
        code_noise: in training, codes move by up to this share of their size.
        share_depth: one propagator for all depths.
        layer_codes: codes of the mediators for each depth.
        share_key_value: plain keys and values in the read-in, the same for all modules.
        qv_bias: whether queries and values have a bias; of keys it would have no effect.
        read_in_residual: whether the read-in's attention adds to the initial states.
        read_out_residual: whether the read-out's attention adds to the initial states.
        output_norm: LayerNorm on the states of the output modules; without it, scores start tiny.
        modulation: by what a code c scales channels: ``one_plus_norm``, 1 + g · LN(S c) with a
            learned g; ``norm``, LN(S c); ``unit``, S c at unit length; ``sigmoid`` or ``tanh`` of
            S c; ``none``: codes only seed states.
        attention: ``sdpa``, torch's fused attention, or ``math``, written out.
        readout: ``pool``: a soft choice among the output modules; ``slot``: one output module.
        pooling: of ``pool``: ``softmax``, or ``gumbel``: with noise in training.
        pooling_temperature: of ``pool``.
        generator: gives changes of codes and signatures for each sample from the tokenizer's text;
            such as [`TextCircuitGenerator`][lit_ssl.models.TextCircuitGenerator]; None: the same
            circuit for all.

    Attributes:
        signatures: ``mediator`` ``[U, G]``, ``output``, and ``input`` where they have some.
        codes: ``input``, ``mediator`` (or ``propagator_0`` …) and ``output``, ``[…, C]``.
        embed_dim: D.
        kept_modules: int64 ``[U]``, which of the original mediators these are, after pruning.
        kept_outputs: int64 ``[O]``, likewise.
        is_wired: int64, 1 once the signatures were fitted to the prior.

    Raises:
        ValueError: for values outside their ranges or that do not go together.

    Source: arXiv 2210.08031.
    """

    kept_modules: Tensor
    kept_outputs: Tensor

    def __init__(
        self,
        tokenizer: nn.Module,
        num_classes: int = 0,
        state_dim: int = 384,
        code_dim: int | None = None,
        signature_dim: int = 64,
        num_modules: int = 256,
        num_input_modules: int | None = None,
        num_output_modules: int = 64,
        depth: int = 8,
        num_heads: int = 6,
        head_dim: int = 64,
        read_in_heads: int | None = None,
        read_out_heads: int | None = None,
        ffn_mult: float = 2.0,
        activation: Literal["geglu", "gelu"] = "geglu",
        wiring: Literal["from_input", "persistent"] = "from_input",
        input_to_output: bool = True,
        initial_state: InitialState = "code",
        state_noise: bool = True,
        kernel: KernelOptions | None = None,
        read_out_kernel: KernelOptions | None = None,
        graph: bool = True,
        graph_prior: GraphPrior | None = None,
        learn_signatures: bool = True,
        learn_codes: bool = True,
        layer_scale: float | None = 0.1,
        drop_path: float = 0.0,
        code_noise: float = 0.0,
        share_depth: bool = False,
        layer_codes: bool = False,
        share_key_value: bool = False,
        qv_bias: bool = False,
        read_in_residual: bool = True,
        read_out_residual: bool = False,
        output_norm: bool = True,
        modulation: Modulation = "one_plus_norm",
        attention: Backend = "sdpa",
        readout: Literal["pool", "slot"] = "pool",
        pooling: Literal["softmax", "gumbel"] = "softmax",
        pooling_temperature: float = 1.0,
        generator: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_choice("wiring", wiring, ("from_input", "persistent"))
        check_choice("readout", readout, ("pool", "slot"))
        code_dim = state_dim if code_dim is None else code_dim
        check_initial_state(initial_state, code_dim, state_dim)
        persistent = wiring == "persistent"
        inputs = num_modules
        if persistent:
            default = max(1, num_modules // 4)
            inputs = default if num_input_modules is None else num_input_modules
        elif num_input_modules not in (None, num_modules):
            raise InputError(
                "num_input_modules belongs to the wiring 'persistent'; in 'from_input' each module "
                f"reads the tokens: leave it out, not {num_input_modules}"
            )
        outputs = 1 if readout == "slot" else num_output_modules
        counts = {
            "num_modules": num_modules, "num_input_modules": inputs, "num_output_modules": outputs,
            "depth": depth, "state_dim": state_dim, "code_dim": code_dim,
            "signature_dim": signature_dim, "num_heads": num_heads, "head_dim": head_dim,
            "read_in_heads": read_in_heads, "read_out_heads": read_out_heads,
        }  # fmt: skip
        shares = {"code_noise": code_noise, "drop_path": drop_path}
        check_ranges(counts, shares, layer_scale, num_classes)
        if graph_prior is not None and not graph:
            raise InputError("graph_prior needs a graph: leave it out, or set graph: true")
        self.tokenizer = tokenizer
        self.generator = generator
        self.wiring = wiring
        self.input_to_output = persistent and input_to_output
        self.depth = depth
        self.embed_dim = state_dim
        self.code_noise = code_noise
        self.layer_codes = layer_codes
        self.graph_prior = graph_prior
        self.kernel_options = kernel or KernelOptions()

        tables = {"mediator": num_modules, "output": outputs}
        if graph:
            if persistent:
                tables["input"] = inputs
            self.signatures = _tables(tables, signature_dim)
        else:
            self.signatures = nn.ParameterDict()
        if layer_codes and modulation == "none":
            raise InputError("layer_codes needs a modulation by codes, not 'none'")
        if layer_codes:
            tables = {**{f"propagator_{i}": num_modules for i in range(depth)}, "output": outputs}
        self._code_sizes = {**tables, "input": inputs}
        used = dict(self._code_sizes)
        if modulation == "none":
            # Then codes only give states; a parameter that nothing uses would stop DDP.
            seeding = {"input", "output", *(["mediator"] if persistent else [])}
            seeding = set() if initial_state == "learned" else seeding
            used = {name: size for name, size in used.items() if name in seeding}
        self.codes = _tables(used, code_dim)
        if not learn_signatures:
            freeze(self.signatures)
        if not learn_codes:
            freeze(self.codes)
        check_generator(generator, tokenizer, self.signatures, self.codes)
        self.seeder = self.states = None
        if initial_state == "seeder":
            self.seeder = StateSeeder(code_dim, state_dim, state_noise)
        elif initial_state == "learned":
            sizes = {"input": inputs, "output": outputs}
            sizes |= {"mediator": num_modules} if persistent else {}
            self.states = _tables(sizes, state_dim)

        def ffn(drop: float) -> ModulatedFFN:
            return ModulatedFFN(
                state_dim, code_dim, ffn_mult, activation, layer_scale, drop, modulation
            )

        def talk(
            options: KernelOptions, heads: int, drop: float = 0.0, **kwargs: Any
        ) -> Propagator:
            attend = KernelAttention(
                state_dim,
                code_dim,
                heads,
                head_dim,
                SignatureKernel(options) if graph else None,
                qv_bias=qv_bias,
                layer_scale=layer_scale,
                drop_path=drop,
                modulation=modulation,
                backend=attention,
                **kwargs,
            )
            return Propagator(attend, ffn(drop))

        self.read_in = ReadIn(
            checked_width(tokenizer),
            state_dim,
            code_dim,
            read_in_heads or num_heads,
            head_dim,
            ffn(0.0),
            share_key_value=share_key_value,
            residual=read_in_residual,
            qv_bias=qv_bias,
            layer_scale=None if layer_scale is None else 1.0,
            modulation=modulation,
            backend=attention,
        )
        count = 1 if share_depth else depth
        self.propagators = nn.ModuleList(
            talk(self.kernel_options, num_heads, drop_path) for _ in range(count)
        )
        self.read_out = talk(
            read_out_kernel
            or KernelOptions(
                self.kernel_options.bandwidth,
                self.kernel_options.learnable_bandwidth,
                stochastic=False,
            ),
            read_out_heads or num_heads,
            shared_norm=False,
            residual=read_out_residual,
        )
        self.output_norm = nn.LayerNorm(state_dim, eps=_EPS) if output_norm else nn.Identity()
        if readout == "slot":
            self.head: SlotHead | OutputPooling = SlotHead(
                state_dim, code_dim, num_classes, modulation
            )
        else:
            self.head = OutputPooling(state_dim, num_classes, pooling, pooling_temperature)
        self.register_buffer("kept_modules", torch.arange(num_modules))
        self.register_buffer("kept_outputs", torch.arange(outputs))
        self.register_buffer("is_wired", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_pre_hook(check_same_size)

    # sizes and parts

    @property
    def num_classes(self) -> int:
        """K; 0 without a classifier."""
        classifier = self.head.classifier
        return 0 if classifier is None else len(classifier.weight)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one of K classes; 0: none.

        Args:
            num_classes: K.
        """
        self.head.reset_classifier(num_classes)
        like = self.read_out.attention.out.weight
        self.head.to(like.device, like.dtype)

    def resize_tables(self, sizes: dict[str, int]) -> None:
        """Tell the network how many modules of a kind there are now, after pruning.

        Args:
            sizes: number of modules by their kind; kinds that are not named stay as they are.
        """
        for name in self._code_sizes:
            kind = "mediator" if name.startswith("propagator") else name
            self._code_sizes[name] = sizes.get(kind, self._code_sizes[name])

    def _apply(self, fn: Any, recurse: bool = True) -> NeuralAttentiveCircuit:
        """Convert or move; signatures and kernels, whose steps are small, are never narrowed."""
        kernels = [part for part in self.modules() if isinstance(part, SignatureKernel)]
        with kept_wide(self.signatures, *kernels):
            super()._apply(fn, recurse)
        return self

    # computation

    def forward(
        self,
        inputs: Any,
        keep: Tensor | Sequence[int] | None = None,
        gates: Tensor | None = None,
    ) -> CircuitOutput:
        """Scores and features of a batch.

        Args:
            inputs: what the tokenizer takes.
            keep: int64 ``[n]``, the mediators that take part, ascending; None: all. Empty only in
                the wiring ``persistent`` where the read-out hears the input modules.
            gates: ``[U]``, factors of what the mediators send, to see what hangs on each.

        Raises:
            ValueError: if ``keep`` is empty or out of range.
        """
        return self._run(inputs, keep, gates)[0]

    def module_activity(self, inputs: Any) -> Tensor:
        """Size of what each mediator ends with: the norm of its state, ``[B, U]``.

        Args:
            inputs: what the tokenizer takes.
        """
        return self._run(inputs)[1].float().norm(dim=-1)

    def _run(
        self,
        inputs: Any,
        keep: Tensor | Sequence[int] | None = None,
        gates: Tensor | None = None,
    ) -> tuple[CircuitOutput, Tensor]:
        """Output, and the final states of the mediators ``[B, U, D]``."""
        width = self.read_in.token_norm.normalized_shape[0]
        tokens = checked_tokens(self.tokenizer, self.tokenizer(inputs), width)
        batch = tokens.values.shape[0]
        if keep is not None and self.is_folded:
            raise InputError("fold() has set all modules in stone: prune() first, then fold()")
        chosen = None if keep is None else self._chosen(keep)
        codes, signatures = self._circuit(tokens, chosen)
        persistent = self.wiring == "persistent"

        first = codes["input"]
        states = self._initial("input", first, batch, None if persistent else chosen)
        read = self.read_in(Modules(states, first), tokens.values, tokens.mask)
        entered = Modules(read, first, signatures.get("input"))
        if persistent:
            start = codes["propagator_0" if self.layer_codes else "mediator"]
            states = self._initial("mediator", start, batch, chosen)
            states = states.expand(batch, -1, -1)
        else:
            states = read
        if gates is not None and chosen is not None:
            gates = gates[chosen]
        signs = signatures.get("mediator")
        own = codes["input"]
        for depth in range(self.depth):
            own = codes[f"propagator_{depth}" if self.layer_codes else "mediator"]
            mediators = Modules(states, own, signs, gates)
            senders = join(entered, mediators) if persistent else mediators
            states = self.propagator(depth)(mediators, senders)
        mediators = Modules(states, own, signs, gates)
        senders = join(entered, mediators) if self.input_to_output else mediators
        last = codes["output"]
        receivers = self._initial("output", last, batch, None).expand(batch, -1, -1)
        answers = Modules(receivers, last, signatures.get("output"))
        out = self.output_norm(self.read_out(answers, senders))
        features, logits = self.head(out, last)
        return CircuitOutput(logits, features, out), states

    def _circuit(
        self, tokens: Tokens, chosen: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Codes and signatures of all tables, for this batch and the modules that take part."""
        codes = dict(self.codes.items())
        signatures = dict(self.signatures.items())
        if self.code_noise and self.training:
            codes = {name: noisy_codes(table, self.code_noise) for name, table in codes.items()}
        for name, size in self._code_sizes.items():
            if name not in codes:
                codes[name] = tokens.values.new_empty(size, 0)
        if self.generator is not None:
            if tokens.text is None:
                raise InputError(
                    f"a generator needs a text, and {type(self.tokenizer).__name__} gives none"
                )
            changes = self.generator(*tokens.text)
            for name in codes:
                known = "mediator" if name.startswith("propagator") else name
                if known in changes:
                    codes[name] = codes[name] + changes[known][1]
            for name in signatures:
                if name in changes:
                    signatures[name] = signatures[name] + changes[name][0]
        if chosen is not None:
            partial = {"input"} if self.wiring == "from_input" else set()
            for tables in (codes, signatures):
                for name in tables:
                    if name == "mediator" or name.startswith("propagator") or name in partial:
                        tables[name] = tables[name].index_select(-2, chosen)
        return codes, signatures

    def _initial(self, name: str, codes: Tensor, batch: int, chosen: Tensor | None) -> Tensor:
        """States that modules start from, ``[B or 1, U, D]``."""
        if self.seeder is not None:
            return self.seeder(codes, batch)
        if self.states is not None:
            table = self.states[name]
            return (table if chosen is None else table.index_select(0, chosen))[None]
        return codes if codes.ndim == 3 else codes[None]

    def _chosen(self, keep: Tensor | Sequence[int]) -> Tensor:
        device = self.kept_modules.device
        if isinstance(keep, Tensor) and (
            keep.device.type != "cpu" or torch.compiler.is_compiling()
        ):
            chosen = keep  # its values are on the device or unknown: nobody waits for them
        else:
            chosen = checked_positions(keep, self.num_modules, "module")
        if not len(chosen) and not self.input_to_output:
            raise InputError(
                "a circuit without mediators can answer only in the wiring 'persistent' with "
                "input_to_output: keep at least one module"
            )
        return chosen.to(device)


def _tables(sizes: dict[str, int], dim: int) -> nn.ParameterDict:
    return nn.ParameterDict({name: torch.randn(size, dim) for name, size in sizes.items()})
