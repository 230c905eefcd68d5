# make quickstart | test | fuzz | check | wheel | docs | bench; the first call builds .venv by constraints.txt
PYTHON ?= python3
UV     := $(or $(shell command -v uv 2>/dev/null),.venv/bin/uv)
BIN    := .venv/bin
READY  := .venv/.ready

# Bytecode is kept even where the surroundings say otherwise, and in .venv alone: without it every process would read
# torch's sources anew, which takes seconds.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

.PHONY: help quickstart test fuzz check wheel docs bench bench-block bench-scenes clean
help:
	@sed -n 1p Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "srblock needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) -V); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
	test -x "$(UV)" || $(BIN)/python -m pip install -q --disable-pip-version-check uv
	"$(UV)" pip install -q -p $(BIN)/python -c constraints.txt -e ".[experiments,cluster,export,hub,dev]"
	touch $@

quickstart: $(READY)
	$(BIN)/srblock compare R8 "R8 + SR(M=2, P=8)" --data digits --image-size 16 --seeds 3

# Two workers, one thread each: most tests are too small to feed two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# make fuzz N=1000: damaged files of every kind; make test tries some seconds' worth
fuzz: $(READY)
	OMP_NUM_THREADS=1 SRBLOCK_FUZZ=$(or $(N),2000) $(BIN)/python -m pytest -n 2 --dist worksteal tests/fuzz $(ARGS)

# make bench DATA=cifar100:PATH
bench: $(READY)
	$(BIN)/python benchmarks/train_speed.py --data $(or $(DATA),cifar100) --steps 40 --rounds 7 --engines eager,compile
	$(BIN)/python benchmarks/train_speed.py --data $(or $(DATA),cifar100) --network Airbench94 --recipe airbench \
	  --batch-size 512 --steps 6 --rounds 5 --engines eager,compile --skip-compare
	$(BIN)/python benchmarks/freed_memory.py --data $(or $(DATA),cifar100) --rounds 5 --images 2048
	$(BIN)/python benchmarks/equal_networks.py
	$(BIN)/python benchmarks/analyze_speed.py --data $(or $(DATA),cifar100) --rounds 5
	$(BIN)/python benchmarks/policies.py

# The block by itself and in whole networks, then the docs' tables of it: some hours of a quiet machine
bench-block: $(READY)
	$(BIN)/python benchmarks/block_ways.py
	$(BIN)/python benchmarks/block.py --engines eager,compile
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/fold.py --rounds 15
	$(BIN)/python benchmarks/tables.py

# make bench-scenes DATA=camvid:PATH
bench-scenes: $(READY)
	$(BIN)/python benchmarks/segmentation.py --data $(or $(DATA),camvid:camvid) --rounds 7

# The wheel with each extra, in fresh environments from a package registry; UV_PYTHON=3.13 takes another Python.
wheel: $(READY)
	SRBLOCK_UV="$$(realpath "$(UV)")" $(BIN)/python -m pytest tests/test_wheel.py $(ARGS)

# The pages, to out/docs/docs/index.html; a link that leads nowhere is an error. The theme is installed when first wanted.
docs: $(READY)
	"$(UV)" pip install -q -p $(BIN)/python -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -E -c docs . out/docs

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv out .pytest_cache .ruff_cache .mypy_cache .hypothesis
