"""benchmarks/speedrun.py: what it measures, what it calls sure, and the records that it keeps."""

import dataclasses
import doctest
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import speedrun
from benchmarks.speedruns import records, runs, student
from benchmarks.speedruns.records import Record, differences, faults, read_records, write_record
from benchmarks.speedruns.runs import Recipe, Runs
from gpt.training.settings import Settings

ROOT = Path(__file__).parents[1]
TINY = "--preset shakespeare-char --max_iters 2 --warmup_iters 0 --eval_iters 1 --workers 1 "
TINY += "--n_layer 1 --n_head 1 --n_embd 8 "
SEEDS = [1001, 1002, 1003]


def runs_of(losses, seconds):
    return Runs(seconds=list(seconds), losses=list(losses), tokens=384_000)


START = Record(
    name="001-start",
    track="start",
    what='nanoGPT\'s "recipe"',
    date="2026-11-27",
    commit="b33ede3",
    arguments="--preset shakespeare-char",
    machine="2 cores",
    seeds=[1, 2, 3],
    own=runs_of([1.901, 1.912, 1.905], [80, 81, 82]),
    pytorch=runs_of([1.901, 1.911, 1.905], [100, 104, 99]),
)
FAST = dataclasses.replace(
    START,
    name="002-fast",
    track="speed",
    what="500 steps",
    own=runs_of([1.871, 1.868, 1.873], [30, 31, 30.5]),
    before=START.own,
)


# ---- the test over seeds ----


def test_docstrings():
    for module in (student, records, runs):
        assert doctest.testmod(module).failed == 0


def test_student_is_the_distribution_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for f in (1, 2, 3, 4, 5, 10, 29, 30):
        for t in (-40, -6.965, -1, -0.01, 0, 0.5, 3, 25):
            assert student.student(t, f) == pytest.approx(stats.t.cdf(t, f), rel=1e-9, abs=1e-15)
    for n in (2, 3, 7):
        x = np.random.default_rng(n).standard_normal(n) - 0.5
        expected = stats.ttest_1samp(x, 0, alternative="less").pvalue
        assert student.p_below_zero(x) == pytest.approx(expected, rel=1e-9)


def test_values_without_a_spread():
    assert math.isnan(student.p_below_zero([-1.0]))
    assert [student.p_below_zero([x, x]) for x in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]


# ---- the rules ----


def changed(record, **changes):
    """The record with other losses or seconds of its own."""
    return dataclasses.replace(record, own=dataclasses.replace(record.own, **changes))


def test_a_record_that_stands():
    assert faults(START) == faults(FAST) == differences(FAST, FAST) == []
    loss = dataclasses.replace(FAST, track="loss")
    assert faults(changed(loss, losses=[1.6, 1.61, 1.59])) == []


@pytest.mark.parametrize(
    "track, change, text",
    [
        ("speed", {"losses": [1.88, 1.9, 1.91]}, "1.8967, is not surely below 1.90: p 0.3"),
        ("speed", {"seconds": [79, 82, 81]}, "not surely better than the record before: p 0.3"),
        ("loss", {"seconds": [99, 107, 104]}, "takes 1.03 of the PyTorch script's time"),
        ("loss", {"losses": [1.9, 1.912, 1.9]}, "not surely better than the record before: p 0.1"),
    ],
)
def test_a_record_that_breaks_a_rule(track, change, text):
    (fault,) = faults(changed(dataclasses.replace(FAST, track=track), **change))
    assert text in fault


def test_one_seed_is_no_record():
    fast, slow = runs_of([1.8], [30]), runs_of([1.9], [80])
    found = faults(dataclasses.replace(FAST, seeds=[1], own=fast, before=slow, pytorch=slow))
    assert len(found) == 2 and all("p unknown" in text for text in found)


def test_a_run_that_does_not_confirm_a_record():
    (text,) = differences(FAST, changed(FAST, losses=[1.89, 1.88, 1.885]))
    assert text == "the mean loss is 1.8850, the record says 1.8707"
    (text,) = differences(FAST, changed(FAST, seconds=[35, 35.5, 36]))
    assert text.startswith("it takes 0.438 of the time of the record before")


