// SPDX-License-Identifier: GPL-2.0
/*
 * hold.c - frames held for a move: the shadow of the stop, frames that stay vacant, and a
 * reserve that is free for the stop when nobody else is left who could take it.
 *
 * The guest runs while they are held.  If it runs out of memory it gets them back,
 * so that the kernel need not kill a process for want of it: ENOBUFS from then on.
 */
#include <linux/delay.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/pageblock-flags.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/vmalloc.h>

#include "smig.h"
#include "symbols.h"

#define SMALLEST_PIECE 64	/* frames; below it trying costs more than it brings */

/*
 * Of the reserve's blocks.  Drivers allocate their rings anew when devices resume, up to
 * so much at once.
 */
#define RESERVE_ORDER 5
#define MOVED_RESERVE 128	/* frames of it for which user memory is always moved away */

#define TRIES 16		/* to find a page, when the kernel says that there is none */

/* How long a task that found no memory waits for what is being held just now. */
#define PATIENCE_MS 2000
#define LOOK_MS 10

/* Written under the lock; read by the stop, which keeps them from changing. */
struct page **smig_held;
unsigned long smig_nr_held;

/*
 * A task that is out of memory may hold what the task in here waits for, so it only
 * tries the lock.
 */
static DEFINE_MUTEX(lock);
static LIST_HEAD(reserve_blocks);
static unsigned long nr_reserve;	/* frames in them */
static struct task_struct *holding;	/* more, just now */
static unsigned long room;	/* of smig_held */
static bool gone;		/* the guest got it back */
static bool wanted;		/* by a task that waits for the lock */
static unsigned long returned;	/* to the guest, and not known to that task yet */

static void give_back_to(unsigned long nr)
{
	while (smig_nr_held > nr) {
		__free_page(smig_held[--smig_nr_held]);
		if (!(smig_nr_held & 0xff))
			cond_resched();
	}
}

static void free_reserve(void)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &reserve_blocks, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		nr_reserve -= 1UL << order;
		__free_pages(page, order);
	}
}

/* What has just been given back is for all processors, not at this one's hand alone. */
static void drain(void)
{
	smig_call(drain_all_pages)(NULL);
}

/* Under the lock. */
static void give_back_to_guest(void)
{
	pr_warn("the guest has run out of memory: %lu pages that were held go back to it\n",
		smig_nr_held + nr_reserve);
	returned += smig_nr_held + nr_reserve;
	give_back_to(0);
	free_reserve();
	drain();
	gone = true;
}

static bool must_end(void)
{
	return READ_ONCE(wanted) || fatal_signal_pending(current);
}

/*
 * Patient, but not where the kernel would wait for the task that waits for the lock.
 * Processors keep up to an eighth of memory at hand, and the kernel takes that from the
 * others only when there is something to reclaim.
 */
static struct page *one_page(void)
{
	struct page *page;
	unsigned int i;

	for (i = 0; i < TRIES; i++) {
		page = alloc_page(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY);
		if (page || must_end())
			return page;
		drain();
		/* what is being written to a disk or swapped out may be free soon */
		if (i)
			msleep(LOOK_MS);
	}
	return NULL;
}

/*
 * In blocks as large as can be had.  After passes little is moved for them: it has to be
 * sent again, in the stop.
 */
static int reserve_up_to(unsigned long nr)
{
	unsigned long move_up_to = smig_pass_following() ? MOVED_RESERVE : nr;
	unsigned int order = RESERVE_ORDER;

	while (nr_reserve < nr) {
		gfp_t patience = nr_reserve < move_up_to ? GFP_KERNEL : 0;
		struct page *page = NULL;

		if (!order)
			page = one_page();
		else if ((nr - nr_reserve) >> order)
			page = alloc_pages(patience | __GFP_NOWARN | __GFP_NORETRY, order);
		if (page) {
			set_page_private(page, order);
			list_add(&page->lru, &reserve_blocks);
			nr_reserve += 1UL << order;
		}
		if (must_end() || (!page && !order))
			return -ENOMEM;
		if (!page)
			order--;
	}
	return 0;
}

