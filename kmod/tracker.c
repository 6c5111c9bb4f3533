// SPDX-License-Identifier: GPL-2.0
/*
 * tracker.c - which frames processes have written: read-only, then a write fault.
 *
 * A pass begins with a look at all page table entries: what is writable or dirty
 * counts as changed.  Shortly before a page is read, its entries lose the right to
 * write: what was written until then is read, so it is no news any more.  From then
 * on a write faults, and the fault hook notes the frame before the entry can become
 * writable.  Whatever becomes writable in another way (a fresh page, swap-in, a
 * shared file mapping, a child that was forked meanwhile) is met writable at the
 * next pass or at the stop, and so counts as changed.
 *
 * Writes through the kernel's own mappings are kdirty.c's.  The other hooks
 * here cover what neither sees:
 *   mm_page_alloc           contents that come into a fresh frame in any way
 *   folio_mark_dirty        an entry's dirty bit, when the entry goes away
 *   __split_huge_pmd        a large entry's, when it is split up
 *   bio_endio               a block device's DMA
 *   napi_gro_receive, ...   a network card's DMA into buffers posted long ago
 *   __vunmap_range_noflush  a kernel mapping that goes away with its dirty bits
 *   set_memory_ro, ...      an entry that loses them
 *   __text_poke             kernel text, written through a mapping of its own
 *
 * All hooks are set once, at load: a move patches no kernel text.  Off, each
 * costs a test of one flag.
 */
#include <linux/bio.h>
#include <linux/huge_mm.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/mm_types.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/skbuff.h>
#include <linux/tracepoint.h>
#include <asm/tlbflush.h>

#include "hook.h"
#include "owed.h"
#include "smig.h"
#include "symbols.h"
#include "walk.h"

static uint hooks = ~0;
module_param(hooks, uint, 0600);
MODULE_PARM_DESC(hooks, "test aid: a mask of hooks that work (bit 0: the fault hook), to see that missing ones are noticed");

static struct task_struct *walker;	/* whose own dirtying of pages is no news */

enum hook {
	HOOK_FAULT,
	HOOK_DIRTY,
	HOOK_BIO,
	HOOK_RX,
	HOOK_VUNMAP,
	HOOK_PROTECT,
	HOOK_POKE,
	HOOK_ALLOC,
	HOOK_SPLIT,
};

static bool works(enum hook hook)
{
	return unlikely(smig_pass_following()) && READ_ONCE(hooks) & (1u << hook);
}

/*
 * handle_mm_fault(vma, address, flags, regs): the frame is noted before it can become
 * writable.  This one hook also serves fault.c, or each fault would pay for two.
 */
SMIG_HOOK_FUNCTION(on_fault)
{
	struct vm_area_struct *vma = (void *)SMIG_HOOK_ARGUMENT(regs, 0);
	unsigned long address = SMIG_HOOK_ARGUMENT(regs, 1);
	pmd_t *middle, pmd;
	pte_t pte;

	if (smig_owed_mode() != SMIG_OWED_NONE && smig_hook_diverts(ops))
		smig_fault_divert(vma, address, parent, regs);
	if (!works(HOOK_FAULT) ||
	    !(SMIG_HOOK_ARGUMENT(regs, 2) & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)))
		return;
	middle = smig_walk_middle_entry(vma->vm_mm, address);
	if (!middle)
		return;
	pmd = READ_ONCE(*middle);
	if (!(pmd_val(pmd) & _PAGE_PRESENT))
		return;
	if (!smig_walk_is_table(pmd_val(pmd))) {
		smig_pass_mark((pmd_val(pmd) & PTE_PFN_MASK & PMD_MASK) >> PAGE_SHIFT,
			       PTRS_PER_PMD);
		return;
	}
	pte = READ_ONCE(*pte_offset_kernel(&pmd, address));
	if (pte_present(pte))
		smig_pass_mark(pte_pfn(pte), 1);
}

