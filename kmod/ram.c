// SPDX-License-Identifier: GPL-2.0
/*
 * ram.c - System RAM, what class a frame is of, and how to read any frame.
 *
 * A frame that the kernel may write while user space is frozen is KERNEL; all
 * doubt falls on that side, since only KERNEL frames are copied at the capture.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/vmalloc.h>
#include <asm/set_memory.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

struct smig_ram smig_ram;

static int note_range(unsigned long pfn, unsigned long nr, void *arg)
{
	struct smig_ram *ram = arg;

	if (ram->nr == SMIG_MAX_RAM_RANGES)
		return -EOPNOTSUPP;
	ram->range[ram->nr].start = pfn;
	ram->range[ram->nr].count = nr;
	ram->nr++;
	ram->pages += nr;
	ram->top_pfn = max_t(u64, ram->top_pfn, pfn + nr);
	return 0;
}

/* Anew at every BEGIN: memory may have been added since. */
int smig_ram_scan(void)
{
	int ret;

	memset(&smig_ram, 0, sizeof(smig_ram));
	ret = smig_call(walk_system_ram_range)(0, ~0UL >> PAGE_SHIFT, &smig_ram, note_range);
	if (ret)
		pr_err("the RAM map has more than %d ranges\n", SMIG_MAX_RAM_RANGES);
	return ret;
}

/* Bytes of a bitmap with a bit for every frame; whole pages, so that it can be copied by pages. */
size_t smig_ram_bitmap_bytes(void)
{
	return PAGE_ALIGN(BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long));
}

bool smig_ram_contains(u64 pfn)
{
	unsigned int i;

	for (i = 0; i < smig_ram.nr; i++)
		if (pfn >= smig_ram.range[i].start &&
		    pfn - smig_ram.range[i].start < smig_ram.range[i].count)
			return true;
	return false;
}

/*
 * Whether I/O or a pin may still write a user page.  Work that no freezer stops
 * (decryption after a read) changes page cache in place; direct I/O holds an
 * extra reference while it is under way.
 */
static bool in_use_by_kernel(struct folio *folio)
{
	int expected;

	if (folio_test_locked(folio) || folio_test_writeback(folio) || !folio_test_uptodate(folio))
		return true;
	if (folio_test_large(folio))
		return folio_maybe_dma_pinned(folio);
	expected = atomic_read(&folio->_mapcount) + 1 + folio_test_private(folio);
	if (!folio_test_anon(folio) || folio_test_swapcache(folio))
		expected++;
	return folio_ref_count(folio) > expected;
}

/*
 * @frozen: one CPU runs, irqs are off and user space is frozen: the answer is
 * exact.  Otherwise it is a guess that never follows a pointer.
 */
enum smig_class smig_ram_classify(struct page *page, bool frozen)
{
	struct address_space *mapping;
	struct folio *folio;

	if (PageBuddy(page) || PageOffline(page) || PageHWPoison(page))
		return SMIG_CLASS_FREE;
	if (PageReserved(page))
		return SMIG_CLASS_KERNEL;
	folio = page_folio(page);
	if (!folio_test_lru(folio))
		return SMIG_CLASS_KERNEL;
	if (!frozen)
		return folio_test_anon(folio) ? SMIG_CLASS_ANON : SMIG_CLASS_CACHE;
	if (in_use_by_kernel(folio))
		return SMIG_CLASS_KERNEL;
	if (folio_test_anon(folio))
		return SMIG_CLASS_ANON;
	/*
	 * Regular files only: the cache of block devices and directories is
	 * metadata that a filesystem changes under writeback, which no freezer
	 * stops.
	 */
	mapping = folio_mapping(folio);
	if (!mapping || !mapping->host || !S_ISREG(mapping->host->i_mode))
		return SMIG_CLASS_KERNEL;
	/*
	 * secretmem: absent from the direct map, and so readable only now.  It is never
	 * evicted; to look at page tables for every frame would take longer than all else.
	 */
	if (mapping_unevictable(mapping) && !smig_call(kernel_page_present)(page))
		return SMIG_CLASS_KERNEL;
	return SMIG_CLASS_CACHE;
}

