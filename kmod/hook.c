// SPDX-License-Identifier: GPL-2.0
/*
 * hook.c - sets hooks on kernel functions, at load, and takes them away at unload:
 * a move patches no kernel text.
 */
#include "hook.h"
#include "smig.h"
#include "symbols.h"

/* Process context.  No call is in a hook afterwards. */
void smig_hook_unset(struct smig_hook *hooks, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!hooks[i].set)
			continue;
		unregister_ftrace_function(&hooks[i].ops);
		ftrace_free_filter(&hooks[i].ops);
		hooks[i].set = false;
	}
}

static int set(struct smig_hook *hook)
{
	unsigned long address = smig_call(kallsyms_lookup_name)(hook->name);
	int ret;

	if (!address)
		return hook->required ? -ENOENT : 0;
	ret = ftrace_set_filter_ip(&hook->ops, address, 0, 0);
	if (ret)
		return ret;
	ret = register_ftrace_function(&hook->ops);
	if (ret == -EBUSY && smig_hook_diverts(&hook->ops)) {
		pr_notice("a live patch owns '%s': faults are learned of by other hooks\n",
			  hook->name);
		hook->ops.flags &= ~FTRACE_OPS_FL_IPMODIFY;
		ret = register_ftrace_function(&hook->ops);
	}
	if (ret)
		ftrace_free_filter(&hook->ops);
	hook->set = !ret;
	return ret;
}

/* Process context.  All or nothing. */
int smig_hook_set(struct smig_hook *hooks, unsigned int nr)
{
	unsigned int i;
	int ret;

	for (i = 0; i < nr; i++) {
		ret = set(&hooks[i]);
		if (ret) {
			pr_err("this kernel's '%s' cannot be hooked: %d\n", hooks[i].name, ret);
			smig_hook_unset(hooks, nr);
			return ret;
		}
	}
	return 0;
}
