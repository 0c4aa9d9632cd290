# SPDX-License-Identifier: Apache-2.0
# decant: see README.md. `make V=1` shows the commands, `make SAN=address|thread` builds an
# instrumented copy below build/SAN/ (address: with undefined behaviour), `make FAULTS=1` one with
# named fault points (common/util/faultpoint.h) below build/faults/, `make fuzz` one for libFuzzer
# below build/fuzz/. Two jobs at a time or as many as there are processors, unless -j says otherwise.

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
PREFIX  ?= /usr/local
DESTDIR ?=
# libFuzzer is clang's.
ifdef FUZZ
override CC := $(filter ccache,$(CC)) clang
BUILD   := build/fuzz
else
BUILD   := build$(if $(SAN),/$(SAN))$(if $(FAULTS),/faults)
endif
VERSION := 0.1.0

ifneq ($(V),1)
Q := @
say = @printf '  %-7s %s\n' $(1) $(2)
endif

ifeq ($(MAKELEVEL)$(filter clean,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

comma     := ,
PKGS      := openssl libevent libevent_pthreads jansson libxxhash libsystemd
CSTD      := -std=gnu17 -D_GNU_SOURCE -DDECANT_VERSION='"$(VERSION)$(if $(FAULTS),+faults)"' \
             $(if $(FAULTS),-DDECANT_FAULTS)
WARN      := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wundef -Werror
ifdef FUZZ
WARN      := -w
endif
# Instrumented code compiles in half the time without optimizing, and more of it is looked at. What tests
# consist of, other than what measures, stands for guests or is fuzzed, is compiled for debugging.
OPT       ?= $(if $(SAN),-O0,-O2) -g
OPT_TESTS := $(if $(SAN)$(FUZZ),,-Og)
FOR_DEBUG := tests/unit/% tests/integration/% tests/faults/% tests/lib/% tests/soak/% tests/hosts/% tests/fuzz/%
SAN_address := address,undefined
# ThreadSanitizer does not see fences; what they order here are atomics, which it does see.
SANFLAGS  := $(if $(SAN),-fsanitize=$(or $(SAN_$(SAN)),$(SAN)) -fno-omit-frame-pointer) \
             $(if $(filter address,$(SAN)),-fno-sanitize-recover=undefined) \
             $(if $(filter thread,$(SAN)),-Wno-tsan) \
             $(if $(FUZZ),-fsanitize=fuzzer-no-link$(comma)address$(comma)undefined \
             -fno-sanitize-recover=all -fno-omit-frame-pointer)
CFLAGS_    = $(CSTD) $(WARN) $(OPT) $(if $(filter $(FOR_DEBUG),$<),$(OPT_TESTS)) -fPIC -fvisibility=hidden -pthread $(SANFLAGS) \
             $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_  := -pthread $(SANFLAGS) $(LDFLAGS)
LIBS      = $(PKG_LIBS)

# Sets PKG_CFLAGS and PKG_LIBS. Make reads itself anew after making this file, so that a machine
# that lacks even pkg-config gets it first.
ifneq ($(filter-out clean format,$(or $(MAKECMDGOALS),all)),)
include build/deps.mk
endif
build/deps.mk: tests/deps
	$(Q)tests/deps build && mkdir -p build
	$(Q)c="$$(pkg-config --cflags $(PKGS))" && l="$$(pkg-config --libs $(PKGS))" && \
	printf 'PKG_CFLAGS := %s\nPKG_LIBS := %s\n' "$$c" "$$l" >$@

# The law of the layers: what a folder may include is what its include path shows it.
INC_common     := -Icommon
INC_proto      := -Icommon -Iproto
INC_src-source := -Icommon -Iproto -Isrc-source
INC_src-dest   := -Icommon -Iproto -Isrc-dest
INC_tests      := -Icommon -Iproto -Isrc-source -Isrc-dest -Itests

src       = $(wildcard $(1)/*.c $(1)/*/*.c $(1)/*/*/*.c)
# What has no fault point, and does not tell the version, is the same object with them and without.
FAULTY   := $(if $(FAULTS),$(shell grep -rlE 'faultpoint.h|DECANT_VERSION' --include='*.c' common proto src-source src-dest))
obj       = $(foreach f,$(1),$(if $(FAULTS),$(if $(filter $(f),$(FAULTY)),$(BUILD),build),$(BUILD))/obj/$(f:.c=.o))
GUESTLIB_SRC := $(wildcard common/guest/lib/*.c)
COMMON_SRC   := $(filter-out $(GUESTLIB_SRC),$(call src,common))
# What the library for guests has in common with the agents: its protocol.
GUESTLIB_SHARED := common/guest/gwire.c common/util/bytes.c common/util/fdpass.c
PROTO_SRC    := $(call src,proto)
SOURCE_SRC   := $(filter-out src-source/main.c,$(call src,src-source))
DEST_SRC     := $(filter-out src-dest/main.c,$(call src,src-dest))

.DEFAULT_GOAL := all
PROGRAMS := $(BUILD)/decant-source $(BUILD)/decant-dest $(BUILD)/decant
LIBRARIES := $(BUILD)/libdecant-guest.a $(BUILD)/libdecant-guest.so

.PHONY: all
all: $(PROGRAMS) $(LIBRARIES)

define compile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_) $(INC_$(firstword $(subst /, ,$<))) -MMD -MP -c -o $@ $<
endef
$(BUILD)/obj/%.o: %.c
	$(compile)
ifdef FAULTS
build/obj/%.o: %.c
	$(compile)
endif

define archive
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^
endef

# What the agents serve as it is lies inside them.
build/openapi.json: deploy/openapi.yaml
	$(call say,JSON,$@)
	$(Q)mkdir -p $(@D) && /usr/bin/python3 -c 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout, separators=(",", ":"))' \
		$< >$@.new && mv $@.new $@
# The page's policy names its script and its style by what they are.
build/page.csp: deploy/page.html common/rest/policy
	$(call say,CSP,$@)
	$(Q)mkdir -p $(@D) && /usr/bin/python3 common/rest/policy $< >$@.new && mv $@.new $@
$(call obj,common/rest/rest_doc.c): build/openapi.json build/page.csp deploy/page.html

$(BUILD)/libcommon.a: $(call obj,$(COMMON_SRC))
	$(archive)
$(BUILD)/libproto.a: $(call obj,$(PROTO_SRC))
	$(archive)
$(BUILD)/libsource.a: $(call obj,$(SOURCE_SRC))
	$(archive)
$(BUILD)/libdest.a: $(call obj,$(DEST_SRC))
	$(archive)
# One object whose only global symbols are those of decant-guest.h: nothing else of ours may meet
# the names of the program that it is linked into.
$(BUILD)/obj/libdecant-guest.o: $(call obj,$(GUESTLIB_SRC) $(GUESTLIB_SHARED))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -r -nostdlib -o $@ $^ && objcopy --localize-hidden $@
$(BUILD)/libdecant-guest.a: $(BUILD)/obj/libdecant-guest.o
	$(archive)
$(BUILD)/libdecant-guest.so: $(call obj,$(GUESTLIB_SRC) $(GUESTLIB_SHARED))
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libdecant-guest.so -o $@ $^ $(LDFLAGS_)

$(BUILD)/decant-source: $(BUILD)/obj/src-source/main.o $(BUILD)/libsource.a $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)
$(BUILD)/decant-dest: $(BUILD)/obj/src-dest/main.o $(BUILD)/libdest.a $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)
$(BUILD)/decant: $(BUILD)/decant-source
	$(Q)ln -sf decant-source $@

# --- tests -------------------------------------------------------------------------------------
# tests/unit/NAME.c and tests/integration/NAME.c are Criterion programs of one file each,
# tests/platform/NAME.c and tests/guests/NAME.c plain programs, tests/lib/*.c what they share.
UNIT_BIN     := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*.c))
INTEG_BIN    := $(patsubst tests/integration/%.c,$(BUILD)/tests/integration/%,$(wildcard tests/integration/*.c))
FAULT_BIN    := $(patsubst tests/faults/%.c,$(BUILD)/tests/faults/%,$(wildcard tests/faults/*.c))
PLATFORM_BIN := $(patsubst tests/platform/%.c,$(BUILD)/tests/platform/%,$(wildcard tests/platform/*.c))
PRELOADS     := $(patsubst tests/preload/%.c,$(BUILD)/tests/preload/%.so,$(wildcard tests/preload/*.c))
GUEST_BIN    := $(patsubst tests/guests/%.c,$(BUILD)/tests/guests/%,$(wildcard tests/guests/*.c))
HOSTS_BIN    := $(BUILD)/tests/hosts/hosts
DEMO_BIN     := $(BUILD)/tests/demo/demo $(BUILD)/tests/demo/demo_qemu
SOAK_BIN     := $(BUILD)/tests/soak/main
BENCH_BIN    := $(BUILD)/tests/bench/bench $(BUILD)/tests/bench/pacer
TESTLIB      := $(BUILD)/libtests.a
AGENT_LIBS   := $(BUILD)/libsource.a $(BUILD)/libdest.a $(BUILD)/libproto.a $(BUILD)/libcommon.a

$(TESTLIB): $(call obj,$(wildcard tests/lib/*.c))
	$(archive)
$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(TESTLIB) $(AGENT_LIBS) $(BUILD)/libdecant-guest.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion
$(BUILD)/tests/unit/guest_stamp: | $(BUILD)/tests/guests/stamp
SOAK_OBJ := $(call obj,$(filter-out tests/soak/main.c,$(wildcard tests/soak/*.c)))
$(BUILD)/tests/integration/soak: $(BUILD)/obj/tests/integration/soak.o $(SOAK_OBJ) $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion
$(BUILD)/tests/integration/%: $(BUILD)/obj/tests/integration/%.o $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion
$(BUILD)/tests/faults/%: $(BUILD)/obj/tests/faults/%.o $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion
$(HOSTS_BIN): | deps
$(HOSTS_BIN): $(call obj,$(wildcard tests/hosts/*.c)) $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion
# What agents are started with where the machine itself must not be changed.
$(BUILD)/tests/preload/%.so: $(BUILD)/obj/tests/preload/%.o
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -shared -o $@ $^ $(LDFLAGS_)
$(FAULT_BIN) $(BUILD)/tests/integration/syncs: | $(PRELOADS)
# The proofs about QEMU take the tests' VM; the others use nothing of ours.
$(BUILD)/tests/platform/qemu: $(BUILD)/obj/tests/platform/qemu.o $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)
$(BUILD)/tests/platform/%: $(BUILD)/obj/tests/platform/%.o
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_)
# A guest may have further files in a folder of its name.
$(BUILD)/tests/guests/stamp: $(call obj,$(wildcard tests/guests/stamp/*.c))
$(BUILD)/tests/guests/%: $(BUILD)/obj/tests/guests/%.o $(BUILD)/libdecant-guest.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_)
$(BUILD)/tests/bench/pacer: $(BUILD)/obj/tests/bench/guest/pacer.o $(BUILD)/libdecant-guest.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_)
$(BUILD)/tests/bench/bench: $(call obj,$(wildcard tests/bench/*.c))
$(SOAK_BIN): $(BUILD)/obj/tests/soak/main.o $(SOAK_OBJ) $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)
# The other comparison: with QEMU's own migration.
$(BUILD)/tests/bench/bench_qemu: $(call obj,$(wildcard tests/bench/qemu/*.c) tests/bench/report.c) $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)
$(DEMO_BIN): $(BUILD)/obj/tests/demo/demo_lib.o
$(BUILD)/tests/bench/bench $(DEMO_BIN): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TESTLIB) $(BUILD)/libproto.a $(BUILD)/libcommon.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS)

# tests/fuzz/NAME.c is a fuzz target: a program of libFuzzer's below build/fuzz, elsewhere one that
# runs stored inputs. It gets the agent that its name begins with, and where it is about sessions a
# channel without TLS in the place of the real one; those that run a whole agent share its guest and
# its client.
FUZZ_NAMES   := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
FUZZ_BIN     := $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz/%)
FUZZ_PLAIN   := $(filter proto_conn proto_frame source_% dest_%,$(FUZZ_NAMES))
FUZZ_WHOLE   := $(filter %_rest %_session %_journal,$(FUZZ_NAMES))
fuzz_agent    = $(if $(filter source_%,$(1)),$(BUILD)/libsource.a)$(if $(filter dest_%,$(1)),$(BUILD)/libdest.a)

$(FUZZ_PLAIN:%=$(BUILD)/tests/fuzz/%): $(BUILD)/obj/tests/fuzz/lib/plain_chan.o
$(FUZZ_WHOLE:%=$(BUILD)/tests/fuzz/%): $(call obj,tests/fuzz/lib/fuzz_client.c tests/fuzz/lib/fuzz_vm.c)
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(call obj,tests/fuzz/lib/fuzz.c) \
		$(if $(FUZZ),,$(BUILD)/obj/tests/fuzz/lib/replay.o) $(AGENT_LIBS)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $(filter %.o,$^) $(call fuzz_agent,$*) $(BUILD)/libproto.a \
		$(BUILD)/libcommon.a $(LDFLAGS_) $(if $(FUZZ),-fsanitize=fuzzer) $(LIBS)
# The stored inputs that are made, not found or written by hand.
$(BUILD)/tests/seeds: $(call obj,$(wildcard tests/fuzz/seeds/*.c)) $(AGENT_LIBS)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -o $@ $^ $(LDFLAGS_) $(LIBS) -lcriterion

.PHONY: fuzz fuzz-targets seeds
fuzz:
	$(Q)tests/deps build fuzz
	$(Q)$(MAKE) --no-print-directory FUZZ=1 fuzz-targets
fuzz-targets: $(FUZZ_BIN)
seeds: $(BUILD)/tests/seeds
	$(Q)$(BUILD)/tests/seeds tests/fuzz/corpus

SANITIZERS := address thread
TESTS := $(FUZZ_BIN) $(UNIT_BIN) $(INTEG_BIN) $(FAULT_BIN) $(PLATFORM_BIN) $(GUEST_BIN)
CERTS := build/test-certs/complete

$(CERTS): tests/lib/certs deploy/decant-certs
	$(call say,CERTS,$(@D))
	$(Q)tests/lib/certs $(@D)

.PHONY: deps vm frozen tests sanitized faulty test test-full test-faults test-mutants test-soak test-hosts bench bench-qemu demo demo-qemu
deps:
	$(Q)tests/deps build test
$(UNIT_BIN) $(INTEG_BIN) $(FAULT_BIN): | deps
$(INTEG_BIN) $(FAULT_BIN) $(BUILD)/tests/platform/qemu: | vm
# What the tests' VM boots; it sees by itself whether anything is to be done.
vm: deps
	$(Q)CC='$(CC)' tests/vm/make
# Agents of the protocol's version before, of which a copy of the source is kept.
frozen: deps
	$(Q)CC='$(CC)' tests/frozen/make
$(BUILD)/tests/integration/upgrade: | frozen
tests: $(TESTS) $(CERTS)
sanitized: all
	$(Q)for s in $(SANITIZERS); do $(MAKE) --no-print-directory SAN=$$s all || exit; done
# Agents that end where they are told to; the tests that tell them are in tests/faults.
faulty: all
	$(Q)$(MAKE) --no-print-directory FAULTS=1 all
test: deps all tests sanitized faulty
	$(Q)tests/run
test-full: deps all tests sanitized faulty fuzz
	$(Q)tests/deps browser
	$(Q)$(MAKE) --no-print-directory SAN=address tests
	$(Q)tests/run --full
# Every fault at every phase, in every mode, of every driver: make test-faults, make test-faults ONLY=kills
test-faults: deps all tests faulty
	$(Q)tests/run --full --only faults $(ONLY)
# One behaviour of tests/behaviours.md broken at a time: make test-mutants, make test-mutants ID=P12
test-mutants: deps
	$(Q)tests/deps browser
	$(Q)tests/mutants/run $(ID)
# Many migrations with a fault in each: make test-soak SEED=… ROUNDS=500, one of them again: SEED=… ROUND=…
test-soak: all $(GUEST_BIN) $(CERTS) $(SOAK_BIN)
	$(Q)SEED=$(SEED) ROUNDS=$(ROUNDS) ROUND=$(ROUND) FAULT=$(FAULT) GUEST=$(GUEST) $(SOAK_BIN)
# Two machines that boot Debian, with decant from its package: many minutes, and once a download.
test-hosts: all $(BUILD)/tests/guests/stamp $(HOSTS_BIN) deb
	$(Q)tests/deps build test package hosts
	$(Q)tests/hosts/make
	$(Q)tests/run --full --only hosts
bench: all $(BENCH_BIN) $(CERTS)
	$(Q)$(BUILD)/tests/bench/bench $(BENCH)
bench-qemu: all vm $(CERTS) $(BUILD)/tests/bench/bench_qemu
	$(Q)$(BUILD)/tests/bench/bench_qemu $(BENCH)
demo: all $(GUEST_BIN) $(CERTS) $(BUILD)/tests/demo/demo
	$(Q)$(BUILD)/tests/demo/demo
demo-qemu: all vm $(CERTS) $(BUILD)/tests/demo/demo_qemu
	$(Q)$(BUILD)/tests/demo/demo_qemu

# --- style -------------------------------------------------------------------------------------
C_FILES := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

.PHONY: lint format
lint: deps build/lint/format.ok $(patsubst %,build/lint/%.ok,$(filter-out tests/%,$(filter %.c,$(C_FILES)))) \
	$(patsubst %.c,build/obj/%.o,$(filter tests/%.c,$(C_FILES)))
# What has changed, at once: it takes clang-format longer to start than to look at a file.
unformatted = $(filter %.c %.h,$(if $(filter .clang-format,$?),$^,$?))
build/lint/format.ok: .clang-format $(C_FILES) | deps
	$(call say,FORMAT,'$(words $(unformatted)) files')
	$(Q)clang-format --dry-run -Werror $(unformatted) && mkdir -p $(@D) && touch $@
# The object stands for the headers: what recompiles is looked at again. Tests are compiled, all of them;
# clang-tidy, which costs half a second for each file, is for what is installed.
build/lint/%.c.ok: %.c build/obj/%.o .clang-tidy | deps
	$(call say,LINT,$<)
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- $(filter-out -W%,$(CFLAGS_)) \
		$(INC_$(firstword $(subst /, ,$<))) 2>/dev/null && mkdir -p $(@D) && touch $@

format:
	$(Q)git ls-files '*.[ch]' | xargs clang-format -i

# --- install, clean ----------------------------------------------------------------------------
# systemd looks below /usr/local/lib, too.
BINDIR  := $(PREFIX)/bin
UNITDIR := $(PREFIX)/lib/systemd/system
UNITS   := $(wildcard deploy/systemd/*)
SYSUSERS := $(wildcard deploy/sysusers/*)
TMPFILES := $(wildcard deploy/tmpfiles/*)
MANDIR  := $(PREFIX)/share/man
MANPAGES := $(wildcard deploy/man/*)

.PHONY: install clean
install: all
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(UNITDIR)
	$(Q)install $(BUILD)/decant-source $(BUILD)/decant-dest deploy/decant-certs $(DESTDIR)$(BINDIR)
	$(Q)ln -sf decant-source $(DESTDIR)$(BINDIR)/decant
	$(Q)install -m 644 $(LIBRARIES) $(DESTDIR)$(PREFIX)/lib
	$(Q)install -m 644 common/guest/decant-guest.h common/guest/decant-sharer.h \
		$(DESTDIR)$(PREFIX)/include
	$(Q)for m in $(MANPAGES); do d=$(DESTDIR)$(MANDIR)/man$${m##*.} && install -d $$d && \
		install -m 644 $$m $$d || exit; done
	$(Q)ln -sf decant-evacuate@.service.8 $(DESTDIR)$(MANDIR)/man8/decant-evacuate-on-shutdown.service.8
	$(Q)for u in $(UNITS); do sed 's,@BINDIR@,$(BINDIR),' $$u >$(DESTDIR)$(UNITDIR)/$${u##*/} || exit; done
	$(Q)install -d $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	$(Q)install -m 644 $(SYSUSERS) $(DESTDIR)$(PREFIX)/lib/sysusers.d
	$(Q)install -m 644 $(TMPFILES) $(DESTDIR)$(PREFIX)/lib/tmpfiles.d

# Debian packages, in build/deb: of what git knows, built in a copy. Made for one's own hosts, they have
# no maintainer's address.
.PHONY: deb
deb:
	$(Q)tests/deps package
	$(call say,DEB,build/deb)
	$(Q)rm -rf build/deb && mkdir -p build/deb/decant-$(VERSION)
	$(Q)git ls-files -z | xargs -0 cp --parents -t build/deb/decant-$(VERSION)
	$(Q)cp -r deploy/debian build/deb/decant-$(VERSION)/debian
	$(Q)printf 'decant (%s) stable; urgency=medium\n\n  * See README.md.\n\n -- %s  %s\n' $(VERSION) \
		"$$(sed -n 's/^Maintainer: //p' deploy/debian/control)" "$$(git log -1 --format=%aD)" \
		>build/deb/decant-$(VERSION)/debian/changelog
	$(Q)cd build/deb/decant-$(VERSION) && env -u MAKEFLAGS -u MAKELEVEL dpkg-buildpackage -us -uc -b >../log 2>&1 || { tail -n 30 ../log; exit 1; }
	$(Q)lintian --allow-root --fail-on error,warning \
		--suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog build/deb/*.changes

clean:
	$(Q)rm -rf build

# Kept, and made when they are missing: with .SECONDARY an archive would do without a new object.
.PRECIOUS: $(BUILD)/obj/%.o build/obj/%.o
-include $(shell find $(BUILD)/obj $(if $(FAULTS),build/obj) -name '*.d' 2>/dev/null)
