help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
setup: ## install everything for work on the project, and the checks before each commit
	uv sync --group docs && uvx pre-commit install
demo: ## train, evaluate and show predictions on synthetic data: minutes on 2 CPU cores
	uv run segapp train experiment=demo
test: ## all tests
	uv run pytest
test-fast: ## the tests of the fast tier: under a minute on 2 cores
	uv run pytest -m "not slow and not browser and not network and not fuzz"
fuzz: ## damaged files for every reader; SEGAPP_FUZZ=100000 make fuzz takes so many, and some ten minutes
	uv run pytest -m fuzz -n 0 -s tests/fuzz
format: ## mend what ruff can mend
	uv run ruff check --fix . && uv run ruff format .
lint: ## style, spelling, types and layers, as CI checks them
	uv run ruff check . && uv run ruff format --check . && uv run codespell && uv run mypy && uv run lint-imports
docs: ## the documentation, strictly, into site/
	uv run --group docs mkdocs build --strict
serve: ## the documentation at http://localhost:8000, made anew at each change
	uv run --group docs mkdocs serve
wheel: ## a wheel and a source archive, into dist/
	uv build
ci: ## all that must pass, as CI runs it
	.ci/run
.PHONY: help setup demo test test-fast fuzz format lint docs serve wheel ci
