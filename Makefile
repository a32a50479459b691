# make demo   train, export, build and prove the demo on an emulated board; leaves runs/demo
# make test   formatting, types, all tests
# make test-xtensa  the same C on an emulated Xtensa core
# make sizes  measure what firmware takes without its model; after every change of firmware/
# make bench  all benchmarks: bench-device (KEEP=1 keeps its figures), bench-host, bench-tflite,
#             bench-training
# make listen an hour of commands, other speech and noise streamed into the listening firmware
# make costs  count kernels on the emulated cores and fit the cost model of `analyze` again
BOARD ?= qemu-an386
RUN   ?= runs/demo
PY    := .venv/bin/python

# The recordings of examples/wakewords, if they are here; else a demo on synthesized voices.
DATA    ?= $(or $(QUADS_SHARED_DATA),../shared/data)
PROJECT ?= $(if $(wildcard $(DATA)/wakewords/manifest.csv),examples/wakewords,examples/commands)

.PHONY: setup demo test test-fast test-xtensa sizes bench bench-device bench-host bench-tflite bench-training
.PHONY: costs listen lint format clean
setup:
	@bash .ci/setup

demo: setup
	$(PY) -m quads_mcu.cli run --project $(PROJECT) --run $(RUN) --target $(BOARD)

# Two processes of one thread each: a file's tests stay together, for they share what they build.
# In the order of tests/conftest.py: else the file of the longest tests comes last, and one waits.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -rs -n 2 --dist loadfile --no-loadscope-reorder tests

test-fast: setup
	$(PY) -m pytest -q -m "not slow" tests

bench: bench-device bench-host bench-tflite bench-training

bench-device: setup
	$(PY) benchmarks/device.py $(if $(KEEP),--keep)

bench-host: demo
	OMP_NUM_THREADS=2 $(PY) benchmarks/host.py $(RUN)
	OMP_NUM_THREADS=2 $(PY) -m benchmarks.exporting

# All of the demo; of a large model some utterances: runs/s2i if it was trained, else a fitted one.
LARGE := $(if $(wildcard runs/s2i/model.safetensors),runs/s2i,runs/paper-size)
bench-tflite: demo
	OMP_NUM_THREADS=2 $(PY) benchmarks/tflite.py $(RUN)
	[ $(LARGE) = runs/s2i ] || $(PY) -m benchmarks.paper_size $(LARGE)
	OMP_NUM_THREADS=2 $(PY) benchmarks/tflite.py $(LARGE) 24

bench-training: setup
	$(PY) benchmarks/mct_epoch.py
	$(PY) benchmarks/codebooks.py
	$(PY) -m benchmarks.distillation_step

listen: demo
	OMP_NUM_THREADS=2 $(PY) -m benchmarks.listening $(RUN) --board $(BOARD) --json benchmarks/results/listening.json

costs: setup
	$(PY) benchmarks/costs.py $(BOARDS)

test-xtensa: setup
	$(PY) -m pytest -q -rs tests/test_xtensa.py

sizes: setup
	PYTHONPATH=tests $(PY) -m benchmarks.firmware_sizes

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
