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
static u64 suspended_tsc;
static u64 before_cycles;	/* a pair taken just before */
static u64 before_mono_ns;
static const struct smig_handover *from_target;
static u64 measured_from_tsc, measured_from_ns;
static u64 measured_khz;

static u64 cycles_to_ns(const struct clocksource *cs, u64 cycles)
{
	return mul_u64_u32_shr(cycles, cs->mult, cs->shift);
}

static u64 tsc_to_ns(u64 cycles, u64 khz)
{
	return mul_u64_u64_div_u64(cycles, 1000000, khz);
}

static u64 ns_to_cycles(const struct clocksource *cs, u64 ns)
{
	return mul_u64_u64_div_u64(ns, 1ULL << cs->shift, cs->mult);
}

/*
 * The TSC's rate is measured from here to the stop, against the clock that the
 * kernel runs by: where that is not the TSC, tsc_khz may be what a disturbed
 * calibration at boot left, several times off.
 */
void smig_clock_measure(void)
{
	measured_from_ns = ktime_get_ns();
	measured_from_tsc = rdtsc_ordered();
	measured_khz = tsc_khz;
}

/* Process context or irqs off, timekeeping running. */
static void finish_measuring(void)
{
	u64 ns = ktime_get_ns() - measured_from_ns;
	u64 cycles = rdtsc_ordered() - measured_from_tsc;

	if (ns >= 50 * NSEC_PER_MSEC)
		measured_khz = mul_u64_u64_div_u64(cycles, 1000000, ns);
}

void smig_clock_is_now(u64 khz)
{
	measured_khz = khz;
}

u64 smig_clock_tsc_khz(void)
{
	return measured_khz ?: tsc_khz;
}

/* CLOCK_MONOTONIC at which timekeeping stopped. */
u64 smig_clock_captured_mono_ns(void)
{
	u64 cycles = (suspended_cycles - before_cycles) & hooked->mask;

	return before_mono_ns + cycles_to_ns(hooked, cycles);
}

/* What CLOCK_MONOTONIC would read now, had it never stopped. */
static u64 continued_mono_ns(void)
{
	u64 tsc = rdtsc_ordered();

	if (from_target)
		return from_target->source_mono_ns +
		       tsc_to_ns(tsc - from_target->target_tsc, from_target->target_tsc_khz);
	return smig_clock_captured_mono_ns() + tsc_to_ns(tsc - suspended_tsc, measured_khz);
}

/*
 * On the way back this is the first read after the counter itself was resumed;
 * some (HPET) begin anew at zero then, so the past is counted from what it reads
 * now, not from what it read before.
 */
static u64 hooked_read(struct clocksource *cs)
{
	u64 mono_ns, captured_ns, passed_ns, cycles;

	if (!returning) {
		suspended_cycles = real_read(cs);
		suspended_tsc = rdtsc_ordered();
		return suspended_cycles;
	}
	mono_ns = continued_mono_ns();
	captured_ns = smig_clock_captured_mono_ns();
	passed_ns = mono_ns > captured_ns ? mono_ns - captured_ns : 0;
	cycles = ns_to_cycles(cs, passed_ns);
	if (cycles > cs->mask >> 1) {
		pr_warn("clocksource %s wraps too soon to make up for %llu ms; clocks lose time\n",
			cs->name, passed_ns / NSEC_PER_MSEC);
		cycles = cs->mask >> 1;
	}
	return (real_read(cs) - cycles) & cs->mask;
}

/* With irqs off, directly before syscore_suspend(). */
void smig_clock_before_suspend(void)
{
	finish_measuring();
	hooked = *smig_var.curr_clocksource;
	real_read = hooked->read;
	before_mono_ns = ktime_get_ns();
	before_cycles = real_read(hooked);
	suspended_cycles = before_cycles;
	suspended_tsc = rdtsc_ordered();
	returning = false;
	if (smig_var.suspend_clocksource) {
		saved_suspend_clocksource = *smig_var.suspend_clocksource;
		*smig_var.suspend_clocksource = NULL;
	}
	WRITE_ONCE(hooked->read, hooked_read);
}

/*
 * With irqs off, before syscore_resume().  @handover: NULL on the machine that
 * was suspended; on a new one what its landing environment knew of the source's
 * clock.
 */
void smig_clock_before_resume(const struct smig_handover *handover)
{
	returning = true;
	from_target = handover;
	/* a sleep that ends before it began is not injected, nor is one that needs no timing */
	smig_var.timekeeping_suspend_time->tv_sec = TIME64_MAX;
	*smig_var.suspend_timing_needed = false;
}

/* With irqs off, after syscore_resume(). */
void smig_clock_after_resume(void)
{
	WRITE_ONCE(hooked->read, real_read);
	if (smig_var.suspend_clocksource)
		*smig_var.suspend_clocksource = saved_suspend_clocksource;
}
