// SPDX-License-Identifier: GPL-2.0
/*
 * mark.c - which pages come to be owed: anonymous ones that the target lacks, but none of
 * a process that runs on through the stop.
 *
 * A page of such a process is told by its frame, before and after marking: before, so
 * that it is passed over, also where a child that was forked maps it too; after, because
 * it may have been on its way to another frame when it was looked for.
 */
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"
#include "walk.h"

struct marking {
	u64 skipped;
	struct page *large;	/* referenced: to be split before the walk goes on ... */
	unsigned long large_at;	/* ... here */
	unsigned long unsplit;	/* first frame of a large page that did not split */
	unsigned int nr;
	struct page *batch[PTRS_PER_PTE];	/* referenced */
};

/* Under smig.lock. */
static struct marking marking;

/* The pages of one process that are to be marked, counted. */
struct touched {
	u64 nr, room;
};

static bool lacking(unsigned long pfn, unsigned long nr)
{
	for (; nr; nr--, pfn++)
		if (smig_pass_lacks(pfn))
			return true;
	return false;
}

/* Whether an entry maps an anonymous page that the target lacks, and which. */
static bool maps_lacking(pte_t value, unsigned long *pfn)
{
	if (!pte_present(value) || pte_special(value))
		return false;
	*pfn = pte_pfn(value);
	return *pfn < smig_ram.top_pfn && pfn_valid(*pfn) && PageAnon(pfn_to_page(*pfn)) &&
	       ((pte_val(value) & SMIG_WRITTEN_BITS) || smig_pass_lacks(*pfn));
}

static bool leaf_maps_lacking(pmd_t pmd, unsigned long *pfn)
{
	*pfn = pmd_pfn(pmd);
	return *pfn < smig_ram.top_pfn && pmd_trans_huge(pmd) && PageAnon(pfn_to_page(*pfn)) &&
	       ((pmd_val(pmd) & SMIG_WRITTEN_BITS) || lacking(*pfn, PTRS_PER_PMD));
}

/* Under the table's lock: takes down the frame, if it is to be marked. */
static bool consider(struct vm_area_struct *vma, unsigned long address, pte_t *pte, void *arg)
{
	struct marking *m = arg;
	pte_t value = READ_ONCE(*pte);
	struct page *page;
	unsigned long pfn;

	if (smig_owed_entry(value, &pfn))
		__set_bit(pfn, smig_owed.seen);
	if (!maps_lacking(value, &pfn))
		return false;
	page = pfn_to_page(pfn);
	if (test_bit(pfn, smig_owed.excluded) || smig_walk_is_special(vma) ||
	    (PageCompound(page) && page_to_pfn(compound_head(page)) == m->unsplit)) {
		m->skipped++;
		return false;
	}
	get_page(page);
	if (PageCompound(page)) {
		m->large = page;
		m->large_at = address;
		return true;
	}
	/* mapped anew it is old, so that the clone sees which pages of a guess are used */
	if (pte_young(value))
		clear_bit(_PAGE_BIT_ACCESSED, (unsigned long *)pte);
	m->batch[m->nr++] = page;
	return false;
}

static bool consider_large(struct vm_area_struct *vma, unsigned long address, pmd_t pmd, void *arg)
{
	struct marking *m = arg;
	unsigned long pfn;

	if (!leaf_maps_lacking(pmd, &pfn))
		return false;
	if (test_bit(pfn, smig_owed.excluded) || smig_walk_is_special(vma) ||
	    pfn == m->unsplit) {
		m->skipped += PTRS_PER_PMD;
		return false;
	}
	m->large = pfn_to_page(pfn);
	m->large_at = address;
	get_page(m->large);
	return true;
}

/* Takes over the reference.  Whether the walk is to look at the place again. */
static bool split_large(struct marking *m)
{
	struct page *page = m->large;
	bool split = false;

	m->large = NULL;
	if (trylock_page(page)) {
		split = PageCompound(page) &&
			!smig_call(split_huge_page_to_list_to_order)(page, NULL, 0);
		/* if it is split the lock is this very page's */
		unlock_page(page);
	}
	if (!split)
		m->unsplit = page_to_pfn(compound_head(page));
	put_page(page);
	return split;
}

static void mark_batch(struct marking *m)
{
	unsigned int i;

	for (i = 0; i < m->nr; i++)
		m->skipped += !smig_owed_add(m->batch[i]);
	/* before the mmap lock goes */
	if (m->nr && SMIG_OWED_UNMAP)
		smig_call(try_to_unmap_flush)();
	m->nr = 0;
}

