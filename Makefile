# Everything runs in .venv, which is made on first use and renewed when its inputs change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_EFFORT ?= standard
DEMO_OUT ?= demo

.PHONY: demo test lint types wheel-check benchmark clean

demo: $(STAMP)  ## The embedded example, end to end: export, build, prove, measure, compare
	$(BIN)/modelwright demo --out $(DEMO_OUT) --effort $(DEMO_EFFORT)

test: $(STAMP)  ## All tests
	$(BIN)/pytest -n 2 --dist loadscope

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/python tests/link_typing.py
	$(BIN)/mypy -p modelwright
	$(BIN)/mypy benchmarks

wheel-check: $(STAMP)  ## Build sdist and wheel, install the wheel elsewhere, run the command line from there
	$(BIN)/python tests/check_wheel.py

benchmark: $(STAMP)  ## Speed against ONNX Runtime FP32, and the harness against a bare loop
	$(BIN)/python benchmarks/resnet50.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "needs Python 3.11 with venv: apt install python3.11-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
