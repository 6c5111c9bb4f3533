// SPDX-License-Identifier: GPL-2.0
/*
 * jump.c - the landing environment's last act: it becomes the source's kernel.
 */
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/suspend.h>
#include <asm/irqflags.h>
#include <asm/set_memory.h>
#include <asm/smp.h>
#include <asm/tlbflush.h>
#include <asm/tsc.h>

#include "smig.h"
#include "symbols.h"

#define TABLE_FLAGS (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)

static u64 *tables;		/* top of the temporary page tables, in a spare */
static unsigned long trampoline;	/* in a spare; read-only and executable */

/* Map one page, or a 2 MiB page if @large, in the temporary tables. */
static int map(u64 va, u64 pa, bool large)
{
	int level = pgtable_l5_enabled() ? 4 : 3;
	int leaf = large ? 1 : 0;
	u64 *table = tables;

	for (; level > leaf; level--) {
		u64 *entry = &table[(va >> (12 + 9 * level)) & 511];

		if (!*entry) {
			void *next = smig_land_spare();

			if (!next)
				return -ENOSPC;
			*entry = __pa(next) | TABLE_FLAGS;
		}
		table = __va(*entry & PTE_PFN_MASK);
	}
	table[(va >> (12 + 9 * leaf)) & 511] = pa | TABLE_FLAGS | (large ? _PAGE_PSE : 0);
	return 0;
}

static void drop_tables(void)
{
	if (trampoline) {
		smig_call(set_memory_nx)(trampoline, 1);
		smig_call(set_memory_rw)(trampoline, 1);
	}
	trampoline = 0;
	tables = NULL;
}

/* Identity map of RAM, the trampoline where we see it, the resume page where the source sees it. */
static int build_tables(const struct smig_image_header *header)
{
	unsigned int i;
	void *page;
	u64 pa;
	int ret;

	tables = smig_land_spare();
	page = smig_land_spare();
	if (!tables || !page)
		return -ENOSPC;
	BUILD_BUG_ON(SMIG_COPY_PAIRS * 16 + 16 != PAGE_SIZE);
	if (WARN_ON(smig_arch_trampoline_end - smig_arch_trampoline > PAGE_SIZE))
		return -EOPNOTSUPP;
	memcpy(page, smig_arch_trampoline, smig_arch_trampoline_end - smig_arch_trampoline);

	for (i = 0; i < smig_ram.nr; i++) {
		u64 end = (smig_ram.range[i].start + smig_ram.range[i].count) << PAGE_SHIFT;

		pa = (smig_ram.range[i].start << PAGE_SHIFT) & PMD_MASK;
		for (; pa < end; pa += PMD_SIZE) {
			ret = map(pa, pa, true);
			if (ret)
				return ret;
		}
	}
	ret = map((u64)page, __pa(page), false) ?:
	      map(header->resume_va & PAGE_MASK, header->resume_pa & PAGE_MASK, false);
	if (ret)
		return ret;
	/* never writable and executable at once */
	ret = smig_call(set_memory_ro)((unsigned long)page, 1);
	if (ret)
		return ret;
	trampoline = (unsigned long)page;
	return smig_call(set_memory_x)(trampoline, 1);
}

/*
 * The landing environment's secondary CPUs go before anything arrives, so that
 * the jump need not wait for them.  They halt, with irqs off, until the clone's
 * INIT: a halted CPU fetches nothing, so it may be left in text that is going to
 * be replaced.  (mwait would not do: a write to what it monitors ends it.)
 */
static void notrace halt_for_good(void)
{
	smig_call(play_dead_common)();
	for (;;)
		native_halt();
}

static struct cpumask halted;

/* Process context, CPU hotplug allowed.  All or nothing. */
int smig_jump_cpus_off(void)
{
	void (*play_dead)(void) = smp_ops.play_dead;
	unsigned int cpu;
	int ret = 0;

	cpumask_clear(&halted);
	smp_ops.play_dead = halt_for_good;
	for_each_online_cpu(cpu) {
		if (!cpu)
			continue;
		ret = remove_cpu(cpu);
		if (ret) {
			pr_err("CPU %u does not go offline: %d\n", cpu, ret);
			break;
		}
		cpumask_set_cpu(cpu, &halted);
	}
	smp_ops.play_dead = play_dead;
	if (ret)
		smig_jump_cpus_on();
	return ret;
}

void smig_jump_cpus_on(void)
{
	unsigned int cpu;

	for_each_cpu(cpu, &halted)
		if (add_cpu(cpu))
			pr_err("CPU %u does not come back\n", cpu);
	cpumask_clear(&halted);
}

static noinline notrace void leave(const struct smig_image_header *header)
{
	smig_call(save_processor_state)();
	smig_arch_leave(__pa(tables), smig_land_copy_list(), header->resume_va, header->cr3,
			trampoline);
}

/*
 * Under smig.lock, state LANDED.  Returns only on failure; then the landing
 * environment runs on and the image may be placed anew.
 */
int smig_jump(const struct smig_jump *arg, const void *blob, u32 *failed_step)
{
	const struct smig_image_header *header = smig_land_header();
	struct smig_handover *handover;
	unsigned int sleep_flags;
	struct smig_times times;
	int ret;

	if (!smig_land_complete())
		return -ENODATA;
	handover = smig_land_find(header->handover_pfn);
	if (handover->magic != SMIG_HANDOVER_MAGIC) {
		pr_err("the hand-over page is not where the header says\n");
		return -EILSEQ;
	}
	handover->target_tsc = rdtsc_ordered();
	handover->source_mono_ns = arg->source_mono_ns + (ktime_get_ns() - arg->local_mono_ns);
	memcpy(handover->entropy, arg->entropy, sizeof(handover->entropy));
	memcpy(handover->blob, blob, arg->handover_len);
	handover->blob_len = arg->handover_len;
	smig_land_counts(&handover->placed_direct, &handover->placed_copied);

	ret = build_tables(header);
	if (ret)
		goto undo_tables;
	ret = smig_fence_net_install();
	if (ret)
		goto undo_tables;
	sleep_flags = lock_system_sleep();
	smig_freeze_times_start(&times);
	ret = smig_freeze_down(&times, SMIG_FOR_JUMP, false, failed_step);
	if (ret)
		goto undo_fence;
	ret = smig_freeze_inject(SMIG_STEP_JUMP);
	if (ret) {
		*failed_step = SMIG_STEP_JUMP + 1;
		smig_clock_before_resume(NULL);
		smig_freeze_up(&times, PMSG_RECOVER, false);
		smig_freeze_thaw(&times);
		goto undo_fence;
	}
	memcpy(handover->landing_us, times.us, sizeof(handover->landing_us));
	handover->target_tsc_khz = smig_clock_tsc_khz();
	handover->valid = 1;
	handover->jump_tsc = rdtsc_ordered();
	/* ---- POINT OF NO RETURN: below, nothing allocates, sleeps, locks or returns ---- */
	leave(header);
	unreachable();

undo_fence:
	unlock_system_sleep(sleep_flags);
	smig_fence_net_remove();
undo_tables:
	drop_tables();
	smig.failed_step = *failed_step;
	smig.failed_errno = ret;
	return ret;
}
