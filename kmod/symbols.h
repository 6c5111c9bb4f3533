/* SPDX-License-Identifier: GPL-2.0 */
/*
 * symbols.h - kernel functions that are not exported to modules.
 *
 * Each is called through a thunk of arch/x86/thunk_64.S that goes there by a
 * return: no indirect branch, so it works where indirect branch tracking
 * forbids those to functions that do not begin with ENDBR; and no text to
 * patch.  Loading is refused, by name, if a required one is missing.
 */
#ifndef SMIG_SYMBOLS_H
#define SMIG_SYMBOLS_H

#ifndef __ASSEMBLY__
#include <linux/pgtable.h>
#include <linux/spinlock_types.h>
#include <linux/time64.h>
#include <linux/types.h>

struct anon_vma;
struct folio;
struct list_head;
struct page;
struct class;
struct clocksource;
struct mm_struct;
struct vm_area_struct;
#endif

/* name, return type, arguments */
#define SMIG_REQUIRED_CALLS(X)						\
	X(kallsyms_lookup_name, unsigned long, (const char *name))	\
	X(freeze_processes, int, (void))				\
	X(thaw_processes, void, (void))					\
	X(freeze_kernel_threads, int, (void))				\
	X(thaw_kernel_threads, void, (void))				\
	X(save_processor_state, void, (void))				\
	X(restore_processor_state, void, (void))			\
	X(pm_notifier_call_chain_robust, int, (unsigned long up, unsigned long down)) \
	X(pm_notifier_call_chain, int, (unsigned long action))		\
	X(pm_restrict_gfp_mask, void, (void))				\
	X(pm_restore_gfp_mask, void, (void))				\
	X(freeze_secondary_cpus, int, (int primary))			\
	X(thaw_secondary_cpus, void, (void))				\
	X(play_dead_common, void, (void))				\
	X(suspend_console, void, (void))				\
	X(resume_console, void, (void))					\
	X(cpuidle_pause, void, (void))					\
	X(cpuidle_resume, void, (void))					\
	X(walk_system_ram_range, int, (unsigned long pfn, unsigned long nr, void *arg, \
		int (*fn)(unsigned long, unsigned long, void *)))	\
	X(set_memory_x, int, (unsigned long addr, int nr))		\
	X(set_memory_ro, int, (unsigned long addr, int nr))		\
	X(set_memory_nx, int, (unsigned long addr, int nr))		\
	X(set_memory_rw, int, (unsigned long addr, int nr))		\
	X(lock_device_hotplug, void, (void))				\
	X(unlock_device_hotplug, void, (void))				\
	X(drain_local_pages, void, (void *zone))			\
	X(lru_add_drain_all, void, (void))				\
	X(flush_tlb_all, void, (void))					\
	X(flush_tlb_mm_range, void, (struct mm_struct *mm, unsigned long start, \
		unsigned long end, unsigned int stride_shift, bool freed_tables)) \
	X(__split_huge_pmd, void, (struct vm_area_struct *vma, pmd_t *pmd, \
		unsigned long address, bool freeze, struct folio *folio)) \
	X(kernel_page_present, bool, (struct page *page))		\
	X(folio_isolate_lru, u8, (struct folio *folio))			\
	X(folio_putback_lru, void, (struct folio *folio))		\
	X(folio_get_anon_vma, struct anon_vma *, (struct folio *folio))	\
	X(__put_anon_vma, void, (struct anon_vma *anon_vma))		\
	X(try_to_migrate, void, (struct folio *folio, unsigned int flags)) \
	X(try_to_unmap_flush, void, (void))				\
	X(remove_migration_ptes, void, (struct folio *from, struct folio *to, int flags))

/* These may be absent: then the call does nothing and returns 0. */
#define SMIG_OPTIONAL_CALLS(X)						\
	X(arch_resume_nosmt, int, (void))				\
	X(add_vmfork_randomness, void, (const void *id, size_t len))	\
	X(crng_reseed, void, (void *work))				\
	X(rcu_cpu_stall_reset, void, (void))				\
	X(drain_all_pages, void, (void *zone))				\
	X(nr_blockdev_pages, long, (void))				\
	X(alloc_contig_range, int, (unsigned long start, unsigned long end, \
		unsigned int migrate_type, gfp_t flags))		\
	X(alloc_contig_range_noprof, int, (unsigned long start, unsigned long end, \
		unsigned int migrate_type, gfp_t flags))		\
	X(split_huge_page_to_list_to_order, int, (struct page *page, struct list_head *list, \
		unsigned int order))

#ifndef __ASSEMBLY__

#define SMIG_DECLARE_CALL(name, ret, args)	\
	extern void *smig_symbol_##name;	\
	ret smig_thunk_##name args;
SMIG_REQUIRED_CALLS(SMIG_DECLARE_CALL)
SMIG_OPTIONAL_CALLS(SMIG_DECLARE_CALL)
#undef SMIG_DECLARE_CALL

/* smig_call(freeze_processes)() */
#define smig_call(name) smig_thunk_##name

/* Kernel variables; the optional ones may be NULL. */
struct smig_variables {
	struct class *block_class;		/* required */
	struct mm_struct *init_mm;		/* required */
	char *image_start, *image_end;		/* required; of the kernel */
	spinlock_t *pgd_lock;			/* required */
	struct clocksource **curr_clocksource;	/* required */
	struct timespec64 *timekeeping_suspend_time;	/* required */
	bool *suspend_timing_needed;		/* required */
	struct clocksource **suspend_clocksource;
	atomic_t *kexec_lock;
	int *ctrl_alt_del;
	unsigned int *khugepaged_max_ptes_swap;
};

extern struct smig_variables smig_var;

int smig_symbols_resolve(void);
bool smig_symbols_has(const void *symbol);
#define smig_has(name) smig_symbols_has(smig_symbol_##name)
int smig_symbols_probe(void);
bool smig_symbols_isolate_lru(struct folio *folio);

#endif

#endif
