"""The emulator itself: it computes what CUDA defines, and finds every kind of error that it claims.

The kernels here are small ones, each with one thing right or wrong.
"""

import numpy as np
import pytest

from tensorlite.arraylike import bfloat16
from tensorlite.kernels import launch
from tests import emulator
from tests.emulator import EmulatorError, RawModule, build
from tests.strict import to_device

if emulator.compiler() is None:
    pytest.skip("no g++ to emulate kernels with", allow_module_level=True)

PARAMETERS = "float* y, const float* x, int n"
BEGIN = "int i = threadIdx.x, lane = i % 32, warp = i / 32; "


def function(body, parameters=PARAMETERS, name="kernel"):
    """A kernel with this body; `i` is its thread."""
    code = launch.source("arrays.cuh") + f"__global__ void kernel({parameters}) {{ {BEGIN}{body} }}"
    options = dict(backend="nvrtc", options=("--std=c++17",), name_expressions=(name,))
    return RawModule(code=code, **options).get_function(name)


def run(body, threads=64, blocks=1, shared=0, x=None):
    """y (64,) after the kernel; it begins as NaN, x as 0 ... 63."""
    y = to_device(np.full(64, np.nan, np.float32))
    x = to_device(np.arange(64, dtype=np.float32) if x is None else x)
    function(body)((blocks,), (threads,), (y, x, np.int32(64)), shared_mem=shared)
    return y.get()


def refuses(body, message, **options):
    with pytest.raises(EmulatorError, match=message):
        run(body, **options)


# =================================================================================================
# Threads
# =================================================================================================


def test_indices_of_threads_and_blocks():
    body = "if (i == 0) y[blockIdx.y * gridDim.x + blockIdx.x] = blockIdx.x + 10 * blockIdx.y;"
    y = to_device(np.zeros(6, np.float32))
    function(body)((3, 2), (8, 4), (y, y, np.int32(0)))
    assert y.get().tolist() == [0, 1, 2, 10, 11, 12]
    body = (
        "y[(threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + i] = threadIdx.z + blockDim.z;"
    )
    y = to_device(np.zeros(24, np.float32))
    function(body)((1,), (3, 2, 4), (y, y, np.int32(0)))
    assert y.get().tolist() == np.repeat(np.arange(4) + 4, 6).tolist()


