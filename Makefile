# Two commands do all the set-up: `make demo` and `make test`. The rest is what CI runs as well.
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test check format clean

demo:
	@scripts/setup sample $(PYTHON) $(VENV)
	@$(VENV)/bin/python -m sample_app.demo

test:
	@scripts/setup dev $(PYTHON) $(VENV)
	@VENV=$(VENV) scripts/test-all

check:
	@scripts/setup dev $(PYTHON) $(VENV)
	@VENV=$(VENV) scripts/check

format:
	@scripts/setup dev $(PYTHON) $(VENV)
	@VENV=$(VENV) scripts/format

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
