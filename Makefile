# The front door. Everything else is CMake: presets dev, release, asan, tsan, cuda (CMakePresets.json).
PRESET ?= release
# Real processes share two cores here: a test that failed runs once more, and says so.
CTEST = ctest -j2 --repeat until-pass:2

help: ## print this
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: ## install the missing packages of cmake/packages.txt (Debian 12; root or sudo)
	@tools/setup build run test
build: setup ## build PRESET (default release) into build/PRESET
	@tools/build $(PRESET)
demo: ## build, start a cluster, ask five questions about two videos, stop
	@tools/setup build run && tools/build release && tools/demo build/release
check: setup ## every test, then again under the address and undefined-behaviour sanitizers
	@tools/build dev && $(CTEST) --preset dev && tools/build asan && $(CTEST) --preset asan -LE once
tsan: setup ## every test under the thread sanitizer
	@tools/build tsan && $(CTEST) --preset tsan -LE once
coverage: setup ## which lines and branches of the storage core its tests and its simulation run
	@tools/build coverage && tools/coverage
demo-score: build ## score the demo model on cameras that know the truth (long)
	@bench/demo-score build/$(PRESET)
bench: build ## kernels, model steps, a store's start: as shares of what this machine can do
	@build/$(PRESET)/bench/micro/tensor_bench && build/$(PRESET)/bench/micro/model_bench
	@REELKV_SCALE_STREAMS=1000 build/$(PRESET)/tests/scale/store_scale_test
bench-store: build ## the store as shares of what this machine can do (some minutes, 8 GiB of RAM, 8 of disk)
	@build/$(PRESET)/bench/load/kv
soak: build ## 100,000 simulated seeds, each failure of 20, a million damages, 10,000 kills (hours; the kills resume)
	@build/$(PRESET)/tests/simulation/store_simulation --seeds 100000
	@build/$(PRESET)/tests/simulation/store_simulation --walk --seeds 20
	@build/$(PRESET)/tests/damage/damage --samples 1000000
	@build/$(PRESET)/tests/kill/store_kill --cycles 10000 --state build/$(PRESET)/store_kill.state
fuzz: ## libFuzzer on each target of tests/fuzz, a minute each or FUZZ_SECONDS (clang)
	@tools/setup build fuzz && tools/build fuzz && tools/fuzz $(FUZZ_SECONDS)
fresh: ## prove `make demo` and `make check` in a bare Debian 12 root (root; some 30 minutes)
	@tools/setup fresh && tools/fresh
deploy-check: ## render deploy/k8s with kubectl and check it against Kubernetes' schemas
	@tools/setup deploy && tools/deploy-check
format: ## clang-format every C file in place
	@git ls-files '*.c' '*.h' | xargs clang-format -i
install: build ## install PRESET under /usr/local, or DESTDIR
	@cmake --install build/$(PRESET)
clean: ## remove every build
	@rm -rf build

.PHONY: help setup build demo check tsan coverage demo-score bench bench-store soak fuzz fresh deploy-check format install \
  clean
