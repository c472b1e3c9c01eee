/* SPDX-License-Identifier: MIT
 *
 * coro.c - coroutines, for one thread.
 *
 * makecontext() enters a coroutine; from then on _longjmp() switches, because
 * swapcontext() asks the kernel for the signal mask each time.  Sanitizers
 * must be told which stack they are on: for them it is swapcontext() after
 * all.
 */
#undef _FORTIFY_SOURCE          /* its longjmp() goes only up the stack */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "sim.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define SIM_TSAN
#include <sanitizer/tsan_interface.h>
static void *main_fiber;
#endif

enum { STACK_BYTES = 256 * 1024 };

struct coro {
    char       *stack;
    void      (*fn)(void *arg);
    void       *arg;
    ucontext_t  context, caller;
    jmp_buf     here, there;    /* in it; in the one who resumed it */
    bool        fresh, ended;
    void       *fiber;          /* TSan */
    void       *fake, *caller_fake;     /* ASan */
    const void *caller_stack;
    size_t      caller_size;
};

static coro *running;

coro *coro_new(void)
{
    coro *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->stack == MAP_FAILED) {
        free(c);
        return NULL;
    }
    return c;
}

static void fiber_free(coro *c)
{
#ifdef SIM_TSAN
    if (c->fiber != NULL)
        __tsan_destroy_fiber(c->fiber);
#endif
    c->fiber = NULL;
}

void coro_free(coro *c)
{
    if (c == NULL)
        return;
    fiber_free(c);
    munmap(c->stack, STACK_BYTES);
    free(c);
}

static void entered(coro *c)
{
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(c->fake, &c->caller_stack,
                                    &c->caller_size);
#endif
    (void)c;
}

static void coro_main(void)
{
    coro *c = running;

    entered(c);
    c->fn(c->arg);
    c->ended = true;
    for (;;)
        coro_yield();
}

void coro_begin(coro *c, void (*fn)(void *arg), void *arg)
{
    fiber_free(c);
#ifdef SIM_ASAN
    __asan_unpoison_memory_region(c->stack, STACK_BYTES);
    c->fake = NULL;
#endif
#ifdef SIM_TSAN
    c->fiber = __tsan_create_fiber(0);
#endif
    c->fn = fn;
    c->arg = arg;
    c->fresh = true;
    c->ended = false;
    getcontext(&c->context);
    c->context.uc_stack.ss_sp = c->stack;
    c->context.uc_stack.ss_size = STACK_BYTES;
    c->context.uc_link = NULL;
    makecontext(&c->context, coro_main, 0);
}

bool coro_ended(const coro *c)
{
    return c->ended;
}

#if defined(SIM_ASAN) || defined(SIM_TSAN)

bool coro_slow(void)
{
    return true;
}

void coro_resume(coro *c)
{
    running = c;
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&c->caller_fake, c->stack, STACK_BYTES);
#else
    main_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(c->fiber, 0);
#endif
    swapcontext(&c->caller, &c->context);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(c->caller_fake, NULL, NULL);
#endif
    running = NULL;
}

void coro_yield(void)
{
    coro *c = running;

#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&c->fake, c->caller_stack,
                                   c->caller_size);
#else
    __tsan_switch_to_fiber(main_fiber, 0);
#endif
    swapcontext(&c->context, &c->caller);
    entered(c);
}

#else

bool coro_slow(void)
{
    return false;
}

void coro_resume(coro *c)
{
    running = c;
    if (_setjmp(c->there) == 0) {
        if (!c->fresh)
            _longjmp(c->here, 1);
        c->fresh = false;
        setcontext(&c->context);
    }
    running = NULL;
}

void coro_yield(void)
{
    coro *c = running;

    if (_setjmp(c->here) == 0)
        _longjmp(c->there, 1);
}

#endif
