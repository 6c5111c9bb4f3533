/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook.h - calls of kernel functions, seen at their entry; set once, at load.
 */
#ifndef SMIG_HOOK_H
#define SMIG_HOOK_H

#include <linux/ftrace.h>

struct smig_hook {
	const char *name;	/* of the function */
	bool required;
	struct ftrace_ops ops;
	bool set;
};

#define SMIG_HOOK_FLAGS (FTRACE_OPS_FL_RECURSION | FTRACE_OPS_FL_PERMANENT)

#define SMIG_HOOK(function) { .func = function, .flags = SMIG_HOOK_FLAGS }

/* May send the call elsewhere; where a live patch owns the function, only looks on. */
#define SMIG_DIVERTING_HOOK(function) {				\
	.func = function,					\
	.flags = SMIG_HOOK_FLAGS | FTRACE_OPS_FL_IPMODIFY,	\
}

#define SMIG_HOOK_FUNCTION(name)							\
	static void notrace name(unsigned long ip, unsigned long parent,		\
				 struct ftrace_ops *ops, struct ftrace_regs *regs)

/* Since v6.2 there are accessors; before, the registers lie there themselves. */
#ifdef ftrace_regs_get_argument
#define SMIG_HOOK_ARGUMENT(regs, n) ftrace_regs_get_argument(regs, n)
#else
#define SMIG_HOOK_ARGUMENT(regs, n) regs_get_kernel_argument(&(regs)->regs, n)
#endif
#ifdef ftrace_regs_set_instruction_pointer
#define SMIG_HOOK_DIVERT(regs, ip) ftrace_regs_set_instruction_pointer(regs, ip)
#else
#define SMIG_HOOK_DIVERT(regs, ip) ftrace_instruction_pointer_set(regs, ip)
#endif

static inline bool smig_hook_diverts(const struct ftrace_ops *ops)
{
	return ops->flags & FTRACE_OPS_FL_IPMODIFY;
}

int smig_hook_set(struct smig_hook *hooks, unsigned int nr);
void smig_hook_unset(struct smig_hook *hooks, unsigned int nr);

#endif
