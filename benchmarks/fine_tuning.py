"""Test accuracy over several splits: a classifier on the frozen network, and the whole network fine-tuned.

    KERAS_BACKEND=torch python benchmarks/fine_tuning.py MODULE FOLDER [--seeds 5]

Both methods see the same split with each seed. Given are every split's share of right answers, their mean with its 95 %
interval over all test photos (those of different splits overlap: it is an estimate), and how many test photos only one
of the two methods has right, with the sign test's probability of such a difference by chance.
"""

import argparse
import tempfile
from dataclasses import replace
from math import comb
from pathlib import Path

import mobilenet_hub as hub
from mobilenet_hub.evaluation.metrics import wilson_interval
from mobilenet_hub.training.schedule import FINE_TUNING

METHODS = ("frozen", "fine-tune")


def right_answers(module: str, folder: str, method: str, seed: int, epochs: int | None) -> tuple[set[str], int]:
    """Return the test photos of a split that a method's module has right, and the number of them all."""
    with tempfile.TemporaryDirectory() as work:
        output = Path(work) / "module"
        gradient = None if epochs is None or method == "frozen" else replace(FINE_TUNING, epochs=epochs)
        hub.train(folder, output, module=module, method=method, seed=seed, gradient=gradient)
        outcomes = hub.evaluate(output, folder, unseen=True).outcomes
    return {outcome.name for outcome in outcomes if outcome.predicted == outcome.label}, len(outcomes)


def sign_test(first: int, second: int) -> float:
    """Return how probable so uneven a division is where both sides are as likely."""
    total = first + second
    return min(1.0, 2 * sum(comb(total, k) for k in range(min(first, second) + 1)) / 2**total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of fine-tuning (default: the command's own)")
    args = parser.parse_args()
    right, photos, only = dict.fromkeys(METHODS, 0), 0, [0, 0]
    shares = {method: [] for method in METHODS}
    for seed in range(args.seeds):
        (frozen, count), (tuned, _) = (
            right_answers(args.module, args.folder, method, seed, args.epochs) for method in METHODS
        )
        photos += count
        only[0] += len(frozen - tuned)
        only[1] += len(tuned - frozen)
        for method, answers in zip(METHODS, (frozen, tuned), strict=True):
            right[method] += len(answers)
            shares[method].append(len(answers) / count)
        print(f"split {seed}: {count} test photos, frozen {shares['frozen'][-1]:.1%}", end="")
        print(f", fine-tuned {shares['fine-tune'][-1]:.1%}", flush=True)
    for method in METHODS:
        low, high = wilson_interval(right[method], photos)
        print(f"{method}: mean {sum(shares[method]) / args.seeds:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    print(f"right only when frozen {only[0]}, only when fine-tuned {only[1]}: p = {sign_test(*only):.2f}")


if __name__ == "__main__":
    main()
