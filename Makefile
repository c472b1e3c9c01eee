# SPDX-License-Identifier: MIT
#
# liboutbox: the build.  GNU make 4.0 or newer; this head is its manual.
#
#   make                 libraries, shared and static, and their .pc files
#   make demo            install what is missing, build, run the demo service
#   make check           install what is missing, build and run all tests
#   make torture         kill publishers and relays, check what is left
#                        (KILLS=2000 is the default; 50 takes seconds)
#   make mutants         break the library on purpose; the checker must see it
#   make bench           ratios against hand-written SQLite loops (BENCH=args)
#   make deps            install what check, demo and the checks below need
#                        (Debian; as root or through sudo, else it says how)
#   make install         to DESTDIR and prefix; make uninstall takes it away
#   make amalgamation    outbox.c and outbox.h, for projects that copy files
#   make headers         each public header alone as C99, C11 and C++17
#   make style           layout of the code: .clang-format and a few rules
#   make analyze         clang-tidy and cppcheck
#   make man             lint the manual
#   make coverage        run the tests and print the lines they reached
#   make clean           remove the build directory; make help prints this
#
# What you may set, on the command line or in a file config.mak beside this
# one, which is yours.  ./configure is not needed; where you like it, run
# autoconf, and it writes config.mak.autogen, which config.mak overrules.
#
#   prefix=/usr/local    and bindir, libdir, includedir, mandir below it
#   DESTDIR=             put in front of every path that install writes
#   CC, CFLAGS, CPPFLAGS, LDFLAGS, PKG_CONFIG, AR, INSTALL
#                        as everywhere; what the library itself needs is
#                        added to CFLAGS, never lost by setting it
#   DEVELOPER=1          many warnings, and -Werror
#   SANITIZE=address,undefined
#   SANITIZE=thread      built and tested beside the normal build
#   O=.build             where everything is built; make may also be run from
#                        another directory, as in make -f /path/to/Makefile
#   PARTS="outbox outbox-sqlite"
#                        the libraries to build, of those in the table below
#   STORES="sqlite"      the stores to put into the amalgamation
#   SQLITE3_CFLAGS, SQLITE3_LIBS, and so on for each foreign package
#                        used instead of asking pkg-config
#   KILLS, SEED, BENCH   for torture and bench
#   V=1                  show the commands
#
# Everything is rebuilt when flags, compiler or prefix change, so there is no
# need to clean.  Paths with spaces are not supported.

TOP := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
# Empty in the source tree, so that messages have short paths.
S := $(if $(filter $(TOP),$(CURDIR)),,$(TOP)/)
SELF := $(MAKE) --no-print-directory -f $(TOP)/Makefile

ifneq ($(words $(TOP) $(CURDIR)),2)
$(error paths with spaces are not supported)
endif

all:

# ---- what you may set ---------------------------------------------------

prefix     = /usr/local
bindir     = $(prefix)/bin
libdir     = $(prefix)/lib
includedir = $(prefix)/include
mandir     = $(prefix)/share/man
DESTDIR    =

ifeq ($(origin CC),default)
CC = cc
endif
CXX        = c++
CFLAGS     = -O2 -g
CPPFLAGS   =
LDFLAGS    =
PKG_CONFIG = pkg-config
INSTALL    = install
ARFLAGS    = rcs
O          = .build
PARTS      = outbox outbox-sqlite
STORES     = sqlite
SANITIZE   =
COVERAGE   =
DEVELOPER  =
KILLS      = 2000
SEED       =
BENCH      =

-include $(TOP)/config.mak.autogen
-include $(TOP)/config.mak
ifneq ($(S),)
-include $(CURDIR)/config.mak.autogen
-include $(CURDIR)/config.mak
endif

# ---- the parts ----------------------------------------------------------
#
# One library for each foreign dependency.  A part is these lines, a .sym
# file in lib/ with the names that it exports, and its headers.

