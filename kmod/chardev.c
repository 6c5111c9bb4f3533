// SPDX-License-Identifier: GPL-2.0
/*
 * chardev.c - /dev/selfmigrate: one table of ioctls, and what closing means.
 *
 * Closing the owner's file before commit undoes everything; in GIVEN, CLONE and OWING
 * it changes nothing, and another file may adopt the move.
 */
#include <linux/capability.h>
#include <linux/clocksource.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include <asm/tsc.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

/* One batch at a time, under smig.lock. */
static u64 batch_pfns[SMIG_MAX_BATCH];
static u8 batch_status[SMIG_MAX_BATCH];

static void set_state(enum smig_state state)
{
	WRITE_ONCE(smig.state, state);
}

static void pin(void)
{
	if (!smig.pinned)
		__module_get(THIS_MODULE);
	smig.pinned = true;
}

static void become_idle(void)
{
	smig_main_let_in();
	smig.owner = NULL;
	smig.owner_pid = 0;
	set_state(SMIG_STATE_IDLE);
	if (smig.pinned)
		module_put(THIS_MODULE);
	smig.pinned = false;
}

/* What a stop held is of use to the clone long before the last owed page has come. */
static void give_back(struct work_struct *work)
{
	bool more;

	do {
		mutex_lock(&smig.lock);
		more = smig.state == SMIG_STATE_OWING && smig_image_give_back();
		mutex_unlock(&smig.lock);
		cond_resched();
	} while (more);
}

static DECLARE_WORK(give_back_work, give_back);

static void begin_owing(void)
{
	set_state(SMIG_STATE_OWING);
	schedule_work(&give_back_work);
}

static int do_info(struct file *file, void *data)
{
	struct smig_info *arg = data;
	int ret = 0;

	if (arg->flags)
		return -EINVAL;
	if (smig.state == SMIG_STATE_IDLE)
		ret = smig_ram_scan();
	if (ret)
		return ret;
	arg->abi_version = SMIG_ABI_VERSION;
	arg->vcpus = num_present_cpus();
	arg->page_table_levels = pgtable_l5_enabled() ? 5 : 4;
	arg->nr_ranges = smig_ram.nr;
	arg->tsc_khz = tsc_khz;
	arg->top_pfn = smig_ram.top_pfn;
	arg->ram_pages = smig_ram.pages;
	arg->free_pages = global_zone_page_state(NR_FREE_PAGES);
	strscpy(arg->release, init_utsname()->release, sizeof(arg->release));
	strscpy(arg->version, init_utsname()->version, sizeof(arg->version));
	strscpy(arg->clocksource, (*smig_var.curr_clocksource)->name, sizeof(arg->clocksource));
	strscpy(arg->source_id, SMIG_SOURCE_ID, sizeof(arg->source_id));
	memcpy(arg->ranges, smig_ram.range, sizeof(arg->ranges));
	return 0;
}

static int do_status(struct file *file, void *data)
{
	struct smig_status *arg = data;

	if (arg->flags)
		return -EINVAL;
	arg->state = READ_ONCE(smig.state);
	arg->failed_step = READ_ONCE(smig.failed_step);
	arg->failed_errno = READ_ONCE(smig.failed_errno);
	arg->owner_pid = READ_ONCE(smig.owner_pid);
	smig_fence_net_counts(&arg->tx_dropped, &arg->rx_dropped);
	return 0;
}