/* __split_huge_pmd(vma, middle, ...): what a large entry says of writes may not pass on */
SMIG_HOOK_FUNCTION(on_split)
{
	pmd_t *middle = (void *)SMIG_HOOK_ARGUMENT(regs, 1);
	pmd_t pmd = READ_ONCE(*middle);

	if (works(HOOK_SPLIT) && current != READ_ONCE(walker) && pmd_present(pmd) &&
	    !smig_walk_is_table(pmd_val(pmd)) && pmd_val(pmd) & SMIG_WRITTEN_BITS)
		smig_pass_mark(pmd_pfn(pmd), PTRS_PER_PMD);
}

SMIG_HOOK_FUNCTION(on_dirty)
{
	struct folio *folio = (void *)SMIG_HOOK_ARGUMENT(regs, 0);

	if (works(HOOK_DIRTY) && current != READ_ONCE(walker))
		smig_pass_mark(folio_pfn(folio), folio_nr_pages(folio));
}

static void notrace mark_piece(struct page *page, unsigned long offset, unsigned long length)
{
	if (length)
		smig_pass_mark(page_to_pfn(page) + (offset >> PAGE_SHIFT),
			       ((offset & ~PAGE_MASK) + length + PAGE_SIZE - 1) >> PAGE_SHIFT);
}

SMIG_HOOK_FUNCTION(on_bio_end)
{
	struct bio *bio = (void *)SMIG_HOOK_ARGUMENT(regs, 0);
	unsigned short i;

	if (!works(HOOK_BIO) || op_is_write(bio_op(bio)) || !bio->bi_io_vec)
		return;
	/* a true clone has no vectors of its own */
	for (i = 0; i < bio->bi_vcnt; i++)
		mark_piece(bio->bi_io_vec[i].bv_page, bio->bi_io_vec[i].bv_offset,
			   bio->bi_io_vec[i].bv_len);
}

static void notrace mark_packet(struct sk_buff *skb)
{
	struct skb_shared_info *info = skb_shinfo(skb);
	int i;

	if (virt_addr_valid(skb->head))
		mark_piece(virt_to_page(skb->head), offset_in_page(skb->head),
			   skb_end_offset(skb) + sizeof(*info));
	for (i = 0; i < info->nr_frags; i++)
		mark_piece(skb_frag_page(&info->frags[i]), skb_frag_off(&info->frags[i]),
			   skb_frag_size(&info->frags[i]));
}

/* napi_gro_receive(napi, skb) */
SMIG_HOOK_FUNCTION(on_gro)
{
	if (works(HOOK_RX))
		mark_packet((void *)SMIG_HOOK_ARGUMENT(regs, 1));
}

/* napi_gro_frags(napi) */
SMIG_HOOK_FUNCTION(on_gro_frags)
{
	struct napi_struct *napi = (void *)SMIG_HOOK_ARGUMENT(regs, 0);

	if (works(HOOK_RX) && napi->skb)
		mark_packet(napi->skb);
}

/* netif_receive_skb(skb) */
SMIG_HOOK_FUNCTION(on_receive)
{
	if (works(HOOK_RX))
		mark_packet((void *)SMIG_HOOK_ARGUMENT(regs, 0));
}

/* Frames behind kernel addresses; @only_dirty: those whose entry is dirty. */
static void notrace mark_kernel_range(unsigned long start, unsigned long end, bool only_dirty)
{
	unsigned long address;

	for (address = start & PAGE_MASK; address < end; address += PAGE_SIZE) {
		unsigned int level;
		pte_t *entry = lookup_address(address, &level);
		u64 value = entry ? pte_val(*entry) : 0;
		unsigned long inside;

		if (!(value & _PAGE_PRESENT) || (only_dirty && !(value & _PAGE_DIRTY)))
			continue;
		inside = level == PG_LEVEL_4K ? 0 : level == PG_LEVEL_2M ? address & ~PMD_MASK :
							  address & ~PUD_MASK;
		smig_pass_mark((((value & PTE_PFN_MASK) >> PAGE_SHIFT) & ~(inside >> PAGE_SHIFT)) +
			       (inside >> PAGE_SHIFT), 1);
	}
}

