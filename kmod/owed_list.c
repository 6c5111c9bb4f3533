// SPDX-License-Identifier: GPL-2.0
/*
 * owed_list.c - the owed pages in the order of spaces and addresses, as the source's page
 * tables have them.
 *
 * Nothing is written down at marking: while the guest is captured its page tables stand
 * still, and a list is a walk over them that stops where the caller's room ends and goes
 * on there the next time.  So it takes no memory that the stop would have to find.  The
 * caller has to keep it; for that all that was held for the stop, but the shadow, goes back
 * when a list begins.
 */
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "owed.h"
#include "smig.h"
#include "walk.h"

/* Under smig.lock; between calls the walk stands where the last one left off. */
static struct {
	struct mm_struct **mms;		/* referenced; NULL: not begun */
	long nr_mms, mm;
	unsigned long from;		/* in that mm */
	unsigned long rest;		/* first frame not looked at of those that no walk met */
	unsigned long area_start;
	u32 areas;
	u64 position;			/* of chunk[taken] in the list */
	unsigned int filled, taken;
	struct smig_owed_page chunk[64];
} listing;

/* Under smig.lock. */
void smig_owed_end_list(void)
{
	if (listing.mms)
		smig_walk_drop_mms(listing.mms, listing.nr_mms, false);
	memset(&listing, 0, sizeof(listing));
}

/*
 * The space of a process that runs on is not held: if it dies, its device must close, or
 * nobody could adopt the move.
 */
static bool may_owe(struct task_struct *task)
{
	return !smig_owed_runs_on(task);
}

static int begin_listing(void)
{
	long nr;

	smig_owed_end_list();
	smig_image_give_back_rest();
	nr = smig_walk_hold_mms(&listing.mms, may_owe);
	if (nr < 0)
		return nr;
	listing.nr_mms = nr;
	listing.area_start = ~0UL;
	bitmap_zero(smig_owed.seen, smig_ram.top_pfn);
	return 0;
}

static u64 file_number(const struct file *file)
{
	const struct inode *inode = file_inode(file);

	return ((u64)inode->i_sb->s_dev << 32 ^ inode->i_ino) ?: 1;
}

static bool put_on_list(struct vm_area_struct *vma, unsigned long address, pte_t *pte, void *arg)
{
	struct smig_owed_page *entry = &listing.chunk[listing.filled];
	unsigned long pfn;

	if (!smig_owed_entry(*pte, &pfn) || __test_and_set_bit(pfn, smig_owed.seen))
		return false;
	if (listing.area_start != vma->vm_start) {
		listing.area_start = vma->vm_start;
		listing.areas++;
	}
	*entry = (struct smig_owed_page){
		.pfn = pfn,
		.address = address,
		.space = listing.mm + 1,
		.area = listing.areas,
	};
	if (vma->vm_file) {
		entry->file = file_number(vma->vm_file);
		entry->file_page = vma->vm_pgoff + ((address - vma->vm_start) >> PAGE_SHIFT);
	}
	return ++listing.filled == ARRAY_SIZE(listing.chunk);
}

/* What no walk can meet (an address space that is locked, or has lost its process). */
static void list_rest(void)
{
	unsigned long pfn;

	while (listing.filled < ARRAY_SIZE(listing.chunk)) {
		pfn = find_next_andnot_bit(smig_owed.bitmap, smig_owed.seen, smig_ram.top_pfn,
					   listing.rest);
		if (pfn >= smig_ram.top_pfn)
			break;
		listing.rest = pfn + 1;
		listing.chunk[listing.filled++] = (struct smig_owed_page){ .pfn = pfn };
	}
}

/* Empty at the end of the list. */
static int next_chunk(void)
{
	struct smig_walk walk = { .pte = put_on_list, .never_wait = true };
	int ret;

	listing.filled = 0;
	listing.taken = 0;
	while (listing.mm < listing.nr_mms) {
		ret = smig_walk_mm(&walk, listing.mms[listing.mm], &listing.from);
		if (ret == 1)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		listing.mm++;
		listing.from = 0;
		listing.area_start = ~0UL;
	}
	list_rest();
	return 0;
}

/*
 * Frames that it takes to keep the list: an entry for each page, an index as large, and one
 * of all frames.
 */
unsigned long smig_owed_list_frames(void)
{
	u64 owed = smig_owed_left();

	if (!owed)
		return 0;
	return DIV_ROUND_UP(owed * 2 * sizeof(struct smig_owed_page) +
			    smig_ram.top_pfn * sizeof(u32), PAGE_SIZE);
}

/* Under smig.lock, state CAPTURED or GIVEN: page tables do not change. */
int smig_owed_list(struct smig_owed_list *arg)
{
	struct smig_owed_page __user *to = u64_to_user_ptr(arg->entries);
	int ret;

	arg->nr_out = 0;
	if (!smig_owed.total)
		return 0;
	if (!listing.mms || arg->start < listing.position) {
		ret = begin_listing();
		if (ret)
			return ret;
	}
	while (arg->nr_out < arg->nr) {
		u64 nr;

		if (listing.taken == listing.filled) {
			ret = next_chunk();
			if (ret)
				return ret;
			if (!listing.filled)
				break;
		}
		nr = listing.filled - listing.taken;
		if (listing.position < arg->start) {
			nr = min(nr, arg->start - listing.position);
		} else {
			nr = min_t(u64, nr, arg->nr - arg->nr_out);
			if (copy_to_user(to + arg->nr_out, listing.chunk + listing.taken,
					 nr * sizeof(*to)))
				return -EFAULT;
			arg->nr_out += nr;
		}
		listing.taken += nr;
		listing.position += nr;
	}
	return 0;
}
