"""What choosing masks costs on one CPU thread, and finding the collocations of a corpus.

    python benchmarks/maskers.py                    # maskers: seconds
    python benchmarks/maskers.py --captions 1000000 # collocations of as many captions, too

Texts have 40 places and 10 to 38 maskable tokens; every third token goes on with the word before
it. Times are medians. The captions are drawn from 20,000 words by Zipf's law, 11 words each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

from lit_ssl.text import (
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
    build_collocations,
    step_generator,
)

TEXTS, PLACES, REPEATS = 64, 40, 50


def masker_times() -> None:
    """Print milliseconds per batch of each masker."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, PLACES - 1, (TEXTS, 1), generator=generator)
    place = torch.arange(PLACES)
    maskable = (place > 0) & (place <= lengths)
    word_ids = torch.where(maskable, (place - 1) * 2 // 3, -1)
    ids = torch.randint(5, 30_000, (TEXTS, PLACES), generator=generator) * maskable
    for rate in (0.15, 0.6):
        for masker in (
            UniformMasker(rate),
            WholeWordMasker(rate),
            WholeWordMasker(rate, sampling="budget"),
            SpanMasker(rate),
        ):
            times = []
            for step in range(REPEATS):
                drawn = step_generator(0, 0, step)
                start = time.perf_counter()
                masker(ids, maskable, word_ids, generator=drawn)
                times.append(time.perf_counter() - start)
            name = f"{type(masker).__name__}, {masker.sampling}"
            print(f"{name:30} rate {rate:4}: {1e3 * statistics.median(times):6.2f} ms", flush=True)


def collocation_time(captions: int) -> None:
    """Print seconds and peak memory of finding collocations."""
    generator = torch.Generator().manual_seed(0)
    shares = 1 / torch.arange(1, 20_001, dtype=torch.float64)
    drawn = torch.multinomial(shares, captions * 11, replacement=True, generator=generator)
    words = [f"w{number}" for number in range(20_000)]
    start = time.perf_counter()
    build_collocations([words[word] for word in row] for row in drawn.view(captions, 11).tolist())
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{captions} captions: {seconds:.0f} s, {gigabytes:.1f} GB at most")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=0)
    captions = parser.parse_args().captions
    torch.set_num_threads(1)
    masker_times()
    if captions:
        collocation_time(captions)


if __name__ == "__main__":
    main()
