/* SPDX-License-Identifier: GPL-2.0 */
/*
 * walk.h - processes' address spaces and their page tables, entry by entry.
 */
#ifndef SMIG_WALK_H
#define SMIG_WALK_H

#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/sched.h>

/* Since v6.6 a clean but written entry may carry its dirty bit elsewhere. */
#ifdef _PAGE_SAVED_DIRTY
#define SMIG_DIRTY_BITS (_PAGE_DIRTY | _PAGE_SAVED_DIRTY)
#else
#define SMIG_DIRTY_BITS _PAGE_DIRTY
#endif
#define SMIG_WRITTEN_BITS (_PAGE_RW | SMIG_DIRTY_BITS)

static inline bool smig_walk_is_table(u64 entry)
{
	return (entry & _PAGE_PRESENT) && !(entry & _PAGE_PSE);
}

/* The first frame that a large entry maps; one that is out of reach for a while is inverted. */
static inline unsigned long smig_walk_leaf_pfn(const u64 *entry, unsigned long nr)
{
	return nr == PTRS_PER_PMD ? pmd_pfn(*(const pmd_t *)entry) : pud_pfn(*(const pud_t *)entry);
}

pmd_t *smig_walk_middle_entry(struct mm_struct *mm, unsigned long address);
bool smig_walk_is_special(const struct vm_area_struct *vma);
unsigned long smig_walk_step(struct vm_area_struct *vma, unsigned long address, pmd_t **middle);

/*
 * What a walk calls, under the lock of the table: @pte for every entry that is not
 * empty, @leaf (may be NULL) for every large one.  True ends the walk.
 */
struct smig_walk {
	bool (*pte)(struct vm_area_struct *vma, unsigned long address, pte_t *pte, void *arg);
	bool (*leaf)(struct vm_area_struct *vma, unsigned long address, pmd_t pmd, void *arg);
	void *arg;
	bool never_wait;	/* pass over an address space that somebody has locked */
};

bool smig_walk_table(const struct smig_walk *walk, struct vm_area_struct *vma, pmd_t *middle,
		     unsigned long *address, unsigned long end);
int smig_walk_mm(const struct smig_walk *walk, struct mm_struct *mm, unsigned long *from);
int smig_walk_lock(struct mm_struct *mm, bool never_wait);
long smig_walk_hold_mms(struct mm_struct ***held, bool (*wanted)(struct task_struct *task));
void smig_walk_drop_mms(struct mm_struct **mms, long nr, bool later);
void smig_walk_frozen(struct mm_struct *mm, void *arg, void (*ptes)(pmd_t *middle, void *arg),
		      void (*leaf)(u64 *entry, unsigned long nr, void *arg));

#endif
