// SPDX-License-Identifier: GPL-2.0
/*
 * install.c - the clone's side of owed pages: contents arrive, and how it goes.
 *
 * Nobody but INSTALL, under smig.lock, takes pages out of the set here, so contents are
 * written first and the bit is cleared afterwards.  No mmap lock is ever waited for:
 * whoever holds one may wait for a page that comes later in the same batch.
 */
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/uaccess.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"
#include "walk.h"

static bool rehearse;
module_param(rehearse, bool, 0600);
MODULE_PARM_DESC(rehearse, "test aid: THAW overwrites the owed pages and goes on in OWING, as a clone would: whoever has read them must install them");

#define POISON 0xdb

/* Under smig.lock. */
static struct {
	u64 speculated, speculated_used;
	u64 pushed, pushed_used;
	u64 freed;
	u64 looked_ns;	/* for used pages; 0: not yet */
} figures;

void smig_owed_forget_figures(void)
{
	memset(&figures, 0, sizeof(figures));
	smig_fault_forget_figures();
}

/* The guest's own setting, while pages are missing; 0: left alone. */
static unsigned int max_ptes_swap;

/*
 * khugepaged takes missing pages for pages in swap, and would wait for each in turn with the
 * mmap lock held, so that who touches none of them waits too.
 */
static void hold_khugepaged(void)
{
	unsigned int *setting = smig_var.khugepaged_max_ptes_swap;

	if (setting) {
		max_ptes_swap = READ_ONCE(*setting);
		WRITE_ONCE(*setting, 0);
	}
}

/* Unless somebody has set it meanwhile. */
static void release_khugepaged(void)
{
	if (max_ptes_swap)
		cmpxchg(smig_var.khugepaged_max_ptes_swap, 0, max_ptes_swap);
	max_ptes_swap = 0;
}

static void begin_owing(void)
{
	smig_owed_forget_figures();
	if (smig_owed.total)
		hold_khugepaged();
	smig_owed_set_mode(smig_owed.total ? SMIG_OWED_MISSING : SMIG_OWED_NONE);
}

/* The clone's first steps, irqs off. */
void smig_owed_become_clone(void)
{
	if (smig_owed_mode() == SMIG_OWED_HELD)
		begin_owing();
}

/* Whether this thaw is a clone's: see the parameter.  Under smig.lock, CAPTURED. */
bool smig_owed_rehearse(void)
{
	unsigned long pfn;

	if (!READ_ONCE(rehearse) || smig_owed_mode() != SMIG_OWED_HELD || !smig_owed.total)
		return false;
	pr_info("the source plays the clone by request: its owed pages are overwritten\n");
	smig_owed_end_list();
	for_each_set_bit(pfn, smig_owed.bitmap, smig_ram.top_pfn)
		memset(page_address(pfn_to_page(pfn)), POISON, PAGE_SIZE);
	begin_owing();
	return true;
}

/* On the clone, where no page is missing any more, or none ever was.  Under smig.lock. */
void smig_owed_end_missing(void)
{
	smig_owed_set_mode(SMIG_OWED_NONE);
	release_khugepaged();
	smig_fault_unwatch();
	smig_fault_wake_readers();
}

/*
 * The contents are there.  Nobody else clears bits in MISSING.  Whether somebody waited
 * for them.
 */
static bool install(unsigned long pfn, u32 origin, u64 install_ns)
{
	struct smig_fault_times times;
	struct folio *folio;

	if (!smig_owed_claim(pfn))
		return false;
	folio = page_folio(pfn_to_page(pfn));
	times = smig_fault_release(folio);
	if (!smig_owed_put_back(folio)) {
		figures.freed++;
	} else if (!times.first_ns && origin == SMIG_INSTALL_SPECULATED) {
		figures.speculated++;
		__set_bit(pfn, smig_owed.speculated);
	} else if (!times.first_ns && origin == SMIG_INSTALL_PUSHED) {
		figures.pushed++;
		__set_bit(pfn, smig_owed.pushed);
	}
	smig_fault_mapped(pfn, install_ns, times);
	return times.first_ns;
}