def test_shuffles():
    lanes = np.arange(64)
    for call, source in [
        ("__shfl_xor_sync(~0u, x[i], 5)", lanes ^ 5),
        ("__shfl_down_sync(~0u, x[i], 3)", np.where(lanes % 32 < 29, lanes + 3, lanes)),
        ("__shfl_up_sync(~0u, x[i], 2)", np.where(lanes % 32 >= 2, lanes - 2, lanes)),
        ("__shfl_sync(~0u, x[i], 7)", lanes // 32 * 32 + 7),
        ("__shfl_sync(~0u, x[i], 1, 8)", lanes // 8 * 8 + 1),
        ("(float)__shfl_xor_sync(~0u, (long long)x[i] << 40 >> 40, 1)", lanes ^ 1),
    ]:
        assert run(f"y[i] = {call};").tolist() == source.tolist(), call
    votes = "y[i] = __popc(__ballot_sync(~0u, i % 3 == 0)) + __any_sync(~0u, i == 40);"
    assert run(votes).tolist() == [11.0] * 32 + [12.0] * 32


def test_sums_over_warps_and_blocks():
    assert run("float s = row_sum<true>(x[i]); y[i] = s;").tolist() == [2016.0] * 64
    assert run("float s = row_max<false>(x[i]); y[i] = s;").tolist() == [31.0] * 32 + [63.0] * 32


def test_lanes_that_do_not_come():
    refuses("if (i != 3) y[i] = warp_sum(x[i]);", "takes the value of lane 3")
    refuses(
        "if (i != 3) __syncwarp(); else __syncthreads(); __syncwarp();", "different|do not come"
    )
    refuses("if (lane < 16) __syncwarp(); else warp_sum(x[i]);", "different instructions")
    refuses("if (lane < 8) __syncwarp(0xff00u);", "lacks the lane itself")
    # A part of a warp may meet, and threads that have ended are not waited for.
    assert run("if (lane < 8) y[i] = __shfl_xor_sync(0xffu, x[i], 1);")[:2].tolist() == [1, 0]
    assert run("if (i >= 32) return; __syncthreads(); y[i] = x[i];")[5] == 5


def test_a_loop_without_end(monkeypatch):
    monkeypatch.setattr(emulator, "most_seconds", 1)
    refuses("while (n) n |= 1; y[i] = n;", "has not ended")


# =================================================================================================
# Memory
# =================================================================================================


def test_memory_outside_of_the_arrays():
    refuses("y[i + 1] = x[i];", r"thread \(63, 0, 0\): writes 4 bytes outside .*kernel.cu")
    refuses("y[i] = x[i - 1];", r"thread \(0, 0, 0\): reads 4 bytes outside")
    refuses("y[i] = *(const float*)16;", "reads 4 bytes outside")
    refuses("*(float4*)(y + i % 2) = *(const float4*)x;", "16 bytes at an address that is no mult")
    refuses("__shared__ float s[8]; y[i] = s[i];", "outside|nobody wrote")


def test_an_array_that_is_read_only():
    y, x = to_device(np.zeros(64, np.float32)), to_device(np.zeros(64, np.float32))
    x._array.flags.writeable = False
    with pytest.raises(EmulatorError, match="read-only"):
        function("((float*)x)[i] = 1;")((1,), (64,), (y, x, np.int32(64)))


def test_shared_memory_begins_undefined_in_each_block():
    for shared in ("__shared__ float s[64];", "DYNAMIC(raw); float* s = (float*)raw;"):
        write = "if (blockIdx.x == 0 || n < 0) s[i] = 1;"
        refuses(f"{shared} {write} __syncthreads(); y[i] = s[i];", "nobody", blocks=2, shared=256)
        body = f"{shared} s[i] = x[i]; __syncthreads(); y[i] = s[63 - i];"
        assert run(body, shared=256, blocks=3).tolist() == list(range(63, -1, -1))


def test_a_missing_barrier():
    shared = "__shared__ float s[64]; s[i] = x[i]; "
    refuses(shared + "y[i] = s[i ^ 32];", "no barrier between|nobody wrote")
    refuses(shared + "__syncwarp(); y[i] = s[i ^ 32];", "no barrier between|nobody wrote")
    refuses(shared + "y[i] = s[i ^ 1];", "no barrier between|nobody wrote")
    assert run(shared + "__syncwarp(); y[i] = s[i ^ 1];")[:2].tolist() == [1, 0]
    again = (
        shared + "__syncthreads(); float t = s[i ^ 32]; {} s[i] = t; __syncthreads(); y[i] = s[i];"
    )
    refuses(again.format(""), "no barrier")
    assert run(again.format("__syncthreads();"))[0] == 32


def test_atomic_operations():
    count = "__shared__ int count; if (i == 0) count = 0; __syncthreads(); atomicAdd(&count, 2); "
    assert run(count + "__syncthreads(); y[i] = count;").tolist() == [128.0] * 64
    refuses(count + "y[i] = count;", "no barrier")
    refuses(count.replace("__syncthreads();", "", 1), "no barrier|nobody wrote")


COPY = (
    "DYNAMIC(s); u32 to = shared_address(s) + 16 * i; if (i < 16) cp_async16(to, x + 4 * i, 16); "
)


def test_copies_arrive_at_the_wait():
    done = COPY + "cp_commit(); cp_wait_all(); __syncthreads(); y[i] = ((float*)s)[i];"
    assert run(done, shared=256).tolist() == list(range(64))
    zeros = done.replace("x + 4 * i, 16", "x + 4 * i, i < 8 ? 16 : 0")
    assert run(zeros, shared=256).tolist() == [*range(32), *[0] * 32]
    refuses(done.replace("cp_wait_all();", ""), "has not been waited for", shared=256)
    refuses(done.replace("__syncthreads();", ""), "no barrier|nobody wrote", shared=256)
    refuses(done.replace("cp_commit();", ""), "waited for|without waiting", shared=256)
    refuses(done.replace("x + 4 * i", "x + 4 * i + 1"), "not a multiple of 16", shared=256)
    refuses(done, "there are 128 bytes of dynamic", shared=128)
    refuses(done.replace("i < 16", "i < 17"), "outside", shared=512)
    refuses(done.replace("16 * i;", "16 * i - 16;"), "4294967280: there are", shared=256)
    static = "alignas(16) __shared__ unsigned char s[256];"
    assert run(done.replace("DYNAMIC(s);", static)).tolist() == list(range(64))


# =================================================================================================
# Tensor cores
# =================================================================================================

# a (16 x 16) from x and b (16 x 8) from x + 256, through shared memory and ldmatrix.
PRODUCT = """
    DYNAMIC(s);
    auto place = [&](int row, int half) { return 32 * row + 16 * (half ^ (row / 4 % 2)); };
    T* tile = (T*)s;
    for (int k = i; k < 256; k += 32) tile[place(k / 16, k % 16 / 8) / 2 + k % 8] = narrow<T>(x[k]);
    for (int k = i; k < 128; k += 32)
        tile[(512 + place(k / 8, 0)) / 2 + k % 8] = narrow<T>(x[256 + k]);
    for (int k = i; k < 128; k += 32)
        tile[(512 + place(k / 8, 1)) / 2 + k % 8] = narrow<T>(0.f);
    __syncwarp();
    u32 a[4], b[4], base = shared_address(s);
    ldmatrix4(a, base + place(lane % 16, lane / 16));
    ldmatrix4_trans(b, base + 512 + place(lane % 16, lane / 16));
    float c[4] = {0.f, 0.f, 0.f, 1.f};
    mma<T>(c, a, b[0], b[1]);
    for (int e = 0; e < 4; e++) y[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = c[e];
"""


@pytest.mark.parametrize("c_type, dtype", [("bf16", bfloat16()), ("f16", np.float16)])
def test_a_product_of_the_tensor_cores(c_type, dtype):
    x = np.random.default_rng(0).standard_normal(384).astype(np.float32)
    y = to_device(np.zeros((16, 8), np.float32))
    kernel = function(f"using T = {c_type}; {PRODUCT}")
    kernel((1,), (32,), (y, to_device(x), np.int32(0)), shared_mem=1024)
    a, b = x[:256].astype(dtype).astype(float), x[256:].astype(dtype).astype(float)
    want = a.reshape(16, 16) @ b.reshape(16, 8)
    want[8:, 1::2] += 1
    np.testing.assert_allclose(y.get(), want, atol=1e-5)


def test_rows_in_the_same_memory_banks():
    x = np.zeros(384, np.float32)
    same = f"using T = f16; {PRODUCT}".replace("(row / 4 % 2)", "0")
    refuses(same, "rows of matrix 0 lie in the same banks", threads=32, shared=1024, x=x)


def test_tensor_cores_need_all_lanes():
    body = "float c[4] = {}; u32 a[4] = {}; if (i < 31) mma<f16>(c, a, 0, 0); y[i] = c[0];"
    refuses(body, "need all 32 lanes", threads=32)


# =================================================================================================
# Numbers and arguments
# =================================================================================================


@pytest.mark.parametrize("c_type, dtype", [("bf16", bfloat16()), ("f16", np.float16)])
def test_numbers_of_16_bits(c_type, dtype):
    words = np.arange(65536, dtype=np.uint16)
    numbers = words.view(dtype).astype(np.float32)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        near = np.nextafter(numbers, np.float32(np.inf))
        middle = (numbers[:-1] + numbers[1:]) / 2  # between neighbours: ties
    anything = rng.integers(0, 2**32, 65536, dtype=np.uint32).view(np.float32)
    x = np.concatenate([numbers, near, middle, anything])
    y, back = np.zeros(len(x), dtype), np.zeros(65536, np.float32)
    parameters = f"{c_type}* y, const float* x, float* back, const {c_type}* words, int n"
    body = f"for (int k = i; k < n; k += 256) y[k] = narrow<{c_type}>(x[k]);"
    body += "for (int k = i; k < 65536; k += 256) back[k] = wide(words[k]);"
    y, back = to_device(y), to_device(back)
    args = (y, to_device(x), back, to_device(words.view(dtype)), np.int32(len(x)))
    function(body, parameters)((1,), (256,), args)
    np.testing.assert_array_equal(back.get(), numbers)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(
            y.get().astype(np.float32), x.astype(dtype).astype(np.float32)
        )


def test_arguments_that_the_parameters_do_not_take():
    f32, f16 = to_device(np.zeros(64, np.float32)), to_device(np.zeros(64, np.float16))
    kernel = function("y[i] = x[i];")
    for args, message in [
        ((f32, f32), "got 2 arguments"),
        ((f16, f32, np.int32(1)), "float16 for a parameter float32"),
        ((f32, f32, np.int64(1)), "int64 for a parameter int32"),
        ((f32, f32, np.float32(1)), "float32 for a parameter int32"),
        ((f32, f32, 1), "a number of NumPy is expected"),
        ((f32, f32, f32), "for a parameter int32"),
    ]:
        with pytest.raises(TypeError, match=message):
            kernel((1,), (64,), args)
    with pytest.raises(ValueError, match="no GPU takes"):
        kernel((1,), (1025,), (f32, f32, np.int32(1)))
    with pytest.raises(ValueError, match="bytes of shared memory"):
        kernel((1,), (64,), (f32, f32, np.int32(1)), shared_mem=49 * 1024)
    kernel.max_dynamic_shared_size_bytes = 49 * 1024
    kernel((1,), (64,), (f32, f32, np.int32(1)), shared_mem=49 * 1024)


def test_arrays_whose_addresses_are_in_an_array():
    x, y = to_device(np.arange(64, dtype=np.float32)), to_device(np.zeros(64, np.float32))
    addresses = to_device(np.array([x.data.ptr, y.data.ptr], np.int64))
    body = "((float*)table[1])[i] = ((float*)table[0])[i + n];"
    kernel = function(body, "const i64* table, int n")
    kernel((1,), (64,), (addresses, np.int32(0)))
    assert y.get().tolist() == list(range(64))
    with pytest.raises(EmulatorError, match="outside"):
        kernel((1,), (64,), (addresses, np.int32(1)))


def test_the_same_bits_every_time():
    body = "__shared__ int at; if (i == 0) at = 0; __syncthreads(); y[atomicAdd(&at, 1)] = i;"
    assert run(body).tobytes() == run(body).tobytes()


def test_source_that_is_no_cuda():
    with pytest.raises(build.CompileError, match="kernel.cu:[0-9]+:.*nonsense"):
        function("nonsense;")


def test_a_folder_that_others_may_write_to(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORLITE_EMULATOR", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        build.folder()
    monkeypatch.setenv("TENSORLITE_EMULATOR", str(tmp_path / "new"))
    assert build.folder().stat().st_mode & 0o777 == 0o700
