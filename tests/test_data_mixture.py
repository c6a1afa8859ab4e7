"""Mixtures: shuffling by key, counts by weights, and the windows of each step."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt import data
from gpt.data import Mixture, Order, ShardedTokens
from gpt.data.apportion import BLOCK, MOST, Apportionment
from gpt.data.mixture import Source
from gpt.data.permutation import permute

# ---- shuffling by key ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 255, 1000, 4097])
def test_each_place_is_reached_once(n):
    found = permute(np.arange(n), n, 3, "order", 1)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(n))


def test_it_depends_on_the_key_and_on_no_other_place():
    n, places = 10_000, np.arange(10_000)
    whole = permute(places, n, 3, "order", 1)
    assert np.array_equal(permute(places[::-7], n, 3, "order", 1), whole[::-7])
    assert (permute(places, n, 3, "order", 2) == whole).mean() < 0.01
    assert (permute(places, n, 4, "order", 1) == whole).mean() < 0.01


def test_it_shuffles():
    """Neighbours are as far apart, and places as far from where they were, as by chance."""
    n = 20_000
    found = permute(np.arange(n), n, 5, "order")
    assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 4 / np.sqrt(n)
    assert np.abs(np.diff(found)).mean() == pytest.approx(n / 3, rel=0.03)
    # How many of 20 parts of the list each 20th has: chi-square with 19 * 19 degrees of freedom.
    table = np.histogram2d(np.arange(n), found, 20)[0]
    assert ((table - n / 400) ** 2 / (n / 400)).sum() == pytest.approx(361, abs=6 * np.sqrt(722))


def test_of_small_lists_all_orders_come():
    orders = Counter(tuple(permute(np.arange(3), 3, key).tolist()) for key in range(600))
    assert len(orders) == 6 and min(orders.values()) > 60


def test_large_lists_need_no_list():
    n = 2**62
    found = permute(np.array([0, 1, n - 1]), n, 1)
    assert len(set(found.tolist())) == 3 and found.min() >= 0 and found.max() < n


@pytest.mark.parametrize("places, n", [([5], 5), ([-1], 5), ([0], 0), ([0], 2**62 + 1)])
def test_places_outside_the_list_are_refused(places, n):
    with pytest.raises(ValueError, match="are in range"):
        permute(np.array(places), n, 1)


# ---- counts by weights ---------------------------------------------------------------------------


def plain_counts(weights, limits, examples: int, steps: int) -> list[list[int]]:
    """`Apportionment` step by step, with Python's numbers."""
    S = len(limits)
    taken, carried, is_open, found = [0] * S, [0] * S, [True] * S, []
    while len(found) < steps:
        w = [x * o for x, o in zip(weights(np.array([len(found)]))[0].tolist(), is_open)]
        left, counts, parts = examples, [], []
        for s in range(S):
            rest = sum(reversed(w[s:]))
            part = carried[s] + round((w[s] / rest if rest else 0) * 2**24) * left
            counts.append(part >> 24)
            parts.append(part % 2**24)
            left -= counts[-1]
        lacking = [limits[s] is not None and taken[s] + counts[s] > limits[s] for s in range(S)]
        if any(lacking):
            is_open = [o and not lack for o, lack in zip(is_open, lacking)]
            continue
        assert left == 0
        taken, carried = [t + c for t, c in zip(taken, counts)], parts
        found.append(counts)
    return found


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 5)), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 40),
)
def test_counts_equal_a_plain_computation(slopes, examples, limit):
    first, last = np.array(slopes).T

    def weights(steps):
        return first + np.minimum(steps, 30)[:, None] / 30 * (last - first) + 1e-3

    limits = [None, *[limit] * (len(slopes) - 1)]
    plan = Apportionment(weights, limits, examples)
    found = [plan.counts(step).tolist() for step in range(60)]
    assert found == plain_counts(weights, limits, examples, 60)
    assert all(sum(counts) == examples for counts in found)


def test_any_step_is_found_alone_and_across_blocks():
    def weights(steps):
        return np.stack([1 + steps / 1000, np.full(len(steps), 2.3), steps % 7 + 0.1], axis=1)

    steps = [0, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, 4]
    plan = Apportionment(weights, [None, 9000, None], 5)
    total = np.zeros(3, int)
    expected = {}
    for step in range(max(steps) + 1):
        assert np.array_equal(plan.taken(step), total)
        expected[step] = plan.counts(step).tolist()
        total = total + plan.counts(step)
    assert 8990 < total[1] <= 9000
    for step in steps:
        again = Apportionment(weights, [None, 9000, None], 5)
        assert again.counts(step).tolist() == expected[step] == plan.counts(step).tolist()


