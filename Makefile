# Two commands are all that a new user needs:
#   make demo   makes .venv, installs the package, runs the main job on real photographs
#   make test   the same environment with the test extra; runs the whole suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Held to one version, so that everybody's figures are made with the same backbone code; any version that
# pyproject.toml admits works: `make TORCH="torch torchvision" demo`.
TORCH ?= torch==2.14.1 torchvision==0.29.1

.PHONY: demo test lint docs bench dev cpp-example neon-test windows-test fuzz cuda-check clean

demo: $(VENV)/.installed
	$(BIN)/inreach demo --out demo

# From within tests/: in the repository's root Python would import the source tree, which holds no extension.
# One process for each processor, at most four: each imports torch and takes about 1 GB. "worksteal" leaves a file's
# tests in one process, so that what they share is made once, and moves tests only where a process has none left.
TEST_PROCESSES ?= -n auto --maxprocesses 4 --dist worksteal
test: $(VENV)/.installed-test
	cd tests && $(abspath $(BIN))/pytest -q $(TEST_PROCESSES) .

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cuh' 'csrc/*.cu' 'examples/*.cpp' 'tests/isa/*.cpp')

# The site in build/site; warnings are errors, and nothing is fetched. Its tests (tests/docs) run with the extra [docs].
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	cd tests && $(abspath $(BIN))/pytest -q docs/test_site.py docs/test_notebook.py docs/test_docstrings.py

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench

# The extension built straight into the source tree, for work on csrc/.
DEV_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
dev:
	cmake -S . -B build/dev -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$$($(DEV_PYTHON) -c 'import sys; print(sys.executable)') \
	    -Dpybind11_DIR=$$($(DEV_PYTHON) -m pybind11 --cmakedir) -DINREACH_WERROR=ON
	cmake --build build/dev --parallel
	cmake --install build/dev --prefix .

# The CUDA kernels compiled for every architecture, registers and theoretical occupancy printed; needs nvcc and no GPU.
cuda-check: $(VENV)/.installed-test
	cd tests && $(abspath $(BIN))/pytest -q cuda_build/test_compile.py

# The engine's C++ API: built and run without Python (examples/cpp).
CMAKE ?= cmake
cpp-example:
	$(CMAKE) -S examples/cpp -B build/example -DINREACH_WERROR=ON
	$(CMAKE) --build build/example --parallel
	build/example/search

# The kernels of another processor or system against the scalar ones (tests/isa), cross-compiled and emulated.
# NEON under qemu-user (Debian, Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user).
NEON_CXX ?= aarch64-linux-gnu-g++
NEON_RUN ?= qemu-aarch64
neon-test:
	$(CMAKE) -S . -B build/neon $(ISA_TEST) -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	    -DCMAKE_CXX_COMPILER=$(NEON_CXX)
	$(CMAKE) --build build/neon --parallel
	$(NEON_RUN) build/neon/isa_compare neon

# Windows under Wine (Debian, Ubuntu: apt-get install g++-mingw-w64-x86-64-posix wine).
WINDOWS_CXX ?= x86_64-w64-mingw32-g++-posix
WINDOWS_RUN ?= wine
windows-test:
	$(CMAKE) -S . -B build/windows $(ISA_TEST) -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=AMD64 \
	    -DCMAKE_CXX_COMPILER=$(WINDOWS_CXX)
	$(CMAKE) --build build/windows --parallel
	WINEDEBUG=-all $(WINDOWS_RUN) build/windows/isa_compare.exe

# Random searches (shared bases, scales from 1e-30 to 1e30, k, groups, floors, damaged indexes) against brute force, under
# the address and undefined-behaviour sanitizers. A failure names the seed and the case, which FUZZ_CASE repeats alone.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= $$(date +%s)
FUZZ_CASE ?=
FUZZ_SANITIZE ?= address,undefined
fuzz:
	$(CMAKE) -S . -B build/fuzz -DINREACH_PYTHON=OFF -DINREACH_FUZZ=ON -DINREACH_WERROR=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DINREACH_SANITIZE=$(FUZZ_SANITIZE)
	$(CMAKE) --build build/fuzz --parallel --target engine_fuzz
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 build/fuzz/engine_fuzz $(FUZZ_SECONDS) $(FUZZ_SEED) $(FUZZ_CASE)

ISA_TEST := -DINREACH_PYTHON=OFF -DINREACH_ISA_TEST=ON -DINREACH_WERROR=ON

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc inreach_fast -type f -not -path '*/__pycache__/*' -not -name '*.so')

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(PIP) $(TORCH)
	$(PIP) '.[offline]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) '.[offline,test]'
	touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) '.[offline,test,lint]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(PIP) '.[offline,test,docs]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) '.[offline,bench,numba]'
	touch $@

clean:
	rm -rf build $(VENV) demo inreach_fast/*.so
