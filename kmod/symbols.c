// SPDX-License-Identifier: GPL-2.0
/*
 * symbols.c - finds what symbols.h names, once, at load.
 *
 * kallsyms_lookup_name itself is found by a kprobe that is never armed.
 */
#include <linux/kprobes.h>
#include <linux/security.h>

#include "smig.h"
#include "symbols.h"

#define SMIG_DEFINE_CALL(name, ret, args) DEFINE_STATIC_CALL_NULL(smig_##name, smig_fn_##name);
#define SMIG_DEFINE_CALL_RET0(name, ret, args) DEFINE_STATIC_CALL_RET0(smig_##name, smig_fn_##name);
SMIG_REQUIRED_CALLS(SMIG_DEFINE_CALL)
SMIG_OPTIONAL_CALLS(SMIG_DEFINE_CALL_RET0)

struct smig_variables smig_var;

typedef unsigned long (*lookup_fn)(const char *name);
DEFINE_STATIC_CALL_NULL(smig_lookup, unsigned long (const char *));

static unsigned long lookup(const char *name, bool required, int *missing)
{
	unsigned long addr = static_call(smig_lookup)(name);

	if (!addr && required) {
		pr_err("this kernel has no symbol '%s', which a move needs\n", name);
		++*missing;
	}
	return addr;
}

int smig_symbols_resolve(void)
{
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long addr;
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
	static_call_update(smig_lookup, (lookup_fn)kp.addr);
	unregister_kprobe(&kp);

#define SMIG_RESOLVE(name, ret, args)						\
	addr = lookup(#name, true, &missing);					\
	if (addr)								\
		static_call_update(smig_##name, (smig_fn_##name *)addr);
	SMIG_REQUIRED_CALLS(SMIG_RESOLVE)
#undef SMIG_RESOLVE
#define SMIG_RESOLVE(name, ret, args)						\
	addr = lookup(#name, false, &missing);					\
	if (addr)								\
		static_call_update(smig_##name, (smig_fn_##name *)addr);
	SMIG_OPTIONAL_CALLS(SMIG_RESOLVE)
#undef SMIG_RESOLVE

	smig_var.block_class = (void *)lookup("block_class", true, &missing);
	smig_var.curr_clocksource = (void *)lookup("curr_clocksource", true, &missing);
	smig_var.timekeeping_suspend_time = (void *)lookup("timekeeping_suspend_time", true, &missing);
	smig_var.suspend_timing_needed = (void *)lookup("suspend_timing_needed", true, &missing);
	smig_var.suspend_clocksource = (void *)lookup("suspend_clocksource", false, &missing);
	smig_var.kexec_lock = (void *)lookup("__kexec_lock", false, &missing);
	smig_var.ctrl_alt_del = (void *)lookup("C_A_D", false, &missing);
	return missing ? -EOPNOTSUPP : 0;
}
