// SPDX-License-Identifier: GPL-2.0
/*
 * symbols.c - finds what symbols.h names, once, at load.
 *
 * kallsyms_lookup_name, the first of the list, is found by a kprobe that is
 * never armed.
 */
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/security.h>

#include "smig.h"
#include "symbols.h"

#define SMIG_DEFINE_CALL(name, ret, args) void *smig_symbol_##name __ro_after_init;
SMIG_REQUIRED_CALLS(SMIG_DEFINE_CALL)
SMIG_OPTIONAL_CALLS(SMIG_DEFINE_CALL)

struct smig_variables smig_var __ro_after_init;

/* What folio_isolate_lru() returns for a page that is on no list. */
static u8 not_isolated __ro_after_init;

/* The caller holds a reference. */
bool smig_symbols_isolate_lru(struct folio *folio)
{
	return smig_call(folio_isolate_lru)(folio) != not_isolated;
}

/*
 * folio_isolate_lru() says 0 or -EBUSY, or, since commit be2d57563822 ("mm: change to
 * return bool for folio_isolate_lru()") (in v6.3), true or false: a page of our own
 * tells which.  At load, after smig_symbols_resolve().
 */
int __init smig_symbols_probe(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return -ENOMEM;
	not_isolated = smig_call(folio_isolate_lru)(page_folio(page));
	__free_page(page);
	return 0;
}

static long absent(void)
{
	return 0;
}

/* Whether an optional function is there. */
bool smig_symbols_has(const void *symbol)
{
	return symbol != absent;
}

static void *lookup(const char *name, bool required, int *missing)
{
	unsigned long addr = smig_thunk_kallsyms_lookup_name(name);

	if (!addr && required) {
		pr_err("this kernel has no symbol '%s', which a move needs\n", name);
		++*missing;
	}
	return (void *)addr;
}

int smig_symbols_resolve(void)
{
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name" };
	int missing = 0;
	int ret;

	ret = security_locked_down(LOCKDOWN_DEV_MEM);
	if (ret) {
		pr_err("the kernel is locked down: a guest cannot read its own memory here\n");
		return ret;
	}
	ret = register_kprobe(&kp);
	if (ret) {
		pr_err("cannot find kallsyms_lookup_name with a kprobe: %d\n", ret);
		return ret;
	}
	smig_symbol_kallsyms_lookup_name = kp.addr;
	unregister_kprobe(&kp);

#define SMIG_RESOLVE(name, ret, args) smig_symbol_##name = lookup(#name, true, &missing);
	SMIG_REQUIRED_CALLS(SMIG_RESOLVE)
#undef SMIG_RESOLVE
#define SMIG_RESOLVE(name, ret, args) \
	smig_symbol_##name = lookup(#name, false, &missing) ?: (void *)absent;
	SMIG_OPTIONAL_CALLS(SMIG_RESOLVE)
#undef SMIG_RESOLVE

	/* its name before it could leave large pages */
	if (smig_symbol_split_huge_page_to_list_to_order == absent)
		smig_symbol_split_huge_page_to_list_to_order =
			lookup("split_huge_page_to_list", true, &missing);

	smig_var.block_class = lookup("block_class", true, &missing);
	smig_var.init_mm = lookup("init_mm", true, &missing);
	smig_var.image_start = lookup("_text", true, &missing);
	smig_var.image_end = lookup("_end", true, &missing);
	smig_var.pgd_lock = lookup("pgd_lock", true, &missing);
	smig_var.curr_clocksource = lookup("curr_clocksource", true, &missing);
	smig_var.timekeeping_suspend_time = lookup("timekeeping_suspend_time", true, &missing);
	smig_var.suspend_timing_needed = lookup("suspend_timing_needed", true, &missing);
	smig_var.suspend_clocksource = lookup("suspend_clocksource", false, &missing);
	smig_var.kexec_lock = lookup("__kexec_lock", false, &missing);
	smig_var.ctrl_alt_del = lookup("C_A_D", false, &missing);
	smig_var.khugepaged_max_ptes_swap =
		lookup("khugepaged_max_ptes_swap", false, &missing);
	return missing ? -EOPNOTSUPP : 0;
}
