# `make demo` and `make test` need git, make, a C compiler and Python 3.11 or
# newer; what else is missing they install. `make help` lists the targets.

.NOTPARALLEL:
.SUFFIXES:

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null && break; \
	done)
endif
ifeq ($(PYTHON),)
$(error linux_event needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3.12 test)
endif

VENV ?= .venv
ENVIRONMENT := $(abspath $(VENV))
VENV_PYTHON := $(ENVIRONMENT)/bin/python
BUILD := $(VENV_PYTHON) setup.py -q build_ext --inplace

# A test suite that hangs is told to abort, and pytest then prints every stack.
PYTEST_ARGS ?=
PYTEST := timeout --foreground --signal=ABRT --kill-after=20 $(or $(TEST_SECONDS),1200) $(VENV_PYTHON) -m pytest

# Instrumented builds are slower: their tests take smaller counts. What a verify
# build does after every callback takes time in proportion to what exists.
VERIFY_SCALE ?= 0.01
ASAN_SCALE ?= 0.1
COVERAGE_SCALE ?= 0.1
# Other interpreters and the wheel run the same code once more.
VERSIONS_SCALE ?= 0.2
COVERAGE_MINIMUM := 95

# What looks at the sources or runs the benchmarks says the same on every build.
# The tests of the build make copies of the sources and build these: they would
# do the same beside every variant, but not with another interpreter.
ANOTHER := --ignore-glob='*/test_source.py' --ignore-glob='*/test_benchmark*.py'
VARIANT := $(ANOTHER) --ignore-glob='*/test_build.py'
# The examples, which take a quarter of the time, are run as they are, and with
# line tracing and sanitizers.
WITHOUT_EXAMPLES := --ignore-glob='*/test_example*.py'
# The wheel holds the same code: what looks at it as a whole is enough, and one
# folder of tests.
OF_THE_WHEEL := $(subst */,../tree/tests/,$(VARIANT) $(WITHOUT_EXAMPLES)) \
	--ignore=../tree/tests/operations --ignore=../tree/tests/watchers

STRICT_C := -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function

# The first ones one after the other, because they share the build in place; the
# others, each with a build of its own, side by side.
CHECKS_FIRST := test lint typing
CHECKS_BESIDE := versions coverage asan verify wheel bench-guard

.PHONY: help demo test bench bench-quick bench-guard coverage verify asan lint typing wheel versions check build clean distclean \
	packages test-packages guard-packages

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: build ## install what is missing, build, and show one loop at work
	$(VENV_PYTHON) -m linux_event demo

test: test-packages build $(ENVIRONMENT)/test.installed ## install what is missing, build, and run the tests
	$(PYTEST) $(PYTEST_ARGS)

build: packages $(ENVIRONMENT)/build.installed ## build the extensions in place
	$(BUILD)

bench: test-packages build $(ENVIRONMENT)/bench.installed ## compare with other event loops (ten to fifteen minutes)
	$(VENV_PYTHON) -m benchmarks

bench-quick: test-packages build $(ENVIRONMENT)/bench.installed ## the same with fewer rounds (about a minute)
	$(VENV_PYTHON) -m benchmarks --quick

bench-guard: guard-packages build ## count instructions and system calls per event: none may have grown
	$(VENV_PYTHON) -m benchmarks.guard

# Each variant of the build has a copy of the tree of its own, so that none
# disturbs the build in place.

coverage: test-packages $(ENVIRONMENT)/dev.installed ## measure how many lines of each .pyx file the tests run
	$(VENV_PYTHON) tools/copy_tree.py build/coverage
	cd build/coverage && LE_TRACE=1 $(BUILD)
	rm -rf build/coverage/coverage.json build/coverage/data
	# Tests that give up their privileges write what they measured, too.
	mkdir -m 1777 build/coverage/data
	cd build/coverage && LE_TEST_SCALE=$(COVERAGE_SCALE) PYTHONPATH=$$PWD/tools COVERAGE_FILE=$$PWD/data/measured \
		$(PYTEST) --cov --cov-report=term --cov-report=json $(VARIANT) $(PYTEST_ARGS)
	$(VENV_PYTHON) tools/coverage_minimum.py build/coverage $(COVERAGE_MINIMUM)

verify: test-packages $(ENVIRONMENT)/test.installed ## run the tests on the build that checks every invariant
	$(VENV_PYTHON) tools/copy_tree.py build/verify
	cd build/verify && LE_VERIFY=1 $(BUILD)
	cd build/verify && LE_TEST_SCALE=$(VERIFY_SCALE) $(PYTEST) $(VARIANT) $(WITHOUT_EXAMPLES) $(PYTEST_ARGS)