/* Under smig.lock, state CLONE or OWING; @pfns are arg->nr frames. */
int smig_owed_install(struct smig_install *arg, const u64 *pfns)
{
	const char __user *data = u64_to_user_ptr(arg->data);
	u64 install_ns = ktime_get_ns();
	int ret = 0;
	u32 i;

	arg->installed = 0;
	arg->awaited = 0;
	for (i = 0; i < arg->nr && !ret; i++) {
		void *to;

		if (pfns[i] >= smig_ram.top_pfn)
			ret = -EINVAL;
		if (ret || !smig_owed_has(pfns[i]))
			continue;
		to = page_address(pfn_to_page(pfns[i]));
		if (arg->flags & SMIG_INSTALL_ZERO)
			clear_page(to);
		else if (copy_from_user(to, data + (size_t)i * PAGE_SIZE, PAGE_SIZE))
			ret = -EFAULT;
		if (ret)
			continue;
		arg->awaited += install(pfns[i], arg->flags & SMIG_INSTALL_ORIGIN, install_ns);
		arg->installed++;
	}
	arg->left = smig_owed_left();
	if (!arg->left && smig_owed_mode() == SMIG_OWED_MISSING)
		smig_owed_end_missing();
	return ret;
}

static bool count_used(struct vm_area_struct *vma, unsigned long address, pte_t *pte, void *arg)
{
	pte_t value = READ_ONCE(*pte);
	unsigned long pfn;

	if (!pte_present(value) || !pte_young(value))
		return false;
	pfn = pte_pfn(value);
	if (pfn >= smig_ram.top_pfn)
		return false;
	figures.speculated_used += __test_and_clear_bit(pfn, smig_owed.speculated);
	figures.pushed_used += __test_and_clear_bit(pfn, smig_owed.pushed);
	return false;
}

/*
 * A page that came unasked was mapped with its accessed bit clear; the CPU has set it
 * since if the page was used.  Not exact: a use is missed if reclaim has cleared the
 * bit in between, or the space was locked at each look; one too many is counted if the
 * page was used on the source between its marking's look at the bit and the unmapping,
 * or if the frame has been freed and used for something else.
 */
static void find_used(void)
{
	struct smig_walk walk = { .pte = count_used, .never_wait = true };
	struct mm_struct **mms;
	long i, nr;

	if (!smig_owed.speculated || !smig_owed.pushed)
		return;
	nr = smig_walk_hold_mms(&mms, NULL);
	for (i = 0; i < nr; i++) {
		unsigned long from = 0;

		/* who holds the lock may wait for a page that the caller is to install */
		smig_walk_mm(&walk, mms[i], &from);
	}
	/* ending one may wait for khugepaged, and that for a page */
	if (nr >= 0)
		smig_walk_drop_mms(mms, nr, true);
}

/* Under smig.lock. */
int smig_owed_status(struct smig_owed_status *arg)
{
	u64 now = ktime_get_ns();

	/*
	 * A look at all page tables: not with every glance at the progress, and not while
	 * the first faults wait for the caller.
	 */
	if (!figures.looked_ns)
		figures.looked_ns = now;
	if (smig_owed.total && (!smig_owed_left() || now - figures.looked_ns > NSEC_PER_SEC)) {
		find_used();
		figures.looked_ns = ktime_get_ns();
	}
	if (arg->flags & SMIG_OWED_REPEAT)
		smig_fault_repeat();
	arg->owed_pages = smig_owed.total;
	arg->left_pages = smig_owed_left();
	arg->speculated_pages = figures.speculated;
	arg->speculated_used = figures.speculated_used;
	arg->pushed_pages = figures.pushed;
	arg->pushed_used = figures.pushed_used;
	arg->freed_pages = figures.freed;
	smig_fault_figures(arg);
	return 0;
}
