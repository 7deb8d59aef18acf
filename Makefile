# Targets are explained by `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
DATE    := $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

# What make test covers: all but the tests with real engines, which make e2e runs.
PACKAGES = $$(go list ./... | grep -v /test/e2e)

.PHONY: run
run: build ## build and serve, with data in ./muster-data
	bin/muster serve

.PHONY: build
build: web ## build bin/muster
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/muster ./cmd/muster

# Without Node the binary serves a plain page.
.PHONY: web
ifneq ($(shell command -v npm),)
web: internal/console/dist/index.html ## build the web app, where there is npm
internal/console/dist/index.html: web/node_modules/.package-lock.json $(shell find web -type f -not -path '*/node_modules/*')
	npm --prefix web run build

.PHONY: web-test
web-test: web/node_modules/.package-lock.json ## lint and test the web app
	npm --prefix web run lint
	npm --prefix web test

web/node_modules/.package-lock.json: web/package.json web/package-lock.json web/.npmrc
	npm --prefix web ci --no-audit --no-fund
	@touch $@
else
web:

.PHONY: web-test
web-test:
	@echo "make web-test: npm is missing: install Node 20 or newer to test the web app" >&2
	@[ "$${CI:-}" != true ]
endif

.PHONY: test
test: ## run the tests with the race detector, and without it those that are too slow for it
	go test -race $(PACKAGES)
	go test -run '^(TestRealData|TestRankedPullsHoldMoreOfTheNextDay|TestMillionAddresses|TestMillionRemembered)$$' ./internal/replay ./internal/publish

.PHONY: e2e
e2e: peers ## run real engines against Muster
	MUSTER_E2E=1 go test -count=1 -timeout 20m -v ./test/e2e/...

.PHONY: peers
peers: test/peers/bin/crowdsec ## build the real engines and a bouncer, fetch Debian's
	test/peers/fetch-debian
	test/peers/fetch-bouncers

test/peers/bin/crowdsec: test/peers/go.mod test/peers/go.sum test/peers/build $(wildcard test/peers/bouncer/*)
	test/peers/build
	@touch $@

.PHONY: lint
lint: bin/golangci-lint ## run the linters, which check the formatting too
	bin/golangci-lint run ./...

.PHONY: format
format: bin/golangci-lint ## format the code
	bin/golangci-lint fmt

bin/golangci-lint: tools/go.mod tools/go.sum
	@echo "building golangci-lint (about 5 minutes from an empty cache)"
	go build -C tools -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

.PHONY: bench
bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem $(PACKAGES)

# go test fuzzes one target of one package at a time.
FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZTIME each
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file" | while read -r target; do \
			echo "$$target in $$(dirname "$$file")"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(FUZZTIME)' "$$(dirname "$$file")"; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built; data and the real engines stay
	rm -rf bin web/node_modules
	find internal/console/dist -mindepth 1 -not -name .gitkeep -delete

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
