// SPDX-License-Identifier: GPL-2.0
/*
 * fence_disk.c - no disk write while a guest is in two places.
 *
 * Writeback is not freezable: the source would go on writing dirty pages to
 * disks that the clone will own.  The queue of every real disk (a blk-mq disk
 * with a parent device) is frozen before devices are suspended: what it was
 * given is done, and whoever brings more waits outside.  Freezing is counted, so
 * drivers that freeze and unfreeze around suspend do not open it; and it must not
 * leave a request inside, as quiescing would: a driver that freezes its queue
 * while it resumes (NVMe's scan does, and resuming devices waits for it) would wait for
 * that request for ever.  A real disk without such a queue (persistent memory) is
 * refused.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/device.h>

#include "smig.h"
#include "symbols.h"

#define MAX_DISKS 64
#define DRAIN_TIMEOUT (5 * HZ)

static struct device *disks[MAX_DISKS];
static unsigned int nr_disks;
static bool closed;

static struct request_queue *queue_of(struct device *dev)
{
	return dev_to_bdev(dev)->bd_disk->queue;
}

static void forget(void)
{
	while (nr_disks)
		put_device(disks[--nr_disks]);
}

/* NVMe's multipath heads have a parent but no queue of their own; their paths do. */
static bool stands_on_fenced(struct device *dev)
{
	return dev->parent->class && !strcmp(dev->parent->class->name, "nvme-subsystem");
}

/* Process context, fence open: finds the disks that smig_fence_disk_close() will fence. */
int smig_fence_disk_find(void)
{
	struct class_dev_iter iter;
	struct device *dev;
	int ret = 0;

	forget();
	class_dev_iter_init(&iter, smig_var.block_class, NULL, NULL);
	while ((dev = class_dev_iter_next(&iter))) {
		if (bdev_is_partition(dev_to_bdev(dev)) || !dev->parent)
			continue;
		if (!queue_is_mq(queue_of(dev))) {
			if (stands_on_fenced(dev))
				continue;
			pr_err("disk %s cannot be fenced\n", dev_name(dev));
			ret = -EOPNOTSUPP;
			break;
		}
		/* a zoned disk is asked for its zones while it resumes */
		if (blk_queue_is_zoned(queue_of(dev))) {
			pr_err("disk %s is zoned, and cannot be fenced\n", dev_name(dev));
			ret = -EOPNOTSUPP;
			break;
		}
		if (nr_disks == MAX_DISKS) {
			pr_err("more than %d disks\n", MAX_DISKS);
			ret = -EOPNOTSUPP;
			break;
		}
		disks[nr_disks++] = get_device(dev);
	}
	class_dev_iter_exit(&iter);
	if (ret)
		forget();
	return ret;
}

/* Process context, tasks frozen, devices not yet suspended.  0, or -EIO with the fence open. */
int smig_fence_disk_close(void)
{
	unsigned long deadline = jiffies + DRAIN_TIMEOUT;
	unsigned int i;

	/* all at once: each waits for a grace period of RCU */
	for (i = 0; i < nr_disks; i++) {
		/*
		 * SCSI's rescan of a disk that has just resumed takes this lock, which suspending
		 * needs, and then sends commands: it has ended, or sees the flag and comes again.
		 */
		device_lock(disks[i]->parent);
		blk_set_pm_only(queue_of(disks[i]));
		blk_freeze_queue_start(queue_of(disks[i]));
		device_unlock(disks[i]->parent);
	}
	closed = true;
	for (i = 0; i < nr_disks; i++) {
		long left = max_t(long, deadline - jiffies, 1);

		if (blk_mq_freeze_queue_wait_timeout(queue_of(disks[i]), left) <= 0) {
			pr_err("disk %s does not finish what it was given\n", dev_name(disks[i]));
			smig_fence_disk_open();
			return -EIO;
		}
	}
	return 0;
}

/* Process context; forgets the disks. */
void smig_fence_disk_open(void)
{
	unsigned int i;

	for (i = 0; closed && i < nr_disks; i++) {
		blk_mq_unfreeze_queue(queue_of(disks[i]));
		blk_clear_pm_only(queue_of(disks[i]));
	}
	closed = false;
	forget();
}