static int do_begin(struct file *file, void *data)
{
	struct smig_begin *arg = data;
	bool source = arg->role == SMIG_ROLE_SOURCE;
	int ret;

	if (arg->flags || arg->reserved || (!source && arg->role != SMIG_ROLE_TARGET))
		return -EINVAL;
	if (smig.owner)
		return -EBUSY;
	if (smig.state == SMIG_STATE_IDLE) {
		ret = smig_ram_scan();
		if (ret)
			return ret;
		/* a landing environment goes on with one CPU: the jump waits for none */
		ret = source ? 0 : smig_jump_cpus_off();
		ret = ret ?: smig_main_shut_out();
		if (ret) {
			if (!source)
				smig_jump_cpus_on();
			return ret;
		}
		smig_clock_measure();
		smig.failed_step = 0;
		smig.failed_errno = 0;
		set_state(source ? SMIG_STATE_SOURCE : SMIG_STATE_TARGET);
	} else if (smig.state != (source ? SMIG_STATE_GIVEN : SMIG_STATE_CLONE) &&
		   (source || smig.state != SMIG_STATE_OWING)) {
		return -EBADFD;
	}
	smig.owner = file;
	smig.owner_pid = task_tgid_nr(current);
	return 0;
}

static int do_flows(struct file *file, void *data)
{
	const struct smig_flows *arg = data;

	if (arg->flags)
		return -EINVAL;
	return smig_fence_net_set_flows(arg);
}

static int do_exempt(struct file *file, void *data)
{
	const struct smig_plain *arg = data;

	if (arg->flags & ~SMIG_EXEMPT_CLEAR)
		return -EINVAL;
	/* a task's flags are its own to change */
	if (arg->flags & SMIG_EXEMPT_CLEAR)
		current->flags &= ~PF_NOFREEZE;
	else
		current->flags |= PF_NOFREEZE;
	return 0;
}

static int do_census(struct file *file, void *data)
{
	struct smig_census *arg = data;

	if (arg->flags)
		return -EINVAL;
	memset(arg->pages, 0, sizeof(arg->pages));
	smig_ram_census(arg->pages, NULL, NULL);
	return 0;
}

static int do_prepare(struct file *file, void *data)
{
	struct smig_prepare *arg = data;

	if ((arg->flags & ~SMIG_PREPARE_SPARE) || arg->extra_shadow_pages > smig_ram.pages ||
	    arg->spare_pages > smig_ram.pages)
		return -EINVAL;
	return smig_image_prepare(arg);
}

static int do_track(struct file *file, void *data)
{
	struct smig_track *arg = data;

	if (arg->flags & ~(SMIG_TRACK_OFF | SMIG_TRACK_VERIFY | SMIG_TRACK_HASH))
		return -EINVAL;
	if (arg->flags & SMIG_TRACK_OFF) {
		smig_pass_stop();
		return 0;
	}
	return smig_image_track(arg);
}

static int do_pass(struct file *file, void *data)
{
	struct smig_pass *arg = data;

	if (arg->flags & ~(SMIG_PASS_NO_ANON | SMIG_PASS_NO_HOT | SMIG_PASS_UNREAD))
		return -EINVAL;
	return smig_image_begin_pass(arg);
}

static int do_owe(struct file *file, void *data)
{
	struct smig_owe *arg = data;

	return arg->flags ? -EINVAL : smig_owed_mark(arg);
}

static void undo_capture(void)
{
	smig_image_thaw(NULL);
	set_state(SMIG_STATE_SOURCE);
	/* the guest need not wait for that */
	smig_owed_unmark_all();
}

static int do_capture(struct file *file, void *data)
{
	struct smig_capture *arg = data;
	int ret;

	if ((arg->flags & ~(SMIG_CAPTURE_VERIFY | SMIG_CAPTURE_OWE)) ||
	    arg->image_bitmap_bytes % 8 ||
	    arg->image_bitmap_bytes * 8 < smig_ram.top_pfn || arg->send_bitmap_bytes % 8 ||
	    (arg->send_bitmap && arg->send_bitmap_bytes * 8 < smig_ram.top_pfn))
		return -EINVAL;
	if (!thread_group_empty(current) || !(current->mm->def_flags & VM_LOCKED)) {
		pr_err("CAPTURE needs a caller with one thread and all memory locked\n");
		return -EINVAL;
	}
	ret = smig_image_capture(arg);
	if (ret) {
		/* the guest runs again, and need not wait for that */
		smig_owed_unmark_all();
		return ret;
	}
	pin();
	if (arg->role == SMIG_ROLE_TARGET) {
		set_state(SMIG_STATE_CLONE);
		return 0;
	}
	set_state(SMIG_STATE_CAPTURED);
	ret = smig_image_bitmap_to_user(arg->image_bitmap, arg->image_bitmap_bytes);
	if (!ret && arg->send_bitmap)
		ret = smig_image_send_bitmap_to_user(arg->send_bitmap, arg->send_bitmap_bytes);
	if (ret)
		undo_capture();
	return ret;
}

