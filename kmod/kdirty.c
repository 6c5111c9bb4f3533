// SPDX-License-Identifier: GPL-2.0
/*
 * kdirty.c - which frames the kernel has written, by the Dirty bits of its own
 * page tables.
 *
 * While changes are followed every writable large leaf of the kernel's half is
 * split into 4 KiB ones; afterwards it is put together again.  A harvest clears
 * the bits; whoever wants to read contents flushes all TLBs first, or a CPU
 * would go on writing through an entry that it believes dirty already.
 *
 * What has no Dirty bit here (DMA, mappings that are gone by the time of the
 * harvest) is the business of the hooks in tracker.c.
 *
 * Lifetime of tables: the kernel frees a table of its own half only after a TLB
 * flush that interrupts every CPU.  So a walk looks at a middle entry and at
 * the table behind it with interrupts off, as get_user_pages_fast() does.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/vmalloc.h>

#include "smig.h"
#include "symbols.h"

#define ENTRIES 512
#define LEVEL_PTE 1
#define LEVEL_PMD 2
#define LEVEL_PUD 3
#define MERGE_CHUNK 64		/* leaves put together while the machine is stopped once */

struct split {
	unsigned long va;
	int level;		/* of the leaf */
	u64 *entry;		/* where it was */
	u64 leaf;		/* what stood there */
	u64 *table;		/* what stands there now */
};

static struct split *splits;
static unsigned long nr_splits, max_splits;

static bool present(u64 entry)
{
	return entry & _PAGE_PRESENT;
}

static bool large(u64 entry, int level)
{
	return level <= LEVEL_PUD && level > LEVEL_PTE && (entry & _PAGE_PSE);
}

static u64 *table_of(u64 entry)
{
	return __va(entry & PTE_PFN_MASK);
}

/* One page of stacks is mapped there 65536 times, read-only. */
static bool is_espfix(unsigned long va)
{
	return va >= ESPFIX_BASE_ADDR && va < ESPFIX_BASE_ADDR + (1UL << P4D_SHIFT);
}

static unsigned long span(int level)
{
	return 1UL << (PAGE_SHIFT + 9 * (level - 1));
}

/* Frames that a leaf of @level at @entry maps. */
static unsigned long leaf_pfn(u64 entry, int level)
{
	return (entry & PTE_PFN_MASK & ~(span(level) - 1)) >> PAGE_SHIFT;
}

struct walk {
	/* a large leaf, interrupts off; true: once more, after a moment with interrupts on */
	bool (*leaf)(struct walk *w, u64 *entry, int level, unsigned long va);
	/* if not NULL: a table of 4 KiB leaves, interrupts off */
	void (*ptes)(struct walk *w, u64 *table);
	unsigned long *bitmap;
	unsigned long *tables;	/* if not NULL: frames of page tables */
	bool clear;
	unsigned long count;
	struct list_head spare;	/* pages for tables */
	int error;
};

static void note_table(struct walk *w, const u64 *table)
{
	if (w->tables)
		smig_bitmap_set(w->tables, __pa(table) >> PAGE_SHIFT, 1);
}

/* What the entry holds afterwards. */
static u64 at_leaf(struct walk *w, u64 *entry, int level, unsigned long va)
{
	unsigned long flags;
	bool again;

	do {
		local_irq_save(flags);
		again = large(READ_ONCE(*entry), level) && w->leaf(w, entry, level, va);
		local_irq_restore(flags);
	} while (again);
	return READ_ONCE(*entry);
}

/* False: once more. */
static bool at_middle(struct walk *w, u64 *parent, unsigned int index, unsigned long va)
{
	u64 entry = READ_ONCE(*parent), *table;

	if (!present(entry) || large(entry, LEVEL_PUD))
		return true;
	table = table_of(entry);
	entry = READ_ONCE(table[index]);
	if (!present(entry))
		return true;
	if (large(entry, LEVEL_PMD))
		return !w->leaf(w, &table[index], LEVEL_PMD, va);
	note_table(w, table_of(entry));
	if (w->ptes)
		w->ptes(w, table_of(entry));
	return true;
}

static void walk_middle(struct walk *w, u64 *parent, unsigned int index, unsigned long va)
{
	unsigned long flags;
	bool done;

	do {
		local_irq_save(flags);
		done = at_middle(w, parent, index, va);
		local_irq_restore(flags);
	} while (!done);
}

