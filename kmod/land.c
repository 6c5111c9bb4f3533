// SPDX-License-Identifier: GPL-2.0
/*
 * land.c - the target's memory, made ready to become another kernel's.
 *
 * The landing environment holds nearly all free frames.  A page whose own frame
 * is held is written there at once; any other goes to a spare: a held frame that
 * is not itself part of the image.  The trampoline copies spares home.
 *
 * Invariant: no spare is a destination, so the order of the copies is free.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <linux/xarray.h>

#include "smig.h"

/* What the landing environment needs to go on, above its watermarks: 12 MiB and 1/64 of memory. */
#define WORKING_PAGES(ram) (3072 + (ram) / 64)

static LIST_HEAD(blocks);		/* first pages of held blocks; page->private is the order */
static unsigned long *held_bitmap;
static unsigned long *dirty_bitmap;	/* held frames that were written since they were zeroed */
static unsigned long *image_bitmap;
static unsigned long *placed_bitmap;
static DEFINE_XARRAY(spares);		/* pfn of the image -> address of its spare */
static unsigned long *passed_bitmap;	/* spares that were passed over */
static u64 nr_held, nr_placed, nr_copied, next_spare;
static struct smig_image_header image;
static struct smig_copy_page *copy_tail;
static u64 copy_head;			/* physical */

static void forget_image(void)
{
	xa_destroy(&spares);
	vfree(image_bitmap);
	vfree(placed_bitmap);
	vfree(passed_bitmap);
	image_bitmap = NULL;
	placed_bitmap = NULL;
	passed_bitmap = NULL;
	nr_placed = 0;
	nr_copied = 0;
	next_spare = 0;
	copy_tail = NULL;
	copy_head = 0;
}

void smig_land_give_back(void)
{
	struct page *page, *next;

	forget_image();
	list_for_each_entry_safe(page, next, &blocks, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		__free_pages(page, order);
	}
	vfree(held_bitmap);
	vfree(dirty_bitmap);
	held_bitmap = NULL;
	dirty_bitmap = NULL;
	nr_held = 0;
}

/* Below these, allocations fail or kill: free frames that nobody can have. */
static u64 watermark_pages(void)
{
	u64 pages = 0;
	int node, i;

	for_each_online_node(node) {
		struct zone *zone = NODE_DATA(node)->node_zones;

		for (i = 0; i < MAX_NR_ZONES; i++, zone++)
			if (managed_zone(zone))
				pages += high_wmark_pages(zone);
	}
	return pages;
}

/* Process context, under smig.lock. */
int smig_land_hold(struct smig_land *arg)
{
	u64 reserve = arg->reserve_pages ?: WORKING_PAGES(smig_ram.pages);
	int order;

	reserve += watermark_pages();
	smig_land_give_back();
	held_bitmap = vzalloc(smig_ram_bitmap_bytes());
	dirty_bitmap = vzalloc(smig_ram_bitmap_bytes());
	if (!held_bitmap || !dirty_bitmap) {
		smig_land_give_back();
		return -ENOMEM;
	}
	for (order = 10; order >= 0; order--) {
		while (global_zone_page_state(NR_FREE_PAGES) > reserve + (1UL << order)) {
			struct page *page = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN |
							__GFP_NORETRY | __GFP_NOMEMALLOC, order);

			if (!page)
				break;
			set_page_private(page, order);
			list_add(&page->lru, &blocks);
			bitmap_set(held_bitmap, page_to_pfn(page), 1UL << order);
			nr_held += 1UL << order;
			cond_resched();
			if (fatal_signal_pending(current)) {
				smig_land_give_back();
				return -EINTR;
			}
		}
	}
	arg->held_pages = nr_held;
	arg->footprint_pages = smig_ram.pages - nr_held;
	return 0;
}

static bool in_image(u64 pfn)
{
	return pfn < smig_ram.top_pfn && test_bit(pfn, image_bitmap);
}

/*
 * @header and @bitmap come from another machine: everything that the jump will
 * rely on is checked here.  Takes a copy of both.
 */
int smig_land_image(const struct smig_image_header *header, const unsigned long *bitmap)
{
	size_t bytes = smig_ram_bitmap_bytes();
	u64 pages, direct, room;
	unsigned long pfn;

	if (!held_bitmap)
		return -EBADFD;
	forget_image();
	if (header->magic != SMIG_HANDOVER_MAGIC || header->top_pfn != smig_ram.top_pfn ||
	    header->page_table_levels != (pgtable_l5_enabled() ? 5 : 4) ||
	    header->vcpus > num_present_cpus() ||
	    strncmp(header->release, init_utsname()->release, sizeof(header->release)) ||
	    strncmp(header->version, init_utsname()->version, sizeof(header->version))) {
		pr_err("the image is of another kernel or of a larger machine\n");
		return -EILSEQ;
	}
	image_bitmap = vzalloc(bytes);
	placed_bitmap = vzalloc(bytes);
	passed_bitmap = vzalloc(bytes);
	if (!image_bitmap || !placed_bitmap || !passed_bitmap) {
		forget_image();
		return -ENOMEM;
	}
	bitmap_copy(image_bitmap, bitmap, smig_ram.top_pfn);
	pages = bitmap_weight(image_bitmap, smig_ram.top_pfn);
	for_each_set_bit(pfn, image_bitmap, smig_ram.top_pfn) {
		if (!smig_ram_contains(pfn)) {
			pr_err("the image has frame %lx, which is no memory here\n", pfn);
			goto contradiction;
		}
	}
	if (pages != header->image_pages || header->zero_pages > pages ||
	    !in_image(header->resume_pa >> PAGE_SHIFT) || !in_image(header->cr3 >> PAGE_SHIFT) ||
	    (header->cr3 & ~PAGE_MASK) || !in_image(header->handover_pfn) ||
	    (header->resume_va ^ header->resume_pa) & ~PAGE_MASK ||
	    header->resume_va >> 56 != 0xff) {
		pr_err("the image header contradicts its bitmap\n");
		goto contradiction;
	}
	direct = 0;
	for_each_set_bit(pfn, image_bitmap, smig_ram.top_pfn)
		direct += test_bit(pfn, held_bitmap);
	room = nr_held - direct;
	/* spares, their list, the temporary tables */
	if (room < (pages - direct) * 257 / 256 + 512) {
		pr_err("the image needs %llu spare frames, %llu are there: free memory in the source\n",
		       pages - direct, room);
		forget_image();
		return -ENOSPC;
	}
	image = *header;
	return 0;

contradiction:
	forget_image();
	return -EILSEQ;
}