/*
 * Under the mm's mmap lock.  Where it ended, at or before the area's end, because the guest
 * runs and somebody waits for the lock; 0: the area is done.
 */
static unsigned long mark_area(struct vm_area_struct *vma, unsigned long from,
			       struct marking *m, bool frozen)
{
	struct smig_walk walk = { .pte = consider, .leaf = consider_large, .arg = m };
	unsigned long address, end;
	pmd_t *middle;

	for (address = max(from, vma->vm_start); address < vma->vm_end; address = end) {
		unsigned long at = address;
		bool again = true;

		end = smig_walk_step(vma, address, &middle);
		while (middle && again) {
			again = smig_walk_table(&walk, vma, middle, &at, end);
			mark_batch(m);
			if (again && split_large(m))
				at = m->large_at;
			cond_resched();
		}
		if (!frozen && mmap_lock_is_contended(vma->vm_mm))
			return end;
	}
	return 0;
}

/* Who waits for the mmap lock gets it before the walk is over. */
static int mark_mm(struct mm_struct *mm, struct marking *m, bool frozen)
{
	unsigned long from = 0;

	do {
		VMA_ITERATOR(iterator, mm, from);
		struct vm_area_struct *vma;
		unsigned long reached = 0;
		int ret = smig_walk_lock(mm, frozen);

		if (ret)
			return ret;
		for_each_vma(iterator, vma) {
			if (vma->anon_vma && !(vma->vm_flags & VM_HUGETLB))
				reached = mark_area(vma, from, m, frozen);
			if (reached)
				break;
		}
		mmap_read_unlock(mm);
		from = reached;
	} while (from);
	return 0;
}

static bool count_touched(struct vm_area_struct *vma, unsigned long address, pte_t *pte,
			  void *arg)
{
	struct touched *t = arg;
	pte_t value = READ_ONCE(*pte);
	unsigned long pfn;

	if (smig_owed_entry(value, &pfn))
		__set_bit(pfn, smig_owed.seen);
	else if (maps_lacking(value, &pfn) && !test_bit(pfn, smig_owed.excluded) &&
		 !smig_walk_is_special(vma))
		t->nr++;
	return t->nr > t->room;
}

static bool count_touched_large(struct vm_area_struct *vma, unsigned long address, pmd_t pmd,
				void *arg)
{
	struct touched *t = arg;
	unsigned long pfn;

	if (leaf_maps_lacking(pmd, &pfn) && !test_bit(pfn, smig_owed.excluded) &&
	    !smig_walk_is_special(vma))
		t->nr += PTRS_PER_PMD;
	return t->nr > t->room;
}

/* Whether what @mm has touched since it was marked is so little that it goes in the stop. */
static bool leave_hot(struct mm_struct *mm, u64 *room)
{
	struct touched touched = { .room = *room };
	struct smig_walk walk = { .pte = count_touched, .leaf = count_touched_large,
				  .arg = &touched, .never_wait = true };
	unsigned long from = 0;

	if (!*room || smig_walk_mm(&walk, mm, &from))
		return false;
	*room -= touched.nr;
	return true;
}

/* A process that a stop does not freeze, the caller's among them: nothing of it is owed. */
bool smig_owed_runs_on(struct task_struct *task)
{
	return task->flags & (PF_NOFREEZE | PF_SUSPEND_TASK) || task->mm == current->mm ||
	       task_tgid_nr(task) == 1;
}

static bool note_used(struct vm_area_struct *vma, unsigned long address, pte_t *pte, void *arg)
{
	unsigned long pfn;

	if (smig_owed_entry(*pte, &pfn))
		__set_bit(pfn, smig_owed.seen);
	else if (pte_present(*pte))
		smig_bitmap_set(smig_owed.excluded, pte_pfn(*pte), 1);
	return false;
}

static bool note_used_large(struct vm_area_struct *vma, unsigned long address, pmd_t pmd,
			    void *arg)
{
	smig_bitmap_set(smig_owed.excluded, pmd_pfn(pmd), PTRS_PER_PMD);
	return false;
}

/*
 * What processes that run on map, also together with others: its frames become
 * `excluded`, and what is owed of it already is resolved.
 */
