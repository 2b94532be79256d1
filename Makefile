# Every word sets up what it needs first: .venv from the hashed locks, in seconds the first time and at once after that.
.DEFAULT_GOAL := help
.PHONY: help demo run test test-embedded test-whole test-browser check bench soak drill lock
py := .venv/bin/python
# Where it is set, as in many containers, each of hundreds of processes would compile all modules anew: for the tests alone that
# is a minute.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 16

demo: ## send one fax through the whole system, show its timeline, exit
	@scripts/bootstrap run
	@exec .venv/bin/faxbot demo

run: ## serve at http://127.0.0.1:8080 until Ctrl-C
	@scripts/bootstrap run
	@exec .venv/bin/faxbot up

spread = -n $(shell expr $$(nproc) + 2) --dist worksteal
# Whole installations with all their processes, programs as users start them, models, kills and real telephone calls, and what
# goes on for days of a set clock or among thousands of rows: a quarter of an hour by themselves.
days = alarms arrivals audit_chain breaker callbacks_fuzz cancel_and_hold copies deliveries figures followup ladder lanes plans \
	resending restored retention retention_killed rotation waiting
whole = tests/acceptance tests/integration/programs tests/integration/models tests/providers/asterisk \
	tests/notifications/test_notices.py $(patsubst %,tests/integration/test_%.py,$(days))
# How each page looks at each width takes two minutes, and test-browser tries it anyway.
looks = tests/browser/test_console_looks.py

test: ## the tests, with a real Redis and PostgreSQL of their own; ARGS="-k word tests/unit" for some
	@scripts/bootstrap dev
	@exec $(py) -m pytest $(if $(ARGS),$(ARGS),--store postgresql $(addprefix --ignore=,$(whole) $(looks)) $(spread))

test-whole: ## whole installations, programs, models and days of a clock: faxbot up, kills, a real Asterisk and its calls
	@scripts/bootstrap dev
	@exec $(py) -m pytest --store postgresql $(whole) $(spread)

test-embedded: ## what these tried on PostgreSQL, on SQLite with the embedded broker
	@scripts/bootstrap dev
	@exec $(py) -m pytest --store embedded $(spread)

test-browser: ## what is tried in a real browser, of these and each page at three widths; fails where none can be had; ARGS="--screenshots" draws anew
	@scripts/bootstrap dev
	@exec $(py) -m pytest --need-chromium tests/browser $(or $(ARGS),-n $(shell nproc) --dist loadfile)

# $(call quietly,name,command): one line when all is well, everything the tool said when it is not.
quietly = @said=$$($(2) 2>&1) && echo "ok  $(1)" || { status=$$?; echo "$$said"; echo "FAILED  $(1)"; exit $$status; }

check: ## format, lint, types, import contracts, manifests, docs
	@scripts/bootstrap dev
	$(call quietly,format,$(py) -m ruff format --check .)
	$(call quietly,lint,$(py) -m ruff check .)
	$(call quietly,types,$(py) -m mypy)
	$(call quietly,imports,.venv/bin/lint-imports --no-cache)
	$(call quietly,Dockerfiles,.venv/bin/hadolint web.Dockerfile worker.Dockerfile)
	$(call quietly,manifests,.venv/bin/faxbot plugins validate)
	$(call quietly,docs,$(py) -m pytest -q tests/unit/test_docs.py)
	@echo "all checks passed"

bench: ## the benchmarks; ARGS="--help" shows their options
	@scripts/bootstrap dev
	@exec $(py) -m benchmarks $(ARGS)

soak: ## kill processes under traffic and count every fax; KILLS=100 SEED=1 STORE=embedded
	@scripts/bootstrap dev
	@exec $(py) -m tests.soak $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE)) $(ARGS)

drill: ## lose everything under load, bring the backup back, count every fax; FAXES=200 SEED=1 STORE=embedded
	@scripts/bootstrap dev
	@exec $(py) -m tests.drill $(if $(FAXES),--faxes $(FAXES)) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE)) $(ARGS)

compile := UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 .venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)
lock: ## recompile constraints*.txt after a change in setup.cfg; ARGS="--upgrade" takes newer versions
	@scripts/bootstrap dev
	$(compile) setup.cfg --extra operations -o constraints.txt
	$(compile) setup.cfg --extra operations --extra dev -c constraints.txt -o constraints-dev.txt
	echo 'setuptools>=80' | $(compile) - -o constraints-build.txt
	echo 'uv' | $(compile) - -o constraints-uv.txt