/*
 * Nobody's, or in a CPU's list of free pages; a guess while the guest runs.
 * Wrongly taken for free, a frame is sent at the stop.
 */
bool smig_ram_is_free(struct page *page)
{
	if (PageBuddy(page) || PageOffline(page) || PageHWPoison(page))
		return true;
	return !PageReserved(page) && !page_count(compound_head(page));
}

/* Frames beyond RAM (devices) are passed over.  Not atomic. */
void smig_bitmap_set(unsigned long *bitmap, unsigned long pfn, unsigned long nr)
{
	for (; nr && pfn < smig_ram.top_pfn; nr--, pfn++)
		__set_bit(pfn, bitmap);
}

/* The frames behind @bytes of vmalloc() memory. */
void smig_ram_mark_vmalloc(unsigned long *bitmap, const void *start, size_t bytes)
{
	size_t offset;

	for (offset = 0; offset < bytes; offset += PAGE_SIZE)
		smig_bitmap_set(bitmap, vmalloc_to_pfn(start + offset), 1);
}

/* Frames of the free block that begins at @page, cut at @end; racy while the guest runs. */
unsigned long smig_ram_free_run(struct page *page, unsigned long pfn, unsigned long end)
{
	unsigned long order = READ_ONCE(page->private);

	if (!PageBuddy(page) || order > 20)
		return 1;
	return min(1UL << order, end - pfn);
}

/*
 * Frames by class, while the guest runs; of those in use, not those in @without or
 * @nor (both may be NULL).  Under smig.lock.
 */
void smig_ram_census(u64 *pages, const unsigned long *without, const unsigned long *nor)
{
	unsigned int i;

	for (i = 0; i < smig_ram.nr; i++) {
		unsigned long pfn = smig_ram.range[i].start;
		unsigned long end = pfn + smig_ram.range[i].count;

		while (pfn < end) {
			struct page *page = pfn_to_online_page(pfn);
			unsigned long run = 1;
			enum smig_class class = SMIG_CLASS_FREE;

			if (page) {
				/* an owed page is off the LRU, as the kernel's own are */
				class = smig_owed_has(pfn) ? SMIG_CLASS_ANON :
							     smig_ram_classify(page, false);
				if (class == SMIG_CLASS_FREE)
					run = smig_ram_free_run(page, pfn, end);
			}
			if (run > 1 || !((without && test_bit(pfn, without)) ||
					 (nor && test_bit(pfn, nor))))
				pages[class] += run;
			pfn += run;
			if (!(pfn & 0xfff))
				cond_resched();
		}
	}
}

/*
 * A page of virtual address space to look at frames that are absent from the
 * direct map: vfree() of module memory leaves such holes, also at the stop.
 * Used only there: with irqs off, on one CPU.
 */
static struct page *window_page;
static void *window;
static pte_t *window_pte;

int smig_ram_window_init(void)
{
	unsigned int level;

	window_page = alloc_page(GFP_KERNEL);
	if (!window_page)
		return -ENOMEM;
	window = vmap(&window_page, 1, VM_MAP, PAGE_KERNEL_RO);
	window_pte = window ? lookup_address((unsigned long)window, &level) : NULL;
	if (!window_pte || level != PG_LEVEL_4K) {
		smig_ram_window_exit();
		return -ENOMEM;
	}
	return 0;
}

static void window_show(unsigned long pfn)
{
	set_pte(window_pte, pfn_pte(pfn, PAGE_KERNEL_RO));
	/* only the CPU that looks must forget: others flush before they look */
	asm volatile("invlpg (%0)" :: "r"(window) : "memory");
}

void smig_ram_window_exit(void)
{
	if (window_pte)
		window_show(page_to_pfn(window_page));
	if (window)
		vunmap(window);
	if (window_page)
		__free_page(window_page);
	window = NULL;
	window_pte = NULL;
	window_page = NULL;
}

/* The contents of a frame; with irqs off, valid until the next call. */
const void *smig_ram_map(unsigned long pfn)
{
	struct page *page = pfn_to_page(pfn);

	if (likely(smig_call(kernel_page_present)(page)))
		return page_address(page);
	window_show(pfn);
	return window;
}