static int get_batch(u64 pfns, u32 nr)
{
	if (!nr || nr > SMIG_MAX_BATCH)
		return -EINVAL;
	return copy_from_user(batch_pfns, u64_to_user_ptr(pfns), nr * sizeof(u64)) ? -EFAULT : 0;
}

static int do_read(struct file *file, void *data)
{
	struct smig_read *arg = data;
	int ret;

	if (arg->flags || (!arg->data && arg->nr > SMIG_BUFFER_PAGES))
		return -EINVAL;
	if (smig.state == SMIG_STATE_SOURCE && !smig_pass_following())
		return -EBADFD;
	ret = get_batch(arg->pfns, arg->nr);
	if (ret)
		return ret;
	ret = (smig.state == SMIG_STATE_SOURCE ? smig_image_read_live : smig_image_read)
		(batch_pfns, batch_status, arg->nr, u64_to_user_ptr(arg->data), &arg->nr_data);
	if (ret)
		return ret;
	return copy_to_user(u64_to_user_ptr(arg->status), batch_status, arg->nr) ? -EFAULT : 0;
}

static int do_verify(struct file *file, void *data)
{
	const struct smig_plain *arg = data;

	return arg->flags ? -EINVAL : smig_image_verify();
}

/*
 * From here the guest is the target's.  A panic must not reboot this VM into
 * the shared disk, nor may a person's ctrl-alt-del.
 */
static int do_commit(struct file *file, void *data)
{
	const struct smig_plain *arg = data;

	if (arg->flags)
		return -EINVAL;
	panic_timeout = 0;
	if (smig_var.ctrl_alt_del)
		*smig_var.ctrl_alt_del = 0;
	set_state(SMIG_STATE_GIVEN);
	return 0;
}

static int do_thaw(struct file *file, void *data)
{
	const struct smig_plain *arg = data;

	if (arg->flags)
		return -EINVAL;
	if (smig_owed_rehearse()) {
		smig_image_thaw(NULL);
		begin_owing();
	} else {
		undo_capture();
	}
	return 0;
}

static int do_owed_list(struct file *file, void *data)
{
	struct smig_owed_list *arg = data;

	return arg->flags ? -EINVAL : smig_owed_list(arg);
}

static int do_land(struct file *file, void *data)
{
	struct smig_land *arg = data;
	int ret;

	if (arg->flags || arg->reserve_pages > smig_ram.pages)
		return -EINVAL;
	set_state(SMIG_STATE_TARGET);
	/* since BEGIN, long ago perhaps, this VM may have been paused or moved */
	smig_clock_measure();
	ret = smig_land_hold(arg);
	return ret;
}

/* A bitmap of all frames, to be freed by kvfree(); or an error. */
static unsigned long *get_bitmap(u64 ptr, u64 bytes)
{
	if (bytes != BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long))
		return ERR_PTR(-EINVAL);
	return vmemdup_user(u64_to_user_ptr(ptr), bytes);
}

static int do_vacant(struct file *file, void *data)
{
	const struct smig_vacant *arg = data;
	unsigned long *bitmap;
	int ret;

	if (arg->flags)
		return -EINVAL;
	bitmap = get_bitmap(arg->bitmap, arg->bitmap_bytes);
	if (IS_ERR(bitmap))
		return PTR_ERR(bitmap);
	set_state(SMIG_STATE_TARGET);
	ret = smig_land_vacant(bitmap);
	kvfree(bitmap);
	if (!ret)
		set_state(SMIG_STATE_LANDED);
	return ret;
}

