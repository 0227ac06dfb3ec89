# make setup   .venv with the botkeep command in it       make demo   the main job, on a fresh machine
# make test    everything CI checks                       make bench  the figures, as ratios in one run
# make bots    the same with a real freqtrade, installed in .venv-bots, on an exchange of this machine
# make matrix  every fault on every engine, as a table of what came of it
# make hosts   wakes by Claude Code, Codex and OpenClaw, installed in .hosts, with a stand-in for the model
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
JOBS ?= 4
BOTS := .venv-bots
BOTS_STAMP := $(BOTS)/.ready
BOTS_JOBS ?= 2
SAID := $(BOTS)/transcripts
HOSTS := .hosts
HOSTS_STAMP := $(HOSTS)/.ready
CELLS := .venv/matrix
COMPILE := $(BIN)/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --no-header --annotation-style line

.PHONY: setup demo test lint types docs unit wheel bench lock incident-docs report-docs bots bots-docs matrix matrix-docs hosts clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "botkeep needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q tools/botkeep
	touch $(STAMP)

demo: setup
	$(BIN)/botkeep demo

test: lint types docs unit wheel

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/botkeep docs --check

unit: setup
	$(BIN)/pytest -n $(JOBS) --dist worksteal tests

wheel: setup
	$(BIN)/python tests/wheel.py

bench: setup
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# docs/incident.md: one incident happens, and is written down. Takes about a minute.
incident-docs: setup
	PYTHONPATH=tests $(BIN)/python tests/support/incident.py docs/incident.md

# docs/report-*.png: a week of real bots in fast time, its report in a real browser (Chromium). Takes two to six minutes.
report-docs: setup
	PYTHONPATH=tests $(BIN)/python tests/support/report_docs.py docs

# The real bots, which botkeep keeps and does not import: a virtual environment of their own. Nothing is skipped here.
$(BOTS_STAMP): requirements-bots.txt
	$(PYTHON) -m venv $(BOTS)
	$(BOTS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bots.txt
	touch $(BOTS_STAMP)

bots: setup $(BOTS_STAMP)
	rm -rf $(SAID)
	mkdir $(SAID)
	CI=true BOTKEEP_TRANSCRIPTS=$(CURDIR)/$(SAID) $(BIN)/pytest -n $(BOTS_JOBS) --durations=0 tests/bots

# What botkeep said in that run, put into docs/bots.md.
bots-docs: bots
	$(BIN)/python tests/bots/transcripts.py $(SAID) docs/bots.md

# Each cell is a test of `make test` too; here they are printed as well, those that failed and were not run by name.
matrix: setup
	rm -rf $(CELLS)
	mkdir $(CELLS)
	BOTKEEP_MATRIX=$(CURDIR)/$(CELLS) $(BIN)/pytest -n $(JOBS) --dist worksteal tests/matrix; \
	ran=$$?; $(BIN)/python tests/matrix/table.py $(CELLS) && exit $$ran

# That table, put into docs/engines.md.
matrix-docs: matrix
	$(BIN)/python tests/matrix/table.py $(CELLS) docs/engines.md

# The real hosts of assistants. Needs npm; OpenClaw's Node comes with it. Nothing is skipped here, and no model is asked.
$(HOSTS_STAMP): tests/hosts/package.json
	mkdir -p $(HOSTS)
	cp tests/hosts/package.json $(HOSTS)
	cd $(HOSTS) && npm install --silent --no-audit --no-fund --ignore-scripts
	cd $(HOSTS)/node_modules/@anthropic-ai/claude-code && node install.cjs
	touch $(HOSTS_STAMP)

hosts: setup $(HOSTS_STAMP)
	CI=true BOTKEEP_HOSTS=$(abspath $(HOSTS)) $(BIN)/pytest -n 1 --durations=0 tests/hosts

lock: setup
	$(COMPILE) -o requirements.txt requirements.in
	$(COMPILE) -o requirements-dev.txt requirements-dev.in
	$(COMPILE) -o requirements-bots.txt requirements-bots.in

clean:
	rm -rf .venv $(BOTS) $(HOSTS) dist build .mypy_cache .ruff_cache .pytest_cache