def test_shares_are_kept_at_every_step():
    share = np.array([0.5, 0.3, 0.15, 0.05])
    plan = Apportionment(lambda steps: np.tile(share, (len(steps), 1)), [None] * 4, 7)
    for step in range(1, 500):
        assert np.abs(plan.taken(step) - 7 * step * share).max() < 2


def test_no_source_left_is_an_error():
    plan = Apportionment(lambda steps: np.ones((len(steps), 2)), [4, 5], 2)
    assert plan.taken(4).tolist() == [4, 4]
    with pytest.raises(ValueError, match="at step 4, no source of the mixture has both a weight"):
        plan.counts(4)
    plan = Apportionment(lambda steps: (steps < 3)[:, None] * 1.0, [None], 2)
    assert plan.counts(2).tolist() == [2]
    with pytest.raises(ValueError, match="at step 3, no source"):
        plan.counts(3)
    with pytest.raises(ValueError, match="a step has 1 to"):
        Apportionment(lambda steps: np.ones((len(steps), 1)), [None], MOST + 1)


# ---- the windows of each step --------------------------------------------------------------------


def mixture(*lengths: int, weights=None, epochs=None) -> Mixture:
    """Sources whose ids are 1000 times their number, plus the place."""
    weights, epochs = weights or [1] * len(lengths), epochs or [None] * len(lengths)
    sources = [
        Source(f"s{i}", f"s{i}", ((0, w),), e) for i, (w, e) in enumerate(zip(weights, epochs))
    ]
    parts = [np.arange(n, dtype="<u2") + 1000 * i for i, n in enumerate(lengths)]
    return Mixture(sources, [ShardedTokens([p[:5], p[5:]]) for p in parts])