static int exclude(void)
{
	struct smig_walk walk = { .pte = note_used, .leaf = note_used_large };
	struct mm_struct **mms;
	long i, nr = smig_walk_hold_mms(&mms, smig_owed_runs_on);
	int ret = 0;

	if (nr < 0)
		return nr;
	bitmap_zero(smig_owed.excluded, smig_ram.top_pfn);
	bitmap_zero(smig_owed.seen, smig_ram.top_pfn);
	for (i = 0; i < nr && !ret; i++) {
		unsigned long from = 0;

		ret = smig_walk_mm(&walk, mms[i], &from);
	}
	smig_walk_drop_mms(mms, nr, false);
	if (!ret)
		smig_owed_resolve_all(smig_owed.seen);
	return ret;
}

/*
 * Owed pages that the walk has not met: nobody maps them any more, for a process has
 * ended, so they may as well be freed.  Wrongly taken for such, a page is sent.
 */
static void resolve_unseen(void)
{
	unsigned long pfn;

	for_each_set_bit(pfn, smig_owed.bitmap, smig_ram.top_pfn)
		if (!test_bit(pfn, smig_owed.seen))
			smig_owed_resolve(pfn);
}

/* @hot: so many pages may be left unmarked, of processes that have few; counted down. */
static int mark_processes(bool frozen, u64 *hot, u64 *skipped)
{
	struct mm_struct **mms;
	long i, nr;
	int ret;

	smig_call(lru_add_drain_all)();
	ret = exclude();
	if (ret)
		return ret;
	nr = smig_walk_hold_mms(&mms, NULL);
	if (nr < 0)
		return nr;
	bitmap_zero(smig_owed.seen, smig_ram.top_pfn);
	marking.skipped = 0;
	marking.unsplit = 0;
	for (i = 0; i < nr && !ret; i++) {
		if (leave_hot(mms[i], hot))
			continue;
		ret = mark_mm(mms[i], &marking, frozen);
		/* what it holds goes in the stop */
		if (ret == -EAGAIN)
			ret = 0;
		if (fatal_signal_pending(current))
			ret = -EINTR;
	}
	smig_walk_drop_mms(mms, nr, false);
	*skipped = marking.skipped;
	if (!ret)
		resolve_unseen();
	/* a page may have been on its way to another frame when it was looked for */
	return ret ?: exclude();
}

/* Under smig.lock, state SOURCE, tracking. */
int smig_owed_mark(struct smig_owe *arg)
{
	u64 begun = ktime_get_ns(), none = 0;
	bool first = smig_owed_mode() == SMIG_OWED_NONE;
	int ret;

	if (!smig_pass_following())
		return -EBADFD;
	ret = smig_hold_check() ?: smig_owed_make_room();
	if (ret)
		return ret;
	if (first) {
		smig_owed_set_mode(SMIG_OWED_LOCAL);
		smig_fault_watch();
	}
	ret = mark_processes(false, &none, &arg->skipped_pages);
	/*
	 * Who came upon a page just before its bit was set, and went to sleep on it, has
	 * been asleep by the end of the grace period, and says so in the page's flags.
	 */
	synchronize_rcu();
	smig_fault_find_waiters();
	/* the caller, who hears of an error, reckons with no owed page */
	if (ret && first)
		smig_owed_unmark_all();
	arg->owed_pages = smig_owed_left();
	arg->mark_us = (ktime_get_ns() - begun) / NSEC_PER_USEC;
	return ret;
}

/*
 * Processes and kernel threads are frozen, devices run.  From here to
 * smig_owed_let_go() the set stays as it is.  @mark: marks anew what was touched, but
 * for small working sets.
 */
int smig_owed_hold(bool mark)
{
	u64 begun = ktime_get_ns(), room = smig_owed.may_be_hot, skipped;
	int ret = 0;

	smig_owed.hot = 0;
	smig_owed.hold_us = 0;
	smig_owed.total = 0;
	if (mark && smig_owed_mode() == SMIG_OWED_NONE) {
		smig_owed_set_mode(SMIG_OWED_LOCAL);
		smig_fault_watch();
	}
	if (smig_owed_mode() != SMIG_OWED_LOCAL)
		return 0;
	ret = mark ? mark_processes(true, &room, &skipped) : exclude();
	if (ret)
		return ret;
	smig_owed.hot = mark ? smig_owed.may_be_hot - room : 0;
	/* who slept on a page would not be frozen: nobody need be looked for */
	smig_owed_set_mode(SMIG_OWED_HELD);
	smig_fault_settle();
	smig_owed.total = smig_owed_left();
	smig_owed.hold_us = (ktime_get_ns() - begun) / NSEC_PER_USEC;
	return 0;
}
