/* SPDX-License-Identifier: GPL-2.0 */
/*
 * owed.h - owed pages: left on the source, missing on the clone until installed.
 *
 * An owed page is "under migration" for as long as it is owed: locked, off the LRU,
 * its anon_vma held, a migration entry in place of every page table entry.  Every
 * path of the kernel that meets such a page knows to wait for it.
 *
 * Lifetime of an owed page: its bit is set after all this is true, by marking, and
 * whoever clears the bit (test_and_clear_bit) alone undoes it.  The folio belongs
 * to that one from then on, and to the set before: nobody else can free it, lock it
 * or put it on a list.  So its lru and private fields are ours; fault.c uses them.
 *
 * Lock order: smig.lock, mmap lock, (folio lock, by trylock only), anon_vma lock,
 * page table lock, fault.c's locks.  Undoing takes the anon_vma lock, so it may be
 * done in a page fault, but not from a hook that runs under a spinlock: those hand
 * the page to a work item, which takes neither smig.lock nor an mmap lock, so that
 * whoever holds one of these and waits for a page gets it.
 */
#ifndef SMIG_OWED_H
#define SMIG_OWED_H

#include <linux/mm_types.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/types.h>

#include "smig.h"

struct ftrace_regs;
struct task_struct;

/*
 * try_to_migrate() may leave the flush of TLBs to its caller since commit 7e12beb8ca2a
 * ("migrate_pages: batch flushing TLB") (in v6.3), and warns before.  No name came with
 * it, so we go by one that came later.
 */
#ifdef folio_remove_rmap_pte
#define SMIG_OWED_UNMAP TTU_BATCH_FLUSH
#else
#define SMIG_OWED_UNMAP 0
#endif

/* What a touch of an owed page means. */
enum smig_owed_mode {
	SMIG_OWED_NONE,		/* there is none */
	SMIG_OWED_LOCAL,	/* source, guest runs: the page is not owed any more */
	SMIG_OWED_HELD,		/* source, captured: whoever touches it waits for the thaw */
	SMIG_OWED_MISSING,	/* clone: it must come from the source */
};

/* The set.  Changed under smig.lock, but for bits that are cleared as said above. */
struct smig_owed {
	enum smig_owed_mode mode;
	unsigned long *bitmap;
	unsigned long *speculated;	/* installed as such, and not seen in use yet */
	unsigned long *pushed;		/* the same */
	unsigned long *excluded;	/* scratch: frames of processes that run on */
	unsigned long *seen;		/* scratch: owed frames that a walk has met */
	u64 total;			/* at the capture */
	u64 may_be_hot;			/* pages that the capture may leave unmarked ... */
	u64 hot;			/* ... and has: they go in the stop */
	u64 hold_us;
	struct task_struct *installer;	/* in INSTALL now; never to be followed */
};

extern struct smig_owed smig_owed;

static inline enum smig_owed_mode smig_owed_mode(void)
{
	return READ_ONCE(smig_owed.mode);
}

/* Under rcu_read_lock(), preemption off, or smig.lock. */
static inline bool smig_owed_has(unsigned long pfn)
{
	const unsigned long *bitmap = READ_ONCE(smig_owed.bitmap);

	return bitmap && pfn < smig_ram.top_pfn && test_bit(pfn, bitmap);
}

/* owed.c */
void smig_owed_set_mode(enum smig_owed_mode mode);
int smig_owed_make_room(void);
void smig_owed_mark_own(unsigned long *own);
u64 smig_owed_left(void);
bool smig_owed_entry(pte_t pte, unsigned long *pfn);
bool smig_owed_add(struct page *page);
bool smig_owed_claim(unsigned long pfn);
bool smig_owed_put_back(struct folio *folio);
bool smig_owed_resolve(unsigned long pfn);
void smig_owed_resolve_all(const unsigned long *which);
void smig_owed_let_go(void);
void smig_owed_report(struct smig_capture *arg);
void smig_owed_unmark_all(void);
void smig_owed_cleanup(void);

/* mark.c */
int smig_owed_mark(struct smig_owe *arg);
int smig_owed_hold(bool mark);
bool smig_owed_runs_on(struct task_struct *task);

/* owed_list.c */
int smig_owed_list(struct smig_owed_list *arg);
unsigned long smig_owed_list_frames(void);
void smig_owed_end_list(void);

/* install.c */
void smig_owed_become_clone(void);
bool smig_owed_rehearse(void);
void smig_owed_end_missing(void);
int smig_owed_install(struct smig_install *arg, const u64 *pfns);
int smig_owed_status(struct smig_owed_status *arg);
void smig_owed_forget_figures(void);

/* fault.c */
struct smig_fault_times {
	u64 first_ns;		/* when somebody first waited for it; 0: nobody has */
	u64 read_ns;		/* when it was announced; 0: not yet */
};

int smig_fault_init(void);
void smig_fault_exit(void);
void smig_fault_divert(struct vm_area_struct *vma, unsigned long address, unsigned long parent,
		       struct ftrace_regs *regs);
void smig_fault_watch(void);
void smig_fault_unwatch(void);
void smig_fault_settle(void);
void smig_fault_find_waiters(void);
void smig_fault_adopt(struct folio *folio);
struct smig_fault_times smig_fault_release(struct folio *folio);
void smig_fault_mapped(unsigned long pfn, u64 install_ns, struct smig_fault_times times);
void smig_fault_forget_figures(void);
void smig_fault_figures(struct smig_owed_status *arg);
void smig_fault_repeat(void);
ssize_t smig_fault_read(char __user *to, size_t bytes, bool wait);
__poll_t smig_fault_poll(struct file *file, struct poll_table_struct *table);
void smig_fault_wake_readers(void);

#endif
