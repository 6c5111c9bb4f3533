// SPDX-License-Identifier: GPL-2.0
/*
 * main.c - load, unload, and what the rest of the kernel must not do during a move.
 */
#include <linux/cpu.h>
#include <linux/freezer.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/suspend.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

struct smig_move smig = {
	.lock = __MUTEX_INITIALIZER(smig.lock),
	.state = SMIG_STATE_IDLE,
};

static bool own_pm;

/* While true, PM notifications come from our own stop. */
void smig_main_own_pm(bool own)
{
	WRITE_ONCE(own_pm, own);
}

static int refuse_suspend(struct notifier_block *nb, unsigned long action, void *data)
{
	if (!READ_ONCE(smig.shut_out) || READ_ONCE(own_pm))
		return NOTIFY_DONE;
	switch (action) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		pr_info("suspend and hibernation are refused while a move runs\n");
		return notifier_from_errno(-EBUSY);
	}
	return NOTIFY_DONE;
}

/* Bitmaps and the list of RAM ranges are as at BEGIN: memory must not come or go. */
static int refuse_memory(struct notifier_block *nb, unsigned long action, void *data)
{
	if (READ_ONCE(smig.shut_out) && (action == MEM_GOING_ONLINE || action == MEM_GOING_OFFLINE))
		return notifier_from_errno(-EBUSY);
	return NOTIFY_DONE;
}

static struct notifier_block memory_block = {
	.notifier_call = refuse_memory,
};

static struct notifier_block pm_block = {
	.notifier_call = refuse_suspend,
	/* first: nothing is undone for our sake */
	.priority = INT_MAX,
};

/* Under smig.lock: from here to let_in() no suspend, kexec, CPU or memory hotplug. */
int smig_main_shut_out(void)
{
	/* the lock that kexec_load() and kexec themselves try, and give up with EBUSY */
	if (smig_var.kexec_lock && atomic_cmpxchg_acquire(smig_var.kexec_lock, 0, 1))
		return -EBUSY;
	cpu_hotplug_disable();
	WRITE_ONCE(smig.shut_out, true);
	return 0;
}

void smig_main_let_in(void)
{
	if (!smig.shut_out)
		return;
	WRITE_ONCE(smig.shut_out, false);
	cpu_hotplug_enable();
	if (smig_var.kexec_lock)
		atomic_set_release(smig_var.kexec_lock, 0);
}

static int __init smig_init(void)
{
	int ret;

	ret = smig_symbols_resolve() ?: smig_symbols_probe();
	if (ret)
		return ret;
	if (want_init_on_free()) {
		pr_err("init_on_free=1 expects zeros in free frames, which do not travel: boot without it\n");
		return -EOPNOTSUPP;
	}
	ret = smig_ram_scan();
	if (ret)
		return ret;
	ret = smig_ram_window_init();
	if (ret)
		return ret;
	ret = register_pm_notifier(&pm_block);
	if (ret)
		goto exit_window;
	ret = register_memory_notifier(&memory_block);
	if (ret)
		goto unregister_pm;
	ret = smig_hold_init();
	if (ret)
		goto unregister_memory;
	/* so that a freeze patches no kernel text under load */
	static_branch_inc(&freezer_active);
	smig_fence_net_init();
	ret = smig_fault_init();
	if (ret)
		goto exit_fence_net;
	ret = smig_tracker_init();
	if (ret)
		goto exit_fault;
	ret = smig_chardev_register();
	if (ret)
		goto exit_tracker;
	return 0;

exit_tracker:
	smig_tracker_exit();
exit_fault:
	smig_fault_exit();
exit_fence_net:
	smig_fence_net_exit();
	static_branch_dec(&freezer_active);
	smig_hold_exit();
unregister_memory:
	unregister_memory_notifier(&memory_block);
unregister_pm:
	unregister_pm_notifier(&pm_block);
exit_window:
	smig_ram_window_exit();
	return ret;
}

static void __exit smig_exit(void)
{
	smig_chardev_unregister();
	smig_tracker_exit();
	smig_fault_exit();
	smig_fence_net_exit();
	static_branch_dec(&freezer_active);
	smig_hold_exit();
	unregister_memory_notifier(&memory_block);
	unregister_pm_notifier(&pm_block);
	smig_ram_window_exit();
}

module_init(smig_init);
module_exit(smig_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A running guest moves itself to another VM");