static int do_image(struct file *file, void *data)
{
	const struct smig_image *arg = data;
	unsigned long *bitmap;
	int ret;

	if (arg->flags)
		return -EINVAL;
	bitmap = get_bitmap(arg->image_bitmap, arg->image_bitmap_bytes);
	if (IS_ERR(bitmap))
		return PTR_ERR(bitmap);
	ret = smig_land_image(&arg->header, bitmap);
	kvfree(bitmap);
	return ret;
}

static int do_place(struct file *file, void *data)
{
	struct smig_place *arg = data;
	int ret;

	if ((arg->flags & ~SMIG_PLACE_ZERO) || arg->reserved)
		return -EINVAL;
	ret = get_batch(arg->pfns, arg->nr);
	if (ret)
		return ret;
	return smig_land_place(batch_pfns, arg->nr,
			       arg->flags & SMIG_PLACE_ZERO ? NULL : u64_to_user_ptr(arg->data),
			       &arg->distinct_placed);
}

static int do_jump(struct file *file, void *data)
{
	struct smig_jump *arg = data;
	void *blob;
	int ret;

	if (arg->flags || arg->handover_len > SMIG_HANDOVER_LEN)
		return -EINVAL;
	blob = memdup_user(u64_to_user_ptr(arg->handover), arg->handover_len);
	if (IS_ERR(blob))
		return PTR_ERR(blob);
	arg->failed_step = 0;
	ret = smig_jump(arg, blob, &arg->failed_step);
	kfree(blob);
	return ret;
}

static int do_release(struct file *file, void *data)
{
	struct smig_release *arg = data;

	if (arg->flags & ~SMIG_RELEASE_FENCES_ONLY)
		return -EINVAL;
	if (arg->flags & SMIG_RELEASE_FENCES_ONLY) {
		smig_image_open_fences();
		arg->fence_open_mono_ns = ktime_get_ns();
		return 0;
	}
	smig_image_thaw(arg->clone_us);
	if (smig_owed_left()) {
		begin_owing();
	} else {
		smig_owed_end_missing();
		set_state(SMIG_STATE_SOURCE);
	}
	return 0;
}

static int do_install(struct file *file, void *data)
{
	struct smig_install *arg = data;
	u32 origin = arg->flags & SMIG_INSTALL_ORIGIN;
	int ret;

	if (arg->flags & ~(SMIG_INSTALL_ORIGIN | SMIG_INSTALL_ZERO) || arg->reserved ||
	    origin > SMIG_INSTALL_PUSHED)
		return -EINVAL;
	/* from its first look at the caller's memory on, where a page may be missing too */
	WRITE_ONCE(smig_owed.installer, current);
	ret = get_batch(arg->pfns, arg->nr);
	if (!ret) {
		ret = smig_owed_install(arg, batch_pfns);
		if (smig.state == SMIG_STATE_OWING && !arg->left)
			set_state(SMIG_STATE_SOURCE);
	}
	WRITE_ONCE(smig_owed.installer, NULL);
	return ret;
}

static int do_owed_status(struct file *file, void *data)
{
	struct smig_owed_status *arg = data;

	return arg->flags & ~SMIG_OWED_REPEAT ? -EINVAL : smig_owed_status(arg);
}

#define IN(state) (1u << SMIG_STATE_##state)
#define ANYBODY 0	/* any file, any state */

