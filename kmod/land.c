// SPDX-License-Identifier: GPL-2.0
/*
 * land.c - the target's memory, made ready to become another kernel's.
 *
 * The landing environment holds nearly all free frames.  A page whose own frame
 * is held is written there at once; any other goes to a spare: a held frame that
 * is vacant, which is to say that the source promised not to use it.  The
 * trampoline copies spares home.  Pages come before the image is known, and again
 * when they have changed.
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
#include "symbols.h"

/* What the landing environment needs to go on, above its watermarks: 12 MiB and 1/64 of memory. */
#define WORKING_PAGES(ram) (3072 + (ram) / 64)

static LIST_HEAD(blocks);		/* first pages of held blocks; page->private is the order */
static unsigned long *held_bitmap;
static unsigned long *dirty_bitmap;	/* held frames that were written since they were zeroed */
static unsigned long *vacant_bitmap;	/* will hold nothing of the guest */
static unsigned long *image_bitmap;	/* NULL: not known yet */
static unsigned long *placed_bitmap;
static DEFINE_XARRAY(spares);		/* pfn of the image -> address of its spare */
static u64 held_for;			/* the reserve that was asked for */
static unsigned long *passed_bitmap;	/* spares that were passed over */
static u64 nr_held, nr_placed, nr_copied, next_spare;
static struct smig_image_header image;
static struct smig_copy_page *copy_tail;
static u64 copy_head;			/* physical */