def test_each_pass_reads_each_window_once():
    mixed = mixture(41, 90, weights=[1, 3])
    order = Order(mixed, block_size=8, examples=6, seed=1, steps=100)
    assert order.windows == [5, 11]
    starts = np.concatenate([order.starts(step) for step in range(100)])
    x, y = data.draw_batch(mixed, starts, 8)
    assert np.array_equal(y, x + 1)  # no window crosses from one source to the next
    seen = [x[x[:, 0] // 1000 == s, 0] % 1000 for s in (0, 1)]
    assert [len(s) for s in seen] == [150, 450]
    for windows, n in zip(seen, order.windows):
        passes = [windows[i : i + n].tolist() for i in range(0, len(windows) // n * n, n)]
        assert all(sorted(p) == list(range(0, 8 * n, 8)) for p in passes)
        assert len(set(map(tuple, passes))) > 0.8 * len(passes)  # each in an order of its own
    assert order.passes() == [30, 450 / 11]


def test_a_step_is_a_function_of_seed_and_step():
    mixed = mixture(100, 300)
    order = Order(mixed, 4, 5, seed=1, steps=50)
    backwards = [order.starts(step) for step in reversed(range(50))]
    for step, starts in enumerate(reversed(backwards)):
        assert np.array_equal(Order(mixed, 4, 5, seed=1, steps=99).starts(step), starts)
    other = Order(mixed, 4, 5, seed=2, steps=50)
    assert any(not np.array_equal(other.starts(s), order.starts(s)) for s in range(3))
    assert np.array_equal(order.starts(50), order.starts(49))  # looked at, never trained on


def test_epochs_end_a_source():
    mixed = mixture(41, 401, weights=[1, 1], epochs=[2, None])
    order = Order(mixed, 8, 4, seed=1, steps=30)
    counts = [(order.starts(step) < 41).sum() for step in range(30)]
    assert counts == [2] * 5 + [0] * 25
    with pytest.raises(ValueError, match="at step 10, no source .* a smaller --max_iters"):
        Order(mixture(41, 81, epochs=[4, 2]), 8, 4, seed=1, steps=11)
    Order(mixture(41, 81, epochs=[4, 2]), 8, 4, seed=1, steps=10)


def test_a_source_that_is_too_short():
    with pytest.raises(ValueError, match="the s1 training split has 8 tokens"):
        Order(mixture(100, 8), 8, 1, 1, 1)


# ---- mix.toml ------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path):
    for name, n in ("web", 300), ("code", 200):
        (tmp_path / name).mkdir()
        data.write_tokens(tmp_path / name / "train.bin", np.arange(n) % 50, 50)
        data.write_tokens(tmp_path / name / "val.bin", np.arange(40) % 50, 50)
    return tmp_path


def write(folder, text: str) -> str:
    (folder / "mix.toml").write_text(text)
    return str(folder / "mix.toml")


GOOD = '[[source]]\ndataset = "web"\nweight = 0.7\n[[source]]\ndataset = "code"\n'
GOOD += "weights = [[10, 0.1], [20, 0.5]]\nepochs = 2\n"


def test_a_mixture_is_read(sources):
    path = write(sources, GOOD)
    assert data.is_mixture(path) and not data.is_token_data(path)
    web, code = data.read_sources(path)
    assert (web.name, web.dataset, web.epochs) == ("web", str(sources / "web"), None)
    assert web.weight(np.array([0, 99])).tolist() == [0.7, 0.7]
    assert code.weight(np.array([0, 10, 20, 99])).tolist() == [0.1, 0.1, 0.5, 0.5]
    assert code.weight(np.array([15]))[0] == pytest.approx(0.3)
    assert data.validation_size(path) == 80
    train = Mixture([web, code], [data.open_tokens(s.dataset, 50)[0] for s in (web, code)])
    assert len(train) == 500 and train.first.tolist() == [0, 300]
    assert np.array_equal(train[298:302], [48, 49, 0, 1])


def test_a_source_is_what_dataset_takes(sources, monkeypatch):
    monkeypatch.chdir(sources)
    (sources / "my.txt").write_text("text")
    (sources / "tinystories").write_text("a file of that name")
    tables = [
        f'[[source]]\ndataset = "{name}"\nweight = 1\n'
        for name in ("web/train.bin", "my.txt", "python-docs", "tinystories", "./tinystories", "~")
    ]
    monkeypatch.setenv("HOME", str(sources / "code"))
    found = [source.dataset for source in data.read_sources(write(sources, "".join(tables)))]
    assert found[2:4] == ["python-docs", "tinystories"]
    paths = [sources / "web/train.bin", sources / "my.txt", sources / "tinystories"]
    assert [found[i] for i in (0, 1)] == [str(path) for path in paths[:2]]
    assert (Path(found[4]), found[5]) == (paths[2], str(sources / "code"))
    assert all(data.resolve(dataset) == dataset for dataset in found)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", r"holds \[\[source\]\] tables and nothing else; found: -"),
        ("source = 3", r"holds \[\[source\]\] tables"),
        ("seed = 3\n" + GOOD, "found: seed"),
        ("[[source", "mix.toml: "),
        ('[[source]]\nweight = 1\n', 'has a dataset = "PATH", and one has None'),
        ('[[source]]\ndataset = "web"\n', "has either weight = W or weights"),
        (GOOD.replace("epochs", "passes"), "code has passes, and a source has"),
        (GOOD.replace("weights =", "weight = 1\nweights ="), "has either weight = W or"),
        (GOOD.replace("0.7", "-1"), "a weight of web is a number, at least 0"),
        (GOOD.replace("0.7", "nan"), "a weight of web is a number"),
        (GOOD.replace("0.7", "true"), "a weight of web is a number"),
        (GOOD.replace("[20, 0.5]", "[20]"), "a weight of code is a number"),
        (GOOD.replace("[20, 0.5]", "[9, 0.5]"), r"steps of the weights of code rise, .*\[10, 9\]"),
        (GOOD.replace("[20, 0.5]", "[1.5, 0.5]"), "a weight of code is a number"),
        (GOOD.replace("epochs = 2", "epochs = 0"), "epochs of code is a number above 0, not 0"),
        (GOOD.replace("epochs = 2", "epochs = 1e308"), "epochs of code is a number above 0"),
        (GOOD.replace("0.7", "1" * 400), "a weight of web is a number"),
        (GOOD.replace('"code"', '"web"'), "names the source web twice: add up the weights"),
        (GOOD.replace('"code"', '"cod"'), r"cod is no file or folder \(.*cod\), and none"),
        (GOOD.replace('"code"', '"mix.toml"'), "the source mix.toml is a mixture: name its"),
        pytest.param("# " + "x" * 2**20, "more than 1,048,576 bytes", id="long"),
        pytest.param("x = " + "[" * 5000, "mix.toml: ", id="deep"),
    ],
)  # fmt: skip
def test_a_mixture_that_cannot_be(sources, text, fault):
    with pytest.raises(ValueError, match=fault) as error:
        data.read_sources(write(sources, text))
    assert str(error.value).startswith(f"the mixture {sources / 'mix.toml'}: ")
    assert len(str(error.value)) < 500
