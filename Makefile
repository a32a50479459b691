# make demo   train, export, build and prove the demo on an emulated board; leaves runs/demo
# make test   formatting, types, all tests
# make bench  reprint the figures of benchmarks/
BOARD ?= qemu-an386
RUN   ?= runs/demo
PY    := .venv/bin/python

# The recordings of examples/wakewords, if they are here; else a demo on synthesized voices.
DATA    ?= $(or $(QUADS_SHARED_DATA),../shared/data)
PROJECT ?= $(if $(wildcard $(DATA)/wakewords/manifest.csv),examples/wakewords,examples/commands)

.PHONY: setup demo test test-fast bench bench-tflite lint format clean
setup:
	@bash .ci/setup

demo: setup
	$(PY) -m quads_mcu.cli run --project $(PROJECT) --run $(RUN) --target $(BOARD)

test: lint
	$(PY) -m pytest -q tests

test-fast: setup
	$(PY) -m pytest -q -m "not slow" tests

bench: demo
	OMP_NUM_THREADS=2 $(PY) benchmarks/host.py $(RUN)
	$(MAKE) bench-tflite

# All of the demo; of the large model, where it was trained, some utterances.
bench-tflite: setup
	OMP_NUM_THREADS=2 $(PY) benchmarks/tflite.py $(RUN)
	if [ -f runs/s2i/model.safetensors ]; then OMP_NUM_THREADS=2 $(PY) benchmarks/tflite.py runs/s2i 24; fi

lint: setup
	.venv/bin/ruff format --check quads_mcu hil_tests tests benchmarks
	.venv/bin/ruff check quads_mcu hil_tests tests benchmarks
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $(shell git ls-files '*.c' '*.h')

format: setup
	.venv/bin/ruff format quads_mcu hil_tests tests benchmarks
	.venv/bin/ruff check --fix quads_mcu hil_tests tests benchmarks
	.venv/bin/clang-format -i $(shell git ls-files '*.c' '*.h')

clean:
	rm -rf runs build dist .mypy_cache .ruff_cache .pytest_cache