#define NO_HOME (~0ULL)		/* nothing will be copied from this spare */

/*
 * A zeroed held frame that is not part of the image, or NULL.  Frames a multiple
 * of 256 KiB away from @home are passed over: an emulator's TLB maps both to one
 * entry, and the trampoline's copy takes ten times as long.  Spares and homes
 * both ascend, so that costs few frames.
 */
static void *spare_apart_from(u64 home)
{
	u64 pfn = smig_ram.top_pfn;
	void *address;

	while (next_spare < smig_ram.top_pfn && pfn == smig_ram.top_pfn) {
		u64 candidate = next_spare++;

		if (!test_bit(candidate, held_bitmap) || test_bit(candidate, image_bitmap))
			continue;
		if (home != NO_HOME && !((candidate ^ home) & 63))
			__set_bit(candidate, passed_bitmap);
		else
			pfn = candidate;
	}
	if (pfn == smig_ram.top_pfn) {
		/* slow ones are better than none */
		pfn = find_first_bit(passed_bitmap, smig_ram.top_pfn);
		if (pfn >= smig_ram.top_pfn)
			return NULL;
		__clear_bit(pfn, passed_bitmap);
	}
	address = pfn_to_kaddr(pfn);
	if (__test_and_set_bit(pfn, dirty_bitmap))
		clear_page(address);
	return address;
}

void *smig_land_spare(void)
{
	return spare_apart_from(NO_HOME);
}

static void *new_spare_for(u64 pfn)
{
	void *spare = spare_apart_from(pfn);
	int ret;

	if (!spare)
		return ERR_PTR(-ENOSPC);
	if (!copy_tail || copy_tail->nr == SMIG_COPY_PAIRS) {
		struct smig_copy_page *list = smig_land_spare();

		if (!list)
			return ERR_PTR(-ENOSPC);
		if (copy_tail)
			copy_tail->next = __pa(list);
		else
			copy_head = __pa(list);
		copy_tail = list;
	}
	ret = xa_err(xa_store(&spares, pfn, spare, GFP_KERNEL));
	if (ret)
		return ERR_PTR(ret);
	copy_tail->pair[copy_tail->nr].to = pfn << PAGE_SHIFT;
	copy_tail->pair[copy_tail->nr].from = __pa(spare);
	copy_tail->nr++;
	nr_copied++;
	return spare;
}

/* @data NULL: the pages are zero. */
int smig_land_place(const u64 *pfns, u32 nr, const void __user *data, u64 *distinct)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		u64 pfn = pfns[i];
		bool held, fresh;
		void *to;

		if (!in_image(pfn))
			return -EINVAL;
		held = test_bit(pfn, held_bitmap);
		if (held) {
			to = pfn_to_kaddr(pfn);
			fresh = !test_bit(pfn, dirty_bitmap);
		} else {
			to = xa_load(&spares, pfn);
			fresh = !to;
			if (!to)
				to = new_spare_for(pfn);
			if (IS_ERR(to))
				return PTR_ERR(to);
		}
		if (data) {
			if (held)
				__set_bit(pfn, dirty_bitmap);
			if (copy_from_user(to, data + (size_t)i * PAGE_SIZE, PAGE_SIZE))
				return -EFAULT;
		} else if (!fresh) {
			clear_page(to);
		}
		if (!__test_and_set_bit(pfn, placed_bitmap))
			nr_placed++;
	}
	*distinct = nr_placed;
	return 0;
}

bool smig_land_complete(void)
{
	return image_bitmap && nr_placed == image.image_pages;
}

/* Where a placed page lies now; NULL if it never came. */
void *smig_land_find(u64 pfn)
{
	if (!in_image(pfn) || !test_bit(pfn, placed_bitmap))
		return NULL;
	return test_bit(pfn, held_bitmap) ? pfn_to_kaddr(pfn) : xa_load(&spares, pfn);
}

u64 smig_land_copy_list(void)
{
	return copy_head;
}

void smig_land_counts(u64 *direct, u64 *copied)
{
	*direct = nr_placed - nr_copied;
	*copied = nr_copied;
}

const struct smig_image_header *smig_land_header(void)
{
	return &image;
}
