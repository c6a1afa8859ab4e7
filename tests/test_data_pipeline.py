"""Steps of the pipeline of documents: done once, resumed, divided, and never half-written."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt.commandline import option
from gpt.data.__main__ import main, part
from gpt.data.pipeline import (
    Document,
    Step,
    Tally,
    Unit,
    read_documents,
    run,
    shards_in,
    write_shards,
)
from gpt.data.pipeline.document import parse
from gpt.data.pipeline.recipe import make_step, read_recipe
from gpt.data.pipeline.shards import read_shard
from gpt.data.pipeline.steps import dealt, totals
from tensorlite import parallel
from tokenizer import BPETokenizer
from tokenizer.files import atomic_file

from .test_parallel import mpirun
from .test_train import ENVIRONMENT

ROOT = Path(__file__).parents[1]
TEXTS = ["one", "two\n2", "trois \u00e9t\u00e9", "\u0001\u200b{}\udcff", "six"]


class Texts(Step):
    """A step that reads nothing: each of its inputs is the text of a unit's documents."""

    name = "texts"

    @dataclass
    class Settings:
        times: int = option(2, "documents of each text")

    def units(self, inputs):
        return [Unit(f"{i:05}", text, len(text), text) for i, text in enumerate(inputs)]

    def documents(self, unit, tally):
        for i in range(self.settings.times):
            yield Document(unit.source, f"{unit.name}#{i}")


class Upper(Step):
    """A step of two passes, which counts what it did: longest texts go, the others are raised."""

    name = "upper"

    @dataclass
    class Settings:
        tries: bool = option(False, "unused")

    calls = 0
    fails_at = None

    def scan(self, units, work):
        def longest(unit, path):
            Upper.calls += 1
            with atomic_file(path) as file:
                file.write(str(max(len(d.text) for d in read_shard(unit.source))).encode())

        self.most = max(int(path.read_text()) for path in work.map("longest", units, longest))

    def documents(self, unit, tally):
        Upper.calls += 1
        for document in read_shard(unit.source):
            if unit.name == self.fails_at:
                raise OSError(28, "No space left on device")
            if len(document.text) == self.most:
                tally.removed("longest", document)
            else:
                tally.changed("raised", document)
                yield dataclasses.replace(document, text=document.text.upper())


@pytest.fixture
def folder(tmp_path):
    run(Texts(Texts.Settings()), TEXTS, tmp_path / "texts")
    Upper.calls, Upper.fails_at = 0, None
    return tmp_path / "texts"


def step():
    return Upper(Upper.Settings())


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and p.suffix}


def test_documents_come_back_as_they_were_written(folder):
    found = [(d.text, d.source) for d in read_documents(folder)]
    assert found == [(t, f"{i:05}#{j}") for i, t in enumerate(TEXTS) for j in range(2)]


def test_a_step_that_is_complete_is_not_done_again(folder, tmp_path):
    run(step(), [str(folder)], tmp_path / "out")
    once, before = Upper.calls, content(tmp_path / "out")
    run(step(), [str(folder)], tmp_path / "out")
    assert once == 2 * len(TEXTS) == Upper.calls and content(tmp_path / "out") == before


def test_other_settings_do_it_again(folder, tmp_path):
    run(step(), [str(folder)], tmp_path / "out")
    run(Upper(Upper.Settings(tries=True)), [str(folder)], tmp_path / "out")
    assert Upper.calls == 4 * len(TEXTS)


