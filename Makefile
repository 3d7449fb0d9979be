# `make help` lists what can be made. Every target sets up .venv by itself.
#
#   PYTHON=python3.12           the Python to make .venv with (3.11 to 3.13)
#   TORCH_INDEX=https://...     a further package index for PyTorch, such as its CPU builds
#   PIP_INDEX_URL, HTTPS_PROXY  and pip's other variables work as usual

PYTHON ?= python3
PORT ?= 8000
TRY ?= $(PYTHON)
export TORCH_INDEX
# One thread: two on shared cores make small models up to a hundred times slower.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
# What a training step frees serves the next one. glibc hands it back, and has it cleared anew.
export MALLOC_TRIM_THRESHOLD_ = 1073741824
export MALLOC_MMAP_THRESHOLD_ = 33554432
export MALLOC_TOP_PAD_ = 67108864
export PYDEVD_DISABLE_FILE_VALIDATION = 1
# What one process has compiled serves all that come after it, some hundred of them.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
STAMP := .venv/.installed
SITE := _build/html
NOTEBOOKS = $(BIN)/python book/tools/notebooks.py
# What stands aside for the English site, which takes longest of all that runs before the tests.
ASIDE := nice
# Notebooks, a browser on the whole site, trainings of the experiments, every mistake of every drill, kill -9.
SLOW := tests/book tests/experiments/test_results.py tests/drills/test_families.py tests/test_kills.py
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist worksteal
ELSEWHERE = $(PYTEST) tests/book/test_notebooks.py $(filter-out tests/book/ tests/__pycache__/,$(wildcard tests/*/))
FAILED = Each failure is shown above; run one alone with $(BIN)/python -m pytest NAME.
SEEDS ?= 0,1,2,3,4

# $(call step,name,command,advice): a heading, the command, and one closing line if it fails.
step = @printf '\n== %s\n' '$(1)'; { $(2); } || { printf '\nFAILED: %s. %s\n' '$(1)' '$(3)' >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help book serve pdf epub release try editions colab test again elsewhere check unit notebooks drills results catalogs repository clean lint types sources browser

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) book/tools/install.py

# The Chinese pages are a book of their own, which builds on the other core.
book: $(STAMP) ## build the site
	@rm -rf _build/html _build/.doctrees
	$(call step,Site,$(ASIDE) $(BIN)/python book/tools/chinese.py build & chinese=$$!; $(BIN)/jupyter-book build --quiet -W --keep-going --all .; english=$$?; wait $$chinese && [ $$english = 0 ],The warnings above are its errors: mend them in book/ or in a docstring.)
	@printf '\nThe site: %s\nTo read it: make serve\n' '$(CURDIR)/$(SITE)/index.html'

serve: book ## build the site and serve it on this machine (PORT=8000)
	@printf 'Serving http://127.0.0.1:%s (stop with Ctrl-C)\n' '$(PORT)'
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

pdf: book browser ## every chapter and the whole book as PDF, in _build/pdf
	$(call step,PDF,$(BIN)/python book/tools/pdf.py,It prints the pages of make book with Chromium.)

epub: book ## the book without its API as EPUB, one file a language, in _build/epub
	$(call step,EPUB,$(BIN)/python book/tools/epub.py,It makes a file a language of the pages of make book.)

release: pdf epub ## wheel, source, site, PDF, EPUB and cards of a release, in _build/release
	$(call step,Release,$(BIN)/python book/tools/release.py build,See above.)

try: $(STAMP) ## install what `make release` made into empty environments (TRY="python3.11 python3.12")
	$(call step,Try,$(BIN)/python book/tools/release.py try $(TRY),What failed is shown above.)

editions: $(STAMP)
	@$(BIN)/python book/tools/editions.py _build/editions/book
	@$(BIN)/python book/tools/chinese.py editions _build/editions/book/zh

colab: $(STAMP) ## run the notebooks that Colab opens, with the versions that Colab has (ONLY=ship-it for some)
	$(call step,Colab,$(BIN)/python book/tools/colab.py $(ONLY),The cell that failed is shown above.)

# What needs one core each goes side by side, the longest first; the tests then have both.
test: $(STAMP) ## everything: checks, unit tests, doctests, notebooks, site, browser
	@$(MAKE) --no-print-directory -j 4 book browser check
	$(call step,Tests,$(PYTEST) -p tests.raises kdlearn tests,$(FAILED))

unit: $(STAMP) ## unit tests and doctests, in less than three minutes
	$(call step,Unit tests,$(PYTEST) kdlearn tests $(SLOW:%=--ignore %),$(FAILED))

# The brackets are those of the test's name, so that drafts is not text-drafts too.
again: $(STAMP) ## train seed 0 of each stored table again and compare (ONLY=warped-digits); half an hour
	$(call step,Tables,$(PYTEST) -m '' $(if $(ONLY),-k '[$(ONLY)]') tests/experiments/test_results.py,One table alone: make again ONLY=NAME.)

# Vectors of another length add in another order, and a training that hangs on a bit ends elsewhere.
elsewhere: $(STAMP) ## run notebooks and unit tests with the arithmetic of older processors; half an hour
	$(call step,AVX2,ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(ELSEWHERE),$(FAILED))
	$(call step,SSE,ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(ELSEWHERE),$(FAILED))

check: lint types sources ## lint, types, notebooks normalized and current, drills, addresses (a minute)

lint: $(STAMP)
	$(call step,Lint,$(BIN)/ruff check .,Many are mended by: $(BIN)/ruff check --fix .)
	$(call step,Format,$(BIN)/ruff format --check --quiet .,Mended by: $(BIN)/ruff format .)

types: $(STAMP)
	$(call step,Types,$(ASIDE) $(BIN)/mypy,See the lines above.)

sources: $(STAMP)
	$(call step,Notebooks,$(ASIDE) $(NOTEBOOKS) check,Mostly mended by: make notebooks)
	$(call step,Drills,$(ASIDE) $(BIN)/python book/tools/drills.py check,Mended by: make drills)
	$(call step,Evidence,$(ASIDE) $(BIN)/python book/tools/evidence.py check,Mended by: $(BIN)/python book/tools/evidence.py write)
	$(call step,Questions,$(ASIDE) $(BIN)/python book/tools/interview.py check,What a question names must be in the book.)
	$(call step,Translations,$(ASIDE) $(BIN)/python book/tools/catalogs.py check,Mended by: make catalogs; then translate what is named.)
	$(call step,Addresses,$(ASIDE) $(BIN)/python book/tools/repository.py check,Mended by: make repository URL=... or by hand.)

browser: $(STAMP)
	$(call step,Browser,$(BIN)/python book/tools/chromium.py,Install Chromium or Chrome and run make test again.)

notebooks: $(STAMP) ## run every notebook and store it normalized (ONLY=book/... for some)
	$(call step,Run notebooks,$(NOTEBOOKS) run $(ONLY),The cell that failed is shown above.)

drills: $(STAMP) ## write the chapters of drills anew from kdlearn/drills
	$(call step,Drills,$(BIN)/python book/tools/drills.py write,See above.)

# Two at a time. Tables grow in _build, where a run that was stopped goes on, and replace the old ones when all are whole.
results: $(STAMP) ## make the tables of kdlearn/results anew (SEEDS=0,1,2,3,4, ONLY=warped-digits); takes long
	@mkdir -p _build/results
	@names='$(ONLY)'; [ -n "$$names" ] || names=$$($(BIN)/kdlearn experiment --list | sed -n 's/^\([a-z][a-z-]*\).*/\1/p'); \
	[ -n "$$names" ] && printf '%s\n' $$names | xargs -P 2 -I NAME sh -c \
		'printf "\n== Experiment %s\n" NAME; exec $(BIN)/kdlearn experiment NAME --seeds $(SEEDS) --no-progress \
		--output "_build/results/$$(echo NAME | tr - _).csv"' && \
	for name in $$names; do mv "_build/results/$$(echo $$name | tr - _).csv" kdlearn/results; done

repository: $(STAMP) ## write another address of the repository everywhere (URL=https://github.com/OWNER/REPO)
	$(call step,Address,$(BIN)/python book/tools/repository.py set "$(URL)",Say: make repository URL=https://github.com/OWNER/REPO)

clean: ## remove the site and the caches; .venv stays
	@rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
