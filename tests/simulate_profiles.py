"""How often a layer profile is wrong: simulated sweeps of 32 blocks, judged as `lmms-ca profile` judges them.

Run it as a script for the full table; its argument is the number of sweeps per line.
Model: vanilla answers 60 % right. Masking a block turns right answers wrong and wrong ones right, so that the mean
falls by the block's loss and `FLIPS` more answers change side. Each document flips at a block where its number falls
below a threshold; the number is that of the block before with probability `KEPT`, because neighbouring blocks trouble
the same documents, and on one picture the picture's own number with probability sqrt(correlation), as in
`simulate_checkpoints.py`.
"""

import sys

import numpy as np
from simulate_checkpoints import CORRELATION

from lmms_ca_plugin.results.layer_scores import LayerScores, VariantScores
from lmms_ca_plugin.results.profiles import candidates, find_profile

BLOCKS = 32
RIGHT = 0.6
FLIPS = 0.10  # answers that change side without changing the mean
KEPT = 0.7
FUSION, REVIEW = (2, 4, 8, 11, 12, 13), 29  # the paper's


def numbers(generator, n, size):
    """Draws (documents,) uniform numbers; two on one picture are the same with probability `CORRELATION`."""
    own = generator.random(n)
    if size == 1:
        return own
    return np.where(
        generator.random(n) < np.sqrt(CORRELATION), np.repeat(generator.random(-(-n // size)), size)[:n], own
    )


def sweep(generator, n, size, losses):
    """Draws a sweep: losses by block, as fractions."""
    vanilla = numbers(generator, n, size) < RIGHT
    drawn, masked = numbers(generator, n, size), []
    for loss in losses:
        drawn = np.where(generator.random(n) < KEPT, drawn, numbers(generator, n, size))
        lost, won = (FLIPS / 2 + loss) / RIGHT, FLIPS / 2 / (1 - RIGHT)
        masked.append(VariantScores((vanilla ^ (drawn < np.where(vanilla, lost, won))).astype(float)))
    return LayerScores(tuple(str(i // size) for i in range(n)), VariantScores(vanilla.astype(float)), tuple(masked))


def losses_of(fusion=0.0, review=0.0, everywhere=0.0, slope=0.0):
    """Losses by block: a floor, a slope from block 0 down to none at the last, and the planted blocks on top."""
    found = everywhere + slope * np.linspace(1, 0, BLOCKS)
    found[list(FUSION)] += fusion
    found[REVIEW] += review
    return found


def rates(sweeps, n, size, losses, seed=0):
    """Shares of sweeps by what was found; a block is false if its loss, or its excess, is 5 points or less."""
    generator = np.random.default_rng(seed)
    behind = np.append(losses, 0.0)
    fusion = {b for b in candidates("fusion", BLOCKS) if losses[b] > 0.0501}
    reviews = {b for b in candidates("review", BLOCKS) if losses[b] - max(behind[b - 1], behind[b + 1]) > 0.0501}
    found = [find_profile(sweep(generator, n, size, losses), "llava", "") for _ in range(sweeps)]
    layers = [profile.layers for profile in found]
    wrong = [{t.role for t in p.tests if t.found.holds and t.block not in fusion | reviews} for p in found]
    planted = [block in layer.fusion for layer in layers for block in fusion]
    return {
        "a false fusion on the first half": np.mean(["fusion" in roles for roles in wrong]),
        "it confirmed": np.mean([bool(set(layer.fusion) - fusion) for layer in layers]),
        "a false review on the first half": np.mean(["review" in roles for roles in wrong]),
        "this confirmed": np.mean([layer.review not in reviews | {None} for layer in layers]),
        "a true fusion block": np.mean(planted) if planted else None,
        "all of them": np.mean([fusion <= set(layer.fusion) for layer in layers]) if fusion else None,
        "the true review block": np.mean([layer.review in reviews for layer in layers]) if reviews else None,
    }


CASES = {
    "no effect": losses_of(),
    "5 points everywhere": losses_of(everywhere=0.05),
    "5 points at the planted blocks": losses_of(fusion=0.05, review=0.05),
    "a slope from 30 points to none": losses_of(slope=0.3),
    "15 points at the planted blocks": losses_of(fusion=0.15, review=0.15),
    "10 points at the planted blocks": losses_of(fusion=0.10, review=0.10),
}


def main(sweeps):
    header = ["true losses", "n", "per picture", *rates(1, 200, 1, losses_of())]
    sys.stdout.write(f"| {' | '.join(header)} |\n| --- {'| ---: ' * (len(header) - 1)}|\n")
    for name, losses in CASES.items():
        for n in (500, 1000, 2000):
            for size in (1, 4):
                shares = ("" if s is None else f"{100 * s:.1f} %" for s in rates(sweeps, n, size, losses).values())
                sys.stdout.write(f"| {name} | {n} | {size} | {' | '.join(shares)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