def test_another_version_of_a_library_does_it_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Upper, "libraries", "regex none-of-this-name")
    first = run(step(), [str(folder)], tmp_path / "out")["libraries"]
    assert first.keys() == {"regex", "zstandard"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    second = run(step(), [str(folder)], tmp_path / "out")["libraries"]
    assert second["regex"] == "1.2.3" and Upper.calls == 4 * len(TEXTS)


def test_another_input_alone_is_done_again(folder, tmp_path):
    texts = Texts(Texts.Settings())
    before = content(folder)
    run(texts, [*TEXTS[:2], "changed", *TEXTS[3:]], folder)
    after = content(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"00002.jsonl.zst", "00002.json", "manifest.json"}
    run(texts, TEXTS[:2], folder)
    assert set(content(folder)) == {
        *(f"{i:05}{s}" for i in range(2) for s in (".json", ".jsonl.zst")),
        "manifest.json",
    }


def test_a_step_that_failed_goes_on_where_it_was(folder, tmp_path):
    run(step(), [str(folder)], tmp_path / "whole")
    Upper.calls, Upper.fails_at = 0, "00003"
    with pytest.raises(OSError, match="No space left"):
        run(step(), [str(folder)], tmp_path / "out")
    left = content(tmp_path / "out")
    assert "00003.jsonl.zst" not in left and "manifest.json" not in left and len(left) == 6
    assert not [name for name in left if name.endswith(".tmp")]
    Upper.fails_at, before = None, Upper.calls
    run(step(), [str(folder)], tmp_path / "out")
    assert Upper.calls - before == 2
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_parts_give_the_same_bytes_as_the_whole(folder, tmp_path):
    run(step(), [str(folder)], tmp_path / "whole")
    inputs, out = [str(folder)], tmp_path / "out"
    for i in range(2):
        with pytest.raises(RuntimeError, match="run the same command for each part again"):
            run(step(), inputs, out, part=(i, 3))
    assert run(step(), inputs, out, part=(2, 3)) is None
    assert run(step(), inputs, out, part=(0, 3)) is None
    assert run(step(), inputs, out, part=(1, 3))["step"] == "upper"
    assert content(out) == content(tmp_path / "whole")


def test_a_part_that_waits_for_others_ends_well(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gpt.data.__main__.make_step", lambda name, settings: step())
    command = ["clean", str(folder), "--out", str(tmp_path / "out"), "--workers", "1", "--shard"]
    said = []
    for part_of_two in ("0/2", "1/2", "0/2"):
        assert main([*command, part_of_two]) == 0
        said.append(capsys.readouterr().out)
    assert "of the pass 'longest', 2 of 5 tasks of other parts are missing" in said[0]
    assert said[1].startswith("this part is done: the last of the other parts completes")
    assert "8 documents" in said[2] and (tmp_path / "out" / "manifest.json").exists()


def test_the_tally_counts_and_keeps_examples(folder, tmp_path):
    run(step(), [str(folder)], tmp_path / "out")
    manifest, tally = totals(tmp_path / "out")
    assert tally.removed_counts == {"longest": 2} and tally.changed_counts == {"raised": 8}
    assert len(tally.examples["raised"]) == 8 and len(tally.examples["longest"]) == 2
    assert sum(shard["documents"] for shard in manifest["shards"]) == 8


def test_examples_do_not_depend_on_the_order():
    documents = [Document(f"text {i}", str(i)) for i in range(50)]
    forth, back, both = Tally(), Tally(), Tally()
    for document in documents:
        forth.removed("rule", document)
    for document in reversed(documents):
        back.removed("rule", document)
    both.add(forth.as_json())
    both.add(back.as_json())
    assert forth.as_json() == back.as_json() and len(forth.examples["rule"]) == 10
    assert both.removed_counts["rule"] == 100


def test_every_unit_is_dealt_once_and_evenly():
    units = [Unit(f"{i:05}", "", weight, None) for i, weight in enumerate([9, 1, 1, 1, 5, 4, 3])]
    hands = dealt(units, 3)
    assert sorted(u.name for hand in hands for u in hand) == [u.name for u in units]
    assert max(sum(u.weight for u in hand) for hand in hands) <= 9


def test_a_lost_shard_is_named(folder, tmp_path):
    (folder / "00001.jsonl.zst").unlink()
    with pytest.raises(FileNotFoundError, match="00001.jsonl.zst is gone"):
        run(step(), [str(folder)], tmp_path / "out")
    run(Texts(Texts.Settings()), TEXTS, folder)  # which makes it anew
    run(step(), [str(folder)], tmp_path / "out")


def test_a_shard_that_another_took_the_place_of_is_refused(folder, tmp_path):
    write_shards(folder / "00001", [Document("other", "x"), Document("texts", "x")])
    with pytest.raises(ValueError, match="not the shard that its manifest knows"):
        run(step(), [str(folder)], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("damage", [b"no zstandard", b""])
def test_a_damaged_shard_is_refused(damage, folder):
    (folder / "00002.jsonl.zst").write_bytes(damage)
    with pytest.raises(ValueError, match="00002.jsonl.zst is (damaged|not the shard)"):
        list(read_documents(folder))


def test_a_shard_that_is_cut_off_is_refused(folder):
    path = folder / "00002.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="00002.jsonl.zst is (damaged|not the shard)"):
        list(read_documents(folder))


def test_a_long_line_is_refused(folder, monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.shards.MAX_LINE", 20)
    with pytest.raises(ValueError, match="line 1 of .* is cut off, or longer than 20 bytes"):
        list(read_documents(folder))


@pytest.mark.parametrize("line", [b"{", b"[" * 100_000, b"[1]", b'{"text": 1}', b'{"text": "a"}'])
def test_a_wrong_line_is_refused(line):
    with pytest.raises(ValueError, match="^line 7 of x"):
        parse(line, "line 7 of x")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"shards": 1}', '{"shards": [{"name": "../x"}]}']
)
def test_a_damaged_manifest_is_refused(text, folder):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        shards_in(folder)


def test_a_folder_of_other_files_is_not_read(folder):
    (folder / "manifest.json").write_text('{"shards": [{"name": "00000", "files": {}}]}')
    with pytest.raises(ValueError, match="no folder of documents"):
        shards_in(folder)


def test_a_folder_without_a_manifest_is_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="the step that makes .* has not ended"):
        shards_in(tmp_path)


def test_two_runs_in_one_folder(folder, tmp_path):
    class Inner(Upper):
        def documents(self, unit, tally):
            run(step(), [str(folder)], tmp_path / "out")
            yield from ()

    with pytest.raises(ValueError, match="another run works in"):
        run(Inner(Upper.Settings()), [str(folder)], tmp_path / "out")


def test_a_folder_is_not_read_and_written(folder):
    for out in (folder, folder / "inside"):
        with pytest.raises(ValueError, match="both read and written"):
            run(step(), [str(folder)], out)
    page = folder / "2020.jsonl"
    page.write_text('{"text": "a"}')
    with pytest.raises(ValueError, match="both read and written"):
        run(make_step("extract", {}), [str(page)], folder)


def test_files_of_others_stay_where_they_are(folder):
    (folder / "2019-notes.json").write_text("[1]")
    (folder / "2019.jsonl.zst").write_text("notes")
    run(Texts(Texts.Settings()), TEXTS[:2], folder)
    assert {"2019-notes.json", "2019.jsonl.zst"} < content(folder).keys()
    assert "00004.jsonl.zst" not in content(folder)


def test_a_damaged_shard_that_is_deleted_is_made_again(folder, tmp_path):
    before = content(folder)
    (folder / "00001.jsonl.zst").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="delete it and run"):
        list(read_documents(folder))
    (folder / "00001.jsonl.zst").unlink()
    run(Texts(Texts.Settings()), TEXTS, folder)
    assert content(folder) == before