/* Tables above the middle level stay for ever. */
static void walk_table(struct walk *w, u64 *table, int level, unsigned long base, int first)
{
	int i, j;

	note_table(w, table);
	for (i = first; i < ENTRIES && !w->error; i++) {
		unsigned long va = base + i * span(level);
		u64 entry = READ_ONCE(table[i]);

		if (!irqs_disabled())
			cond_resched();
		if (!present(entry) || is_espfix(va))
			continue;
		if (large(entry, level))
			entry = at_leaf(w, &table[i], level, va);
		if (!present(entry) || large(entry, level))
			continue;
		if (level > LEVEL_PUD) {
			walk_table(w, table_of(entry), level - 1, va, 0);
		} else {
			note_table(w, table_of(entry));
			for (j = 0; j < ENTRIES && !w->error; j++)
				walk_middle(w, &table[i], j, va + j * span(LEVEL_PMD));
		}
	}
}

static void walk_kernel(struct walk *w)
{
	int level = pgtable_l5_enabled() ? 5 : 4;

	/* the upper half of the top table, sign extended */
	walk_table(w, (u64 *)smig_var.init_mm->pgd, level, 0 - ENTRIES * span(level), ENTRIES / 2);
}

static void clear_dirty(u64 *entry)
{
	clear_bit(_PAGE_BIT_DIRTY, (unsigned long *)entry);
}

static bool is_dirty(u64 entry)
{
	return (entry & (_PAGE_PRESENT | _PAGE_DIRTY)) == (_PAGE_PRESENT | _PAGE_DIRTY);
}

static bool find_leaf(struct walk *w, u64 *entry, int level, unsigned long va)
{
	u64 value = READ_ONCE(*entry);

	if (!is_dirty(value) || !large(value, level))
		return false;
	smig_bitmap_set(w->bitmap, leaf_pfn(value, level), span(level) >> PAGE_SHIFT);
	/* a table that has taken its place must not lose the bit */
	return w->clear && cmpxchg(entry, value, value & ~(u64)_PAGE_DIRTY) != value;
}

static void find_ptes(struct walk *w, u64 *t)
{
	int i, j;

	for (i = 0; i < ENTRIES; i += 8) {
		if (likely(!((t[i] | t[i + 1] | t[i + 2] | t[i + 3] | t[i + 4] | t[i + 5] |
			      t[i + 6] | t[i + 7]) & _PAGE_DIRTY)))
			continue;
		for (j = i; j < i + 8; j++) {
			u64 value = READ_ONCE(t[j]);

			if (!is_dirty(value))
				continue;
			smig_bitmap_set(w->bitmap, leaf_pfn(value, LEVEL_PTE), 1);
			if (w->clear)
				clear_dirty(&t[j]);
		}
	}
}

/*
 * Any context.  Adds to @bitmap what was written, and to @tables (may be NULL) the
 * frames of kernel page tables.  @clear: it is a harvest, and TLBs must be flushed
 * before anything is read.
 */
void smig_kdirty_find(unsigned long *bitmap, unsigned long *tables, bool clear)
{
	struct walk w = {
		.leaf = find_leaf,
		.ptes = find_ptes,
		.bitmap = bitmap,
		.tables = tables,
		.clear = clear,
	};

	walk_kernel(&w);
}

static bool count_leaf(struct walk *w, u64 *entry, int level, unsigned long va)
{
	/* one large leaf of a gigabyte becomes 512 of 2 MiB first */
	if (READ_ONCE(*entry) & _PAGE_RW)
		w->count += level == LEVEL_PUD ? 1 + ENTRIES : 1;
	return false;
}

/* Fills @table, of the next lower level, with what maps what @leaf maps. */
static void make_alike(u64 *table, u64 leaf, int level)
{
	u64 pfn = leaf_pfn(leaf, level), flags = leaf & ~(u64)(PTE_PFN_MASK | _PAGE_PSE);
	int i;

	if (level == LEVEL_PMD)
		flags |= leaf & _PAGE_PAT_LARGE ? _PAGE_PAT : 0;
	else
		flags |= _PAGE_PSE | (leaf & _PAGE_PAT_LARGE);
	flags |= _PAGE_ACCESSED | _PAGE_DIRTY;
	for (i = 0; i < ENTRIES; i++)
		table[i] = ((pfn << PAGE_SHIFT) + i * span(level - 1)) | flags;
}

