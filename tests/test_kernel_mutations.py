"""Planted errors in the kernels, each of which the tests of the kernels find.

Each runs one of those tests in a process of its own, with the error in the CUDA source. A test that
passes nevertheless would not have found the error in the source either.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

import tensorlite as tl
from tensorlite.kernels.launch import FOLDER
from tests import emulator

if emulator.compiler() is None or tl.cuda.is_available():
    pytest.skip("the errors are for the emulator, which needs g++", allow_module_level=True)

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """An error, the file that it is in, and the test that finds it."""

    what: str
    file: str
    old: str
    new: str
    test: str


NORM = "rows.py::test_norm[True-float32-float32-widths0-True]"
NORM_BLOCK = "rows.py::test_norm[True-bfloat16-bfloat16-widths5-False]"
NORM_WIDE = "rows.py::test_norm[True-float32-float32-widths7-True]"
SUMS = "rows.py::test_column_sums_and_drop[float32]"
LOSS = "loss.py::test_cross_entropy_is_that_of_the_definition"
TABLE = "loss.py::test_embedding_gathers_rows_and_sums_their_gradients"
SOFTMAX = "loss.py::test_causal_softmax_and_its_gradient"
ATTENTION = "attention.py::test_kernels[1-2-65-dtype0-64-0]"
DROPPING = "attention.py::test_kernels[1-2-65-dtype4-32-0.1]"

MUTATIONS = [
    # ---- sums over warps and blocks
    Mutation(
        "threads without a partial sum read one",
        "arrays.cuh",
        "v = warp_sum(lane < warps ? part[lane] : 0.f);",
        "v = warp_sum(part[lane]);",
        NORM_BLOCK,
    ),
    Mutation(
        "no barrier before the partial sums are read",
        "arrays.cuh",
        "part[warp] = v;\n        __syncthreads();\n        v = warp_sum",
        "part[warp] = v;\n        v = warp_sum",
        NORM_BLOCK,
    ),
    Mutation(
        "no barrier before the partial sums of the next row are written",
        "arrays.cuh",
        "__syncthreads();\n        if (lane == 0) part[warp] = v;\n        __syncthreads();\n"
        "        v = warp_sum",
        "if (lane == 0) part[warp] = v;\n        __syncthreads();\n        v = warp_sum",
        NORM_BLOCK,
    ),
    Mutation(
        "a sum over half a warp",
        "arrays.cuh",
        "for (int o = 16; o; o >>= 1) v += ",
        "for (int o = 8; o; o >>= 1) v += ",
        NORM,
    ),
    Mutation(
        "no barrier in the tree of a total",
        "total.cu",
        "        __syncthreads();\n        if ((int)threadIdx.x < distance)",
        "        if ((int)threadIdx.x < distance)",
        "loss.py::test_totals_are_summed_in_double_precision",
    ),
    # ---- norms
    Mutation(
        "columns beyond the row count for the variance",
        "norm.cu",
        "if (column<V>(k) < n)\n#pragma unroll\n            for (int j = 0; j < V; j++) {\n"
        "                v[k][j] -= mean;",
        "if (column<V>(k) <= n)\n#pragma unroll\n            for (int j = 0; j < V; j++) {\n"
        "                v[k][j] -= mean;",
        NORM,
    ),
    Mutation(
        "the sign of a term of the gradient",
        "norm.cu",
        "already[j] + scale * (h[k][j] - average_h - z[k][j] * average_hz)",
        "already[j] + scale * (h[k][j] - average_h + z[k][j] * average_hz)",
        NORM,
    ),
    Mutation(
        "no barrier between the rows of a block",
        "norm.cu",
        "            __syncthreads();\n        }\n        for (int s = 0;",
        "        }\n        for (int s = 0;",
        NORM,
    ),
    Mutation(
        "sums in memory that nobody has set to 0",
        "norm.cu",
        "*to = (first ? 0.f : *to) + slope * z;",
        "*to = *to + slope * z;",
        NORM_WIDE,
    ),
    # ---- functions of single elements
    Mutation(
        "the end of an array as if it were not the end",
        "flat.cuh",
        "if (at[u] + V <= size) apply",
        "if (at[u] <= size) apply",
        "rows.py::test_cast_is_numpys[float32-float16]",
    ),
    Mutation(
        "a repeated row that is not repeated",
        "flat.cuh",
        "a.p + i % a.period",
        "a.p + i",
        "rows.py::test_add[first0-second0]",
    ),
    Mutation(
        "a coefficient of the slope of GELU",
        "activations.cu",
        "0.134145f",
        "0.044715f",
        "rows.py::test_activations[float32]",
    ),
    Mutation(
        "dropout that does not scale",
        "elementwise.cu",
        "in[0] * factor * in[1]",
        "in[0] * in[1]",
        SUMS,
    ),
    Mutation(
        "a column too many",
        "elementwise.cu",
        "k < 32 * V && first + k < n",
        "k < 32 * V && first + k <= n",
        SUMS,
    ),
    Mutation(
        "a square of sums that is not turned",
        "elementwise.cu",
        "warp_sum(sums[threadIdx.x][threadIdx.y])",
        "warp_sum(sums[threadIdx.y][threadIdx.x])",
        SUMS,
    ),
    Mutation(
        "a gradient that is turned forwards",
        "rope.cu",
        "a[j] * sine[j] * direction + b[j]",
        "a[j] * sine[j] + b[j]",
        "rows.py::test_rope[float32]",
    ),
    Mutation(
        "a round too few",
        "random.cu",
        "round < 10",
        "round < 9",
        "rows.py::test_masks_are_those_of_the_cpu",
    ),
    # ---- losses and the embedding
    Mutation(
        "a sum that is not scaled to the new largest logit",
        "loss.cu",
        "others *= Exp<T>::less(top, larger);",
        "",
        "loss.py::test_rows_that_do_not_fit_shared_memory_are_read_twice",
    ),
    Mutation(
        "the sign of the target's gradient",
        "loss.cu",
        "at_target = -g * (others / sum)",
        "at_target = g * (others / sum)",
        LOSS,
    ),
    Mutation(
        "columns that are no class",
        "loss.cu",
        "if (c + j >= classes) r[j] = empty;",
        "if (c + j > classes) r[j] = empty;",
        "loss.py::test_linear_cross_entropy_is_that_of_the_definition",
    ),
    Mutation(
        "an id that comes before itself",
        "embedding.cu",
        "mine + (start + i < position)",
        "mine + (start + i <= position)",
        TABLE,
    ),
    Mutation(
        "every position begins a sum",
        "embedding.cu",
        "id == NO_ID || (begin > 0 && sorted[begin - 1] == id)",
        "id == NO_ID",
        TABLE,
    ),
    Mutation(
        "no barrier before the sums of rows are added",
        "embedding.cu",
        "store<V>(mine, sum);\n            __syncthreads();",
        "store<V>(mine, sum);",
        TABLE,
    ),
    # ---- the update
    Mutation(
        "the second moment from a gradient that is not squared",
        "update.cu",
        "g[j] * g[j] * s[REST2]",
        "g[j] * s[REST2]",
        "loss.py::test_adamw_is_the_optimizers",
    ),
    Mutation(
        "an update by a gradient that is not finite",
        "update.cu",
        "if (!(norm < INF)) return;",
        "",
        "loss.py::test_a_gradient_that_is_not_finite_changes_nothing",
    ),
    # ---- attention
    Mutation(
        "a key too many",
        "softmax.cu",
        "float p = c < keys ?",
        "float p = c <= keys ?",
        SOFTMAX,
    ),
    Mutation(
        "a query that does not see itself",
        "attention.cu",
        "KEY_ROWS ? c < r : c > r",
        "KEY_ROWS ? c < r : c >= r",
        ATTENTION,
    ),
    Mutation(
        "values that are not scaled to the new largest score",
        "attention.cu",
        "o[m][n][2 * half] *= before;",
        "",
        "attention.py::test_kernels[1-1-200-dtype0-64-0]",
    ),
    Mutation(
        "a logarithm to another base",
        "attention.cu",
        "* scale2 + log2f(sum)",
        "* scale2 + logf(sum)",
        ATTENTION,
    ),
    Mutation(
        "keys that are used before they arrive",
        "attention.cu",
        "cp_wait_all();\n        __syncthreads();\n    }\n\n#pragma unroll",
        "__syncthreads();\n    }\n\n#pragma unroll",
        ATTENTION,
    ),
    Mutation(
        "no barrier after the first tiles",
        "attention.cu",
        "load_queries(first / SIDE);\n    cp_commit();\n    cp_wait_all();\n    __syncthreads();",
        "load_queries(first / SIDE);\n    cp_commit();\n    cp_wait_all();",
        ATTENTION,
    ),
    Mutation(
        "a gradient of the keys without the scale",
        "attention.cu",
        "each(dk, [&](float& x, int, int, int) { x *= scale; });",
        "",
        ATTENTION,
    ),
    Mutation(
        "dropped weights that stay in the gradient",
        "attention.cu",
        "return DROP ? fmaxf(s[m][n][e], 0.f) : s[m][n][e];",
        "return DROP ? fabsf(s[m][n][e]) : s[m][n][e];",
        DROPPING,
    ),
    Mutation(
        "the halves of a fragment in each other's place",
        "tiles.cuh",
        "mma<Low>(c[m][n], a[m], b[0], b[1]);\n            mma<Low>(c[m][n + 1], a[m], b[2], b[3]);"
        "\n        }\n    }\n}\n\n// c += a @ X:",
        "mma<Low>(c[m][n], a[m], b[1], b[0]);\n            mma<Low>(c[m][n + 1], a[m], b[2], b[3]);"
        "\n        }\n    }\n}\n\n// c += a @ X:",
        ATTENTION,
    ),
    Mutation(
        "rows of a tile in the same memory banks",
        "tiles.cuh",
        "(chunk ^ (row & 7)) << 4",
        "chunk << 4",
        ATTENTION,
    ),
    Mutation(
        "a product that its warp writes before all lanes are there",
        "tiles.cuh",
        "            }\n    __syncwarp();\n    constexpr int CHUNKS",
        "            }\n    constexpr int CHUNKS",
        ATTENTION,
    ),
    # ---- generation
    Mutation(
        "the new position is not seen",
        "decode.cu",
        "score[a] = from + a * GROUPS + group <= last",
        "score[a] = from + a * GROUPS + group < last",
        "decode.py::test_attention_of_one_new_position",
    ),
    Mutation(
        "slots that are left out of a sum",
        "decode.cu",
        "for (int o = 16; o >= SIDE; o >>= 1)",
        "for (int o = 16; o > SIDE; o >>= 1)",
        "decode.py::test_products_of_a_few_rows",
    ),
    Mutation(
        "no barrier before the warps' parts are added",
        "decode.cu",
        "parts[warp][b][lane * V + j] = sum[b][j];\n        }\n    __syncthreads();",
        "parts[warp][b][lane * V + j] = sum[b][j];\n        }",
        "decode.py::test_products_of_a_few_rows",
    ),
    Mutation(
        "no barrier before the candidates are counted",
        "draw.cu",
        "if (at < ROOM) keys[at] = key;\n                }\n            __syncthreads();",
        "if (at < ROOM) keys[at] = key;\n                }",
        "decode.py::test_tokens_are_those_that_sampling_draws",
    ),
    Mutation(
        "a cut that leaves more than is needed",
        "draw.cu",
        "if (there >= needed) cut |=",
        "if (there > needed) cut |=",
        "decode.py::test_tokens_are_those_that_sampling_draws",
    ),
]


def run(mutation: Mutation) -> tuple[int, str]:
    """(the exit code, the output) of the mutation's test."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    error = json.dumps([mutation.old, mutation.new])
    done = subprocess.run(
        [*command, "-p", "tests.mutate", f"tests/test_kernels_{mutation.test}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"KERNEL_MUTATION": error, "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def results(request):
    """What the test of each mutation that was selected gives; two at a time."""
    tests = [
        item for item in request.session.items if item.originalname == "test_an_error_is_found"
    ]
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            m: pool.submit(run, m) for m in (test.callspec.params["mutation"] for test in tests)
        }
        yield jobs
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.what for m in MUTATIONS])
def test_an_error_is_found(mutation, results):
    assert (FOLDER / mutation.file).read_text().count(mutation.old) == 1
    code, output = results[mutation].result()
    assert code == 1, output  # 0: the test passed; others: it did not run
    assert "does not compile" not in output and "CannotCompile" not in output, output


def test_the_tests_pass_without_an_error():
    code, output = run(Mutation("nothing", "norm.cu", "no such text", "", NORM))
    assert code == 0, output
