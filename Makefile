# make run    sets up .venv, then the main job on MNIST into runs/mnist/
# make test   sets up .venv, then lint, types and the whole test suite
# make quick  the same without the tests that train, build, emulate or open a browser
# make lock   renews requirements.lock (needs uv)
# make docs   the documentation as a site, build/site/index.html; every link is checked
# make coverage  the whole test suite, slower, and the lines it does not reach

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
PYTEST := $(BIN)/pytest -n $(JOBS) --dist worksteal

# Where this is set, every process that a test starts compiles edgecnn anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run lint test quick quick-tests docs coverage lock clean

run: .venv/ready
	$(BIN)/edgecnn run --out runs/mnist

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST)

quick: .venv/ready
	$(MAKE) --jobs 2 lint quick-tests

# Without the flags of this make: its job server makes other builds warn.
quick-tests:
	MAKEFLAGS= $(PYTEST) -m "not slow"

# The pages lie as in the repository, so that their links work in both. The plugin for notebooks keeps a cache in the
# current folder.
docs: build/mkdocs/ready
	rm -rf build/docs && mkdir build/docs
	tar -c --exclude='*.py' README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs benchmarks/README.md | tar -x -C build/docs
	tar -c edgecnn/records.py export/linux/run.py benchmarks/ort_loop.c | tar -x -C build/docs
	cd build && NO_MKDOCS_2_WARNING=1 mkdocs/bin/mkdocs build --strict --config-file ../mkdocs.yml

build/mkdocs/ready: Makefile
	$(PYTHON) -m venv --clear build/mkdocs
	build/mkdocs/bin/pip install --quiet --disable-pip-version-check mkdocs==1.6.1 mkdocs-material==9.8.2 mkdocs-jupyter==0.26.3
	touch $@

coverage: .venv/ready
	$(PYTEST) --cov --cov-report=term:skip-covered

# Compiled on every core, where pip takes one; a package may hold files that are not Python.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"edgecnn needs Python 3.11 to 3.13, $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	-$(BIN)/python -m compileall -qq -j 0 .venv/lib
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --extra train --extra tfmot --extra report --group dev --output-file requirements.lock

clean:
	rm -rf .venv runs dist