static void forget_pages(void)
{
	xa_destroy(&spares);
	vfree(vacant_bitmap);
	vfree(image_bitmap);
	vfree(placed_bitmap);
	vfree(passed_bitmap);
	vacant_bitmap = NULL;
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

	forget_pages();
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

/* Spares that so many pages may take: themselves, the list of them, the temporary tables. */
static u64 spares_for(u64 pages)
{
	return pages + pages / SMIG_COPY_PAIRS + 1 + 512;
}

static void answer_hold(struct smig_land *arg)
{
	arg->held_pages = nr_held;
	arg->footprint_pages = smig_ram.pages - nr_held;
	arg->vacant_pages = spares_for(arg->footprint_pages);
	arg->kernel_start = __pa_symbol(smig_var.image_start) >> PAGE_SHIFT;
	arg->kernel_pages = PAGE_ALIGN(smig_var.image_end - smig_var.image_start) >> PAGE_SHIFT;
}

/* Process context, under smig.lock.  What is held already stays held. */
int smig_land_hold(struct smig_land *arg)
{
	u64 reserve = arg->reserve_pages ?: WORKING_PAGES(smig_ram.pages);
	int order;

	if (held_bitmap && arg->reserve_pages == held_for) {
		forget_pages();
		answer_hold(arg);
		return 0;
	}
	reserve += watermark_pages();
	smig_land_give_back();
	held_for = arg->reserve_pages;
	held_bitmap = vzalloc(smig_ram_bitmap_bytes());
	dirty_bitmap = vzalloc(smig_ram_bitmap_bytes());
	if (!held_bitmap || !dirty_bitmap) {
		smig_land_give_back();
		return -ENOMEM;
	}
	for (order = 10; order >= 0; order--) {
		/* each processor keeps some MiB at hand, which do not count as free */
		smig_call(drain_all_pages)(NULL);
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
	answer_hold(arg);
	return 0;
}

static bool in(const unsigned long *bitmap, u64 pfn)
{
	return pfn < smig_ram.top_pfn && test_bit(pfn, bitmap);
}

/* Before the image is known, every frame of memory that is not vacant may be part of it. */
static bool in_image(u64 pfn)
{
	if (image_bitmap)
		return in(image_bitmap, pfn);
	return smig_ram_contains(pfn) && !test_bit(pfn, vacant_bitmap);
}

/* Process context, under smig.lock, memory held.  @bitmap is copied; another machine made it. */
int smig_land_vacant(const unsigned long *bitmap)
{
	size_t bytes = smig_ram_bitmap_bytes();
	u64 spare = 0, homeless = 0;
	unsigned int i;
	u64 pfn;

	if (!held_bitmap)
		return -EBADFD;
	forget_pages();
	vacant_bitmap = vzalloc(bytes);
	placed_bitmap = vzalloc(bytes);
	passed_bitmap = vzalloc(bytes);
	if (!vacant_bitmap || !placed_bitmap || !passed_bitmap) {
		forget_pages();
		return -ENOMEM;
	}
	bitmap_copy(vacant_bitmap, bitmap, smig_ram.top_pfn);
	for (i = 0; i < smig_ram.nr; i++) {
		u64 end = smig_ram.range[i].start + smig_ram.range[i].count;

		for (pfn = smig_ram.range[i].start; pfn < end; pfn++) {
			bool vacant = test_bit(pfn, vacant_bitmap);
			bool held = test_bit(pfn, held_bitmap);

			spare += held && vacant;
			homeless += !held && !vacant;
		}
	}
	if (spare < spares_for(homeless)) {
		pr_err("%llu spare frames may be needed, the source keeps %llu empty here\n",
		       spares_for(homeless), spare);
		forget_pages();
		return -ENOSPC;
	}
	return 0;
}

/* @header and @bitmap come from another machine: what the jump will rely on is checked here. */
static int check_image(const struct smig_image_header *header, const unsigned long *bitmap,
		       u64 pages)
{
	unsigned long pfn;

	if (header->magic != SMIG_HANDOVER_MAGIC || header->top_pfn != smig_ram.top_pfn ||
	    header->page_table_levels != (pgtable_l5_enabled() ? 5 : 4) ||
	    header->vcpus > num_present_cpus() ||
	    strncmp(header->release, init_utsname()->release, sizeof(header->release)) ||
	    strncmp(header->version, init_utsname()->version, sizeof(header->version))) {
		pr_err("the image is of another kernel or of a larger machine\n");
		return -EILSEQ;
	}
	for_each_set_bit(pfn, bitmap, smig_ram.top_pfn) {
		if (!smig_ram_contains(pfn)) {
			pr_err("the image has frame %lx, which is no memory here\n", pfn);
			return -EILSEQ;
		}
		if (test_bit(pfn, vacant_bitmap)) {
			pr_err("the image has frame %lx, which was to stay empty\n", pfn);
			return -EILSEQ;
		}
	}
	if (pages != header->image_pages || header->zero_pages > pages ||
	    !in(bitmap, header->resume_pa >> PAGE_SHIFT) ||
	    !in(bitmap, header->cr3 >> PAGE_SHIFT) ||
	    (header->cr3 & ~PAGE_MASK) || !in(bitmap, header->handover_pfn) ||
	    (header->resume_va ^ header->resume_pa) & ~PAGE_MASK ||
	    header->resume_va >> 56 != 0xff) {
		pr_err("the image header contradicts its bitmap\n");
		return -EILSEQ;
	}
	return 0;
}

/* Process context, under smig.lock, state LANDED.  Takes a copy of both. */
int smig_land_image(const struct smig_image_header *header, const unsigned long *bitmap)
{
	size_t bytes = smig_ram_bitmap_bytes();
	unsigned long *fresh = vzalloc(bytes);
	unsigned long pfn;
	int ret;

	if (!fresh)
		return -ENOMEM;
	bitmap_copy(fresh, bitmap, smig_ram.top_pfn);
	ret = check_image(header, fresh, bitmap_weight(fresh, smig_ram.top_pfn));
	if (ret) {
		vfree(fresh);
		return ret;
	}
	vfree(image_bitmap);
	image_bitmap = fresh;
	image = *header;
	nr_placed = 0;
	for_each_set_bit(pfn, image_bitmap, smig_ram.top_pfn)
		nr_placed += test_bit(pfn, placed_bitmap);
	return 0;
}

#define NO_HOME (~0ULL)		/* nothing will be copied from this spare */

/*
 * A zeroed held frame that is vacant, or NULL.  Frames a multiple
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

		if (!test_bit(candidate, held_bitmap) || !test_bit(candidate, vacant_bitmap))
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
