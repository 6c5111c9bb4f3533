// SPDX-License-Identifier: GPL-2.0
/*
 * fence_disk.c - no disk write while a guest is in two places.
 *
 * Writeback is not freezable: the source would go on writing dirty pages to
 * disks that the clone will own.  Every real disk's queue (a blk-mq disk with a
 * parent device) is quiesced; quiescing is counted, so drivers that quiesce
 * and unquiesce around suspend do not open it.  A real disk without such a queue
 * (persistent memory) is refused.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/device.h>

#include "smig.h"
#include "symbols.h"

#define MAX_DISKS 64

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

/* Irqs off, one CPU, devices suspended: nothing is being dispatched. */
void smig_fence_disk_close(void)
{
	unsigned int i;

	for (i = 0; i < nr_disks; i++)
		blk_mq_quiesce_queue_nowait(queue_of(disks[i]));
	closed = true;
}

/* Any context but hard irq; forgets the disks. */
void smig_fence_disk_open(void)
{
	unsigned int i;

	if (closed)
		for (i = 0; i < nr_disks; i++)
			blk_mq_unquiesce_queue(queue_of(disks[i]));
	closed = false;
	forget();
}
