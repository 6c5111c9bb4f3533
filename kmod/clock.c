// SPDX-License-Identifier: GPL-2.0
/*
 * clock.c - MONOTONIC, BOOTTIME and REALTIME go on over the stop and the jump.
 *
 * The kernel's timekeeping stops in syscore_suspend() and goes on in
 * syscore_resume() from the counter value it then reads.  While both run, the
 * clocksource's read() is ours: on the way back it returns a value that lies
 * as far behind the real counter as time has passed, so the next real read
 * accounts for it, in every clock and for every timer, once.
 *
 * What the kernel would add on its own, the sleep that the CMOS clock shows in
 * whole seconds, is switched off: it would count the time twice.
 */
#include <linux/clocksource.h>
#include <linux/ktime.h>
#include <linux/timekeeping.h>
#include <asm/tsc.h>

#include "smig.h"
#include "symbols.h"

static struct clocksource *hooked;
static u64 (*real_read)(struct clocksource *cs);
static struct clocksource *saved_suspend_clocksource;
static bool returning;		/* which way timekeeping goes */
static u64 suspended_cycles;	/* the counter when timekeeping stopped */
static u64 returned_cycles;	/* what timekeeping shall go on from */
static u64 before_cycles;	/* a pair taken just before */
static u64 before_mono_ns;

static u64 hooked_read(struct clocksource *cs)
{
	if (returning)
		return returned_cycles;
	suspended_cycles = real_read(cs);
	return suspended_cycles;
}

static u64 cycles_to_ns(const struct clocksource *cs, u64 cycles)
{
	return mul_u64_u32_shr(cycles, cs->mult, cs->shift);
}

static u64 ns_to_cycles(const struct clocksource *cs, u64 ns)
{
	return mul_u64_u64_div_u64(ns, 1ULL << cs->shift, cs->mult);
}

/* With irqs off, directly before syscore_suspend(). */
void smig_clock_before_suspend(void)
{
	hooked = *smig_var.curr_clocksource;
	real_read = hooked->read;
	before_mono_ns = ktime_get_ns();
	before_cycles = real_read(hooked);
	suspended_cycles = before_cycles;
	returning = false;
	if (smig_var.suspend_clocksource) {
		saved_suspend_clocksource = *smig_var.suspend_clocksource;
		*smig_var.suspend_clocksource = NULL;
	}
	WRITE_ONCE(hooked->read, hooked_read);
}

/* CLOCK_MONOTONIC at which timekeeping stopped. */
u64 smig_clock_captured_mono_ns(void)
{
	return before_mono_ns + cycles_to_ns(hooked, (suspended_cycles - before_cycles) & hooked->mask);
}

/*
 * With irqs off, before syscore_resume().  @handover: NULL on the machine that
 * was suspended; on a new one what its landing environment knew of the source's
 * clock.
 */
void smig_clock_before_resume(const struct smig_handover *handover)
{
	u64 passed_ns, mono_ns, cycles;

	returning = true;
	/* a sleep that ends before it began is not injected, nor is one that needs no timing */
	smig_var.timekeeping_suspend_time->tv_sec = TIME64_MAX;
	*smig_var.suspend_timing_needed = false;
	if (!handover) {
		returned_cycles = suspended_cycles;
		return;
	}
	mono_ns = handover->source_mono_ns +
		  mul_u64_u64_div_u64(rdtsc_ordered() - handover->target_tsc, 1000000, handover->target_tsc_khz);
	passed_ns = mono_ns > smig_clock_captured_mono_ns() ? mono_ns - smig_clock_captured_mono_ns() : 0;
	cycles = ns_to_cycles(hooked, passed_ns);
	if (cycles > hooked->mask >> 1) {
		pr_warn("clocksource %s wraps too soon to make up for %llu ms; clocks lose time\n",
			hooked->name, passed_ns / NSEC_PER_MSEC);
		cycles = hooked->mask >> 1;
	}
	returned_cycles = (real_read(hooked) - cycles) & hooked->mask;
}

/* With irqs off, after syscore_resume(). */
void smig_clock_after_resume(void)
{
	WRITE_ONCE(hooked->read, real_read);
	if (smig_var.suspend_clocksource)
		*smig_var.suspend_clocksource = saved_suspend_clocksource;
}