static const struct smig_ioctl {
	unsigned int command;
	size_t size;
	unsigned int states;	/* in which the owner may call it */
	bool unlocked;
	int (*call)(struct file *file, void *data);
} ioctls[] = {
	{ SMIG_IOC_INFO, sizeof(struct smig_info), ANYBODY, false, do_info },
	{ SMIG_IOC_STATUS, sizeof(struct smig_status), ANYBODY, true, do_status },
	{ SMIG_IOC_BEGIN, sizeof(struct smig_begin), ANYBODY, false, do_begin },
	{ SMIG_IOC_EXEMPT, sizeof(struct smig_plain), ANYBODY, true, do_exempt },
	{ SMIG_IOC_FLOWS, sizeof(struct smig_flows), IN(SOURCE) | IN(CLONE), false, do_flows },
	{ SMIG_IOC_CENSUS, sizeof(struct smig_census), IN(SOURCE), false, do_census },
	{ SMIG_IOC_PREPARE, sizeof(struct smig_prepare), IN(SOURCE), false, do_prepare },
	{ SMIG_IOC_TRACK, sizeof(struct smig_track), IN(SOURCE), false, do_track },
	{ SMIG_IOC_PASS, sizeof(struct smig_pass), IN(SOURCE), false, do_pass },
	{ SMIG_IOC_OWE, sizeof(struct smig_owe), IN(SOURCE), false, do_owe },
	{ SMIG_IOC_CAPTURE, sizeof(struct smig_capture), IN(SOURCE), false, do_capture },
	{ SMIG_IOC_READ, sizeof(struct smig_read), IN(SOURCE) | IN(CAPTURED) | IN(GIVEN), false,
	  do_read },
	{ SMIG_IOC_VERIFY, sizeof(struct smig_plain), IN(CAPTURED), false, do_verify },
	{ SMIG_IOC_COMMIT, sizeof(struct smig_plain), IN(CAPTURED), false, do_commit },
	{ SMIG_IOC_THAW, sizeof(struct smig_plain), IN(CAPTURED), false, do_thaw },
	{ SMIG_IOC_OWED_LIST, sizeof(struct smig_owed_list), IN(CAPTURED) | IN(GIVEN), false,
	  do_owed_list },
	{ SMIG_IOC_LAND, sizeof(struct smig_land), IN(TARGET) | IN(LANDED), false, do_land },
	{ SMIG_IOC_VACANT, sizeof(struct smig_vacant), IN(TARGET) | IN(LANDED), false, do_vacant },
	{ SMIG_IOC_IMAGE, sizeof(struct smig_image), IN(LANDED), false, do_image },
	{ SMIG_IOC_PLACE, sizeof(struct smig_place), IN(LANDED), false, do_place },
	{ SMIG_IOC_JUMP, sizeof(struct smig_jump), IN(LANDED), false, do_jump },
	{ SMIG_IOC_RELEASE, sizeof(struct smig_release), IN(CLONE), false, do_release },
	{ SMIG_IOC_INSTALL, sizeof(struct smig_install), IN(CLONE) | IN(OWING), false, do_install },
	{ SMIG_IOC_OWED_STATUS, sizeof(struct smig_owed_status),
	  IN(CLONE) | IN(OWING) | IN(SOURCE), false, do_owed_status },
};

static int call_checked(const struct smig_ioctl *ioctl, struct file *file, void *data)
{
	int ret;

	if (ioctl->unlocked)
		return ioctl->call(file, data);
	/* who waits here while another process stops the guest must let itself be frozen */
	if (mutex_lock_interruptible(&smig.lock))
		return -ERESTARTSYS;
	if (ioctl->states == ANYBODY)
		ret = ioctl->call(file, data);
	else if (smig.owner && smig.owner != file)
		ret = -EBUSY;
	else if (!smig.owner || !(ioctl->states & (1u << smig.state)))
		ret = -EBADFD;
	else
		ret = ioctl->call(file, data);
	mutex_unlock(&smig.lock);
	return ret;
}

static long smig_ioctl(struct file *file, unsigned int command, unsigned long ptr)
{
	void __user *user = (void __user *)ptr;
	const struct smig_ioctl *ioctl;
	void *data;
	u32 size;
	int ret;

	for (ioctl = ioctls; ioctl->command != command; )
		if (++ioctl == ioctls + ARRAY_SIZE(ioctls))
			return -ENOTTY;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < sizeof(struct smig_plain))
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	data = kzalloc(ioctl->size, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	ret = copy_struct_from_user(data, ioctl->size, user, size);
	if (ret)
		goto free_data;
	ret = call_checked(ioctl, file, data);
	/* out fields carry figures also when a call fails */
	((struct smig_plain *)data)->size = size;
	if (copy_to_user(user, data, min_t(size_t, size, ioctl->size)) && !ret)
		ret = -EFAULT;
free_data:
	kfree_sensitive(data);
	return ret;
}