def test_a_record_is_compared_with_the_last_of_its_track():
    loss = dataclasses.replace(FAST, name="003-loss", track="loss")
    assert records.rival_of([START, FAST, loss], "speed") is FAST
    assert records.rival_of([START, FAST], "loss") is START
    assert records.rival_of([], "speed") is records.rival_of([START], "start") is None


# ---- the files, and the page ----


def test_a_file_gives_the_record_that_was_written(tmp_path):
    for record in (START, FAST):
        write_record(record, tmp_path)
    assert read_records(tmp_path) == [START, FAST]
    assert write_record(START, tmp_path / "new" / "records").exists()
    assert "\n[own]\nseconds = [30, 31, 30.5]\n" in (tmp_path / "002-fast.toml").read_text()


@pytest.mark.parametrize(
    "old, new, text",
    [
        ('"speed"', '"slow"', "track is start or speed or loss, not 'slow'"),
        ('"speed"', '"start"', "every record has"),
        ('"b33ede3"', '"--output=x"', "commit is 7 to 40 hexadecimal digits"),
        ("[1, 2, 3]", "[1, 2]", "one number for each of the seeds"),
        ("[1, 2, 3]", '[1, 2, "3"]', "seeds are whole numbers"),
        ("30.5", "nan", "above 0"),
        ("30.5", '"30"', "not supported"),
        ("tokens", "wokens", "unexpected keyword"),
        ("date = ", "day = ", "unexpected keyword"),
        ('"500 steps"', '" "', "what is one line"),
        ("500 steps", "500 | steps", "what is one line of text without |"),
        ("500 steps", "500\\nsteps", "what is one line"),
        ("date = ", "date ", "Expected '='"),
        ("2026-11-27", "2026", "no record"),
    ],
)
def test_a_damaged_file_is_named(old, new, text, tmp_path):
    path = write_record(FAST, tmp_path)
    if new == "2026":
        path.write_text(path.read_text().replace('date = "2026-11-27"', "date = 2026"))
    else:
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"002-fast\.toml is no record") as caught:
        read_records(tmp_path)
    assert text in str(caught.value)


def test_the_page_has_the_tables_of_the_records():
    kept = read_records()
    assert records.tables(kept) in (ROOT / "docs" / "speedrun.md").read_text()
    assert [record.name[:4] for record in kept] == [f"{i:03}-" for i in range(1, len(kept) + 1)]
    assert {record.name: faults(record) for record in kept if faults(record)} == {}


def test_the_table_begins_with_pytorch():
    lines = records.table([START, FAST], "speed").splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        "PyTorch, nanoGPT's recipe",
        'nanoGPT\'s "recipe"',
        "500 steps",
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 100.0 | 1.000 | 1.9057 |" in lines[2] and "| 30.5 | 0.300 | 1.8707 |" in lines[4]
    assert len(records.table([START, FAST], "loss").splitlines()) == 4


# ---- what is measured ----


@pytest.fixture
def text(tmp_path):
    """A text whose characters repeat, so that both splits have all of them."""
    path = tmp_path / "text.txt"
    path.write_text("To be, or not to be, that is the question.\n" * 60)
    return str(path)


def test_the_whole_program(text, capfd):
    """Two seeds of a model with a context of 80, of which windows of 64 are measured."""
    arguments = [text, "--without_pytorch", "--seeds", "2", "--arguments", TINY + "--block_size 80"]
    assert speedrun.main(arguments) == 0
    out = capfd.readouterr().out
    assert "not under the rules of a record" in out and "is not tinyshakespeare" in out
    assert "compared with nothing" in out and "seed 1001" in out and "seed 1002" in out
    cells = out.strip().splitlines()[-1].split(" | ")
    assert cells[-2:] == ["1,920", "2 |"] and 2 < float(cells[3]) < 5 and float(cells[1]) > 0


def run_tiny(text, out, *more):
    command = [sys.executable, "train.py", *TINY.split(), "--dataset", text, "--out_dir", str(out)]
    subprocess.run([*command, *more], cwd=ROOT, check=True, capture_output=True)


