# mixrec: `make` builds, `make demo` shows, `make test` proves.  `make help` lists the rest.

BUILD   ?= build
ARCH    ?= x86-64-v3
CXX     ?= g++
PREFIX  ?= /usr/local
DEBUG   ?= 0
SANITIZE ?=
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
MAKEFLAGS += -j$(JOBS) --no-print-directory

rooms   := core autograd ops nn models optim data train
sources := $(sort $(wildcard $(addsuffix /*.cpp,$(rooms))))
library_sources := $(filter-out train/main.cpp,$(sources))
test_sources    := $(sort $(wildcard tests/*.cpp))
bench_sources   := $(sort $(wildcard tests/bench/*.cpp))
example_sources := $(sort $(wildcard examples/*.cpp))

object   = $(patsubst %.cpp,$(BUILD)/obj/%.o,$(1))
library := $(BUILD)/libmixrec.a
binary  := $(BUILD)/mixrec
tests   := $(BUILD)/tests/run_tests
benches := $(patsubst tests/bench/%.cpp,$(BUILD)/bench/%,$(bench_sources))
examples := $(patsubst examples/%.cpp,$(BUILD)/examples/%,$(example_sources))

optimise := $(if $(filter 1,$(DEBUG)),-O1 -g,-O3) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# Tests are compiled for build time: the code under test is in the library.
optimise_tests := $(if $(SANITIZE),$(optimise),-O1)
warnings := -Wall -Wextra -Wno-psabi $(if $(CI),-Werror)
# The whole library is built for ARCH; files named *_avx2 and *_avx512 go above it, and run only
# after a look at the processor; files named *_baseline go below it: they run on any.
arch     := -march=$(ARCH)
maths    := -fno-math-errno -fno-trapping-math -ffp-contract=fast
CXXFLAGS += -std=c++20 -fopenmp $(warnings) $(maths) -I$(BUILD)/include -I$(BUILD)/generated
LDFLAGS  += -fopenmp $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LDLIBS   += -lpthread

.PHONY: all lib help
all: $(binary)
lib: $(library)

$(BUILD)/include/mixrec:
	@mkdir -p $(BUILD)/include && ln -sfn $(CURDIR) $@

$(BUILD)/generated/mixrec/config.h: Makefile
	@mkdir -p $(@D)
	@printf '// Written by make: what this build contains.\n#pragma once\n#define MIXREC_CUDA 0\n#define MIXREC_ARCH "%s"\n' '$(ARCH)' > $@

prepared := $(BUILD)/generated/mixrec/config.h | $(BUILD)/include/mixrec

compile = $(CXX) $(CXXFLAGS) $(1) -MMD -MP -c $< -o $@

$(BUILD)/obj/%_baseline.o: %_baseline.cpp $(prepared)
	@mkdir -p $(@D)
	$(call compile,$(optimise) -march=x86-64)
$(BUILD)/obj/%_avx2.o: %_avx2.cpp $(prepared)
	@mkdir -p $(@D)
	$(call compile,$(optimise) -march=x86-64-v3)
$(BUILD)/obj/%_avx512.o: %_avx512.cpp $(prepared)
	@mkdir -p $(@D)
	$(call compile,$(optimise) -march=x86-64-v4 -mprefer-vector-width=512)
$(BUILD)/obj/tests/%.o: tests/%.cpp $(prepared)
	@mkdir -p $(@D)
	$(call compile,$(optimise_tests) $(arch))
$(BUILD)/obj/%.o: %.cpp $(prepared)
	@mkdir -p $(@D)
	$(call compile,$(optimise) $(arch))

$(library): $(call object,$(library_sources))
	@rm -f $@ && ar rcs $@ $^
$(binary): $(call object,train/main.cpp) $(library)
	$(CXX) $^ $(LDFLAGS) $(LDLIBS) -o $@
$(tests): $(call object,$(test_sources)) $(library)
	@mkdir -p $(@D)
	$(CXX) $^ $(LDFLAGS) $(LDLIBS) -o $@
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(library)
	@mkdir -p $(@D)
	$(CXX) $^ $(LDFLAGS) $(LDLIBS) -o $@
$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(library)
	@mkdir -p $(@D)
	$(CXX) $^ $(LDFLAGS) $(LDLIBS) -o $@

.PHONY: test test-build
test-build: $(tests)
test: $(tests)
	$(tests)

.PHONY: lint-isa
# An inline function compiled for a newer processor is one that the linker may pick for the whole program.
isa_objects := $(call object,$(filter %_avx2.cpp %_avx512.cpp,$(sources)))
lint-isa: $(isa_objects)
	@for object in $^; do \
	  shared=$$(nm -C $$object | grep -E ' [VWuvw] ' | grep -v ' w _') && \
	    { printf '%s shares inline functions with the rest of the program:\n%s\n' "$$object" "$$shared"; exit 1; }; \
	done; echo "lint-isa: $(words $^) objects above the baseline share nothing"

.PHONY: format clean
format:
	clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
