# SPDX-License-Identifier: MIT
#
# liboutbox: the build.  GNU make 4.0 or newer; this head is its manual.
#
#   make                 libraries, shared and static, and their .pc files
#   make demo            install what is missing, build, run the demo service;
#                        STORE=pg on PostgreSQL
#   make check           install what is missing, build and run all tests
#   make torture         kill publishers and relays, check what is left;
#                        KILLS=2000 unless you say otherwise, SEED=n repeats;
#                        then a small dose of make failover, a storm
#                        of EVENTS=10000000 in PostgreSQL, and make sim
#   make failover        take relays from one another, lie about the time,
#                        poison them; ROUNDS=500, PART=one of its parts
#   make sim             relays, faults and time simulated from SEEDS=1000000
#                        seeds, 6 minutes on two cores; make check runs
#                        2,000 of them, CI 10,000
#   make mutants         break the library on purpose; the tests must see it
#   make bench           measure against SQLite used by hand; BENCH=arguments;
#                        STORE=pg for PostgreSQL
#   make deps            install what all of these and the checks need
#   make install         to DESTDIR and prefix; make uninstall takes it away
#   make amalgamation    outbox.c and outbox.h, for projects that copy files
#   make headers         each public header alone as C99, C11 and C++17
#   make style           layout of the code: .clang-format and a few rules
#   make analyze         clang-tidy and cppcheck
#   make man             lint the manual, find its gaps
#   make coverage        run the tests and print how many lines they reached
#   make clean           remove the build directory
#   make help            print this
#
# What you may set: on the command line, or in a file config.mak, which is
# yours, beside this one or where you run make.  There is no need for
# ./configure; autoconf makes one, which writes config.mak.autogen and
# nothing else; config.mak overrules it.
#
#   prefix=/usr/local    and libdir, includedir, mandir, datadir, pkgdatadir,
#                        pkgconfigdir below it
#   DESTDIR=             put in front of every path that install writes to
#   CC, CXX, CFLAGS, CPPFLAGS, LDFLAGS, AR, INSTALL, PKG_CONFIG
#                        also from the environment; what the library itself
#                        needs is added to CFLAGS, never lost by setting it
#   DEVELOPER=1          more warnings, and -Werror
#   SANITIZE=address,undefined or SANITIZE=thread
#                        built and tested beside the normal build
#   O=.build             where everything is built.  make may also be run in
#                        another directory: make -f /path/to/Makefile
#   PARTS="outbox outbox-sqlite"
#                        which libraries of the table below to build
#   STORES="sqlite"      which stores the amalgamation holds: sqlite, pg
#   SQLITE3_CFLAGS, SQLITE3_LIBS, and so on for each foreign package: used
#                        instead of what pkg-config says
#   V=1                  show the commands
#
# Installing what is missing means apt-get, as root or through sudo; where
# that cannot be, the target prints what it lacks and stops.  Everything is
# rebuilt when flags, compiler or prefix change, so there is no need to clean.

TOP := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
ifneq ($(words $(TOP) $(CURDIR)),2)
$(error paths with spaces are not supported)
endif
# Empty in the source tree, so that messages have short paths.
S := $(if $(filter $(TOP),$(CURDIR)),,$(TOP)/)
SELF := $(MAKE) --no-print-directory -f $(TOP)/Makefile

all:

# ---- what you may set ---------------------------------------------------

prefix       = /usr/local
libdir       = $(prefix)/lib
includedir   = $(prefix)/include
mandir       = $(prefix)/share/man
datadir      = $(prefix)/share
pkgdatadir   = $(datadir)/liboutbox
pkgconfigdir = $(libdir)/pkgconfig
DESTDIR      =
O            = .build
PARTS        = $(KNOWN)
STORES       = sqlite

ifeq ($(origin CC),default)
CC = cc
endif
ifeq ($(origin CXX),default)
CXX = c++
endif
CFLAGS     ?= -O2 -g
CPPFLAGS   ?=
LDFLAGS    ?=
INSTALL    ?= install
PKG_CONFIG ?= pkg-config
DEVELOPER  ?=
SANITIZE   ?=
COVERAGE   ?=
KILLS      ?= 2000
SEEDS      ?= 1000000
ROUNDS     ?=
PART       ?=
BENCH      ?=
STORE      ?= sqlite
EVENTS     ?= 10000000