/* __vunmap_range_noflush(start, end) */
SMIG_HOOK_FUNCTION(on_vunmap)
{
	if (works(HOOK_VUNMAP))
		mark_kernel_range(SMIG_HOOK_ARGUMENT(regs, 0), SMIG_HOOK_ARGUMENT(regs, 1), true);
}

/* set_memory_ro(address, pages), set_memory_rox(address, pages) */
SMIG_HOOK_FUNCTION(on_protect)
{
	unsigned long address = SMIG_HOOK_ARGUMENT(regs, 0);

	if (works(HOOK_PROTECT))
		mark_kernel_range(address,
				  address + (int)SMIG_HOOK_ARGUMENT(regs, 1) * PAGE_SIZE, false);
}

/* __text_poke(function, address, source, length); ftrace cannot hook what it works by itself */
static int on_poke(struct kprobe *probe, struct pt_regs *regs)
{
	if (works(HOOK_POKE))
		mark_kernel_range(regs->si, regs->si + regs->cx, false);
	return 0;
}

static void on_alloc(void *ignore, struct page *page, unsigned int order, gfp_t flags, int type)
{
	if (works(HOOK_ALLOC) && page)
		smig_pass_mark(page_to_pfn(page), 1UL << order);
}

static struct tracepoint *alloc_tracepoint;
static struct kprobe poke_probe = { .symbol_name = "__text_poke", .pre_handler = on_poke };
static bool poke_registered, alloc_registered;

static struct smig_hook functions[] = {
	{ "handle_mm_fault", true, SMIG_DIVERTING_HOOK(on_fault) },
	{ "folio_mark_dirty", true, SMIG_HOOK(on_dirty) },
	{ "__split_huge_pmd", true, SMIG_HOOK(on_split) },
	{ "bio_endio", true, SMIG_HOOK(on_bio_end) },
	{ "napi_gro_receive", true, SMIG_HOOK(on_gro) },
	{ "napi_gro_frags", true, SMIG_HOOK(on_gro_frags) },
	{ "netif_receive_skb", true, SMIG_HOOK(on_receive) },
	{ "__vunmap_range_noflush", true, SMIG_HOOK(on_vunmap) },
	{ "set_memory_ro", true, SMIG_HOOK(on_protect) },
	{ "set_memory_rox", false, SMIG_HOOK(on_protect) },
};

static void find_alloc(struct tracepoint *tracepoint, void *ignore)
{
	if (!strcmp(tracepoint->name, "mm_page_alloc"))
		alloc_tracepoint = tracepoint;
}

void smig_tracker_exit(void)
{
	smig_hook_unset(functions, ARRAY_SIZE(functions));
	if (poke_registered)
		unregister_kprobe(&poke_probe);
	if (alloc_registered) {
		tracepoint_probe_unregister(alloc_tracepoint, on_alloc, NULL);
		tracepoint_synchronize_unregister();
	}
	poke_registered = false;
	alloc_registered = false;
}

/* Process context, at load.  All or nothing. */
int smig_tracker_init(void)
{
	const char *name = "mm_page_alloc";
	int ret = -ENOENT;

	for_each_kernel_tracepoint(find_alloc, NULL);
	if (alloc_tracepoint)
		ret = tracepoint_probe_register(alloc_tracepoint, on_alloc, NULL);
	alloc_registered = !ret;
	if (!ret) {
		name = poke_probe.symbol_name;
		ret = register_kprobe(&poke_probe);
		poke_registered = !ret;
	}
	if (ret)
		pr_err("this kernel's '%s' cannot be hooked: %d\n", name, ret);
	else
		ret = smig_hook_set(functions, ARRAY_SIZE(functions));
	if (ret)
		smig_tracker_exit();
	return ret;
}

/* ---- a pass over the processes' page tables ---- */

struct pass {
	unsigned long *bitmap;
	const struct smig_stretch *stretch;	/* NULL: only look */
	unsigned long *hot;	/* when looking: frames side by side of which many were written */
	u64 entries;		/* writable or dirty; of the stretch, if there is one */
	unsigned int tries;	/* to lock address spaces, all of them together */
};

