// SPDX-License-Identifier: GPL-2.0
/*
 * walk.c - processes' address spaces and their page tables, entry by entry.
 */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "smig.h"
#include "walk.h"

/*
 * The middle entry of a user address, or NULL; the caller holds a lock that keeps
 * its tables.  Also called by hooks of the fault path.
 */
notrace pmd_t *smig_walk_middle_entry(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, address);
	if (!smig_walk_is_table(pud_val(READ_ONCE(*pud))))
		return NULL;
	return pmd_offset(pud, address);
}

/*
 * Memory that user space shares with a driver, with the kernel or with a guest of
 * its own: its entries stay as they are, and what they can write is sent at the
 * stop in any case.  Shadow stacks are told from other pages by just the bits that
 * a pass clears.
 */
bool smig_walk_is_special(const struct vm_area_struct *vma)
{
	vm_flags_t special = VM_PFNMAP | VM_IO | VM_MIXEDMAP;

#ifdef VM_SHADOW_STACK
	special |= VM_SHADOW_STACK;
#endif
	return vma->vm_flags & special || mm_has_notifiers(vma->vm_mm);
}

/*
 * Under the mm's mmap lock: the end of what one middle entry, or the lack of it
 * (then @middle is NULL), says of the area from @address on.
 */
unsigned long smig_walk_step(struct vm_area_struct *vma, unsigned long address, pmd_t **middle)
{
	*middle = smig_walk_middle_entry(vma->vm_mm, address);
	/* reserved address space may be vast, and empty */
	return *middle ? pmd_addr_end(address, vma->vm_end) : pud_addr_end(address, vma->vm_end);
}

/* 0: locked for reading.  -EAGAIN: not to be had at once.  -EINTR: killed. */
int smig_walk_lock(struct mm_struct *mm, bool never_wait)
{
	if (never_wait)
		return mmap_read_trylock(mm) ? 0 : -EAGAIN;
	return mmap_read_lock_killable(mm);
}

/*
 * The entries of one table, or one large entry.  Under the mm's mmap lock.  True: the
 * walk is to end, *address being where it would go on.
 */
bool smig_walk_table(const struct smig_walk *walk, struct vm_area_struct *vma, pmd_t *middle,
		     unsigned long *address, unsigned long end)
{
	bool stop = false;
	spinlock_t *lock;	/* the table's */
	pmd_t pmd;
	pte_t *pte;

	/* a table that goes away meanwhile is freed after a grace period */
	rcu_read_lock();
	pmd = READ_ONCE(*middle);
	if (!(pmd_val(pmd) & _PAGE_PRESENT))
		goto unlock_rcu;
	if (!smig_walk_is_table(pmd_val(pmd))) {
		if (!walk->leaf)
			goto unlock_rcu;
		lock = pmd_lock(vma->vm_mm, middle);
		if (pmd_val(READ_ONCE(*middle)) == pmd_val(pmd))
			stop = walk->leaf(vma, *address, pmd, walk->arg);
		spin_unlock(lock);
		goto unlock_rcu;
	}
	lock = pte_lockptr(vma->vm_mm, &pmd);
	spin_lock(lock);
	if (pmd_val(READ_ONCE(*middle)) == pmd_val(pmd)) {
		pte = pte_offset_kernel(&pmd, *address);
		for (; !stop && *address < end; *address += PAGE_SIZE, pte++)
			if (!pte_none(READ_ONCE(*pte)))
				stop = walk->pte(vma, *address, pte, walk->arg);
	}
	spin_unlock(lock);
unlock_rcu:
	rcu_read_unlock();
	return stop;
}

/*
 * The anonymous memory of @mm from address *from on.  0: all of it; 1: ended, to go on
 * at *from; else what smig_walk_lock() says.  Process context.
 */
