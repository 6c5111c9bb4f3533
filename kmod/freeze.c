// SPDX-License-Identifier: GPL-2.0
/*
 * freeze.c - the way down from a running guest to one CPU with irqs off and
 * every device suspended, and the way back.
 *
 * Whatever fails on the way down is undone here before the error is returned.
 */
#include <linux/cpu.h>
#include <linux/device.h>
#include <linux/freezer.h>
#include <linux/module.h>
#include <linux/nmi.h>
#include <linux/pm.h>
#include <linux/sched.h>
#include <linux/suspend.h>
#include <linux/syscore_ops.h>
#include <asm/tsc.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

/* What ends the notification that the last stop began with. */
static unsigned long post_action;

static int fail_at;
module_param(fail_at, int, 0600);
MODULE_PARM_DESC(fail_at, "test aid: make step N (enum smig_step + 1) fail once with EIO");

/* Nonzero, once, when a test asked for a failure of this step. */
int smig_freeze_inject(enum smig_step step)
{
	if (READ_ONCE(fail_at) != step + 1)
		return 0;
	WRITE_ONCE(fail_at, 0);
	pr_info("step %d fails by request\n", step);
	return -EIO;
}

void smig_freeze_times_start(struct smig_times *t)
{
	memset(t, 0, sizeof(*t));
	t->last_tsc = rdtsc_ordered();
}

void smig_freeze_times_mark_until(struct smig_times *t, enum smig_step step, u64 tsc)
{
	t->us[step] += mul_u64_u64_div_u64(tsc - t->last_tsc, 1000, smig_clock_tsc_khz());
	t->last_tsc = tsc;
}

void smig_freeze_times_mark(struct smig_times *t, enum smig_step step)
{
	smig_freeze_times_mark_until(t, step, rdtsc_ordered());
}

/*
 * Called with lock_system_sleep() held.  On success irqs are off and only
 * smig_freeze_up() leads back.  @owe: of a capture, marks pages as owed once more
 * when everything is frozen.
 */
