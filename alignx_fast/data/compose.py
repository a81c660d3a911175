"""The rows of a stage, made of its split: pairs in both directions, and translations beside instructions up to their share."""

from dataclasses import dataclass, replace

import numpy as np

from alignx_fast.config import Settings
from alignx_fast.data.dedupe import Numbers
from alignx_fast.data.rows import Instruction, Pair
from alignx_fast.data.split import InstructionSplit, PairSplit
from alignx_fast.data.stored import Rows, joined


@dataclass(frozen=True)
class StageRows:
    """What a stage trains on and what it is evaluated on during training."""

    train: Rows[Pair | Instruction]
    dev: Rows[Pair | Instruction]
    n_reversed: int
    """Rows that were made of a pair by turning it round, used or not."""
    n_unneeded: int
    """Rows that the stage has no use for; nothing is wrong with them."""


def compose_pairs(pairs: PairSplit, settings: Settings, *, n_train: int | None = None, n_dev: int | None = None) -> StageRows:
    """Training pairs in both directions, dev pairs in one of the two by turns; the given numbers at random, default all."""
    rng = np.random.default_rng((settings.seed, 2))
    both = settings.data.both_directions
    candidates = pairs.train.take(np.repeat(np.arange(len(pairs.train)), 2)) if both else pairs.train
    train = _directed(candidates, _sample(rng, len(candidates), n_train), both)
    dev = _directed(pairs.dev, _sample(rng, len(pairs.dev), n_dev), both)
    return StageRows(
        train,
        dev,
        n_reversed=len(candidates) - len(pairs.train),
        n_unneeded=len(candidates) - len(train) + len(pairs.dev) - len(dev),
    )


def compose_instruct(pairs: PairSplit, instructions: InstructionSplit, settings: Settings) -> StageRows:
    """Instructions, and translations up to `data.translation_share` of the whole."""
    share = settings.data.translation_share
    if share == 1:
        return replace(compose_pairs(pairs, settings), n_unneeded=len(instructions.train) + len(instructions.dev))
    n_pairs = len(pairs.train) * (2 if settings.data.both_directions else 1)
    n_translations = round(len(instructions.train) * share / (1 - share))
    train = instructions.train
    if n_translations > n_pairs > 0:  # too few pairs for all the instructions: leave some of these out
        n_translations, n_train = n_pairs, round(n_pairs * (1 - share) / share)
        train = train.take(_sample(np.random.default_rng((settings.seed, 3)), len(train), n_train))
    n_dev = round(len(instructions.dev) * share / (1 - share))
    translations = compose_pairs(pairs, settings, n_train=n_translations, n_dev=n_dev)
    return StageRows(
        joined(translations.train, train),
        joined(translations.dev, instructions.dev),
        n_reversed=translations.n_reversed,
        n_unneeded=translations.n_unneeded + len(instructions.train) - len(train),
    )


def _sample(rng: np.random.Generator, total: int, wanted: int | None) -> Numbers:
    """`wanted` of `total` positions at random, in order; all where fewer exist or no number is given."""
    if wanted is None or wanted >= total:
        return np.arange(total)
    return np.sort(rng.choice(total, wanted, replace=False))


def _directed(pairs: Rows[Pair], chosen: Numbers, both: bool) -> Rows[Pair]:
    """The pairs at the chosen positions; with `both`, those at odd positions reversed."""
    return pairs.take(chosen).turn(both & (chosen % 2 == 1))