outbox_DIRS           := base core
outbox_HEADERS        := outbox.h store.h
outbox_ABOUT          := Transactional outbox and inbox

outbox-sqlite_DIRS    := sqlite
outbox-sqlite_HEADERS := sqlite.h
outbox-sqlite_NEEDS   := outbox
outbox-sqlite_PKGS    := sqlite3
outbox-sqlite_ABOUT   := Transactional outbox and inbox in SQLite

# What Debian calls a foreign package.
sqlite3_DEB           := libsqlite3-dev

# ---- flags --------------------------------------------------------------

comma   := ,
VERSION := $(shell sed -n \
	's,^.define OUTBOX_VERSION .* \([0-9.]*\) \*/$$,\1,p' \
	$(S)include/outbox/outbox.h)
SONAME  := 0

FLAVOUR := $(or $(subst $(comma),-,$(SANITIZE)),$(if \
	$(COVERAGE),coverage,plain))
B       := $(O)/$(FLAVOUR)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2:$(B)/%=%);)

NEEDED = -std=c11 -D_POSIX_C_SOURCE=200809L -pthread -fPIC \
	-fvisibility=hidden -I$(S)include -I$(S)lib -I$(B)/gen
WARN   = -Wall -Wextra
ifneq ($(DEVELOPER),)
WARN  += -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings \
	-Wundef -Wvla -Wformat=2 -Wmissing-declarations -Wredundant-decls \
	-Wnested-externs -Wswitch-enum -Wdouble-promotion -Wfloat-equal \
	-Wimplicit-fallthrough -Wdate-time -Wunused-macros
endif
ifneq ($(SANITIZE),)
HARDEN = -fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
LINK   = -fsanitize=$(SANITIZE)
else ifneq ($(COVERAGE),)
HARDEN = --coverage -O0
LINK   = --coverage
else
HARDEN = -fstack-protector-strong
LINK   = -Wl,-z,relro -Wl,-z,now
SHARED = -Wl,-z,defs
endif

ALL_CFLAGS  = $(NEEDED) $(CPPFLAGS) $(WARN) $(HARDEN) $(CFLAGS)
ALL_LDFLAGS = -pthread $(LINK) $(LDFLAGS)

# $(call pkg,cflags or libs,packages): the variable SQLITE3_CFLAGS if it is
# set, else what pkg-config says.  Asked only when used, after deps.
upper = $(shell echo '$(1)' | tr 'a-z-' 'A-Z_')
pkg   = $(foreach p,$(2),$(or $($(call upper,$(p)_$(1))),$(shell \
	$(PKG_CONFIG) --$(1) $(p))))
PKGS  := $(sort $(foreach p,$(PARTS),$($(p)_PKGS)))
PKGS_CFLAGS = $(eval PKGS_CFLAGS := $$(call pkg,cflags,$(PKGS)))$(PKGS_CFLAGS)
PKGS_LIBS   = $(eval PKGS_LIBS := $$(call pkg,libs,$(PKGS)))$(PKGS_LIBS)

# A stamp changes only when what it holds does: prerequisites of objects,
# programs and .pc files.
STAMP_flags  = $(CC) $(ALL_CFLAGS) $(PKGS_CFLAGS)
STAMP_link   = $(CC) $(ALL_LDFLAGS) $(PKGS_LIBS)
STAMP_prefix = $(prefix) $(libdir) $(includedir) $(VERSION)
quote = '$(subst ','\'',$(1))'

$(B)/stamp.%: FORCE
	@mkdir -p $(@D)
	@{ printf '%s\n' $(call quote,$(STAMP_$*)); $(CC) --version; } >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# ---- libraries ----------------------------------------------------------

srcs  = $(patsubst $(S)%,%,$(wildcard $(S)$(1)))
objs  = $(patsubst %.c,$(B)/%.o,$(call srcs,$(1)))

$(B)/%.o: $(S)%.c $(B)/stamp.flags $(S)Makefile | need
	$(call say,CC,$@)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(PKGS_CFLAGS) $(MORE) -MMD -MP -c -o $@ $<

