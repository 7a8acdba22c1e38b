"""Families of random graphs: their arguments, the sizes that they have, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NamedTuple

from lit_ssl.errors import InputError, did_you_mean

__all__ = ["FAMILIES", "Arguments", "Family", "check_argument", "resolve"]

Arguments = dict[str, int | float]

_PROBABILITIES = ("p", "p_in", "p_out")
_CLUSTERED = ("planted-partition", "ring-of-cliques")


class Family(NamedTuple):
    """A family of graphs.

    Attributes:
        defaults: the arguments for N nodes.
        draw: a graph of N nodes, from networkx, N, a seed and all arguments.
    """

    defaults: Callable[[int], Arguments]
    draw: Callable[[Any, int, int, Mapping[str, int | float]], Any]


def _clusters(n: int) -> int:
    return 12 if n == 768 else 8


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


FAMILIES: dict[str, Family] = {
    "watts-strogatz": Family(
        lambda n: {"k": max(2, n // 10), "p": 0.4},
        lambda nx, n, seed, a: nx.watts_strogatz_graph(n, a["k"], a["p"], seed=seed),
    ),
    "planted-partition": Family(
        lambda n: {"clusters": _clusters(n), "p_in": 0.9, "p_out": 0.2},
        lambda nx, n, seed, a: nx.planted_partition_graph(
            a["clusters"], a["cluster_size"], a["p_in"], a["p_out"], seed=seed
        ),
    ),
    "erdos-renyi": Family(
        lambda n: {"p": 0.1},
        lambda nx, n, seed, a: nx.gnp_random_graph(n, a["p"], seed=seed),
    ),
    "barabasi-albert": Family(
        lambda n: {"m": max(2, round(n / 128))},
        lambda nx, n, seed, a: nx.barabasi_albert_graph(n, a["m"], seed=seed),
    ),
    "ring-of-cliques": Family(
        lambda n: {"clusters": _clusters(n), "p_in": 0.9, "p_out": 0.05},
        lambda nx, n, seed, a: nx.ring_of_cliques(a["clusters"], a["cluster_size"]),
    ),
    "complete": Family(
        lambda n: {},
        lambda nx, n, seed, a: nx.complete_graph(n),
    ),
    "grid": Family(
        lambda n: {"rows": max(d for d in _divisors(n) if d * d <= n)},
        lambda nx, n, seed, a: nx.grid_2d_graph(a["rows"], n // a["rows"]),
    ),
    "hypercube": Family(
        lambda n: {},
        lambda nx, n, seed, a: nx.hypercube_graph(n.bit_length() - 1),
    ),
    "barbell": Family(
        lambda n: {"clique_size": max(2, 2 * n // 5)},
        lambda nx, n, seed, a: nx.barbell_graph(a["clique_size"], n - 2 * a["clique_size"]),
    ),
    "tree": Family(
        lambda n: {"branching": 2},
        lambda nx, n, seed, a: nx.full_rary_tree(a["branching"], n),
    ),
}


def check_argument(name: str, key: str, value: object) -> None:
    """Check an argument of a family, for itself.

    Args:
        name: of the family.
        key: of the argument.
        value: of the argument.

    Raises:
        ValueError: if the family has no such argument, or its value lies outside its range.
    """
    valid = [*FAMILIES[name].defaults(64), *(["cluster_size"] if name in _CLUSTERED else [])]
    if key not in valid:
        known = did_you_mean(key, valid) or " It has none."
        raise InputError(f"graph prior {name} has no argument {key!r}.{known}")
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    number = float(value) if is_number else -1.0  # type: ignore[arg-type]
    if key in _PROBABILITIES:
        if not 0 <= number <= 1:
            raise InputError(f"{key} of graph prior {name} must lie in [0, 1], got {value!r}")
    elif number < 1 or number != int(number):
        raise InputError(f"{key} of graph prior {name} must be a whole number >= 1, got {value!r}")


def resolve(name: str, n: int, given: Mapping[str, int | float]) -> Arguments:
    """All arguments of a family for graphs of n nodes.

    Args:
        name: of the family.
        n: nodes.
        given: arguments that take the place of the defaults.

    Returns:
        Probabilities and whole numbers; clustered families have ``clusters`` and ``cluster_size``.

    Raises:
        ValueError: if there is no such graph; the message says which there are.
    """
    if n < 2:
        raise InputError(f"graph prior {name} needs at least 2 modules, got {n}")
    together = {**FAMILIES[name].defaults(n), **given}
    arguments = {k: v if k in _PROBABILITIES else int(v) for k, v in together.items()}
    if name in _CLUSTERED:
        arguments |= _equal_clusters(name, n, given, arguments)
    if problem := _misfit(name, n, arguments):
        raise InputError(f"graph prior {name} {problem}")
    return arguments


def _equal_clusters(
    name: str, n: int, given: Mapping[str, int | float], arguments: Arguments
) -> Arguments:
    """Number and size of the clusters, of which one, both or none were given."""
    size = int(given.get("cluster_size", 0))
    clusters = n // size if size and "clusters" not in given else int(arguments["clusters"])
    if size and "clusters" in given:
        what, fitting = f"{clusters} clusters of {size}", [clusters * size]
    elif size:
        what, fitting = f"clusters of {size}", [n // size * size, n // size * size + size]
    else:
        what = f"{clusters} equal clusters"
        fitting = [n // clusters * clusters, n // clusters * clusters + clusters]
    size = size or n // clusters
    if clusters * size == n and clusters:
        return {"clusters": clusters, "cluster_size": size}
    counts = [str(d) for d in _divisors(n)[1:-1]][:6]
    instead = f"only the argument clusters, to {' or '.join(counts)}, or " if counts else ""
    modules = " or ".join(str(f) for f in fitting if f > 1)
    raise InputError(
        f"graph prior {name} cannot share {n} modules among {what}: set {instead}num_modules to "
        f"{modules}"
    )


def _misfit(name: str, n: int, a: Arguments) -> str:
    """Why there is no such graph of n nodes, and what would fit; else an empty string."""
    if name == "watts-strogatz" and not 2 <= a["k"] < n:
        return f"needs 2 <= k < num_modules, got k {a['k']} and {n} modules"
    if name == "barabasi-albert" and a["m"] >= n:
        return f"needs m < num_modules, got m {a['m']} and {n} modules"
    if name == "ring-of-cliques" and min(a["clusters"], a["cluster_size"]) < 2:
        return (
            f"needs at least 2 clusters of at least 2 modules, got {a['clusters']} of "
            f"{a['cluster_size']}: set other clusters or num_modules"
        )
    if name == "grid" and n % a["rows"]:
        rows = " or ".join(map(str, _divisors(n)[:6]))
        return f"cannot put {n} modules in {a['rows']} rows: set rows to {rows}, or num_modules"
    if name == "hypercube" and n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        return f"needs a power of two, got {n} modules: set num_modules to {below} or {2 * below}"
    if name == "barbell" and not 2 <= a["clique_size"] <= n // 2:
        return (
            "needs 2 <= clique_size <= num_modules / 2, got clique_size "
            f"{a['clique_size']} and {n} modules"
        )
    return ""
