# The book on dead tokens. `make book` and `make test` are all a newcomer needs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
NEW    := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
SCALE   = $(or $(BOOK_SCALE),book)

.PHONY: help setup ready book archive test test-slow test-fast check format sums preview \
  generators clean distclean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv and install what the book needs

# Without Quarto the book is pressed with Pandoc, so its extra may fail; nothing else may. Quarto is
# tried first and alone: where it cannot be had, the rest of the extra is not downloaded in vain.
$(STAMP): pyproject.toml
	@$(BIN)/python $(NEW) 2>/dev/null || { $(PYTHON) $(NEW) 2>/dev/null || \
	  { echo "$(PYTHON) is no Python 3.11 or newer: make setup PYTHON=python3.11"; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23'
	$(BIN)/python -m pip install --quiet '.[test]'
	@if command -v quarto >/dev/null 2>&1; then \
	  echo "Quarto found: $$(quarto --version)"; \
	elif $(BIN)/python -m pip install --quiet --no-deps quarto-cli >$(VENV)/book-extra.log 2>&1 && \
	     $(BIN)/python -m pip install --quiet '.[book]' >>$(VENV)/book-extra.log 2>&1; then \
	  echo "Quarto installed into $(VENV)"; \
	else \
	  echo "Quarto cannot be had here (see $(VENV)/book-extra.log): the book will be pressed with Pandoc"; \
	fi
	@touch $@

# _quarto.yml names this as its pre-render step, so that `quarto render` works from a clean clone. A
# Python that has what the book needs is taken as it is: the caller's QUARTO_PYTHON, .venv or the one
# on PATH. Nothing here ends the rendering: what is amiss, the chapter that needs it says better.
# With `--profile jupyter` Quarto executes the chapters itself, after the generators have run here.
ready: ## Make ready for Quarto: the environment and, for its Jupyter engine, the generators
	@python="$${QUARTO_PYTHON:-$(BIN)/python}"; [ ! -d "$$python" ] || python="$$python/python"; \
	has() { "$$1" -c 'from importlib.util import find_spec; from sys import exit; \
	  exit(not all(map(find_spec, ("ipykernel", "nbclient", "papermill", "torch"))))' 2>/dev/null; }; \
	if has "$$python"; then :; elif has python3; then python=python3; \
	else $(MAKE) --silent setup && python=$(BIN)/python || echo "no environment could be made: run make setup"; fi; \
	case ",$$QUARTO_PROFILE,$$QUARTO_PROJECT_RENDER_ALL" in *,jupyter,*1) \
	  BOOK_SCALE=$(SCALE) "$$python" -m lib run --generators || echo "a generator failed; its page says why";; \
	esac

book: setup ## Execute every chapter and render the book into _book
	@PATH="$(CURDIR)/$(BIN):$$PATH" BOOK_SCALE=$(SCALE) $(BIN)/python -m lib book

archive: setup ## Pack the book of this commit and its sources into one zip under build, for a release
	@PATH="$(CURDIR)/$(BIN):$$PATH" BOOK_SCALE=$(SCALE) $(BIN)/python -m lib archive

test: setup ## Run the tests, every chapter at smoke scale included
	@echo "chapters at smoke scale"
	-@BOOK_SCALE=smoke $(BIN)/python -m lib run # what fails here is reported by the tests
	$(BIN)/python -m pytest tests/test_chapters.py
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: setup ## Run the tests marked slow, which `make test` leaves out
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow --ignore=tests/test_chapters.py

test-fast: setup ## Run the tests that take less than a few seconds
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"

check: setup ## Check the chapters, the code's style and the text's form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/panache lint chapters index.qmd references.qmd
	$(BIN)/python -m lib check

format: setup ## Put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sums: setup ## Record the digests of data/ after a change that is meant
	$(BIN)/python -c 'from lib import files; print(files.record(), "files of data/ recorded")'

generators: setup ## Run only the chapters that make artefacts
	BOOK_SCALE=$(SCALE) $(BIN)/python -m lib run --generators

preview: setup ## Show the book while writing: quarto preview, or the pressed pages on a local port
	@PATH="$(CURDIR)/$(BIN):$$PATH" BOOK_SCALE=$(SCALE) $(BIN)/python -m lib preview

clean: ## Remove the rendered book and everything computed
	rm -rf _book _freeze .quarto data/artifacts build *.egg-info

distclean: clean ## Remove the environment too
	rm -rf $(VENV)