int smig_freeze_down(struct smig_times *t, enum smig_purpose purpose, bool owe, u32 *failed_step)
{
	unsigned long up = purpose == SMIG_FOR_JUMP ? PM_RESTORE_PREPARE : PM_HIBERNATION_PREPARE;
	pm_message_t message = purpose == SMIG_FOR_JUMP ? PMSG_QUIESCE : PMSG_FREEZE;
	enum smig_step step = SMIG_STEP_NOTIFY;
	int ret;

	post_action = purpose == SMIG_FOR_JUMP ? PM_POST_RESTORE : PM_POST_HIBERNATION;
	smig_main_own_pm(true);
	ret = smig_freeze_inject(step) ?: smig_call(pm_notifier_call_chain_robust)(up, post_action);
	if (ret)
		goto failed;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_FREEZE_TASKS;
	ret = smig_freeze_inject(step) ?: smig_call(freeze_processes)();
	if (ret)
		goto undo_notify;
	smig_freeze_times_mark(t, step);

	smig_call(lock_device_hotplug)();
	step = SMIG_STEP_FREEZE_KTHREADS;
	ret = smig_freeze_inject(step);
	/* before what comes wants it */
	if (!ret && purpose == SMIG_FOR_CAPTURE)
		ret = smig_hold_free_reserve();
	if (!ret)
		ret = smig_call(freeze_kernel_threads)();
	/* while devices and the other CPUs still help; nobody is left to touch a page */
	if (!ret && purpose == SMIG_FOR_CAPTURE)
		ret = smig_owed_hold(owe);
	if (ret)
		goto undo_freeze;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_FENCE_DISKS;
	/* from here on nobody may wait for a disk to get memory */
	smig_call(pm_restrict_gfp_mask)();
	ret = smig_freeze_inject(step);
	/* the landing environment has no disk in use */
	if (!ret && purpose == SMIG_FOR_CAPTURE)
		ret = smig_fence_disk_close();
	if (ret)
		goto undo_fence;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_SUSPEND_DEVICES;
	/* a console may be one of the devices that now go (hvc on virtio) */
	smig_call(suspend_console)();
	ret = dpm_suspend_start(message) ?: smig_freeze_inject(step);
	if (ret)
		goto undo_devices;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_SUSPEND_NOIRQ;
	ret = smig_freeze_inject(step) ?: dpm_suspend_end(message);
	if (ret)
		goto undo_devices;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_CPUS_OFF;
	smig_call(cpuidle_pause)();
	ret = smig_call(freeze_secondary_cpus)(0) ?: smig_freeze_inject(step);
	if (ret)
		goto undo_cpus;
	smig_freeze_times_mark(t, step);

	step = SMIG_STEP_SYSCORE_SUSPEND;
	local_irq_disable();
	system_state = SYSTEM_SUSPEND;
	smig_clock_before_suspend();
	ret = smig_freeze_inject(step) ?: syscore_suspend();
	if (ret)
		goto undo_syscore;
	smig_freeze_times_mark(t, step);
	return 0;

undo_syscore:
	smig_clock_after_resume();
	system_state = SYSTEM_RUNNING;
	local_irq_enable();
undo_cpus:
	smig_call(thaw_secondary_cpus)();
	smig_call(cpuidle_resume)();
	dpm_resume_start(PMSG_RECOVER);
undo_devices:
	dpm_resume_end(PMSG_RECOVER);
	smig_call(resume_console)();
undo_fence:
	smig_fence_disk_open();
	smig_call(pm_restore_gfp_mask)();
undo_freeze:
	smig_owed_let_go();
	smig_call(unlock_device_hotplug)();
	smig_call(thaw_processes)();
undo_notify:
	smig_call(pm_notifier_call_chain)(post_action);
failed:
	smig_main_own_pm(false);
	*failed_step = step + 1;
	pr_warn("step %d of the stop failed: %d; everything is undone\n", step, ret);
	return ret;
}

/*
 * Back to running devices, tasks still frozen.  Reclaim that needs I/O stays
 * forbidden until smig_freeze_thaw(): disks may be fenced.
 */
void smig_freeze_up(struct smig_times *t, pm_message_t message, bool new_machine)
{
	touch_softlockup_watchdog();
	smig_call(rcu_cpu_stall_reset)();
	syscore_resume();
	smig_clock_after_resume();
	if (new_machine)
		smig_image_mix_entropy();
	smig_freeze_times_mark(t, SMIG_STEP_SYSCORE_RESUME);
	system_state = SYSTEM_RUNNING;
	local_irq_enable();
	smig_call(thaw_secondary_cpus)();
	smig_call(cpuidle_resume)();
	if (new_machine)
		smig_call(arch_resume_nosmt)();
	smig_freeze_times_mark(t, SMIG_STEP_CPUS_ON);
	dpm_resume_start(message);
	smig_freeze_times_mark(t, SMIG_STEP_RESUME_NOIRQ);
	dpm_resume_end(message);
	smig_call(resume_console)();
	smig_freeze_times_mark(t, SMIG_STEP_RESUME_DEVICES);
	smig_call(unlock_device_hotplug)();
}

/* Called with lock_system_sleep() held. */
void smig_freeze_thaw(struct smig_times *t)
{
	smig_call(pm_restore_gfp_mask)();
	/* thaw_processes() expects its caller to be the one that froze; an adopter may not be */
	current->flags |= PF_SUSPEND_TASK;
	smig_call(thaw_kernel_threads)();
	smig_freeze_times_mark(t, SMIG_STEP_THAW_KTHREADS);
	smig_call(thaw_processes)();
	smig_freeze_times_mark(t, SMIG_STEP_THAW_TASKS);
	smig_call(pm_notifier_call_chain)(post_action);
	smig_main_own_pm(false);
}