-include $(TOP)/config.mak.autogen $(TOP)/config.mak
ifneq ($(S),)
-include $(CURDIR)/config.mak.autogen $(CURDIR)/config.mak
endif

# ---- the parts ----------------------------------------------------------
#
# A library for each foreign dependency.  A part is these lines, its headers,
# and a file lib/<part>.sym with the names that it exports.  DIRS are folders
# of lib/ that it takes whole, FILES single ones; NEEDS are parts listed before
# it in PARTS, PKGS a foreign package as pkg-config knows it, LEAST its oldest
# version that will do.  outbox-x has the page outbox_x.3, outbox the others.

KNOWN := outbox outbox-sqlite outbox-pg outbox-cloudevents

outbox_ABOUT   := Transactional outbox and inbox
outbox_DIRS    := base core
outbox_HEADERS := outbox.h store.h

outbox-sqlite_ABOUT   := Transactional outbox and inbox in SQLite
outbox-sqlite_DIRS    := sqlite
outbox-sqlite_HEADERS := sqlite.h
outbox-sqlite_NEEDS   := outbox
outbox-sqlite_PKGS    := sqlite3
outbox-sqlite_LEAST   := 3.35

outbox-pg_ABOUT   := Transactional outbox and inbox in PostgreSQL
outbox-pg_DIRS    := pg
outbox-pg_HEADERS := pg.h
outbox-pg_NEEDS   := outbox
outbox-pg_PKGS    := libpq
outbox-pg_LEAST   := 14
outbox-pg_SQL     := pg/schema.sql

outbox-cloudevents_ABOUT   := Outbox events as CloudEvents 1.0
outbox-cloudevents_FILES   := transport/cloudevents.c \
	transport/cloudevents_json.c transport/cloudevents_parse.c \
	transport/cloudevents_rules.c
outbox-cloudevents_HEADERS := cloudevents.h
outbox-cloudevents_NEEDS   := outbox
outbox-cloudevents_PKGS    := jansson

# ---- flags --------------------------------------------------------------

comma   := ,
VERSION := $(shell sed -n \
	's,^.define OUTBOX_VERSION .*/\* \([0-9.]*\) \*/$$,\1,p' \
	$(TOP)/include/outbox/outbox.h)
SONAME  := 0

# Builds that stand beside each other.
FLAVOUR := $(or $(subst $(comma),-,$(SANITIZE)),$(if \
	$(COVERAGE),coverage,plain))
B       := $(O)/$(FLAVOUR)

NEEDED = -std=c11 -D_POSIX_C_SOURCE=200809L -pthread -fPIC \
	-fvisibility=hidden -I$(S)include -I$(S)lib/base -I$(B)/gen
WARN   = -Wall -Wextra
ifneq ($(DEVELOPER),)
WARN  += -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings \
	-Wundef -Wvla -Wformat=2 -Wno-format-nonliteral \
	-Wredundant-decls -Wnested-externs -Wdouble-promotion
endif
ifneq ($(SANITIZE),)
SPECIAL = -fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
LINK    = -fsanitize=$(SANITIZE)
else ifneq ($(COVERAGE),)
SPECIAL = --coverage -O0
LINK    = --coverage
else
HARDEN  = -fstack-protector-strong
LINK    = -Wl,-z,relro -Wl,-z,now
SHARED  = -Wl,-z,defs
endif

ALL_CFLAGS  = $(NEEDED) $(CPPFLAGS) $(WARN) $(HARDEN) $(CFLAGS) $(SPECIAL)
ALL_LDFLAGS = -pthread $(LINK) $(LDFLAGS)

# $(call pkg,cflags,packages), $(call pkg,libs,packages): the variable
# SQLITE3_CFLAGS or SQLITE3_LIBS if it is set, else what pkg-config says.
knob = $(shell echo $(1) | tr a-z- A-Z_)
pkg  = $(foreach p,$(2),$(or $($(call knob,$(p)_$(1))),$(shell \
	$(PKG_CONFIG) --$(1) $(p))))