static bool split_leaf(struct walk *w, u64 *entry, int level, unsigned long va)
{
	u64 leaf = READ_ONCE(*entry);
	struct page *page;
	u64 *table;

	/* the walk has looked, but only under the lock nobody else splits */
	if (!present(leaf) || !large(leaf, level) || !(leaf & _PAGE_RW))
		return false;
	page = list_first_entry_or_null(&w->spare, struct page, lru);
	if (!page || nr_splits == max_splits) {
		w->error = -EAGAIN;
		return false;
	}
	table = page_address(page);
	make_alike(table, leaf, level);
	/*
	 * Whoever changes attributes looks for the leaf again under this lock, and
	 * waits there for other CPUs to take his interrupts.
	 */
	if (!spin_trylock(smig_var.pgd_lock))
		return true;
	if (cmpxchg(entry, leaf, __pa(table) | _KERNPG_TABLE) != leaf) {
		spin_unlock(smig_var.pgd_lock);
		return true;
	}
	spin_unlock(smig_var.pgd_lock);
	list_del(&page->lru);
	splits[nr_splits++] = (struct split){
		.va = va,
		.level = level,
		.entry = entry,
		.leaf = leaf,
		.table = table,
	};
	return false;
}

/* Process context, under smig.lock.  All or nothing; -EAGAIN: leaves appeared meanwhile. */
int smig_kdirty_split(u64 *leaves)
{
	struct walk w = { .leaf = count_leaf, .spare = LIST_HEAD_INIT(w.spare) };
	struct page *page, *next;
	unsigned long i;

	walk_kernel(&w);
	max_splits = w.count + w.count / 8 + 64;
	nr_splits = 0;
	splits = vmalloc(array_size(max_splits, sizeof(*splits)));
	if (!splits)
		return -ENOMEM;
	for (i = 0; i < max_splits && !w.error; i++) {
		page = alloc_page(GFP_KERNEL);
		if (page)
			list_add(&page->lru, &w.spare);
		else
			w.error = -ENOMEM;
	}
	w.leaf = split_leaf;
	walk_kernel(&w);
	list_for_each_entry_safe(page, next, &w.spare, lru)
		__free_page(page);
	smig_call(flush_tlb_all)();
	*leaves = nr_splits;
	if (w.error)
		smig_kdirty_merge();
	return w.error;
}

/* Where the kernel's page tables have the entry of @level for @va now; NULL: nowhere. */
static u64 *entry_now(unsigned long va, int level)
{
	int at = pgtable_l5_enabled() ? 5 : 4;
	u64 *table = (u64 *)smig_var.init_mm->pgd;

	for (;; at--) {
		u64 *entry = &table[(va >> (PAGE_SHIFT + 9 * (at - 1))) % ENTRIES];

		if (at == level)
			return entry;
		if (!present(*entry) || large(*entry, at))
			return NULL;
		table = table_of(*entry);
	}
}

/* The table still maps, with the same rights, exactly what the leaf did. */
static bool unchanged(const struct split *one)
{
	const u64 ignored = _PAGE_ACCESSED | _PAGE_DIRTY;
	/* the bit that says large at one level says PAT at the other */
	const u64 rights = ~(u64)(PTE_PFN_MASK | ignored | _PAGE_PSE | _PAGE_PAT_LARGE);
	u64 first = one->table[0] & ~ignored;
	int i;

	if (entry_now(one->va, one->level) != one->entry || large(*one->entry, one->level) ||
	    !present(*one->entry) || table_of(*one->entry) != one->table)
		return false;
	if ((first ^ one->leaf) & rights ||
	    leaf_pfn(first, one->level - 1) != leaf_pfn(one->leaf, one->level))
		return false;
	for (i = 1; i < ENTRIES; i++)
		if ((one->table[i] & ~ignored) != first + i * span(one->level - 1))
			return false;
	return true;
}

struct chunk {
	unsigned long first, end;
};

/* The machine stands still.  Backwards: what was split last, the smallest leaves, goes first. */
static int merge_chunk(void *arg)
{
	const struct chunk *chunk = arg;
	unsigned long i;

	for (i = chunk->end; i-- > chunk->first; ) {
		struct split *one = &splits[i];

		if (unchanged(one))
			WRITE_ONCE(*one->entry, one->leaf | _PAGE_ACCESSED | _PAGE_DIRTY);
		else
			one->table = NULL;	/* it is the kernel's now */
	}
	return 0;
}

/* Process context, under smig.lock. */
void smig_kdirty_merge(void)
{
	struct chunk chunk;
	unsigned long i;

	if (!splits)
		return;
	for (chunk.end = nr_splits; chunk.end; chunk.end = chunk.first) {
		chunk.first = chunk.end - min_t(unsigned long, chunk.end, MERGE_CHUNK);
		stop_machine(merge_chunk, &chunk, NULL);
	}
	smig_call(flush_tlb_all)();
	/* who changes an entry of a table may have been interrupted there, for long */
	if (preempt_model_full())
		synchronize_rcu_tasks();
	for (i = 0; i < nr_splits; i++)
		if (splits[i].table)
			free_page((unsigned long)splits[i].table);
	nr_splits = 0;
	vfree(splits);
	splits = NULL;
}
