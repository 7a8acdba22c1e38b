# Every target works on a fresh clone: each makes .venv when it is missing and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/demo
# Processes that run tests, each a file at a time; many tests start two or three more of their own.
JOBS ?= 2

.PHONY: demo demo-barack test test-slow lint typecheck docs docs-serve bench bench-linear bench-msn bench-nac bench-paws bench-slow-link bench-imagenet-x bench-vl bench-video bench-views bench-device-views bench-gpu bench-streaming soak clean test-floors test-newest test-bolts release-check

$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[demo,dev]"
	touch $@

$(VENV)/.docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/lit-ssl fit --config msn/mnist5k.yaml --trainer.default_root_dir $(RUN_DIR)
	$(BIN)/lit-ssl test --config msn/mnist5k.yaml --config eval/mnist5k.yaml \
		--trainer.default_root_dir $(RUN_DIR) --ckpt_path last

demo-barack: $(VENV)/.demo
	$(BIN)/lit-ssl fit --config barack/coloured_mnist.yaml --trainer.default_root_dir $(RUN_DIR)-barack
	$(BIN)/lit-ssl test --config barack/coloured_mnist.yaml \
		--trainer.default_root_dir $(RUN_DIR)-barack --ckpt_path last

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not gpu"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 1800

# The oldest versions that pyproject.toml allows on the oldest Python at hand, and the newest on the
# newest, each in an environment of its own; skipped where no interpreter is there. Whole suites:
# PYTEST_ARGS="tests/models -x" for less.
test-floors:
	$(PYTHON) tests/environments/environment.py floors -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-newest:
	$(PYTHON) tests/environments/environment.py newest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# Beside lightning-bolts, which needs old versions of other packages.
test-bolts:
	$(PYTHON) tests/environments/environment.py bolts $(PYTEST_ARGS)

# Wheel and sdist: what is in them, and the demo out of each in an environment of its own.
release-check: $(VENV)/.dev
	$(BIN)/python tests/environments/release.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the package mapping of an editable install, so it checks a tree of links that
# looks like the installed package.
typecheck: $(VENV)/.dev
	rm -rf build/types && mkdir -p build/types/lit_ssl
	for entry in lit_ssl/*; do ln -s "$(CURDIR)/$$entry" build/types/lit_ssl/; done
	for folder in callbacks cli_configs datamodules; do \
		ln -s "$(CURDIR)/$$folder" build/types/lit_ssl/; done
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p lit_ssl

# Warnings are errors: links, anchors and cross-references all lead somewhere. Then every link of the
# built pages is followed, and nothing may come from another host.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	$(BIN)/python docs/site/check_links.py build/site

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --no-strict

bench: bench-msn bench-views bench-paws bench-linear bench-nac bench-vl

# Beside lightly's MSN where it is installed: pip install lightly.
bench-msn: $(VENV)/.dev
	$(BIN)/python benchmarks/msn_step.py --profile
	$(BIN)/python benchmarks/short_attention.py

# Beside the pipelines of lightly where it is installed: pip install lightly.
bench-views: $(VENV)/.dev
	$(BIN)/python benchmarks/augmentation.py

# Operations, copies and bytes of views on the device, and what workers send them.
bench-device-views: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/device_views.py

# One table for one machine with a GPU; GPU="--tiny" runs every row in small on a CPU.
bench-gpu: $(VENV)/.dev
	$(BIN)/python benchmarks/gpu.py $(GPU)

bench-streaming: $(VENV)/.dev
	$(BIN)/python benchmarks/streaming.py

bench-paws: $(VENV)/.dev
	$(BIN)/python benchmarks/paws_step.py

bench-linear: $(VENV)/.dev
	$(BIN)/python benchmarks/linear_sweep.py
	$(BIN)/python benchmarks/softmax_regression.py
	$(BIN)/python benchmarks/small_files.py

bench-nac: $(VENV)/.dev
	$(BIN)/python benchmarks/nac_circuit.py

bench-vl: $(VENV)/.dev
	$(BIN)/python benchmarks/vl_step.py
	$(BIN)/python benchmarks/maskers.py

bench-video: $(VENV)/.dev
	$(BIN)/python benchmarks/video_readers.py
	$(BIN)/python benchmarks/video_cache.py
	$(BIN)/python benchmarks/video_window.py

# Beside the official package where it is installed: pip install 'lit-ssl[imagenet-x]'.
bench-imagenet-x: $(VENV)/.dev
	$(BIN)/python benchmarks/imagenet_x_scores.py

# Needs root and iproute2; says so where it cannot run.
bench-slow-link: $(VENV)/.dev
	$(BIN)/python benchmarks/slow_link.py

# Harm at random to tiny trainings: a quarter of an hour on two cores. SOAK="--minutes 60 --seed 1" for more.
soak: $(VENV)/.dev
	PYTHONPATH=benchmarks $(BIN)/python -m soak $(SOAK)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
