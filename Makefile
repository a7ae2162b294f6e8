# The two that matter:  make site   (install, build, website in build/site)
#                       make test   (everything that can be checked; make quick: without the slow tests)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT := DEBIAN_FRONTEND=noninteractive apt-get
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
TORCH := --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0
BROWSERS := chromium chromium-browser google-chrome

.PHONY: site test quick lint pytest build check serve docs picture bench format clean browser linter bundle

site: $(VENV)/.installed bundle
	$(BIN)/skis site

test: $(VENV)/.installed-test browser linter bundle
	@$(MAKE) --no-print-directory -j2 lint pytest

# For daily work: no browser, no whole website, one case of each kernel.
quick: $(VENV)/.installed-test
	@$(MAKE) --no-print-directory -j2 lint pytest QUICK=--quick

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

pytest:
	$(BIN)/pytest -n auto --dist loadgroup $(QUICK)

build: $(VENV)/.installed
	$(BIN)/skis build

check: $(VENV)/.installed
	$(BIN)/skis check

serve: $(VENV)/.installed
	$(BIN)/skis site --serve

# Writes docs/commands.md.
docs: $(VENV)/.installed
	$(BIN)/python -m skis.documentation > docs/commands.md

# Takes docs/site.png, the picture of the README.
picture: $(VENV)/.installed-test browser site
	$(BIN)/python -m tests.picture

# Writes docs/benchmarks.md.
bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.scale

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build $(VENV) site/node_modules tests/tools/node_modules *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[site]'
	@touch $@

# torch first, in its build without CUDA, which is enough here: the other brings gigabytes along. One that is there stays.
$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -c 'import torch' 2> /dev/null || { echo "installing torch for the CPU"; $(PIP) $(TORCH); }
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.installed

# Chromium for the tests of the website, and fonts for Chinese and symbols, from the system where we may install.
browser:
	@for name in $(BROWSERS); do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "installing chromium"; \
	  $(APT) -qq update && $(APT) -qq -y install chromium fonts-noto-color-emoji fonts-wqy-zenhei > /dev/null; \
	else echo "NO CHROMIUM HERE: the tests of the website in a browser will be skipped"; fi

# awesome-lint, which judges AWESOME.md, is a program for Node.
linter:
	@if command -v npm > /dev/null; then \
	  [ -d tests/tools/node_modules/awesome-lint ] || npm ci --prefix tests/tools --silent --no-audit --no-fund; \
	else echo "NO NPM HERE: the test of AWESOME.md by awesome-lint will be skipped"; fi

# From npm: the part of plotly's script that the charts need, and the shim by which the search works from disk.
bundle:
	@if command -v npm > /dev/null && [ ! -d site/node_modules/iframe-worker ]; then \
	  npm ci --prefix site --silent --no-audit --no-fund || \
	  echo "NO PACKAGES OF NPM: the website has the whole of plotly, and its search works over HTTP only"; fi