static int smig_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_ADMIN) ? nonseekable_open(inode, file) : -EPERM;
}

static int smig_release(struct inode *inode, struct file *file)
{
	/* only a call on this file could change the answer; call_checked() says why not to wait */
	if (READ_ONCE(smig.owner) != file)
		return 0;
	mutex_lock(&smig.lock);
	if (smig.owner == file) {
		smig.owner = NULL;
		smig.owner_pid = 0;
		switch (smig.state) {
		case SMIG_STATE_CAPTURED:
			pr_info("the agent let go before commit: the guest goes on here\n");
			undo_capture();
			fallthrough;
		case SMIG_STATE_SOURCE:
			smig_image_cleanup();
			become_idle();
			break;
		case SMIG_STATE_TARGET:
		case SMIG_STATE_LANDED:
			smig_land_give_back();
			become_idle();
			smig_jump_cpus_on();
			break;
		case SMIG_STATE_GIVEN:
		case SMIG_STATE_CLONE:
			/* whoever froze may end; an adopter takes the freezer's role */
			current->flags &= ~PF_SUSPEND_TASK;
			pr_warn("the agent let go of a guest that may not run: waiting for another; if the guest runs elsewhere, reset this machine\n");
			break;
		case SMIG_STATE_OWING:
			pr_warn("the agent let go while pages are owed: waiting for another\n");
			break;
		case SMIG_STATE_IDLE:
			break;
		}
	}
	mutex_unlock(&smig.lock);
	return 0;
}

/* The buffer that READ fills: read-only, and of a source's owner alone. */
static int smig_mmap(struct file *file, struct vm_area_struct *vma)
{
	int ret;

	if (vma->vm_flags & VM_WRITE || !(vma->vm_flags & VM_SHARED) || vma->vm_pgoff ||
	    vma->vm_end - vma->vm_start > SMIG_BUFFER_PAGES * PAGE_SIZE)
		return -EINVAL;
	/* the caller holds the mmap lock, under which a call on this file may fault */
	if (!mutex_trylock(&smig.lock))
		return -EAGAIN;
	ret = smig.owner == file && smig.state == SMIG_STATE_SOURCE ? smig_image_map_buffer(vma) :
								      -EBADFD;
	mutex_unlock(&smig.lock);
	return ret;
}

/* Whether there is, or was, something to announce to the owner of @file. */
static bool announces(struct file *file)
{
	enum smig_state state = READ_ONCE(smig.state);

	return READ_ONCE(smig.owner) == file && smig_owed.total &&
	       (state == SMIG_STATE_CLONE || state == SMIG_STATE_OWING ||
		state == SMIG_STATE_SOURCE);
}

/* Without smig.lock: faults must not wait for a batch that is being installed. */
static ssize_t smig_read(struct file *file, char __user *to, size_t bytes, loff_t *offset)
{
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (!announces(file))
		return -EBADFD;
	return smig_fault_read(to, bytes, !(file->f_flags & O_NONBLOCK));
}

static __poll_t smig_poll(struct file *file, struct poll_table_struct *table)
{
	__poll_t events = smig_fault_poll(file, table);

	return announces(file) ? events : 0;
}

static const struct file_operations smig_fops = {
	.owner = THIS_MODULE,
	.open = smig_open,
	.release = smig_release,
	.unlocked_ioctl = smig_ioctl,
	.mmap = smig_mmap,
	.read = smig_read,
	.poll = smig_poll,
	.llseek = noop_llseek,
};

static struct miscdevice smig_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = SMIG_DEVICE_NAME,
	.mode = 0600,
	.fops = &smig_fops,
};

int smig_chardev_register(void)
{
	return misc_register(&smig_device);
}

void smig_chardev_unregister(void)
{
	misc_deregister(&smig_device);
	cancel_work_sync(&give_back_work);
}