def test_a_whole_run_and_a_part_are_not_in_one_folder(folder, tmp_path):
    class Inner(Upper):
        def documents(self, unit, tally):
            run(step(), [str(folder)], tmp_path / "out", part=(0, 2))
            yield from ()

    with pytest.raises(ValueError, match="another run works in"):
        run(Inner(Upper.Settings()), [str(folder)], tmp_path / "out")


def test_parts_of_different_numbers_of_ranks_do_each_unit_once():
    units = [Unit(f"{i:05}", "", 1, None) for i in range(16)]
    sizes = {0: 4, 1: 2, 2: 1}
    done = [u.name for i in sizes for hand in dealt(dealt(units, 3)[i], sizes[i]) for u in hand]
    assert sorted(done) == [unit.name for unit in units]


def test_the_number_of_a_part():
    assert part("3/64") == (3, 64)
    for text in ("", "3", "3/3", "-1/3", "a/b"):
        with pytest.raises(Exception, match="is I/N"):
            part(text)


def error_of(capsys, *argv) -> str:
    try:
        status = main(list(argv))
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status == 2 and err.count("\n") == 1 and err.startswith("gpt.data"), err
    return err


def test_faults_of_the_command_line(capsys):
    assert "STEP is extract" in error_of(capsys, "extrct")
    assert "required: INPUT" in error_of(capsys, "split", "--out", "x")
    assert "--shard" in error_of(capsys, "split", "a", "--out", "b", "--shard", "4/3")
    assert "there is no" in error_of(capsys, "split", "a", "--out", "b", "--workers", "1")
    assert "--workers 0" in error_of(capsys, "split", "a", "--out", "b", "--workers", "0")
    assert "there is no file" in error_of(capsys, "pipeline", "none.toml", "--workers", "1")


@pytest.mark.parametrize(
    "text, message",
    [
        ("out = ", "is not TOML"),
        ('inputs = ["a"]\n[split]', "name the folder of its results"),
        ('out = "o"\n[split]', "name what is read"),
        ('out = "o"\ninputs = ["a"]', "names no step"),
        ('out = "o"\ninputs = ["a"]\nsplit = 1', "has inputs, out and tables"),
        ('out = "o"\ninputs = ["a"]\n[splat]', "there is no step 'splat'"),
        ('out = "o"\ninputs = ["a"]\n[split]\nnone = 1', "split has no setting 'none'"),
    ],
)
def test_faults_of_a_recipe(text, message, tmp_path):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(tmp_path / "p.toml")


