# make train   set up and train the demo; a second call says that it is done and samples
# make sample  more text from it
# make test    set up and run all tests
# make lint    style

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train sample test lint clean

train: $(VENV)/train
	$(BIN)/python train.py --init_from auto
	@echo
	$(BIN)/python sample.py --max_new_tokens 200 --seed $$(date +%s)

sample: $(VENV)/train
	$(BIN)/python sample.py --seed $$(date +%s)

test: $(VENV)/test
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --exclude '*.md' .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	    "Python 3.11 or newer is needed; make PYTHON=... names another one")'
	$(PYTHON) -m venv $(VENV)

# Each set of extras once, and again when pyproject.toml has changed.
$(VENV)/train: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plot,mpi]'
	@touch $@

$(VENV)/test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plot,test,mpi]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