#define HOT_SHARE 16		/* one of so many */
#define LOCK_TRIES 50		/* a millisecond or two apart */

static bool is_chosen(const struct smig_stretch *stretch, unsigned long pfn)
{
	return pfn >= stretch->start && pfn < stretch->end && test_bit(pfn, stretch->chosen);
}

/* Whether any of the @nr frames from @pfn on is. */
static bool any_chosen(const struct smig_stretch *stretch, unsigned long pfn, unsigned long nr)
{
	unsigned long start = max(pfn, stretch->start), end = min(pfn + nr, stretch->end);

	return start < end && find_next_bit(stretch->chosen, end, start) < end;
}

/* Reclaim and writeback go by the bit that is cleared. */
static void keep_dirty(struct page *page)
{
	if (PageAnon(page))
		SetPageDirty(compound_head(page));
	else
		set_page_dirty(page);
}

/*
 * Under the lock of the entry's table.  Whether it has lost the right to write, or, when
 * only looking, the bit that says that somebody has made use of it.
 */
static bool look_at(pte_t *pte, struct pass *pass)
{
	u64 old = pte_val(READ_ONCE(*pte)), new, loses = SMIG_WRITTEN_BITS;
	unsigned long pfn = pte_pfn(__pte(old));

	if (!pte_present(__pte(old)) || !(old & SMIG_WRITTEN_BITS) || pte_special(__pte(old)))
		return false;
	if (!pfn_valid(pfn) || (pass->stretch && !is_chosen(pass->stretch, pfn)))
		return false;
	smig_bitmap_set(pass->bitmap, pfn, 1);
	pass->entries++;
	if (!pass->stretch)
		loses = old & _PAGE_RW && PageAnon(pfn_to_page(pfn)) ? _PAGE_DIRTY : 0;
	if (!(old & loses))
		return false;
	do {
		new = old & ~loses;
	} while (!try_cmpxchg((u64 *)pte, &old, new));
	if (old & SMIG_DIRTY_BITS)
		keep_dirty(pfn_to_page(pfn));
	return true;
}

/* Under the table's lock. */
static void note_hot(const pte_t *pte, unsigned long nr, unsigned long *hot)
{
	for (; nr; nr--, pte++)
		if (pte_present(*pte) && pfn_valid(pte_pfn(*pte)) &&
		    PageAnon(pfn_to_page(pte_pfn(*pte))))
			smig_bitmap_set(hot, pte_pfn(*pte), 1);
}

/*
 * No CPU may write through a stale translation once the lock is open: others
 * (fork, writeback) rely on what the entries then say.
 */
static void look_at_table(struct vm_area_struct *vma, pmd_t *middle, unsigned long start,
			  unsigned long end, struct pass *pass)
{
	struct mm_struct *mm = vma->vm_mm;
	unsigned long i, nr = (end - start) >> PAGE_SHIFT, present = 0, changed = 0;
	spinlock_t *lock;	/* the table's */
	pmd_t pmd;
	pte_t *pte;

	rcu_read_lock();
	pmd = READ_ONCE(*middle);
	if (!smig_walk_is_table(pmd_val(pmd)))
		goto unlock_rcu;
	lock = pte_lockptr(mm, &pmd);
	spin_lock(lock);
	if (pmd_val(READ_ONCE(*middle)) == pmd_val(pmd)) {
		pte = pte_offset_kernel(&pmd, start);
		for (i = 0; i < nr; i++) {
			present += pte_present(pte[i]);
			changed += look_at(&pte[i], pass);
		}
		if (changed)
			smig_call(flush_tlb_mm_range)(mm, start, end, PAGE_SHIFT, false);
		if (changed && pass->hot && changed * HOT_SHARE >= present)
			note_hot(pte, nr, pass->hot);
	}
	spin_unlock(lock);
unlock_rcu:
	rcu_read_unlock();
}