# The interpreter itself is not instrumented: the sanitizers' libraries must be
# loaded before it, and what it leaves allocated at exit is not ours to report.
asan: test-packages $(ENVIRONMENT)/test.installed ## run the tests under AddressSanitizer and UBSan
	$(VENV_PYTHON) tools/copy_tree.py build/asan
	cd build/asan && LE_SANITIZE=1 $(BUILD)
	cd build/asan && LE_TEST_SCALE=$(ASAN_SCALE) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1 \
		UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
		LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		$(PYTEST) $(VARIANT) $(PYTEST_ARGS)

lint: packages $(ENVIRONMENT)/dev.installed ## style, and warnings of Cython and the C compiler as errors
	$(VENV_PYTHON) -m ruff check --output-format concise .
	$(VENV_PYTHON) -m ruff format --check .
	PATH=$(ENVIRONMENT)/bin:$$PATH cython-lint linux_event tests
	for header in linux_event/include/*.h; do \
		$(CC) -fsyntax-only -x c $(STRICT_C) -Ilinux_event/include $$header || exit 1; done
	$(VENV_PYTHON) tools/copy_tree.py build/lint
	cd build/lint && LE_WERROR=1 $(BUILD)

typing: build $(ENVIRONMENT)/dev.installed ## compare the stubs with the modules, and check programs against them
	$(VENV_PYTHON) -m mypy.stubtest --allowlist tools/stubtest_allowlist.txt linux_event
	$(VENV_PYTHON) -m mypy --config-file tests/typing/mypy.ini tests/typing
	$(ENVIRONMENT)/bin/pyright --project tests/typing

versions: test-packages $(ENVIRONMENT)/build.installed ## build and test on every other CPython of this machine
	$(VENV_PYTHON) tools/other_pythons.py >$(ENVIRONMENT)/other-pythons.txt
	while read -r name python; do \
		echo "== $$name: $$python"; \
		$(VENV_PYTHON) tools/copy_tree.py build/$$name && \
		LE_TEST_SCALE=$(VERSIONS_SCALE) $(MAKE) -C build/$$name test PYTHON=$$python VENV=.venv \
			PYTEST_ARGS="$(ANOTHER) $(WITHOUT_EXAMPLES) $(PYTEST_ARGS)" </dev/null || exit 1; \
	done <$(ENVIRONMENT)/other-pythons.txt

wheel: test-packages $(ENVIRONMENT)/build.installed ## build source archive and wheel, test the wheel from an empty folder
	rm -rf build/wheel
	$(VENV_PYTHON) tools/copy_tree.py build/wheel/source
	cd build/wheel/source && $(VENV_PYTHON) setup.py -q sdist --dist-dir ../dist
	$(VENV_PYTHON) -m pip wheel -q --no-deps --wheel-dir build/wheel/dist build/wheel/dist/*.tar.gz
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install -q build/wheel/dist/*.whl
	$(VENV_PYTHON) tools/requirements.py test >build/wheel/requirements.txt
	build/wheel/venv/bin/python -m pip install -q -r build/wheel/requirements.txt
	$(VENV_PYTHON) tools/copy_tree.py build/wheel/tree --without linux_event
	mkdir build/wheel/empty
	LE_TEST_SCALE=$(VERSIONS_SCALE) $(MAKE) -C build/wheel/empty -f $(CURDIR)/Makefile test-installed VENV=$(CURDIR)/build/wheel/venv

test-installed:
	$(PYTEST) -c ../tree/pyproject.toml --rootdir ../tree $(OF_THE_WHEEL) $(PYTEST_ARGS) ../tree/tests

check: ## everything: what a change must pass
	@for check in $(CHECKS_FIRST); do \
		echo "== make $$check"; started=$$(date +%s); \
		$(MAKE) --no-print-directory $$check || exit 1; \
		echo "== make $$check: passed in $$(($$(date +%s) - started)) s"; \
	done
	@$(VENV_PYTHON) tools/checks.py $(MAKE) $(CHECKS_BESIDE)

clean: ## remove what builds and tests made
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage*
	find linux_event -name '*.so' -delete
	find linux_event -name '*.pyx' | sed 's/pyx$$/c/' | xargs -r rm -f
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf .venv

packages:
	@tools/system_packages.sh $(PYTHON)

test-packages:
	@tools/system_packages.sh $(PYTHON) test

guard-packages:
	@tools/system_packages.sh $(PYTHON) guard

$(VENV_PYTHON): | packages
	$(PYTHON) -m venv $(ENVIRONMENT)

# One stamp for each set of requirements: build, test, dev, bench.
$(ENVIRONMENT)/build.installed: GROUPS := build
$(ENVIRONMENT)/test.installed: GROUPS := build test
$(ENVIRONMENT)/dev.installed: GROUPS := build test dev
$(ENVIRONMENT)/bench.installed: GROUPS := build bench
$(ENVIRONMENT)/%.installed: pyproject.toml tools/requirements.py | $(VENV_PYTHON)
	$(VENV_PYTHON) tools/requirements.py $(GROUPS) >$@.txt
	$(VENV_PYTHON) -m pip install -q --disable-pip-version-check -r $@.txt
	touch $@