def test_a_setting_of_another_type():
    with pytest.raises(ValueError, match="the setting val_fraction of split is 'much'"):
        make_step("split", {"val_fraction": "much"})


def test_the_help_names_all_steps(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("extract", "clean", "pipeline", "stats"))


# ---- the whole pipeline, killed and divided ------------------------------------------------------


def made(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths, but for the hidden ones."""
    found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    hidden = [name for name in found if any(part.startswith(".") for part in Path(name).parts)]
    return {name: path.read_bytes() for name, path in found.items() if name not in hidden}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A function that writes the recipe of a small corpus: the name of its result -> the file."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "pages").mkdir()
    for i in range(40):
        words = [f"word{(i * j) % 97}" for j in range(60)]
        text = f"Page {i} has a text of its own. " + " ".join(words) + ".\n\n"
        (folder / "pages" / f"{i:02}.txt").write_text(text * (1 + i % 3))
    (folder / "pages" / "copy.txt").write_text((folder / "pages" / "05.txt").read_text())
    BPETokenizer.train("word page text " * 9, 266, special_tokens=["<|endoftext|>"]).save(
        folder / "vocabulary"
    )

    def write(out: str) -> Path:
        path = folder / f"{out}.toml"
        path.write_text(
            f'out = "{out}"\ninputs = ["pages"]\n[extract]\nshard_mb = 0.005\n[clean]\n'
            "[filter]\ngopher = false\nrepetition = false\nfineweb = false\nc4 = false\n"
            f'[dedup]\n[split]\nval_fraction = 0.2\n[tokenize]\ntokenizer = "vocabulary"\n'
        )
        return path

    return write


@pytest.fixture(scope="module")
def whole(recipe):
    """The result of one process that nobody stopped."""
    path = recipe("whole")
    assert main(["pipeline", str(path), "--workers", "1"]) == 0
    return made(path.with_suffix(""))


def test_the_whole_pipeline(whole):
    steps = {name.split("/")[0] for name in whole}
    assert steps == {"extract", "clean", "filter", "dedup", "split", "tokenize"}
    assert sum(name.startswith("extract/") for name in whole) > 10
    tally = json.loads(whole["dedup/manifest.json"])["shards"]
    assert sum(shard["tally"]["removed"].get("exact copy", 0) for shard in tally) == 1
    assert {"tokenize/train-00000.bin", "tokenize/tokens.json"} <= whole.keys()


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_gives_the_same_bytes(ranks, recipe, whole):
    pytest.importorskip("mpi4py")
    if parallel.mpiexec() is None:
        pytest.skip("there is no mpiexec")
    path = recipe(f"ranks-{ranks}")
    done = mpirun(ranks, "-m", "gpt.data", "pipeline", path)
    assert done.returncode == 0, done.stderr
    assert made(path.with_suffix("")) == whole


def test_parts_that_run_at_the_same_time_until_the_folder_is_complete(recipe, whole):
    """As docs/data.md says it for Slurm, Ray and Spark: each part ends with the status 0."""
    corpus = recipe("whole").with_suffix("")
    out = corpus.with_name("parts") / "clean"
    command = [sys.executable, "-m", "gpt.data", "clean", str(corpus / "extract"), "--workers", "1"]
    command += ["--out", str(out), "--shard"]
    for _ in range(2):  # the passes of clean
        parts = [
            subprocess.Popen([*command, f"{i}/2"], cwd=ROOT, env=ENVIRONMENT) for i in range(2)
        ]
        assert [part.wait() for part in parts] == [0, 0]
        if (out / "manifest.json").exists():
            break
    expected = {name: x for name, x in whole.items() if name.startswith("clean/")}
    assert made(out.parent) == expected


@pytest.mark.parametrize("step", ["extract", "dedup", "tokenize"])
def test_a_run_that_was_killed_goes_on(step, recipe, whole):
    """Killed when the step has made three shards, and resumed: the same bytes."""
    path = recipe(f"killed-{step}")
    folder = path.with_suffix("") / step
    command = [sys.executable, "-m", "gpt.data", "pipeline", str(path), "--workers", "1"]
    child = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while child.poll() is None and len(list(folder.glob("0*.json"))) < 3:
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("0*.json")}
    assert main(["pipeline", str(path), "--workers", "1"]) == 0
    after = {name: (folder / name).stat().st_mtime_ns for name in before}
    assert after == before  # what was done is not done again
    assert made(path.with_suffix("")) == whole