def test_the_loss_of_a_run(text, tmp_path):
    """It is the one that train.py reports, and that of a run which breaks the rules is refused."""
    out = tmp_path / "out"
    run_tiny(text, out)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    expected = json.loads(lines[-1])["val_loss_full"]
    assert runs.whole_loss(out, text) == pytest.approx(expected, 1e-5)
    assert runs.tokens_seen(out) == 2 * 12 * 64
    settings = (out / "run.json").read_text()
    (out / "run.json").write_text(settings.replace('"scratch"', '"better"'))
    with pytest.raises(ValueError, match="random weights, not with --init_from better"):
        runs.whole_loss(out, text)
    (out / "run.json").write_text(settings)
    (out / "metrics.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="did not measure its loss"):
        runs.whole_loss(out, text)


@pytest.mark.parametrize(
    "tokenizer, message", [("bpe:260", "--tokenizer char"), ("char", "model's context of 16")]
)
def test_a_recipe_predicts_characters_in_windows_of_64(tokenizer, message, text, tmp_path):
    run_tiny(text, tmp_path / "out", "--tokenizer", tokenizer, "--block_size", "16")
    with pytest.raises(ValueError, match=message):
        runs.whole_loss(tmp_path / "out", text)


def test_pytorch_ends_where_ours_does(text, tmp_path):
    """The same weights, batches and updates give the same loss."""
    pytest.importorskip("torch")
    arguments = tuple(TINY.split())
    sides = [Recipe("ours", arguments), Recipe("PyTorch", arguments, runs.PYTORCH.program)]
    ours, pytorch = runs.rounds(sides, text, [1001])
    assert ours.losses == pytest.approx(pytorch.losses, abs=1e-4)
    assert ours.tokens == pytorch.tokens == 2 * 12 * 64


@pytest.mark.parametrize(
    "setting, value, only",
    [
        ("optimizer", "muon", "adamw"),
        ("tokenizer", "bpe:512", "char"),
        ("init_from", "auto", "scratch"),
    ],
)
def test_the_pytorch_script_refuses_what_it_has_not(setting, value, only, tmp_path):
    pytest.importorskip("torch")
    from benchmarks.nanogpt_pytorch import train_with_pytorch

    with pytest.raises(ValueError, match=f"the PyTorch script has --{setting} {only} only"):
        train_with_pytorch(Settings(**{setting: value}, out_dir=str(tmp_path / "out")))


def run_elsewhere(name, *arguments, folder):
    """Run a program of benchmarks/ in another folder, with no path to the project."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["end_to_end", "muon", "speedrun"])
def test_a_program_starts_in_any_folder(name, tmp_path):
    done = run_elsewhere(name, "--help", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_the_pytorch_script_starts_in_any_folder(tmp_path):
    pytest.importorskip("torch")
    arguments = ["--optimizer", "muon", "--dataset", "x"]
    done = run_elsewhere("nanogpt_pytorch", *arguments, folder=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "has --optimizer adamw only" in line


# ---- records that are made and run again ----


@pytest.fixture
def shakespeare(text, tmp_path, monkeypatch):
    """A place where the small text counts as tinyshakespeare, with a start and two entries."""
    monkeypatch.setattr(speedrun, "broken_rules", lambda options: [])
    monkeypatch.setattr(speedrun.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(speedrun, "machine", lambda: "2 cores")
    monkeypatch.setattr(speedrun, "git", lambda *words: "b33ede3" if words[0] != "status" else "")
    monkeypatch.setattr(speedrun, "files_of", lambda commit, folder: folder / commit)
    kept = tmp_path / "records"
    kept.mkdir()
    monkeypatch.setattr(speedrun, "read_records", lambda: read_records(kept))
    monkeypatch.setattr(speedrun, "write_record", lambda record: write_record(record, kept))
    write_record(START, kept)
    for track in ("speed", "loss"):
        entry = f'track = "{track}"\nwhat = "a change"\narguments = "--max_iters 500"\n'
        (tmp_path / f"{track}.toml").write_text(entry)
    return text


def give(monkeypatch, *given):
    """Let the rounds give these runs, and PyTorch's at the end; returns the recipes."""
    asked = []

    def rounds(recipes, text, seeds, device):
        assert len(recipes) == len(given) + 1 and list(seeds) in ([1, 2, 3], [1001, 1002, 1003])
        asked.extend(recipes)
        return [*given, FAST.pytorch]

    monkeypatch.setattr(speedrun, "rounds", rounds)
    return asked


def test_a_new_record(shakespeare, tmp_path, monkeypatch, capsys):
    asked = give(monkeypatch, FAST.own, FAST.before)
    assert speedrun.main([shakespeare, "--record", str(tmp_path / "speed.toml")]) == 0
    assert [r.name for r in asked] == ["--max_iters 500", "001-start", "PyTorch, nanoGPT's recipe"]
    assert asked[1].tree.name == "b33ede3" and asked[0].tree == ROOT
    new = read_records(tmp_path / "records")[1]
    assert (new.name, new.track, new.what, new.seeds) == ("002-speed", "speed", "a change", SEEDS)
    assert (new.own, new.before, new.pytorch) == (FAST.own, FAST.before, FAST.pytorch)
    assert "002-speed.toml" in capsys.readouterr().out


def test_several_records_share_their_rounds(shakespeare, tmp_path, monkeypatch):
    (tmp_path / "more.toml").write_text((tmp_path / "speed.toml").read_text())
    files = [str(tmp_path / f"{name}.toml") for name in ("speed", "loss", "more")]
    faster = runs_of(FAST.own.losses, [20, 21, 20.5])
    give(monkeypatch, FAST.own, FAST.own, faster, START.own)
    assert speedrun.main([shakespeare, "--record", *files]) == 0
    speed, loss, more = read_records(tmp_path / "records")[1:]
    assert [r.name for r in (speed, loss, more)] == ["002-speed", "003-loss", "004-more"]
    assert speed.before == loss.before == START.own and more.before == FAST.own


def test_no_record_is_written_of_what_breaks_a_rule(shakespeare, tmp_path, monkeypatch, capsys):
    give(monkeypatch, START.own, FAST.own, FAST.before)
    files = [str(tmp_path / "speed.toml"), str(tmp_path / "loss.toml")]
    assert speedrun.main([shakespeare, "--record", *files]) == 1
    assert "002-speed is no record: the mean loss, 1.9060" in capsys.readouterr().out
    assert len(read_records(tmp_path / "records")) == 1


def test_a_check_passes_or_fails(shakespeare, tmp_path, monkeypatch, capsys):
    write_record(FAST, tmp_path / "records")
    asked = give(monkeypatch, FAST.own, FAST.before)
    assert speedrun.main([shakespeare, "--check", "002"]) == 0
    assert [recipe.tree.name for recipe in asked[:2]] == ["b33ede3", "b33ede3"]
    assert capsys.readouterr().out.endswith("002-fast passes\n")
    asked = give(monkeypatch, START.own, FAST.before)
    assert speedrun.main([shakespeare, "--check", "002", "--present_code"]) == 1
    assert {recipe.tree for recipe in asked} == {ROOT}
    assert "002-fast fails: the mean loss, 1.9060" in capsys.readouterr().out
    give(monkeypatch, START.own)
    assert speedrun.main([shakespeare, "--check", "001"]) == 0


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--check", "009"], "there is no record 009"),
        (["--record", "no.toml"], "no.toml"),
        (["--check", "001", "--without_pytorch"], "in turns with PyTorch's script"),
        (["--arguments", "--muon_lr 0"], "--muon_lr is above 0"),
    ],
)
def test_mistakes_are_one_line(arguments, text, shakespeare, capsys, monkeypatch):
    if "--without_pytorch" in arguments:
        monkeypatch.undo()
    assert speedrun.main([shakespeare, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("speedrun.py: error: ") and text in line


def test_a_text_or_a_machine_that_breaks_the_rules(text, capsys, monkeypatch):
    monkeypatch.setattr(speedrun.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(speedrun, "physical_cores", lambda: 8)
    assert speedrun.main([text, "--record", "x.toml"]) == 2
    assert "there are 8 cores here, not 2" in capsys.readouterr().err
    monkeypatch.setattr(speedrun.importlib.util, "find_spec", lambda name: None)
    assert speedrun.main([text]) == 2
    assert "--without_pytorch" in capsys.readouterr().err
    assert speedrun.main([text + "x", "--without_pytorch", "--arguments", TINY]) == 2
    assert "no dataset" in capsys.readouterr().err


def test_the_files_of_a_commit(tmp_path):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("this copy has no history")
    tree = runs.files_of(head.stdout.strip(), tmp_path / "tree")
    assert (tree / "train.py").exists() and not (tree / ".git").exists()
    assert any((tree / "gpt" / "__pycache__").glob("model.*.pyc"))
    with pytest.raises(ValueError, match="does not have the commit 0000000"):
        runs.files_of("0000000", tmp_path / "none")