static int hold_up_to(unsigned long nr)
{
	struct page *page;

	while (smig_nr_held < nr) {
		page = one_page();
		if (page)
			smig_held[smig_nr_held++] = page;
		if (!page || must_end())
			return -ENOMEM;
		if (!(smig_nr_held & 0xff))
			cond_resched();
	}
	return 0;
}

static int claim(unsigned long start, unsigned long end)
{
	gfp_t flags = GFP_KERNEL | __GFP_NOWARN;

	if (smig_has(alloc_contig_range))
		return smig_call(alloc_contig_range)(start, end, MIGRATE_MOVABLE, flags);
	if (smig_has(alloc_contig_range_noprof))
		return smig_call(alloc_contig_range_noprof)(start, end, MIGRATE_MOVABLE, flags);
	return -EOPNOTSUPP;
}

/*
 * Holds what it can of [start, end), a power of two of frames up to a page block, after
 * moving away what lies there.  User memory moves, but for what is pinned, around which
 * pieces are held; where the kernel itself has a page nothing of the page block can be.
 */
static void hold_piece(unsigned long start, unsigned long end)
{
	unsigned long middle = start + (end - start) / 2;

	if (must_end())
		return;
	if (!claim(start, end)) {
		for (; start < end; start++)
			smig_held[smig_nr_held++] = pfn_to_page(start);
	} else if (end - start > SMALLEST_PIECE) {
		hold_piece(start, middle);
		hold_piece(middle, end);
	}
	cond_resched();
}

/*
 * Ends while there is still memory for what has to move: the kernel would wait for it, and
 * for the task that waits for the lock.
 */
static void hold_range(unsigned long start, unsigned long nr, unsigned long most,
		       unsigned long reserve)
{
	long least = reserve + pageblock_nr_pages;
	unsigned long piece = start & ~(pageblock_nr_pages - 1);

	for (; piece < start + nr; piece += pageblock_nr_pages) {
		unsigned long end = piece + pageblock_nr_pages;

		if (smig_nr_held + pageblock_nr_pages > most || must_end() ||
		    si_mem_available() + get_nr_swap_pages() < least)
			break;
		/* within one zone, and nothing but memory */
		if (smig_ram_contains(piece) && smig_ram_contains(end - 1) &&
		    pfn_to_online_page(piece) && pfn_to_online_page(end - 1))
			hold_piece(piece, end);
	}
}

/* ENOBUFS when the guest has got back what was held. */
int smig_hold_check(void)
{
	return READ_ONCE(gone) ? -ENOBUFS : 0;
}

/* Room for so many frames in the list. */
int smig_hold_room(unsigned long max)
{
	struct page **more, **less;

	if (max <= room)
		return 0;
	more = vmalloc(array_size(max, sizeof(*more)));
	if (!more)
		return -ENOMEM;
	mutex_lock(&lock);
	less = smig_held;
	if (less)
		memcpy(more, less, smig_nr_held * sizeof(*more));
	smig_held = more;
	room = max;
	mutex_unlock(&lock);
	vfree(less);
	return 0;
}

/*
 * Process context, under smig.lock, room made.  Holds @nr frames, those of
 * [avoid, avoid + nr_avoid) first, and @reserve besides for the stop.  @avoided: what
 * of the range was taken now; @reached: what could be had.  ENOMEM: what was held
 * before is held still.
 */
int smig_hold(unsigned long nr, unsigned long reserve, u64 avoid, u64 nr_avoid,
	      u64 *avoided, u64 *reached)
{
	unsigned long before, reserve_before;
	int ret;

	mutex_lock(&lock);
	before = smig_nr_held;
	reserve_before = nr_reserve;
	*reached = before + reserve_before;
	*avoided = 0;
	returned = 0;
	ret = smig_hold_check();
	if (ret)
		goto unlock;
	WRITE_ONCE(holding, current);
	if (nr_avoid)
		hold_range(avoid, nr_avoid, nr, reserve);
	*avoided = smig_nr_held - before;
	drain();
	/* the blocks first, as long as there are some */
	ret = reserve_up_to(reserve) ?: hold_up_to(nr);
	*reached = smig_nr_held + nr_reserve;
	if (ret) {
		*avoided = 0;
		give_back_to(before);
		/* all of it or nothing */
		if (!reserve_before)
			free_reserve();
		returned = *reached - smig_nr_held - nr_reserve;
		drain();
	}
	WRITE_ONCE(holding, NULL);
unlock:
	mutex_unlock(&lock);
	return ret;
}