int smig_walk_mm(const struct smig_walk *walk, struct mm_struct *mm, unsigned long *from)
{
	VMA_ITERATOR(iterator, mm, *from);
	struct vm_area_struct *vma;
	unsigned long end;
	pmd_t *middle;
	int ret;

	ret = smig_walk_lock(mm, walk->never_wait);
	if (ret)
		return ret;
	for_each_vma(iterator, vma) {
		if (!vma->anon_vma || vma->vm_flags & VM_HUGETLB)
			continue;
		for (*from = max(*from, vma->vm_start); *from < vma->vm_end; *from = end) {
			end = smig_walk_step(vma, *from, &middle);
			if (middle && smig_walk_table(walk, vma, middle, from, end)) {
				ret = 1;
				goto unlock;
			}
			cond_resched();
		}
	}
unlock:
	mmap_read_unlock(mm);
	return ret;
}

/* @later: if it was the last reference another task ends the space, and waits where that waits. */
void smig_walk_drop_mms(struct mm_struct **mms, long nr, bool later)
{
	while (nr > 0) {
		struct mm_struct *mm = mms[--nr];

		if (later)
			mmput_async(mm);
		else
			mmput(mm);
	}
	kvfree(mms);
}

/*
 * References to the mms of all processes of which a task is @wanted (NULL: all),
 * each once in a row; their number, or -errno.
 */
long smig_walk_hold_mms(struct mm_struct ***held, bool (*wanted)(struct task_struct *task))
{
	struct task_struct *leader, *task;
	unsigned long room = 64, nr;
	struct mm_struct **mms, *mm;
	bool full;

again:
	mms = kvmalloc_array(room, sizeof(*mms), GFP_KERNEL);
	if (!mms)
		return -ENOMEM;
	nr = 0;
	full = false;
	rcu_read_lock();
	/* threads too: a leader may have left its mm already */
	for_each_process_thread(leader, task) {
		if (task->flags & PF_KTHREAD || (wanted && !wanted(task)))
			continue;
		task_lock(task);
		mm = task->mm;
		if (mm && ((nr && mms[nr - 1] == mm) || !mmget_not_zero(mm)))
			mm = NULL;
		task_unlock(task);
		if (!mm)
			continue;
		mms[nr++] = mm;
		full = nr == room;
		if (full)
			goto counted;
	}
counted:
	rcu_read_unlock();
	if (full) {
		smig_walk_drop_mms(mms, nr, true);
		room *= 4;
		goto again;
	}
	*held = mms;
	return nr;
}

/*
 * Calls @ptes for every table and @leaf for every large leaf of user space in @mm.
 * Nobody changes its tables: user space is frozen and one CPU runs, irqs off.
 */
void smig_walk_frozen(struct mm_struct *mm, void *arg, void (*ptes)(pmd_t *middle, void *arg),
		      void (*leaf)(u64 *entry, unsigned long nr, void *arg))
{
	unsigned long address = 0;

	while (address < TASK_SIZE_MAX) {
		pgd_t *pgd = pgd_offset(mm, address);
		unsigned long next = pgd_addr_end(address, TASK_SIZE_MAX);
		p4d_t *p4d = pgd_present(*pgd) ? p4d_offset(pgd, address) : NULL;
		pud_t *pud;
		pmd_t *pmd;

		if (p4d) {
			next = p4d_addr_end(address, next);
			pud = p4d_present(*p4d) ? pud_offset(p4d, address) : NULL;
			if (pud) {
				next = pud_addr_end(address, next);
				pmd = smig_walk_is_table(pud_val(*pud)) ?
				      pmd_offset(pud, address) : NULL;
				if (!pmd && pud_present(*pud))
					leaf((u64 *)pud, PTRS_PER_PUD * PTRS_PER_PMD, arg);
				if (pmd) {
					next = pmd_addr_end(address, next);
					if (smig_walk_is_table(pmd_val(*pmd)))
						ptes(pmd, arg);
					else if (pmd_present(*pmd))
						leaf((u64 *)pmd, PTRS_PER_PMD, arg);
				}
			}
		}
		address = next;
	}
}
