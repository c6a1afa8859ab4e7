"""A model of 1.1 billion weights is read and writes text within the memory that its weights take.

It needs 2.3 GB of disk, 5 GB of memory and a minute, so it runs only where it is asked for:

    TENSORLITE_LARGE=1 python -m pytest -s tests/test_large.py
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt import Llama, LlamaConfig, checkpoint

# The shape of TinyLlama 1.1B.
SHAPE = LlamaConfig(32000, 2048, 22, 32, 2048, n_kv_head=4, n_inner=5632, tied=False)
READ_AND_WRITE = """
import json, resource, sys, time
import gpt

def peak():  # in bytes
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo

figures = {"peak_before": peak()}
start = time.perf_counter()
model = gpt.load(sys.argv[1])
figures |= {"seconds_to_load": time.perf_counter() - start, "peak_after_load": peak()}
figures["parameters"] = model.num_params()
start = time.perf_counter()
figures["ids"] = gpt.generate_ids(model, [[1, 450, 7483]], 5, temperature=0)[0]
figures |= {"seconds_for_5_tokens": time.perf_counter() - start, "peak": peak()}
print(json.dumps(figures))
"""


def write_shards(folder: Path, shapes: dict[str, tuple], shard_bytes: int = 500_000_000) -> int:
    """Random bfloat16 weights, tensor by tensor, in shards with their index. Returns the bytes."""
    numbers = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32) * 0.02
    block = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    ones = np.uint16(0x3F80).astype("<u2").tobytes()
    shards, size = [[]], 0
    for name, shape in shapes.items():
        n = 2 * math.prod(shape)
        if size + n > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, shape, n))
        size += n
    places, total = {}, 0
    for i, shard in enumerate(shards):
        path = folder / f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, end = {}, 0
        for name, shape, n in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + n]}
            end += n
            places[name] = path.name
        text = json.dumps(header).encode()
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, shape, n in shard:
                if len(shape) == 1:  # a norm
                    file.write(ones * shape[0])
                    continue
                for begin in range(0, n, len(block)):
                    file.write(block[: n - begin])
        total += end
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


@pytest.mark.skipif("TENSORLITE_LARGE" not in os.environ, reason="TENSORLITE_LARGE is not set")
def test_a_billion_weights_take_no_more_memory_than_they_need(tmp_path):
    arrays = Llama(SHAPE, seed=None).published()  # whose memory is not used
    shapes = {name: array.shape for name, array in arrays.items()}
    checkpoint.write_llama(tmp_path, SHAPE, {})
    (tmp_path / "model.safetensors").unlink()
    written = write_shards(tmp_path, shapes)
    assert written == 2 * 1_100_048_384
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_WRITE, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(json.dumps(figures, indent=2))
    assert figures["parameters"] == written // 2 and len(figures["ids"]) == 5
    assert figures["peak"] < 1.2 * 2 * written