static void note_special(struct vm_area_struct *vma, pmd_t *middle, unsigned long start,
			 unsigned long end)
{
	unsigned long address, i;
	pmd_t pmd;
	pte_t *pte;

	rcu_read_lock();
	pmd = READ_ONCE(*middle);
	if (smig_walk_is_table(pmd_val(pmd))) {
		pte = pte_offset_kernel(&pmd, start);
		for (address = start; address < end; address += PAGE_SIZE, pte++)
			if (pte_present(*pte) && (pte_val(*pte) & SMIG_WRITTEN_BITS))
				smig_pass_mark_sticky(pte_pfn(*pte));
	} else if (pmd_present(pmd) && (pmd_val(pmd) & SMIG_WRITTEN_BITS)) {
		for (i = 0; i < PTRS_PER_PMD; i++)
			smig_pass_mark_sticky(pmd_pfn(pmd) + i);
	}
	rcu_read_unlock();
}

/* What a large entry says of writes does not always pass on to the small ones. */
static void split_large(struct vm_area_struct *vma, pmd_t *middle, unsigned long address,
			struct pass *pass)
{
	pmd_t pmd = READ_ONCE(*middle);

	if (!pmd_trans_huge(pmd) || !(pmd_val(pmd) & SMIG_WRITTEN_BITS) ||
	    !any_chosen(pass->stretch, pmd_pfn(pmd), PTRS_PER_PMD))
		return;
	smig_bitmap_set(pass->bitmap, pmd_pfn(pmd), PTRS_PER_PMD);
	smig_call(__split_huge_pmd)(vma, middle, address & PMD_MASK, false, NULL);
}

static void look_at_large(struct vm_area_struct *vma, pmd_t *middle, unsigned long address,
			  struct pass *pass)
{
	spinlock_t *lock;	/* the entry's */
	pmd_t pmd;

	if (!pmd_trans_huge(READ_ONCE(*middle)))
		return;
	lock = pmd_lock(vma->vm_mm, middle);
	pmd = READ_ONCE(*middle);
	if (!pmd_trans_huge(pmd) || !(pmd_val(pmd) & SMIG_WRITTEN_BITS))
		goto unlock;
	smig_bitmap_set(pass->bitmap, pmd_pfn(pmd), PTRS_PER_PMD);
	pass->entries++;
	if (!pmd_write(pmd) || !(pmd_val(pmd) & _PAGE_DIRTY) || !PageAnon(pmd_page(pmd)))
		goto unlock;
	clear_bit(_PAGE_BIT_DIRTY, (unsigned long *)middle);
	keep_dirty(pmd_page(pmd));
	address &= PMD_MASK;
	smig_call(flush_tlb_mm_range)(vma->vm_mm, address, address + PMD_SIZE, PMD_SHIFT, false);
	smig_bitmap_set(pass->hot, pmd_pfn(pmd), PTRS_PER_PMD);
unlock:
	spin_unlock(lock);
}

/* Under the mm's mmap lock. */
static void look_at_area(struct vm_area_struct *vma, struct pass *pass)
{
	bool special = smig_walk_is_special(vma);
	unsigned long address, end;

	for (address = vma->vm_start; address < vma->vm_end; address = end) {
		pmd_t *middle;

		end = smig_walk_step(vma, address, &middle);
		if (!middle)
			continue;
		if (special) {
			note_special(vma, middle, address, end);
		} else {
			if (pass->stretch)
				split_large(vma, middle, address, pass);
			else
				look_at_large(vma, middle, address, pass);
			look_at_table(vma, middle, address, end, pass);
		}
		cond_resched();
	}
}

/* A page fault may wait for long for what it reads, and somebody for it: not to be waited for. */
static int lock_soon(struct mm_struct *mm, struct pass *pass)
{
	int ret;

	while ((ret = smig_walk_lock(mm, true)) && pass->tries && !fatal_signal_pending(current)) {
		pass->tries--;
		usleep_range(USEC_PER_MSEC, 2 * USEC_PER_MSEC);
	}
	return ret;
}

