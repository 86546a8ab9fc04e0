# objstore: build, run, test. `make` alone lists the targets.
#
# Sources are found by wildcard: every .c of a library folder goes into libobjstore.a, cmd/objctl*.c
# into objctl, cmd/common_*.c into both programs, the other cmd/*.c into objstore, and each
# tests/unit/NAME_test.c is one test program. All output lies under $(BUILD).

VERSION := 0.1.0
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
PYTHON  ?= python3
ifeq ($(origin CC),default)
CC := gcc
endif

# One job for each processor, unless the caller asked for something.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

LIB_DIRS := base storage journal cluster api/http api
LIB_SRC  := $(foreach dir,$(LIB_DIRS),$(wildcard $(dir)/*.c))
CTL_SRC  := $(wildcard cmd/objctl*.c)
BOTH_SRC := $(wildcard cmd/common_*.c)
NODE_SRC := $(filter-out $(CTL_SRC) $(BOTH_SRC),$(wildcard cmd/*.c))
UNIT_SRC := $(wildcard tests/unit/*$(ONE)*_test.c)
HELP_SRC := $(filter-out %_test.c,$(wildcard tests/unit/*.c)) tests/sim/sim_disk.c tests/sim/sim_inode.c
SIM_SRC  := $(wildcard tests/sim/*.c)
# The simulator of clusters: its disks and what it asks of a store are the other one's. It has the
# link and the pool of its own, which the linker therefore does not take from the library.
CLSIM_SRC  := $(wildcard tests/cluster_sim/*.c)
CLSIM_PARTS := tests/sim/sim_disk.c tests/sim/sim_inode.c tests/sim/sim_check_store.c
C_FILES  := $(LIB_SRC) $(wildcard cmd/*.c tests/unit/*.c tests/bench/*.c) $(SIM_SRC) $(CLSIM_SRC)
H_FILES  := $(foreach dir,$(LIB_DIRS) cmd tests/unit tests/bench tests/sim tests/cluster_sim,\
                $(wildcard $(dir)/*.h))

# Debian's node-llhttp ships the parser as C sources.
LLHTTP_DIR := /usr/share/llhttp
LLHTTP_OBJ := $(addprefix $(BUILD)/llhttp/,api.o http.o llhttp.o)

LIB   := $(BUILD)/libobjstore.a
NODE  := $(BUILD)/objstore
CTL   := $(BUILD)/objctl
OBJ    = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
UNITS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
SIM   := $(BUILD)/sim/sim
CLSIM := $(BUILD)/sim/cluster_sim
VENV  := build/venv

# --- flags ---------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wold-style-definition -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Wformat=2 \
            -Wredundant-decls -Wnested-externs -Winit-self -Wimplicit-fallthrough \
            -Wmissing-declarations -Wdate-time -Wcast-align
DEFINES  := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DOBJSTORE_VERSION='"$(VERSION)"'
INCLUDES := -I. -isystem /usr/share/include/llhttp
HARDEN   := -fstack-protector-strong -fPIE
LINK     := -pie -Wl,-z,relro,-z,now,--as-needed

ifneq ($(SANITIZE),)
# FORTIFY's checked functions would hide the accesses that the sanitizers are to see.
OPTIMIZE := -O1 -g -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
LINK     += -fsanitize=$(SANITIZE)
else ifneq ($(COVERAGE),)
OPTIMIZE := -O1 -g --coverage -fprofile-update=atomic
LINK     += --coverage
else
OPTIMIZE := -O2 -g -D_FORTIFY_SOURCE=2
endif

# CFLAGS and LDFLAGS stay the user's.
ALL_CFLAGS := -std=gnu11 $(OPTIMIZE) $(HARDEN) $(WARNINGS) $(DEFINES) $(INCLUDES) -pthread $(CFLAGS)
LIBS       := -lsqlite3 -lssl -lcrypto -lxxhash -ljansson -lmsgpackc -lzmq -lcurl -lexpat -lpthread

# --- building ------------------------------------------------------------------------------------

.PHONY: help
help:
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16 | sed 's/^/  /'

.PHONY: build
build: $(NODE) $(CTL) ## build build/objstore and build/objctl (CC=clang works, too)

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  CC    $<'
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Not our code: its warnings are not ours either.
$(BUILD)/llhttp/%.o: $(LLHTTP_DIR)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  CC    $<'
	@$(CC) -std=gnu11 $(OPTIMIZE) $(HARDEN) -w -DLLHTTP_STRICT_MODE=1 -I/usr/share/include/llhttp \
	    $(CFLAGS) -MMD -MP -c -o $@ $<

# Another compiler, or other flags, mean: build all of it again.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(ALL_CFLAGS) $(LINK) $(LDFLAGS))' | cmp -s - $@ || \
	    echo '$(subst ','\'',$(CC) $(ALL_CFLAGS) $(LINK) $(LDFLAGS))' > $@

# The list of sources is an input, so that a removed file leaves the library.
$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_SRC) $(NODE_SRC) $(CTL_SRC) $(BOTH_SRC)' | cmp -s - $@ || \
	    echo '$(LIB_SRC) $(NODE_SRC) $(CTL_SRC) $(BOTH_SRC)' > $@

$(LIB): $(call OBJ,$(LIB_SRC)) $(LLHTTP_OBJ) $(BUILD)/sources
	@echo '  AR    $@'
	@rm -f $@
	@ar rcs $@ $(filter %.o,$^)

$(NODE): $(call OBJ,$(NODE_SRC) $(BOTH_SRC)) $(LIB) $(BUILD)/sources
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

$(CTL): $(call OBJ,$(CTL_SRC) $(BOTH_SRC)) $(LIB) $(BUILD)/sources
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

$(BUILD)/unit/%_test: $(BUILD)/obj/tests/unit/%_test.o $(call OBJ,$(HELP_SRC)) $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) -lcmocka $(LIBS)

$(SIM): $(call OBJ,$(SIM_SRC)) $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

$(CLSIM): $(call OBJ,$(CLSIM_SRC) $(CLSIM_PARTS)) $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# What `make bench` needs of the library's; its other tools stand alone (tests/bench/tools.py).
DIFFER := $(BUILD)/bench/differ
$(DIFFER): $(BUILD)/obj/tests/bench/differ.o $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# The node with a feature level and an event kind more, for a test of what differing nodes do
# together: the few sources that speak of levels, compiled anew, before the library.
FEATURE     := $(BUILD)/feature/objstore
FEATURE_SRC := $(shell grep -lE 'FEATURE_LEVEL|OBJSTORE_FEATURE_BUILD' $(LIB_SRC))
FEATURE_OBJ := $(patsubst %.c,$(BUILD)/feature/obj/%.o,$(FEATURE_SRC))

$(BUILD)/feature/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  CC    $< (feature)'
	@$(CC) $(ALL_CFLAGS) -DOBJSTORE_FEATURE_BUILD -MMD -MP -c -o $@ $<

$(FEATURE): $(FEATURE_OBJ) $(call OBJ,$(NODE_SRC) $(BOTH_SRC)) $(LIB) $(BUILD)/sources
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# Drives the cloud's backends for tests in Python.
DRIVE    := $(BUILD)/cloud_drive
C_FILES  += $(wildcard tests/tools/*.c)

$(DRIVE): $(call OBJ,tests/tools/cloud_drive.c) $(LIB)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# … and puts one of them to the test of what all promise (tests/unit/cloud_contract.c).
CONTRACT := $(BUILD)/cloud_contract

$(CONTRACT): $(call OBJ,tests/tools/cloud_contract_s3.c tests/unit/cloud_contract.c) $(LIB)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) -lcmocka $(LIBS)

.PHONY: cloud-drive
cloud-drive: $(DRIVE) $(CONTRACT)

.PHONY: feature-build
feature-build: $(FEATURE) ## build build/feature/objstore: this node with an event kind more

.PHONY: FORCE units lib
FORCE:
units: $(UNITS)
lib: $(LIB)
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' -not -path '*/venv/*' 2>/dev/null)

# --- running -------------------------------------------------------------------------------------

.PHONY: setup run cluster
setup: ## install the Debian packages that building and testing need
	@scripts/setup.sh build test

run: ## set up, build, and start one node on 127.0.0.1:10999, state under run/
	@scripts/setup.sh build
	@$(MAKE) --no-print-directory build
	@scripts/run.sh $(BUILD)

cluster: ## the same with three nodes that form one cluster, state under run/cluster-N
	@scripts/setup.sh build
	@$(MAKE) --no-print-directory build
	@scripts/cluster.sh $(BUILD)

# --- testing -------------------------------------------------------------------------------------

.PHONY: unit sim sim-mutants cluster-sim cluster-sim-mutants unit-mutants mutants integration test test-large asan tsan coverage bench
# How the programs under test are found; absolute, because tests change directory.
export OBJSTORE_BIN := $(abspath $(NODE))
export OBJCTL_BIN   := $(abspath $(CTL))
export OBJSTORE_TEST_BUILD := $(abspath $(BUILD))
export ASAN_OPTIONS  ?= detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS  ?= second_deadlock_stack=1:suppressions=$(abspath scripts/tsan.supp)

unit: units ## run the unit tests; ONE=name picks some
	@scripts/run-unit.sh $(BUILD) $(or $(ONE),)

sim: $(SIM) ## kill the simulated node at every call; SEEDS=A..B or a count for campaigns
	@tests/sim/run.sh $(BUILD) $(SEEDS)

cluster-sim: $(CLSIM) ## run 100 hours of a simulated cluster; SEEDS=A..B or a count, HOURS= of each; REPLAY=seed
	@tests/cluster_sim/run.sh $(BUILD) '$(or $(REPLAY),$(SEEDS))' '$(HOURS)' $(if $(REPLAY),--seed=$(REPLAY) --verbose)

cluster-sim-mutants: $(CLSIM) ## plant bugs one by one; the simulated cluster has to find each; ONE=name picks some
	@$(PYTHON) tests/cluster_sim/mutants.py $(BUILD) '$(subst ','\'',$(CC) $(ALL_CFLAGS))' \
	    '$(CC) $(LINK) $(LDFLAGS)' '$(LIBS)' '$(ONE)'

unit-mutants: $(LIB) $(call OBJ,$(wildcard tests/unit/*.c)) ## plant bugs about import and coalescing one by one; a unit test has to find each
	@$(PYTHON) tests/unit/mutants.py $(BUILD) '$(subst ','\'',$(CC) $(ALL_CFLAGS))' \
	    '$(CC) $(LINK) $(LDFLAGS)' '-lcmocka $(LIBS)' '$(ONE)'

sim-mutants: $(SIM) ## plant bugs one by one; the simulator has to find each; ONE=name picks some
	@$(PYTHON) tests/sim/mutants.py $(BUILD) '$(subst ','\'',$(CC) $(ALL_CFLAGS))' \
	    '$(CC) $(LINK) $(LDFLAGS)' '$(LIBS)' '$(ONE)'

mutants: units build/mutants/ready ## change FILE=journal/decide.c in small ways; a test has to notice (COUNT=150 SEED=1)
	@$(PYTHON) scripts/mutants.py build/mutants/bin/mutate $(BUILD) '$(subst ','\'',$(CC) $(ALL_CFLAGS))' \
	    '$(CC) $(LINK) $(LDFLAGS)' '$(LIBS)' '$(FILE)' $(or $(COUNT),150) $(or $(SEED),1)

build/mutants/ready: tests/requirements-mutants.txt
	@echo '  VENV  build/mutants'
	@$(PYTHON) -m venv build/mutants && build/mutants/bin/pip -q install -r $<
	@touch $@

integration: build feature-build $(DRIVE) $(CONTRACT) $(VENV)/ready ## run the integration tests; ONE=expression picks some
	@scripts/run-integration.sh $(BUILD) $(VENV) $(if $(ONE),-k '$(ONE)')

test: ## set up, build, run every test
	@scripts/setup.sh build test
	@scripts/test.sh $(BUILD)

test-large: build $(VENV)/ready ## run the tests with bodies around 4 GiB
	@OBJSTORE_TEST_LARGE=1 scripts/run-integration.sh $(BUILD) $(VENV) -m large

asan: ## run all tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/setup.sh build test
	@SANITIZE=address,undefined scripts/test.sh build/asan

tsan: ## run all tests with ThreadSanitizer
	@scripts/setup.sh build test
	@SANITIZE=thread scripts/test.sh build/tsan

coverage: ## run all tests and print the line coverage (at least 85 %)
	@scripts/setup.sh build test coverage
	@COVERAGE=1 scripts/coverage.sh build/coverage

bench: ## measure side by side with nginx (minutes; not a test); ONE=case,… picks
	@scripts/setup.sh build test bench
	@$(MAKE) --no-print-directory build $(DIFFER) $(VENV)/ready
	@$(VENV)/bin/python tests/bench/run.py $(if $(ONE),--only $(ONE)) $(BENCH)

$(VENV)/ready: tests/requirements.txt
	@echo '  VENV  $(VENV)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# --- fuzzing ---------------------------------------------------------------------------------------

# Two builds of the targets tests/fuzz/NAME_fuzz.c: with clang's libFuzzer under $(BUILD)/fuzz, which
# makes inputs up; with any compiler under build/asan, which replays those of tests/fuzz/corpus/NAME.
# ONE=name picks some.
FUZZ_SRC     := $(wildcard tests/fuzz/*_fuzz.c)
FUZZ_NAMES   := $(patsubst tests/fuzz/%_fuzz.c,%,$(FUZZ_SRC))
FUZZ_PICK     = $(foreach name,$(FUZZ_NAMES),$(if $(findstring $(ONE),$(name)),$(name)))
FUZZ_PARTS   := tests/fuzz/fuzz_quiet_log.c cmd/options.c cmd/options_table.c $(BOTH_SRC)
FUZZ_TARGETS  = $(patsubst %,$(BUILD)/fuzz/%,$(if $(ONE),$(FUZZ_PICK),$(FUZZ_NAMES)))
C_FILES      += $(wildcard tests/fuzz/*.c)
H_FILES      += $(wildcard tests/fuzz/*.h)
FUZZ_SECONDS ?= 60

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%_fuzz.o $(call OBJ,$(FUZZ_PARTS) $(FUZZ_MAIN)) $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(FUZZ_LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

$(BUILD)/fuzz-seeds: $(call OBJ,$(wildcard tests/fuzz/fuzz_seeds*.c) tests/fuzz/fuzz_quiet_log.c) $(LIB)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

.PHONY: fuzzers fuzz fuzz-corpus fuzz-seeds
fuzzers: $(FUZZ_TARGETS)

fuzz: ## fuzz each decoder for FUZZ_SECONDS (60; clang); ONE=name picks some
	@$(MAKE) --no-print-directory BUILD=build/fuzz CC=clang ONE='$(ONE)' \
	    SANITIZE=fuzzer-no-link,address,undefined FUZZ_LINK=-fsanitize=fuzzer fuzzers
	@tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS) $(if $(ONE),$(FUZZ_PICK),$(FUZZ_NAMES))

fuzz-corpus: ## replay the fuzzers' corpora under ASan and UBSan; ONE=name picks some
	@$(MAKE) --no-print-directory BUILD=build/asan SANITIZE=address,undefined ONE='$(ONE)' \
	    FUZZ_MAIN=tests/fuzz/fuzz_replay.c fuzzers
	@RESULTS=$(BUILD) tests/fuzz/replay.sh build/asan $(if $(ONE),$(FUZZ_PICK),$(FUZZ_NAMES))

fuzz-seeds: $(BUILD)/fuzz-seeds ## write the generated part of the fuzzers' corpora anew
	@$(BUILD)/fuzz-seeds tests/fuzz/corpus

# --- faults ----------------------------------------------------------------------------------------

# tests/fault makes the k-th call of the allocator, of SQLite, on files or on sockets fail. The linker
# gives it those calls of the library: each __wrap_NAME in it is one.
FAULT_SRC   := $(wildcard tests/fault/*.c)
FAULT_PARTS := $(FAULT_SRC) cmd/node.c cmd/node_cloud.c cmd/gate.c cmd/options.c cmd/options_table.c $(BOTH_SRC)
C_FILES     += $(FAULT_SRC)
H_FILES     += $(wildcard tests/fault/*.h)

$(BUILD)/fault: $(call OBJ,$(FAULT_PARTS)) $(LIB)
	@echo '  LINK  $@'
	@$(CC) $(LINK) $(LDFLAGS) $$(nm $(call OBJ,tests/fault/fault_calls.c) | \
	    sed -n 's/.* T __wrap_/-Wl,--wrap=/p') -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

.PHONY: fault faulty
faulty: $(BUILD)/fault

fault: ## make calls fail one by one under ASan (ALL=1 or DEPTH=5: more; ONE=scenario WAY=file; REPLAY='…')
	@$(MAKE) --no-print-directory BUILD=build/asan SANITIZE=address,undefined faulty
	@RESULTS=$(BUILD) tests/fault/run.sh build/asan/fault \
	    $(if $(REPLAY),replay $(REPLAY),$(if $(ALL),all,$(or $(DEPTH),1)) $(if $(WAY),'$(ONE)' $(WAY),$(ONE)))

# --- care ----------------------------------------------------------------------------------------

.PHONY: lint format install clean
lint: ## check include order, headers, format, clang-tidy, cppcheck, both compilers' warnings
	@scripts/setup.sh build test lint
	@CC='$(CC)' WARNINGS='$(WARNINGS)' scripts/lint.sh $(C_FILES) $(H_FILES)

format: ## clang-format all C files in place
	@scripts/setup.sh lint
	@clang-format -i $(C_FILES) $(H_FILES)

install: build ## install the programs under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(NODE) $(CTL) $(DESTDIR)$(PREFIX)/bin/
	@for page in $(wildcard deploy/man/*.[158]); do \
	    section=$${page##*.}; install -d $(DESTDIR)$(PREFIX)/share/man/man$$section; \
	    install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$$section/; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -m 644 deploy/objctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/objctl
	install -m 644 deploy/objctl.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_objctl

clean: ## remove build/ (the node's state under run/ stays)
	rm -rf build