# Asked once, at first use: before that, deps may have to install them.
PKGS       := $(sort $(foreach p,$(PARTS),$($(p)_PKGS)))
PKG_CFLAGS  = $(eval PKG_CFLAGS := $(call pkg,cflags,$(PKGS)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $(call pkg,libs,$(PKGS)))$(PKG_LIBS)

# A stamp changes only when what it holds does.
stamp_flags  = $(CC) $(ALL_CFLAGS) $(PKG_CFLAGS)
stamp_link   = $(CC) $(ALL_LDFLAGS) $(SHARED) $(PKG_LIBS)
stamp_prefix = $(prefix) $(libdir) $(includedir)
stamp_pages  = $(MANS)
quote = '$(subst ','\'',$(1))'

$(B)/stamp.%: FORCE | need
	@mkdir -p $(@D)
	@{ printf '%s\n' $(call quote,$(stamp_$*)); $(CC) --version; } >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# ---- rules --------------------------------------------------------------

Q    = $(if $(V),,@)
say  = $(if $(V),,@printf '  %-5s %s\n' $(1) $(patsubst $(B)/%,%,$@);)
srcs = $(patsubst $(TOP)/%,%,$(sort $(wildcard $(TOP)/$(1))))
objs = $(patsubst %.c,$(B)/%.o,$(call srcs,$(1)))
INCS = $(patsubst lib/%/schema.sql,$(B)/gen/%_schema.inc,$(call \
	srcs,lib/*/schema.sql))

compile = $(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) $(ALSO) -MMD -MP -c -o $@ $<
program = $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) \
	$(PKG_LIBS)

$(B)/%.o: $(S)%.c $(B)/stamp.flags | $(INCS)
	@mkdir -p $(@D)
	$(call say,CC)$(compile)

# With fail points, where torture kills.
$(B)/fail/%.o: $(S)%.c $(B)/stamp.flags | $(INCS)
	@mkdir -p $(@D)
	$(call say,CC)$(compile) -DOUTBOX_FAILPOINTS

# A script as one C string literal, a line for each of its lines, without
# comments: those may change when its checksum is in databases.
$(B)/gen/%_schema.inc: $(S)lib/%/schema.sql $(S)Makefile
	@mkdir -p $(@D)
	$(call say,GEN)sed -e '/^ *--/d' -e '/^$$/d' \
		-e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' $< >$@

$(B)/%.map: $(S)lib/%.sym
	@mkdir -p $(@D)
	$(call say,GEN){ echo 'OUTBOX_$(SONAME) {'; echo 'global:'; \
		sed 's/$$/;/' $<; echo 'local: *;'; echo '};'; } >$@

$(B)/%.pc: $(S)lib/part.pc.in $(S)Makefile $(B)/stamp.prefix
	$(call say,GEN)sed -e 's|@prefix@|$(prefix)|' \
		-e 's|@libdir@|$(libdir:$(prefix)/%=$${prefix}/%)|' \
		-e 's|@includedir@|$(includedir:$(prefix)/%=$${prefix}/%)|' \
		-e 's|@part@|$*|' -e 's|@version@|$(VERSION)|' \
		-e 's|@about@|$($*_ABOUT)|' \
		-e 's|@needs@|$(strip $($*_NEEDS:%=% = $(VERSION)) $($*_PKGS) \
			$($*_LEAST:%=>= %))|' \
		-e '/^Requires: $$/d' $< >$@

# ---- libraries ----------------------------------------------------------

$(B)/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR)$(AR) crs $@ $^

# What a part uses of lib/base is hidden in liboutbox.so; the shared library
# of the part takes its own copy from here.
$(B)/base.a: $(call objs,lib/base/*.c)

define part
$(1)_SRCS  := $$(foreach d,$$($(1)_DIRS),$$(call srcs,lib/$$(d)/*.c)) \
	$$($(1)_FILES:%=lib/%)
$(1)_OBJS  := $$($(1)_SRCS:%.c=$$(B)/%.o)
$(1)_SO    := $$(B)/lib$(1).so
$(1)_BELOW := $$(foreach n,$$($(1)_NEEDS),$$($$(n)_SO)) \
	$$(if $$($(1)_NEEDS),$$(B)/base.a)
SRCS     += $$($(1)_SRCS)
SOS      += $$($(1)_SO)
ARCHIVES := $$(B)/lib$(1).a $$(ARCHIVES)

$$(B)/lib$(1).a: $$($(1)_OBJS)

$$($(1)_SO): $$($(1)_OBJS) $$(B)/$(1).map $$(B)/stamp.link $$($(1)_BELOW)
	$$(call say,LD)$$(CC) -shared $$(ALL_LDFLAGS) $$(SHARED) \
		-Wl,-soname,lib$(1).so.$$(SONAME) \
		-Wl,--version-script=$$(B)/$(1).map \
		-o $$@.$$(VERSION) $$($(1)_OBJS) $$($(1)_BELOW) \
		$$(call pkg,libs,$$($(1)_PKGS))
	@ln -sf lib$(1).so.$$(VERSION) $$@.$$(SONAME)
	@ln -sf lib$(1).so.$$(SONAME) $$@
	@touch $$@
endef
$(foreach p,$(PARTS),$(eval $(call part,$(p))))

PCS     := $(PARTS:%=$(B)/%.pc)
HEADERS := $(foreach p,$(PARTS),$($(p)_HEADERS:%=$(S)include/outbox/%))

all: $(ARCHIVES) $(SOS) $(PCS)

# ---- what is missing ----------------------------------------------------
#
# A front target first installs what it needs, then starts the make that does
# the work: only there is pkg-config asked.

WITH_PG  := $(filter outbox-pg,$(PARTS))
NEEDS         = cc pkg-config $(foreach p,$(PKGS),$(if \
	$($(call knob,$(p)_libs)),,$(p)))
NEEDS_demo    = $(NEEDS) jansson $(if $(filter pg,$(STORE)),postgres)
NEEDS_check   = $(NEEDS) jansson check c++ mandoc \
	$(if $(WITH_PG),postgres pgbouncer)
NEEDS_torture = $(NEEDS) faketime $(if $(WITH_PG),postgres)
NEEDS_failover = $(NEEDS) faketime
NEEDS_mutants = $(NEEDS) patch $(if $(WITH_PG),check postgres pgbouncer)
NEEDS_bench   = $(NEEDS) $(if $(filter pg,$(STORE)),postgres)
NEEDS_headers = $(NEEDS) c++
NEEDS_style   = clang-format
NEEDS_analyze = $(NEEDS) jansson clang-tidy cppcheck
NEEDS_man     = mandoc
FRONT = demo check torture failover sim mutants bench coverage headers style \
	analyze man

DEPS  = CC='$(CC)' CXX='$(CXX)' PKG_CONFIG='$(PKG_CONFIG)' \
	sh $(TOP)/tests/bin/deps.sh
JOBS  = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

need:
	@$(DEPS) tell $(NEEDS)

deps:
	@$(DEPS) install $(sort $(foreach f,$(FRONT),$(NEEDS_$(f))))

$(FRONT):
	@$(DEPS) install $(or $(NEEDS_$@),$(NEEDS))
	@$(SELF) $(JOBS) run-$@

# ---- tests --------------------------------------------------------------
#
# Each tests/unit/test_*.c is a program, tests/contract together another;
# tests/common and tests/memory go into each.  Every example is a test of
# itself.  tests/meta holds scripts that look at the tree and at the
# libraries; what they say does not depend on a sanitizer.

UNIT     := $(patsubst %.c,$(B)/%,$(call srcs,tests/unit/test_*.c))
CONTRACT := $(if $(call srcs,tests/contract/*.c),$(B)/tests/contract/contract)
PGCALLER := $(if $(WITH_PG),$(B)/tests/pg/caller/caller)
EXAMPLES := $(filter-out $(if $(WITH_PG),,%_pg),$(patsubst \
	%.c,$(B)/%,$(call srcs,examples/*.c)))
META     := $(addprefix $(S),$(call srcs,tests/meta/*.sh))
DEMO     := $(B)/examples/demo/demo
PGDEMO   := $(if $(WITH_PG),$(DEMO)-pg)
BENCHER  := $(B)/tests/bench/bench
PGBENCHER := $(B)/tests/bench/pg/bench-pg
TORTURE  := $(B)/fail/torture
FAILOVER := $(B)/tests/failover/failover
SIM      := $(B)/tests/sim/sim
PGTESTS  := $(if $(filter outbox-pg,$(PARTS)),$(B)/fail/pg)
STORM    := $(B)/fail/storm
TESTS    := $(UNIT) $(CONTRACT) $(PGCALLER) $(PGTESTS) $(SIM) $(EXAMPLES) \
	$(if $(SANITIZE)$(COVERAGE),$(filter %/demo.sh,$(META)),$(META))

$(B)/tests/%.o: ALSO = -I$(S)tests -I$(S)lib/core $(call pkg,cflags,check)
$(B)/fail/%.o: ALSO = -I$(S)tests
$(B)/fail/tests/pg/%.o: ALSO = -I$(S)tests -I$(S)lib/core -I$(S)lib/pg \
	$(call pkg,cflags,check)
$(B)/examples/demo/%.o: ALSO = $(call pkg,cflags,jansson)
$(B)/examples/demo/db_pg.o: ALSO = $(call pkg,cflags,libpq)
$(B)/examples/%_pg.o: ALSO = $(call pkg,cflags,libpq)

# The stores under test, beside SQLite and the one in memory.
COMMON  := $(filter-out $(if $(WITH_PG),,%/sut_pg.o), \
	$(call objs,tests/common/*.c))
$(B)/tests/common/%.o: ALSO += $(if $(WITH_PG),-DWITH_PG)

$(UNIT): %: %.o
$(CONTRACT): $(call objs,tests/contract/*.c)
$(PGCALLER): $(call objs,tests/pg/caller/*.c)
$(UNIT) $(CONTRACT) $(PGCALLER): $(COMMON) \
		$(call objs,tests/memory/*.c) $(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program) $(call pkg,libs,check)

$(SIM): $(call objs,tests/sim/*.c) $(call objs,tests/memory/*.c) \
		$(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program)

$(EXAMPLES): %: %.o $(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program)

# Alike but for the database.
$(DEMO): $(B)/examples/demo/db_sqlite.o
$(DEMO)-pg: $(B)/examples/demo/db_pg.o
$(DEMO) $(DEMO)-pg: $(filter-out %/db_sqlite.o %/db_pg.o, \
		$(call objs,examples/demo/*.c)) $(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program) $(call pkg,libs,jansson)

$(BENCHER): $(call objs,tests/bench/*.c) $(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program) -lm

# It has the time, the table and the files of the other.
$(PGBENCHER): $(call objs,tests/bench/pg/*.c) $(patsubst \
		%,$(B)/tests/bench/%.o,measure parts place report \
		samples) $(ARCHIVES) \
		$(B)/stamp.link
	$(call say,LD)$(program) -lm

$(TORTURE): $(patsubst %.c,$(B)/fail/%.o,$(SRCS) \
		$(call srcs,tests/torture/*.c)) $(B)/stamp.link
	$(call say,LD)$(program) -lm

# It has the records, children and publishers of torture.
$(FAILOVER): $(call objs,tests/failover/*.c) $(filter-out %/main.o \
		%/chaos.o %/directed.o,$(call objs,tests/torture/*.c)) \
		$(ARCHIVES) $(B)/stamp.link
	$(call say,LD)$(program)

# A server, and a pooler, for all tests that want one; no test pulls the plug.
CLUSTER = $(if $(WITH_PG),sh $(TOP)/tests/bin/pg-cluster run \
	-o fsync=off -o full_page_writes=off sh $(TOP)/tests/bin/pg-pooler run)

# Directed tests, which stop at fail points, too.
$(PGTESTS): $(patsubst %.c,$(B)/fail/%.o,$(SRCS) $(call srcs,tests/pg/*.c)) \
		$(COMMON) $(call objs,tests/memory/*.c) $(B)/stamp.link
	$(call say,LD)$(program) $(call pkg,libs,check)

$(STORM): $(patsubst %.c,$(B)/fail/%.o,$(SRCS) \
		$(call srcs,tests/pg/storm/*.c)) $(B)/stamp.link
	$(call say,LD)$(program)

# What the scripts find in their environment.
ENVIRONMENT = unset MAKEFLAGS MFLAGS MAKELEVEL; \
	export TOP=$(TOP) BUILD=$(abspath $(B)) PARTS='$(PARTS)' \
	HEADERS='$(foreach p,$(PARTS),$($(p)_HEADERS:%=$(p):%))' \
	CC='$(CC)' CXX='$(CXX)' MAKE='$(MAKE)' PKG_CONFIG='$(PKG_CONFIG)' \
	PKG_CFLAGS='$(PKG_CFLAGS)' PKG_LIBS='$(PKG_LIBS)' \
	KILLS='$(KILLS)' EVENTS='$(EVENTS)' ROUNDS='$(ROUNDS)' \
	$(if $(SANITIZE),CK_TIMEOUT_MULTIPLIER=10 \
	FIXED_MAPS=$(findstring thread,$(SANITIZE)));

run-check: all $(UNIT) $(CONTRACT) $(PGCALLER) $(PGTESTS) $(SIM) $(EXAMPLES) \
		$(DEMO) $(PGDEMO)
	@$(ENVIRONMENT) $(CLUSTER) sh $(TOP)/tests/run $(TESTS)

# In the cluster that PGHOST names, or else in one of its own.
ifeq ($(STORE),pg)
run-demo: $(PGDEMO)
	@$(if $(PGHOST),,sh $(TOP)/tests/bin/pg-cluster run) $< \
		$(S)examples/orders.jsonl
else
run-demo: $(DEMO)
	@$< $(S)examples/orders.jsonl
endif

SIMULATE = $(SIM) --seeds 1 $(SEEDS) --jobs $(shell nproc)

run-torture: $(TORTURE) $(FAILOVER) $(SIM) $(if $(WITH_PG),$(STORM))
	@$(ENVIRONMENT) sh $(TOP)/tests/torture/run.sh
	@$(ENVIRONMENT) DOSE=small sh $(TOP)/tests/failover/run.sh
	$(if $(WITH_PG),@$(ENVIRONMENT) sh $(TOP)/tests/pg/storm.sh)
	@$(SIMULATE)

run-sim: $(SIM)
	@$(SIMULATE)

run-failover: $(FAILOVER)
	@$(ENVIRONMENT) sh $(TOP)/tests/failover/run.sh $(PART)

run-mutants:
	@$(ENVIRONMENT) sh $(TOP)/tests/torture/mutants.sh
	@$(ENVIRONMENT) sh $(TOP)/tests/sim/mutants.sh
	$(if $(WITH_PG),@$(ENVIRONMENT) sh $(TOP)/tests/pg/mutants.sh)

run-bench: $(if $(filter pg,$(STORE)),$(PGBENCHER),$(BENCHER))
	@$(if $(filter pg,$(STORE)),sh $(TOP)/tests/bin/pg-cluster run) $< \
		$(BENCH)

run-coverage:
	@$(SELF) COVERAGE=1 run-check
	@sh $(TOP)/tests/bin/coverage.sh $(O)/coverage

run-headers run-man:
	@$(ENVIRONMENT) sh $(TOP)/tests/meta/$(@:run-%=%).sh

run-style:
	@$(ENVIRONMENT) sh $(TOP)/tests/bin/style.sh

run-analyze: amalgamation
	@$(ENVIRONMENT) sh $(TOP)/tests/bin/analyze.sh $(abspath $(AMALGAM)) \
		-std=c11 -D_POSIX_C_SOURCE=200809L -I$(TOP)/include \
		$(CPPFLAGS) $(PKG_CFLAGS) $(call pkg,cflags,jansson)

# ---- installing ---------------------------------------------------------

# Pages, and for each further name in a page's NAME a link to it.
MANS := $(filter-out $(foreach p,$(filter-out $(PARTS),$(KNOWN)),%/$(subst \
	-,_,$(p)).3),$(wildcard $(TOP)/man/*.[0-9]))
$(B)/man.done: $(MANS) $(S)tests/bin/manpages.sh $(B)/stamp.pages
	@mkdir -p $(@D)
	$(call say,MAN)sh $(TOP)/tests/bin/manpages.sh $(B)/man $(MANS)
	@touch $@

PAGES  = $(patsubst $(B)/man/%,%,$(shell find $(B)/man -type f))
# Schemas for those who run migrations themselves, named for their part.
SQLS   = $(foreach p,$(PARTS),$($(p)_SQL:%=$(p).sql))
INTO   = $(INSTALL) -d $(DESTDIR)$(1) && $(INSTALL) -m
LIBDIR = $(DESTDIR)$(libdir)

install: all $(B)/man.done
	$(call INTO,$(includedir)/outbox) 644 $(HEADERS) \
		$(DESTDIR)$(includedir)/outbox
	$(call INTO,$(libdir)) 644 $(ARCHIVES) $(LIBDIR)
	$(INSTALL) -m 755 $(SOS:%=%.$(VERSION)) $(LIBDIR)
	$(Q)cd $(LIBDIR) && for part in $(PARTS); do \
		ln -sf lib$$part.so.$(VERSION) lib$$part.so.$(SONAME); \
		ln -sf lib$$part.so.$(SONAME) lib$$part.so; done
	$(call INTO,$(pkgconfigdir)) 644 $(PCS) $(DESTDIR)$(pkgconfigdir)
	$(Q)for page in $(PAGES); do $(INSTALL) -d \
		$(DESTDIR)$(mandir)/$${page%/*} && $(INSTALL) -m 644 \
		$(B)/man/$$page $(DESTDIR)$(mandir)/$$page || exit; done
	$(Q)$(foreach p,$(PARTS),$(if $($(p)_SQL),$(call \
		INTO,$(pkgdatadir)) 644 $(S)lib/$($(p)_SQL) \
		$(DESTDIR)$(pkgdatadir)/$(p).sql;))

uninstall: $(B)/man.done
	rm -f $(HEADERS:$(S)include/%=$(DESTDIR)$(includedir)/%)
	rm -f $(PARTS:%=$(LIBDIR)/lib%.a) $(PARTS:%=$(LIBDIR)/lib%.so) \
		$(PARTS:%=$(LIBDIR)/lib%.so.$(SONAME)) \
		$(PARTS:%=$(LIBDIR)/lib%.so.$(VERSION))
	rm -f $(PARTS:%=$(DESTDIR)$(pkgconfigdir)/%.pc)
	$(Q)rm -f $(PAGES:%=$(DESTDIR)$(mandir)/%) \
		$(SQLS:%=$(DESTDIR)$(pkgdatadir)/%)
	$(Q)rmdir $(DESTDIR)$(includedir)/outbox $(DESTDIR)$(pkgdatadir) \
		2>/dev/null || true

AMALGAM       = $(B)/amalgamation
AMALGAM_PARTS = outbox $(STORES:%=outbox-%)

amalgamation: $(INCS)
	$(Q)sh $(TOP)/lib/amalgamate.sh $(TOP) $(B)/gen $(AMALGAM) \
		"$(foreach p,$(AMALGAM_PARTS),$(filter-out \
		store.h,$($(p)_HEADERS)))" \
		"$(foreach p,$(AMALGAM_PARTS),$($(p)_SRCS))"
	@echo $(AMALGAM)/outbox.c $(AMALGAM)/outbox.h

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' $(TOP)/Makefile

clean:
	rm -rf $(O)

-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d $(B)/*/*/*/*.d)
FORCE:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all need deps help clean install uninstall amalgamation FORCE \
	$(FRONT) $(FRONT:%=run-%)