static int look_at_mm(struct mm_struct *mm, struct pass *pass)
{
	VMA_ITERATOR(iterator, mm, 0);
	struct vm_area_struct *vma;
	int ret = pass->stretch ? lock_soon(mm, pass) : smig_walk_lock(mm, false);

	if (ret)
		return ret;
	WRITE_ONCE(walker, current);
	for_each_vma(iterator, vma)
		if (!(vma->vm_flags & VM_HUGETLB))
			look_at_area(vma, pass);
	WRITE_ONCE(walker, NULL);
	mmap_read_unlock(mm);
	return 0;
}

static int look_at_all(struct pass *pass)
{
	struct mm_struct **mms;
	long i, nr = smig_walk_hold_mms(&mms, NULL);
	int ret = 0, one;

	if (nr < 0)
		return nr;
	for (i = 0; i < nr && ret != -EINTR; i++) {
		one = look_at_mm(mms[i], pass);
		ret = one ?: ret;
	}
	/* may be the last references, and then their pages' dirtying is news */
	smig_walk_drop_mms(mms, nr, pass->stretch);
	return ret;
}

/*
 * Process context, under smig.lock; marks that were there before have been taken.
 * Adds to @bitmap what may have been written, and to @hot anonymous memory of which a
 * share was since the last time.  @entries: how many may have been written through.
 */
int smig_tracker_look(unsigned long *bitmap, unsigned long *hot, u64 *entries)
{
	struct pass pass = { .bitmap = bitmap, .hot = hot };
	int ret = look_at_all(&pass);

	*entries = pass.entries;
	return ret;
}

/*
 * The same, but only of the frames of @stretch, which lose the right to be written.
 * An error: some may have kept it.
 */
int smig_tracker_protect(unsigned long *bitmap, const struct smig_stretch *stretch)
{
	struct pass pass = { .bitmap = bitmap, .stretch = stretch, .tries = LOCK_TRIES };

	return look_at_all(&pass);
}

/* ---- at the stop: one CPU, interrupts off, user space frozen; no lock is needed ---- */

static void scan_ptes(pmd_t *middle, unsigned long *bitmap)
{
	u64 *t = (u64 *)pte_offset_kernel(middle, 0);
	bool written = false;
	int i, j;

	for (i = 0; i < PTRS_PER_PTE; i += 8) {
		if (!((t[i] | t[i + 1] | t[i + 2] | t[i + 3] | t[i + 4] | t[i + 5] | t[i + 6] |
		       t[i + 7]) & SMIG_WRITTEN_BITS))
			continue;
		for (j = i; j < i + 8; j++) {
			if (!(t[j] & SMIG_WRITTEN_BITS) || !pte_present(__pte(t[j])))
				continue;
			smig_bitmap_set(bitmap, pte_pfn(__pte(t[j])), 1);
			written = true;
		}
	}
	/* the CPU sets dirty bits itself, and nothing says that it has written the table */
	if (written)
		smig_bitmap_set(bitmap, __pa(t) >> PAGE_SHIFT, 1);
}

static void scan_table(pmd_t *middle, void *arg)
{
	struct smig_user_scan *scan = arg;

	if (scan->tables)
		smig_bitmap_set(scan->tables, __pa(pte_offset_kernel(middle, 0)) >> PAGE_SHIFT, 1);
	scan_ptes(middle, scan->bitmap);
}

static void scan_leaf(u64 *entry, unsigned long nr, void *arg)
{
	struct smig_user_scan *scan = arg;

	if (!(*entry & SMIG_WRITTEN_BITS))
		return;
	smig_bitmap_set(scan->bitmap, smig_walk_leaf_pfn(entry, nr), nr);
	smig_bitmap_set(scan->bitmap, __pa(entry) >> PAGE_SHIFT, 1);
}

/* Adds what is writable or dirty now.  @scan->tables (may be NULL): frames of lowest tables. */
void smig_tracker_scan(struct smig_user_scan *scan)
{
	struct task_struct *leader, *task;
	struct mm_struct *last = NULL;

	rcu_read_lock();
	for_each_process_thread(leader, task) {
		if (!task->mm || task->mm == last || (task->flags & PF_KTHREAD))
			continue;
		last = task->mm;
		smig_walk_frozen(last, scan, scan_table, scan_leaf);
	}
	rcu_read_unlock();
}
