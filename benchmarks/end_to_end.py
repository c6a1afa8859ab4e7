"""Times a whole training run, from the command line to the last loss, with ours and with PyTorch.

    python benchmarks/end_to_end.py TEXT [--rounds 3]         needs PyTorch (extra `oracle`)

Our run is `python train.py --preset shakespeare-char --dataset TEXT` with everything that it does:
reading the text, training the tokenizer, starting the workers, 2,000 steps, metrics, evaluations,
checkpoints, the loss over the whole validation split, the picture and the sample. PyTorch's run is
nanogpt_pytorch.py, which does the same in one process, from the same initial weights and on the
same batches. The two runs alternate. Prints the median wall time and the validation loss of each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.speedruns.runs import OURS, PYTORCH, rounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", metavar="TEXT", help="a file, such as tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    options = parser.parse_args()
    text = str(Path(options.text).resolve())
    ours, pytorch = rounds([OURS, PYTORCH], text, [1337] * options.rounds)
    a, b = (statistics.median(run.seconds) for run in (ours, pytorch))
    print(f"ours     {a:6.1f} s   validation loss {ours.losses[-1]:.4f}")
    print(f"PyTorch  {b:6.1f} s   validation loss {pytorch.losses[-1]:.4f}   ratio {b / a:.2f}")


if __name__ == "__main__":
    main()
