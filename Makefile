# mixrec: `make` builds, `make demo` shows, `make test` proves.  `make help` lists the rest.

version := 0.2.0
comma   := ,

BUILD   ?= build
ARCH    ?= x86-64-v3
CXX     ?= g++
PREFIX  ?= /usr/local
DEBUG   ?= 0
SANITIZE ?=
COVERAGE ?=
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)

# With CUDA when the compiler and a card are here, so that a machine without a card builds fast.
NVCC    ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
card    := $(if $(NVCC),$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .))
CUDA    ?= $(if $(card),1,0)
# Architectures to compile for: that of the card, or those of a release.
CUDA_ARCH ?= $(if $(card),$(card)$(if $(filter 90,$(card)),a),80 90a)
ifeq ($(CUDA),1)
ifeq ($(NVCC),)
$(error CUDA=1, but there is no nvcc: install the CUDA Toolkit (apt-get install nvidia-cuda-toolkit, or NVIDIA's), name it with NVCC=, or build with CUDA=0)
endif
endif
MAKEFLAGS += $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS)) --no-print-directory

rooms   := core autograd ops nn models optim data train
# Every file of a kind under some folders, at any depth.
files    = $(sort $(shell find $(1) -type f -name '$(2)'))
sources := $(call files,$(rooms),*.cpp)
cuda_sources := $(if $(filter 1,$(CUDA)),$(call files,$(rooms),*.cu))
library_sources := $(filter-out train/main.cpp,$(sources)) $(cuda_sources)
test_sources    := $(filter-out tests/bench/% tests/oracle/% tests/faults/% tests/install/%,$(call files,tests,*.cpp))
bench_sources   := $(sort $(wildcard tests/bench/*.cpp))
example_sources := $(sort $(wildcard examples/*.cpp))

object   = $(patsubst %.cu,$(BUILD)/obj/%.cu.o,$(patsubst %.cpp,$(BUILD)/obj/%.o,$(1)))
library := $(BUILD)/libmixrec.a
binary  := $(BUILD)/mixrec
tests   := $(BUILD)/tests/run_tests
benches := $(patsubst tests/bench/%.cpp,$(BUILD)/bench/%,$(bench_sources))
examples := $(patsubst examples/%.cpp,$(BUILD)/examples/%,$(example_sources))

optimise := $(if $(filter 1,$(DEBUG)),-O1 -g,-O3) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# Numbers are computed in core, ops and optim, batches are assembled in data/batch_builder.cpp.  Everything else is
# compiled for build time.
optimise_lightly := $(if $(SANITIZE),$(optimise),-O1)
computing    = $(filter-out core/files/% core/options.cpp core/print%,$(filter core/% ops/% optim/% data/batch_builder.cpp,$(1)))
covered      = $(if $(COVERAGE),$(if $(filter-out tests/%,$(1)),--coverage -fprofile-update=atomic))
optimise_for = $(if $(call computing,$(1)),$(optimise),$(optimise_lightly)) $(call covered,$(1))
# Under sanitizers GCC 12 sees uninitialised members inside <regex>.
warnings := -Wall -Wextra -Wno-psabi $(if $(SANITIZE),-Wno-maybe-uninitialized) $(if $(CI),-Werror)
# The whole library is built for ARCH; files named *_avx2 and *_avx512 go above it, and run only
# after a look at the processor; files named *_baseline go below it: they run on any.
arch     := -march=$(ARCH)
maths    := -fno-math-errno -fno-trapping-math -ffp-contract=fast
# No path of the machine that builds gets into what is built.
prefix_map := -ffile-prefix-map=$(BUILD)/include/mixrec/= -ffile-prefix-map=$(CURDIR)=.
CXXFLAGS += -std=c++20 -fopenmp $(warnings) $(maths) $(prefix_map) -I$(BUILD)/include -I$(BUILD)/generated
LDFLAGS  += -fopenmp $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(if $(COVERAGE),--coverage)
LDLIBS   += -lpthread
# Compressed logs, where the libraries are here: ZLIB=0 and ZSTD=0 build without.
has_header = $(shell $(CXX) -E -xc++ -include $(1) /dev/null >/dev/null 2>&1 && echo 1 || echo 0)
ZLIB      ?= $(call has_header,zlib.h)
ZSTD      ?= $(call has_header,zstd.h)
ZLIB      := $(ZLIB)
ZSTD      := $(ZSTD)
compressors := $(if $(filter 1,$(ZLIB)),-lz) $(if $(filter 1,$(ZSTD)),-lzstd)
LDLIBS    += $(compressors)
ifeq ($(CUDA),1)
cuda_home := $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
LDLIBS    += -L$(cuda_home)/lib64 -Wl,-rpath,$(cuda_home)/lib64 -lcublasLt -lcudart_static -ldl -lrt
# A release also carries portable code for cards that are newer than all of these.
gencode   := $(foreach a,$(CUDA_ARCH),-gencode=arch=compute_$(a),code=sm_$(a)) $(addprefix -gencode=arch=compute_80$(comma)code=compute_,$(filter 80,$(CUDA_ARCH)))
CXX_FOR_NVCC ?= $(lastword $(CXX))
NVCCFLAGS += -std=c++20 -O3 -lineinfo $(gencode) --expt-relaxed-constexpr --extended-lambda -Xcudafe --diag_suppress=177 \
  -Xcompiler -fopenmp,-Wall,-Wextra,-Wno-psabi,-Wno-unused-parameter $(addprefix -Xcompiler ,$(prefix_map)) -I$(BUILD)/include -I$(BUILD)/generated $(if $(CI),-Werror all-warnings)
endif

# Objects of programs are kept like all others.
.SECONDARY:
.PHONY: all lib help
all: $(binary)
lib: $(library)
help:
	@echo "make                 the command line, $(BUILD)/mixrec"
	@echo "make demo [DATA=DIR] simulate a log (or take yours), train MixFormer, report"
	@echo "make test            every test;  make asan: the same under sanitizers"
	@echo "make faults          kills, full disks, limits, damaged files, fuzzing, in minutes;  LONG=--long in hours;  make fuzz-engine: with libFuzzer"
	@echo "make test-ops OP=softmax   the op table's rows of one op"
	@echo "make mutants         wrong changes to the library, each of which a test has to see;  MUTANTS='pow*' some of them"
	@echo "make bench           JSON lines: products, ops, training steps"
	@echo "make gpu-test        on a machine with a card: every test there, then compute-sanitizer;  make gpu-bench"
	@echo "make examples        the programs of examples/"
	@echo "make lint format     rules of the code;  make tidy: clang-tidy;  make coverage: lines that the tests run"
	@echo "make install PREFIX=DIR   headers, library, command line;  make install-test: programs that use them"
	@echo "BUILD=DIR puts everything elsewhere than build/;  ARCH=x86-64-v2 builds for older processors"
	@echo "CUDA=1 or 0 builds with CUDA or without (default: as nvcc and a card are here);  CUDA_ARCH=90a"

# What every object depends on is written before anything is compared: the link that lets sources say
# "mixrec/core/tensor.h", and what this build contains, each only where it would say something else.  A rule would
# come too late for the link: without it make takes every header for lost.
goals     := $(or $(MAKECMDGOALS),all)
compiling := $(filter-out help clean format lint-links,$(goals))
define config_h
// Written by make: what this build contains.
#pragma once
#define MIXREC_VERSION "$(version)"
#define MIXREC_CUDA $(CUDA)
#define MIXREC_CUDA_VERSION "$(if $(filter 1,$(CUDA)),$(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'))"
#define MIXREC_CUDA_ARCH "$(if $(filter 1,$(CUDA)),$(CUDA_ARCH))"
#define MIXREC_ARCH "$(ARCH)"
endef
define compression_h
// Written by make: what compressed files this build reads.
#pragma once
#define MIXREC_ZLIB $(ZLIB)
#define MIXREC_ZSTD $(ZSTD)
endef
define commit_h
// Written by make: the commit that was built, "" outside a checkout, with a + when files differ from it.
#pragma once
#define MIXREC_COMMIT "$(subst -dirty,+,$(shell git describe --always --dirty --exclude='*' --abbrev=12 2>/dev/null))"
endef
ifneq ($(compiling),)
# $(call write,FILE,TEXT)
write = $(shell mkdir -p $(dir $(1)))$(if $(call differs,$(file <$(1)),$(2)),$(file >$(1),$(2)))
differs = $(or $(subst x$(1),,x$(2)),$(subst x$(2),,x$(1)))
here := $(shell mkdir -p $(BUILD)/include && realpath --relative-to=$(BUILD)/include .)
ifneq ($(here),$(shell readlink $(BUILD)/include/mixrec))
$(shell ln -sfn $(here) $(BUILD)/include/mixrec)
endif
$(call write,$(BUILD)/generated/mixrec/config.h,$(config_h))
$(call write,$(BUILD)/generated/mixrec/commit.h,$(commit_h))
$(call write,$(BUILD)/generated/mixrec/compression.h,$(compression_h))
# Objects of other flags are of no use.
$(call write,$(BUILD)/generated/flags,$(lastword $(CXX)) $(ARCH) debug $(DEBUG) sanitize $(SANITIZE) coverage $(COVERAGE))
# So are archives of other objects: with CUDA or without, before a file went.
$(call write,$(BUILD)/generated/objects,$(library_sources))
# What a program of one's own links beside the library.
$(call write,$(BUILD)/generated/libraries,$(LDLIBS))
endif

# "[12/130] ops/gemm/gemm.cpp" for each file that is compiled or linked; with V=1 the commands themselves.  A dry run
# counts what there is to do.
V ?=
counts := $(if $(compiling),$(if $(V)$(findstring n,$(firstword -$(MAKEFLAGS))),,yes))
to_build := $(if $(counts),$(shell MAKEFLAGS= $(MAKE) -n --no-print-directory V= counts= $(MAKEOVERRIDES) $(goals) 2>/dev/null | grep -c '^echo "\['))
quiet  := $(if $(V),,@)
step    = $(if $(V),@:,@$(eval steps += x)echo "[$(words $(steps))/$(to_build)] $(1)")
ifneq ($(filter-out 0,$(to_build)),)
$(info mixrec $(version): $(shell $(CXX) --version | head -1)$(comma) $(ARCH) with AVX2 and AVX-512 kernels chosen at start-up$(comma) \
  $(if $(filter 1,$(CUDA)),CUDA $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') for sm_$(CUDA_ARCH),no CUDA)$(comma) logs in plain text$(if $(filter 1,$(ZLIB)),$(comma) .gz)$(if $(filter 1,$(ZSTD)),$(comma) .zst)$(if \
  $(filter 0,$(ZLIB)),$(comma) no zlib (zlib1g-dev))$(if $(filter 0,$(ZSTD)),$(comma) no libzstd (libzstd-dev)))
endif

# Header packages of Debian: installed when we may, named when we may not.
packages := doctest-dev nlohmann-json3-dev libcli11-dev
headers  := doctest/doctest.h nlohmann/json.hpp CLI/CLI.hpp
$(BUILD)/packages:
	@mkdir -p $(BUILD)
	@missing() { for h in $(headers); do printf '#include <%s>\n' $$h | $(CXX) -E -xc++ - >/dev/null 2>&1 || return 0; done; return 1; }; \
	install="apt-get install -y --no-install-recommends $(packages)"; \
	if missing; then \
	  if [ "$$(id -u)" = 0 ]; then (apt-get update -qq && $$install) >$(BUILD)/packages.log 2>&1; \
	  elif sudo -n true 2>/dev/null; then (sudo apt-get update -qq && sudo $$install) >$(BUILD)/packages.log 2>&1; fi; \
	fi; \
	if missing; then echo "make: some of <doctest>, <nlohmann/json>, <CLI11> are not installed. Run: apt-get install $(packages)"; exit 1; fi
	@touch $@

prepared := $(BUILD)/generated/flags | $(BUILD)/packages

compile = $(quiet)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(1) -MMD -MP -c $< -o $@
link    = $(quiet)mkdir -p $(@D) && $(CXX) $^ $(LDFLAGS) $(LDLIBS) -o $@

$(BUILD)/obj/%_baseline.o: %_baseline.cpp $(prepared)
	$(call step,$<)
	$(call compile,$(optimise) -march=x86-64)
$(BUILD)/obj/%_avx2.o: %_avx2.cpp $(prepared)
	$(call step,$<)
	$(call compile,$(optimise) -march=x86-64-v3)
$(BUILD)/obj/%_avx512.o: %_avx512.cpp $(prepared)
	$(call step,$<)
	$(call compile,$(optimise) -march=x86-64-v4 -mprefer-vector-width=512)
$(BUILD)/obj/%.o: %.cpp $(prepared)
	$(call step,$<)
	$(call compile,$(call optimise_for,$<) $(arch))
$(BUILD)/obj/%.cu.o: %.cu $(prepared)
	$(call step,$<)
	$(quiet)mkdir -p $(@D) && $(NVCC) -ccbin $(CXX_FOR_NVCC) $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# D: without times and owners, so that equal objects are an equal archive.
$(library): $(call object,$(library_sources)) $(BUILD)/generated/objects
	$(call step,$@)
	$(quiet)rm -f $@ && ar rcsD $@ $(filter %.o,$^)
$(binary): $(call object,train/main.cpp) $(library)
	$(call step,$@)
	$(link)
$(tests): $(call object,$(test_sources)) $(library)
	$(call step,$@)
	$(link)
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(library)
	$(call step,$@)
	$(link)
$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(library)
	$(call step,$@)
	$(link)

.PHONY: test test-build
test-build: $(tests)
test: $(tests)
	$(tests)

# Crashes, full disks, limits, damaged files, odd input: docs/reliability.md.  LONG=--long takes hours.
.PHONY: faults fuzz-build
fuzz_replay := $(BUILD)/tests/fuzz_replay
$(fuzz_replay): $(call object,tests/faults/fuzz/replay.cpp tests/faults/fuzz/targets.cpp) $(library)
	$(call step,$@)
	$(link)
fuzz-build: $(fuzz_replay)

# The same targets under libFuzzer: what reads foreign bytes is compiled by clang++ with AddressSanitizer and counters,
# the rest is the library's.  tests/faults/fuzz.py runs it: MIXREC_FUZZ_SECONDS=60 tests/faults/run.sh fuzz.
.PHONY: fuzz-engine no-fuzz-engine
FUZZ_CXX    ?= clang++
fuzz_engine := $(BUILD)/tests/fuzz_engine
fuzz_flags  := -fsanitize=fuzzer-no-link,address -O1 -g
fuzz_readers := $(filter-out data/inspect/% data/simulate/% data/encoders/%,$(filter data/% core/files/% core/hash.cpp core/printable.cpp \
  train/config.cpp train/serve/score_lines.cpp,$(sources))) tests/faults/fuzz/libfuzzer.cpp tests/faults/fuzz/targets.cpp
fuzz_objects := $(patsubst %.cpp,$(BUILD)/fuzz/%.o,$(fuzz_readers))
has_engine = $(shell echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' | \
  $(FUZZ_CXX) -std=c++20 -fsanitize=fuzzer,address -xc++ - -o $(BUILD)/has_engine >/dev/null 2>&1 && echo 1)
$(BUILD)/fuzz/%.o: %.cpp $(prepared)
	$(call step,$< for libFuzzer)
	$(quiet)mkdir -p $(@D) && $(FUZZ_CXX) $(filter-out -fopenmp,$(CXXFLAGS)) $(fuzz_flags) $(arch) -MMD -MP -c $< -o $@
$(fuzz_engine): $(fuzz_objects) $(library)
	$(call step,$@)
	$(quiet)mkdir -p $(@D) && $(FUZZ_CXX) -fsanitize=fuzzer,address $^ $(filter-out -fopenmp,$(LDFLAGS)) $(LDLIBS) \
	  -L$(dir $(shell $(CXX) -print-file-name=libgomp.so)) -lgomp -o $@
no-fuzz-engine:
	@echo "skipped: $(FUZZ_CXX) or its libFuzzer is not installed: apt-get install clang libclang-rt-14-dev"
fuzz-engine: $(if $(filter fuzz-engine,$(goals)),$(if $(has_engine),$(fuzz_engine),no-fuzz-engine))
faults: $(binary) $(fuzz_replay)
	BUILD=$(abspath $(BUILD)) MIXREC=$(abspath $(binary)) tests/faults/run.sh $(LONG)

# The rows of one op of the op table, without the rest of the suite: make test-ops OP=softmax.
.PHONY: test-ops
op_tests := $(BUILD)/tests/run_ops
$(op_tests): $(call object,$(filter tests/op_cases% tests/expected% tests/op_test.cpp tests/main.cpp,$(test_sources))) $(library)
	$(call step,$@)
	$(link)
test-ops: $(op_tests)
	MIXREC_OP=$(OP) $(op_tests)

# Small wrong changes to the library, each of which a test has to see: docs/mutants.md.  MUTANTS='pow*' runs some.
.PHONY: mutants
mutants: $(tests)
	tests/mutants/run.py --build $(BUILD) --make 'CXX=$(CXX)' $(MUTANTS)

# On a card.  tests/gpu_last_run.txt keeps what came of it.
.PHONY: gpu-test gpu-bench need-card
need-card:
	@nvidia-smi -L >/dev/null 2>&1 || { echo "make $(MAKECMDGOALS) needs an NVIDIA card, and nvidia-smi finds none here"; exit 1; }
gpu-test: need-card
	$(MAKE) CUDA=1 test-build
	tests/gpu_test.sh $(tests)
gpu-bench: need-card
	$(MAKE) CUDA=1 $(BUILD)/bench/gpu_bench $(BUILD)/bench/gpu_serve_bench
	$(BUILD)/bench/gpu_bench
	$(BUILD)/bench/gpu_serve_bench

# Address and undefined-behaviour sanitizers over the whole suite.  OpenMP and leaks of its pool are not ours to check.
.PHONY: asan
asan:
	$(MAKE) BUILD=$(BUILD)-asan SANITIZE=address,undefined DEBUG=1 test-build
	OMP_NUM_THREADS=2 ASAN_OPTIONS=detect_leaks=0 $(BUILD)-asan/tests/run_tests

# Lines that the suite runs, by folder; docs/coverage.md keeps what came of it.
.PHONY: coverage
coverage:
	$(MAKE) BUILD=$(BUILD)-coverage COVERAGE=1 DEBUG=1 CUDA=0 test-build
	find $(BUILD)-coverage -name '*.gcda' -delete
	$(BUILD)-coverage/tests/run_tests
	tests/coverage.sh $(BUILD)-coverage

# What clang-tidy finds with the list in .clang-tidy; FILES= looks at some only.
.PHONY: tidy
FILES ?= $(filter-out %_avx2.cpp %_avx512.cpp,$(sources))
tidy: | $(BUILD)/packages
	@command -v clang-tidy >/dev/null || { echo "make tidy needs clang-tidy: apt-get install clang-tidy"; exit 1; }
	@printf '%s\n' $(FILES) | xargs -P $(JOBS) -n 1 sh -c 'clang-tidy --quiet --warnings-as-errors="*" $$0 -- $(filter-out -fopenmp,$(CXXFLAGS)) -fopenmp=libomp $(arch) 2>/dev/null || { echo "tidy: $$0"; exit 255; }'
	@echo "tidy: ok"

# A log whose best reachable AUC is known, or yours: DATA=DIR with a schema.json, or a KuaiRand folder.
.PHONY: demo
demo_log := $(BUILD)/demo/log
ifdef DATA
demo_data   := $(DATA)
demo_config := examples/configs/$(if $(wildcard $(DATA)/bounds.json),simulated,kuairand)/mixformer.json
else
demo_data   := $(demo_log)
demo_config := examples/configs/simulated/mixformer.json
endif
demo_train := $(binary) train --data $(demo_data) --config $(demo_config) --out $(BUILD)/demo/run
demo: $(binary) $(if $(DATA),,$(demo_log)/schema.json)
	@rm -rf $(BUILD)/demo/run
	@echo '$$ $(demo_train)'
	@$(demo_train) >/dev/null
	@printf '%s\n' '' 'To try next:' \
	  '  an MLP on the same log, for comparison:' \
	  '    $(binary) train --data $(demo_data) \' \
	  '      --config $(dir $(demo_config))mlp.json --out $(BUILD)/demo/mlp' \
	  '  what is in the log, and what is likely to bite:  $(binary) inspect $(demo_data)' \
	  '  the models and the commands:                     $(binary) models;  $(binary) --help' \
	  '  a log of your own, which docs/schema.md says how to describe:  make demo DATA=DIR'
$(demo_log)/schema.json: $(binary)
	@echo '$$ $(binary) simulate --rows 250000 --out $(demo_log)'
	@$(binary) simulate --rows 250000 --out $(demo_log) --again

.PHONY: bench examples
bench: $(benches)
	@for bench in $(filter-out %/gpu_bench %/gpu_serve_bench,$(benches)); do $$bench || exit 1; done
examples: $(examples)

.PHONY: lint lint-headers lint-isa lint-links
lint: lint-headers lint-isa lint-links
	tests/lint.sh
lint-links:
	@tests/links.sh
# Every header compiles alone.
lint-headers: | $(BUILD)/packages
	@printf '%s\n' $(call files,$(rooms),*.h) | xargs -P $(JOBS) -I{} sh -c \
	  'echo "#include \"mixrec/{}\"" | $(CXX) $(CXXFLAGS) $(arch) -fsyntax-only -x c++ - || { echo "{} does not compile alone"; exit 255; }'
	@echo "lint-headers: ok"
# An inline function compiled for a newer processor is one that the linker may pick for the whole program.
isa_objects := $(call object,$(filter %_avx2.cpp %_avx512.cpp,$(sources)))
lint-isa: $(isa_objects)
	@for object in $^; do \
	  shared=$$(nm -C $$object | grep -E ' [VWuvw] ' | grep -v ' w _') && \
	    { printf '%s shares inline functions with the rest of the program:\n%s\n' "$$object" "$$shared"; exit 1; }; \
	done; echo "lint-isa: $(words $^) objects above the baseline share nothing"

# The public headers, which are what mixrec.h reaches, the library, the command line, and files for pkg-config and CMake.
.PHONY: install install-test
root    := $(DESTDIR)$(PREFIX)
other_libraries := $(filter-out -lcublasLt -lcudart_static,$(LDLIBS))
fill     = sed -e 's|@prefix@|$(PREFIX)|; s|@version@|$(version)|; s|@cuda@|$(CUDA)|; s|@libraries@|$(LDLIBS)|' \
  -e 's|@other_libraries@|$(filter-out -L% -Wl$(comma)% -lpthread,$(other_libraries))|' packaging/$(1).in > $(2)/$(1)
install: $(library) $(binary)
	@rm -rf $(root)/include/mixrec
	@install -d $(root)/include/mixrec $(root)/lib/pkgconfig $(root)/lib/cmake/mixrec $(root)/bin
	@$(CXX) $(CXXFLAGS) -MM mixrec.h | tr -d '\\' | tr -s ' ' '\n' | sed -n 's|^$(BUILD)/include/mixrec/||p' | sort -u | \
	  while read -r header; do install -D -m 644 $$header $(root)/include/mixrec/$$header || exit 1; done
	@install -m 644 mixrec.h $(BUILD)/generated/mixrec/config.h $(root)/include/mixrec
	@install -m 644 $(library) $(root)/lib && install -m 755 $(binary) $(root)/bin
	@$(call fill,mixrec.pc,$(root)/lib/pkgconfig)
	@$(call fill,mixrecConfig.cmake,$(root)/lib/cmake/mixrec)
	@$(call fill,mixrecConfigVersion.cmake,$(root)/lib/cmake/mixrec)
	@echo "installed in $(root)"
# Programs outside the tree, by pkg-config and by CMake.
install-test: $(library) $(binary)
	@rm -rf $(BUILD)/installed
	@$(MAKE) install PREFIX=$(abspath $(BUILD)/installed) DESTDIR=
	@tests/install/run.sh $(abspath $(BUILD)/installed) $(version)

.PHONY: format clean
format:
	clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-coverage

-include $(shell find $(BUILD)/obj $(BUILD)/fuzz -name '*.d' 2>/dev/null)