void smig_hold_mark(unsigned long *bitmap)
{
	unsigned long i;

	mutex_lock(&lock);
	for (i = 0; i < smig_nr_held; i++)
		smig_bitmap_set(bitmap, page_to_pfn(smig_held[i]), 1);
	mutex_unlock(&lock);
}

void smig_hold_mark_reserve(unsigned long *bitmap)
{
	struct page *page;

	mutex_lock(&lock);
	list_for_each_entry(page, &reserve_blocks, lru)
		smig_bitmap_set(bitmap, page_to_pfn(page), 1UL << page_private(page));
	mutex_unlock(&lock);
}

/* ENOBUFS as above; EBADFD: a stop has had what was kept for it, or nothing is held. */
int smig_hold_check_stop(void)
{
	return smig_hold_check() ?: (READ_ONCE(nr_reserve) ? 0 : -EBADFD);
}

/* Frames, with the reserve. */
unsigned long smig_hold_all(void)
{
	return smig_nr_held + nr_reserve;
}

/*
 * For the stop, when tasks are frozen: hardly anybody is left who could take it, and until
 * they are thawed the kernel neither kills a process for want of memory nor asks for what
 * is held.
 */
int smig_hold_free_reserve(void)
{
	mutex_lock(&lock);
	free_reserve();
	drain();
	mutex_unlock(&lock);
	return smig_hold_check();
}

/* Of what is held, but the first @keep frames, at most @most go back; true: there are more. */
bool smig_hold_give_back(unsigned long keep, unsigned long most)
{
	unsigned long rest;

	mutex_lock(&lock);
	rest = smig_nr_held - min(smig_nr_held, keep);
	give_back_to(smig_nr_held - min(rest, most));
	mutex_unlock(&lock);
	return rest > most;
}

/* All of it, and what is known of it: the next move begins anew. */
void smig_hold_drop(void)
{
	mutex_lock(&lock);
	give_back_to(0);
	free_reserve();
	vfree(smig_held);
	smig_held = NULL;
	room = 0;
	gone = false;
	WRITE_ONCE(wanted, false);
	mutex_unlock(&lock);
}

/*
 * In a task that found no memory, wherever that was; one at a time.  First it gets what
 * is being held just now, the next time all of it.
 */
static int out_of_memory_now(struct notifier_block *nb, unsigned long unused, void *data)
{
	unsigned long *freed = data;
	unsigned int waited_ms = 0;

	/* it would wait for itself, or nothing is held */
	if (READ_ONCE(holding) == current ||
	    (!smig_hold_all() && !mutex_is_locked(&lock)))
		return NOTIFY_OK;
	WRITE_ONCE(wanted, true);
	while (!mutex_trylock(&lock)) {
		if (waited_ms >= PATIENCE_MS) {
			WRITE_ONCE(wanted, false);
			return NOTIFY_OK;
		}
		msleep(LOOK_MS);
		waited_ms += LOOK_MS;
	}
	WRITE_ONCE(wanted, false);
	if (smig_hold_all() && !returned)
		give_back_to_guest();
	*freed += returned;
	returned = 0;
	mutex_unlock(&lock);
	return NOTIFY_OK;
}

static struct notifier_block oom_block = {
	.notifier_call = out_of_memory_now,
};

int smig_hold_init(void)
{
	return register_oom_notifier(&oom_block);
}

void smig_hold_exit(void)
{
	unregister_oom_notifier(&oom_block);
}
