// SPDX-License-Identifier: GPL-2.0
/*
 * owed.c - the set of owed pages, and how a page gets in and out.  owed.h says what an
 * owed page is.
 *
 * Invariant: the set changes only
 *   under smig.lock, by marking (LOCAL) and by installing (MISSING), or
 *   by whoever touches a page in LOCAL.
 * From smig_owed_hold() to the thaw nothing changes it, so it is the same in the
 * image, in what READ gives and on the clone.
 */
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/vmalloc.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

struct smig_owed smig_owed;
static atomic64_t nr_owed;

/* Memory that the clone needs is part of the image; scratch never travels. */
static const struct {
	unsigned long **at;
	bool scratch;
} bitmaps[] = {
	{ &smig_owed.bitmap },
	{ &smig_owed.speculated },
	{ &smig_owed.pushed },
	{ &smig_owed.excluded, .scratch = true },
	{ &smig_owed.seen, .scratch = true },
};

void smig_owed_set_mode(enum smig_owed_mode mode)
{
	WRITE_ONCE(smig_owed.mode, mode);
}

/* Under smig.lock. */
int smig_owed_make_room(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bitmaps); i++) {
		unsigned long *bitmap;

		if (*bitmaps[i].at)
			continue;
		bitmap = vzalloc(smig_ram_bitmap_bytes());
		if (!bitmap)
			return -ENOMEM;
		WRITE_ONCE(*bitmaps[i].at, bitmap);
	}
	return 0;
}

static void free_room(void)
{
	unsigned int i;
	unsigned long *bitmap;

	for (i = 0; i < ARRAY_SIZE(bitmaps); i++) {
		bitmap = *bitmaps[i].at;
		WRITE_ONCE(*bitmaps[i].at, NULL);
		/* hooks, and faults on their way, look under RCU */
		if (bitmap)
			synchronize_rcu();
		vfree(bitmap);
	}
}

void smig_owed_mark_own(unsigned long *own)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bitmaps); i++)
		if (bitmaps[i].scratch && *bitmaps[i].at)
			smig_ram_mark_vmalloc(own, *bitmaps[i].at, smig_ram_bitmap_bytes());
}

u64 smig_owed_left(void)
{
	return atomic64_read(&nr_owed);
}

/* Whether an entry stands for an owed page; as smig_owed_has(). */
notrace bool smig_owed_entry(pte_t pte, unsigned long *pfn)
{
	swp_entry_t entry;

	if (pte_none(pte) || pte_present(pte))
		return false;
	entry = pte_to_swp_entry(pte);
	if (!is_migration_entry(entry))
		return false;
	*pfn = swp_offset_pfn(entry);
	return smig_owed_has(*pfn);
}

/* The anon_vma that an owed folio holds; its mapping cannot change while it is locked. */
static struct anon_vma *held_anon_vma(struct folio *folio)
{
	return (void *)((unsigned long)folio->mapping & ~(unsigned long)PAGE_MAPPING_FLAGS);
}

static void put_held_anon_vma(struct anon_vma *anon_vma)
{
	if (atomic_dec_and_test(&anon_vma->refcount))
		smig_call(__put_anon_vma)(anon_vma);
}

/* Maps the folio again wherever it was, and gives it back; whether anybody maps it. */
bool smig_owed_put_back(struct folio *folio)
{
	struct anon_vma *anon_vma = held_anon_vma(folio);
	bool mapped;

	smig_call(remove_migration_ptes)(folio, folio, 0);
	mapped = atomic_read(&folio->_mapcount) >= 0;
	folio_unlock(folio);
	put_held_anon_vma(anon_vma);
	/* the last reference if nobody maps it: then it is freed when the LRU's cache is drained */
	smig_call(folio_putback_lru)(folio);
	return mapped;
}

/*
 * Takes over the caller's reference.  Only a small anonymous page that nothing but
 * page tables, and we, refer to; transient references make it fail, and then it
 * goes in the stop.
 */