# An SQL script as one C string literal, a line for each of its lines.
$(B)/gen/%_schema.inc: $(S)lib/%/schema.sql
	$(call say,GEN,$@)mkdir -p $(@D)
	$(Q)sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' $< >$@.new
	$(Q)mv $@.new $@

$(B)/%.map: $(S)lib/%.sym
	$(call say,GEN,$@)mkdir -p $(@D)
	$(Q)sed -e '1i OUTBOX_$(SONAME) {\nglobal:' -e 's/$$/;/' \
		-e '$$a local: *;\n};' $< >$@.new
	$(Q)mv $@.new $@

$(B)/%.pc: $(S)lib/part.pc.in $(B)/stamp.prefix $(S)Makefile
	$(call say,GEN,$@)sed -e 's|@prefix@|$(prefix)|' \
		-e 's|@libdir@|$(libdir:$(prefix)/%=$${prefix}/%)|' \
		-e 's|@includedir@|$(includedir:$(prefix)/%=$${prefix}/%)|' \
		-e 's|@name@|$*|' -e 's|@version@|$(VERSION)|' \
		-e 's|@about@|$($*_ABOUT)|' -e 's|@needs@|$($*_NEEDS)|' \
		-e 's|@packages@|$($*_PKGS)|' -e '/^Requires.*: $$/d' $< >$@.new
	$(Q)mv $@.new $@

# The base objects are in liboutbox.so, but hidden there: the other shared
# libraries take from this archive what they use of them.
$(B)/libbase.a: $(call objs,lib/base/*.c)
	$(call say,AR,$@)rm -f $@
	$(Q)$(AR) $(ARFLAGS) $@ $^

define part
$(1)_OBJS := $$(foreach d,$$($(1)_DIRS),$$(call objs,lib/$$(d)/*.c))
$(1)_SO   := $$(B)/lib$(1).so.$$(VERSION)
LIB_OBJS  += $$($(1)_OBJS)
LIBS      += $$(B)/lib$(1).a $$($(1)_SO) $$(B)/$(1).pc

$$(B)/lib$(1).a: $$($(1)_OBJS)
	$$(call say,AR,$$@)rm -f $$@
	$$(Q)$$(AR) $$(ARFLAGS) $$@ $$^

$$($(1)_SO): $$($(1)_OBJS) $$(B)/$(1).map $$(B)/libbase.a \
		$$(B)/stamp.link $$(foreach n,$$($(1)_NEEDS),$$($$(n)_SO))
	$$(call say,LD,$$@)$$(CC) -shared $$(ALL_LDFLAGS) $$(SHARED) \
		-Wl,-soname,lib$(1).so.$$(SONAME) \
		-Wl,--version-script=$$(B)/$(1).map -o $$@ $$($(1)_OBJS) \
		$$(foreach n,$$($(1)_NEEDS),$$($$(n)_SO)) \
		$$(if $$($(1)_NEEDS),$$(B)/libbase.a) \
		$$(call pkg,libs,$$($(1)_PKGS))
	$$(Q)ln -sf lib$(1).so.$$(VERSION) $$(B)/lib$(1).so.$$(SONAME)
	$$(Q)ln -sf lib$(1).so.$$(SONAME) $$(B)/lib$(1).so
endef
$(foreach p,$(PARTS),$(eval $(call part,$(p))))

$(filter $(B)/lib/sqlite/%,$(LIB_OBJS)): | $(B)/gen/sqlite_schema.inc

all: $(LIBS)

# Say what is missing, in words, before a compiler does.
need:
	@command -v $(firstword $(CC)) >/dev/null || { \
		echo 'make: no C compiler: run make deps' >&2; exit 1; }

# ---- the rest -----------------------------------------------------------

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' $(TOP)/Makefile

clean:
	rm -rf $(O)

-include $(LIB_OBJS:.o=.d)
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all need help clean FORCE