bool smig_owed_add(struct page *page)
{
	struct folio *folio = page_folio(page);
	struct anon_vma *anon_vma;
	unsigned long pfn = page_to_pfn(page);

	if (!folio_trylock(folio))
		goto put;
	if (folio_test_large(folio) || !folio_test_anon(folio) || folio_test_ksm(folio) ||
	    folio_test_swapcache(folio) || folio_test_writeback(folio) ||
	    !folio_test_uptodate(folio) || PageHWPoison(page) || folio->private ||
	    folio_ref_count(folio) != atomic_read(&folio->_mapcount) + 2)
		goto unlock;
	if (!smig_symbols_isolate_lru(folio))
		goto unlock;
	/* isolated, it has another reference */
	folio_put(folio);
	anon_vma = smig_call(folio_get_anon_vma)(folio);
	if (!anon_vma)
		goto put_back;
	/* what is unmarked later was not sent, whatever a pass does meanwhile */
	smig_pass_mark(pfn, 1);
	smig_call(try_to_migrate)(folio, SMIG_OWED_UNMAP);
	/*
	 * get_user_pages_fast() takes a reference and looks at the entry again; entries
	 * are gone before we count.  So it lets go, or we see it.
	 */
	if (atomic_read(&folio->_mapcount) >= 0 || folio_ref_count(folio) != 1) {
		smig_owed_put_back(folio);
		return false;
	}
	smig_fault_adopt(folio);
	__set_bit(pfn, smig_owed.seen);
	atomic64_inc(&nr_owed);
	/* the last step: from here on the page is whoever's that clears the bit */
	smp_mb__before_atomic();
	set_bit(pfn, smig_owed.bitmap);
	return true;

put_back:
	folio_unlock(folio);
	smig_call(folio_putback_lru)(folio);
	return false;

unlock:
	folio_unlock(folio);
put:
	folio_put(folio);
	return false;
}

/* True: the page was owed, and is the caller's to give back. */
bool smig_owed_claim(unsigned long pfn)
{
	bool mine;

	rcu_read_lock();
	mine = smig_owed_has(pfn) && test_and_clear_bit(pfn, smig_owed.bitmap);
	/* before it can be written; hooks that note writes do not see through its entries */
	if (mine && smig_pass_following())
		smig_pass_mark(pfn, 1);
	rcu_read_unlock();
	if (mine)
		atomic64_dec(&nr_owed);
	return mine;
}

/*
 * The page is not owed any more (LOCAL): it goes in the stop.  Process context, not
 * under a spinlock or an anon_vma lock.  False: it was not, or somebody else is at it.
 */
bool smig_owed_resolve(unsigned long pfn)
{
	struct folio *folio;

	if (!smig_owed_claim(pfn))
		return false;
	/* not before: it may have been part of a large page */
	folio = page_folio(pfn_to_page(pfn));
	smig_fault_release(folio);
	smig_owed_put_back(folio);
	smig_fault_mapped(pfn, 0, (struct smig_fault_times){});
	return true;
}

void smig_owed_resolve_all(const unsigned long *which)
{
	unsigned long pfn;

	for_each_set_bit(pfn, which, smig_ram.top_pfn) {
		smig_owed_resolve(pfn);
		cond_resched();
	}
}

/* The guest is about to run on here: what is touched resolves again. */
void smig_owed_let_go(void)
{
	if (smig_owed_mode() == SMIG_OWED_HELD)
		smig_owed_set_mode(SMIG_OWED_LOCAL);
}

void smig_owed_report(struct smig_capture *arg)
{
	arg->owed_pages = smig_owed.total;
	arg->owe_us = smig_owed.hold_us;
	arg->hot_pages = smig_owed.hot;
}

/*
 * The move is undone: every page goes back to where it was.  Under smig.lock; the
 * guest may run.  Not on a clone that is owed pages.
 */
void smig_owed_unmark_all(void)
{
	if (smig_owed_mode() == SMIG_OWED_NONE || WARN_ON(smig_owed_mode() == SMIG_OWED_MISSING))
		return;
	smig_owed_let_go();
	smig_owed_end_list();
	smig_owed_resolve_all(smig_owed.bitmap);
	smig_owed_set_mode(SMIG_OWED_NONE);
	smig_fault_unwatch();
	smig_owed.total = 0;
}

/* Under smig.lock, nothing is owed. */
void smig_owed_cleanup(void)
{
	smig_owed_unmark_all();
	free_room();
	smig_owed.total = 0;
	smig_owed_forget_figures();
	smig_fault_forget_figures();
}
