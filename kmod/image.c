// SPDX-License-Identifier: GPL-2.0
/*
 * image.c - the stop image: a shadow of what can change, the rest where it is.
 *
 * Invariant: from the capture to the thaw every frame of the image reads as it
 * was at the capture.  KERNEL frames and pages that an unfrozen process can
 * write are copied into the shadow; the others cannot change, because their
 * processes are frozen, disks are fenced and reclaim has memory to spare
 * (smig_image_verify() says if it had not).
 *
 * smig_image_copy() runs in the middle of itself being copied: what it writes
 * is undefined on the clone.  The clone uses only what was set before.
 */
#include <linux/freezer.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/suspend.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <asm/tsc.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"
#include "walk.h"

/*
 * Kept besides, and free once tasks are frozen, for what the stop itself allocates; and as
 * many are given back after the capture, for whoever sends the image: 8 MiB.
 */
#define RESERVE_PAGES 2048

/* At once, while installing of owed pages has to wait: 4 MiB. */
#define GIVE_BACK_PAGES 1024UL

static void *buffer;		/* what READ fills for a caller that maps it */

static u64 *shadow_pfn;		/* shadow_pfn[i] was copied to smig_held[i]; ascending */
static unsigned long max_shadow, nr_shadow;
static unsigned long list_room;	/* held frames that are left for the list of owed pages */
static unsigned long *image_bitmap;	/* frames of the image */
static unsigned long *send_bitmap;	/* of these, what the target lacks */
static unsigned long *zero_bitmap;	/* of these, KERNEL frames that were all-zero */
static unsigned long *own_bitmap;	/* held, and the move's other memory */
static unsigned long *live_bitmap;	/* writable by processes that are not frozen */
static u64 class_pages[SMIG_CLASS_SLOTS];
static u64 send_by_class[SMIG_CLASS_SLOTS];
static u64 image_pages, zero_pages, send_pages;
static bool verifying;
static unsigned long moved_events;	/* reclaim and migration counters at the capture */
static struct smig_times times;

/* Whole page: the target replaces it in the image. */
static union {
	struct smig_handover handover;
	u8 page[PAGE_SIZE];
} landing __aligned(PAGE_SIZE);

static unsigned long count_moved_events(void)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct vm_event_state *events = &per_cpu(vm_event_states, cpu);

		/* of these two every reclaim counts, a memory cgroup's own too */
		sum += events->event[PGSTEAL_ANON] + events->event[PGSTEAL_FILE];
		sum += events->event[PGMIGRATE_SUCCESS];
	}
	return sum;
}

static unsigned long **const bitmaps[] = {
	&image_bitmap, &send_bitmap, &zero_bitmap, &own_bitmap, &live_bitmap,
};

static int make_bitmaps(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bitmaps); i++) {
		if (!*bitmaps[i])
			*bitmaps[i] = vzalloc(smig_ram_bitmap_bytes());
		if (!*bitmaps[i])
			return -ENOMEM;
	}
	return 0;
}

static int make_buffer(void)
{
	if (!buffer)
		buffer = vmalloc_user(SMIG_BUFFER_PAGES * PAGE_SIZE);
	return buffer ? 0 : -ENOMEM;
}

static void drop_room(void)
{
	unsigned int i;

	smig_hold_drop();
	vfree(shadow_pfn);
	shadow_pfn = NULL;
	for (i = 0; i < ARRAY_SIZE(bitmaps); i++) {
		vfree(*bitmaps[i]);
		*bitmaps[i] = NULL;
	}
	max_shadow = 0;
	nr_shadow = 0;
}

/* Room for @max held frames, and what else a capture needs. */
static int make_room(unsigned long max)
{
	u64 *pfns;
	int ret = make_bitmaps() ?: make_buffer() ?: smig_hold_room(max);

	if (ret || max <= max_shadow)
		return ret;
	pfns = vmalloc(array_size(max, sizeof(*pfns)));
	if (!pfns)
		return -ENOMEM;
	vfree(shadow_pfn);
	shadow_pfn = pfns;
	max_shadow = max;
	return 0;
}

static void mark_held(void)
{
	bitmap_zero(own_bitmap, smig_ram.top_pfn);
	smig_hold_mark(own_bitmap);
}

/* The clone only frees these, so they need not travel: they are OWN, like the shadow. */
static void mark_own(void)
{
	unsigned int i;

	/* anew each time: some of these come and go */
	mark_held();
	for (i = 0; i < ARRAY_SIZE(bitmaps); i++)
		smig_ram_mark_vmalloc(own_bitmap, *bitmaps[i], smig_ram_bitmap_bytes());
	smig_ram_mark_vmalloc(own_bitmap, shadow_pfn, max_shadow * sizeof(*shadow_pfn));
	smig_ram_mark_vmalloc(own_bitmap, buffer, SMIG_BUFFER_PAGES * PAGE_SIZE);
	smig_pass_mark_own(own_bitmap);
	smig_owed_mark_own(own_bitmap);
}

/* Until the stop: by then the reserve is free memory. */
static void mark_own_until_stop(void)
{
	mark_own();
	smig_hold_mark_reserve(own_bitmap);
}

/* Kernel pages that the stop may have to copy. */
static u64 expected_shadow(u32 flags)
{
	u64 pages[SMIG_CLASS_SLOTS] = {};
	u64 shadow, unsent;

	/* a pass will have sent most of it, and another call comes before the stop */
	if (flags & SMIG_PREPARE_SPARE)
		return 0;
	smig_call(lru_add_drain_all)();
	/* what processors keep at hand is not in use */
	smig_call(drain_all_pages)(NULL);
	smig_ram_census(pages, NULL, NULL);
	/* what is held counts as the kernel's in a census */
	shadow = pages[SMIG_CLASS_KERNEL] - min_t(u64, smig_hold_all(), pages[SMIG_CLASS_KERNEL]);
	shadow += smig_call(nr_blockdev_pages)();
	shadow += 3 * get_mm_rss(current->mm);
	shadow += shadow / 32 + 1024;
	if (!smig_following)
		return shadow;
	/* most of what the kernel has does not change: what was sent needs little shadow */
	mark_own_until_stop();
	unsent = smig_pass_unsent_kernel(own_bitmap);
	shadow = unsent + (shadow - min(unsent, shadow)) / 3;
	/* the list of owed pages, and as much for what marking them writes */
	return shadow + 2 * smig_owed_list_frames();
}

/* Process context, guest running.  What was held stays held, whatever happens. */
int smig_image_prepare(struct smig_prepare *arg)
{
	u64 need = BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long);
	bool first = !smig_held;
	u64 want;
	int ret = smig_hold_check();

	if (ret)
		return ret;
	if (arg->vacant_bitmap && arg->vacant_bitmap_bytes < need)
		return -EINVAL;
	if (arg->avoid_start > smig_ram.top_pfn ||
	    arg->avoid_pages > smig_ram.top_pfn - arg->avoid_start)
		return -EINVAL;
	want = max3(expected_shadow(arg->flags), arg->spare_pages, (u64)smig_nr_held) +
	       arg->extra_shadow_pages;
	arg->avoided_pages = 0;
	arg->needed_pages = want + RESERVE_PAGES;
	arg->shadow_pages = 0;
	arg->available_pages = smig_hold_all();
	if (want > smig_ram.pages)
		return -ENOMEM;
	ret = make_room(want) ?:
	      smig_hold(want, RESERVE_PAGES, arg->avoid_start, arg->avoid_pages,
			&arg->avoided_pages, &arg->available_pages);
	if (ret) {
		if (first)
			drop_room();
		return ret;
	}
	arg->shadow_pages = smig_nr_held;
	mark_held();
	/* it was there, and will be asked for again */
	if (arg->flags & SMIG_PREPARE_SPARE)
		ret = smig_hold_free_reserve();
	else
		ret = smig_hold_check();
	if (ret)
		return ret;
	if (arg->vacant_bitmap &&
	    copy_to_user(u64_to_user_ptr(arg->vacant_bitmap), own_bitmap, need))
		return -EFAULT;
	return 0;
}

/* Under smig.lock. */
int smig_image_track(struct smig_track *arg)
{
	return own_bitmap ? smig_pass_start(arg) : -EBADFD;
}

/* Under smig.lock. */
int smig_image_begin_pass(struct smig_pass *arg)
{
	if (!own_bitmap)
		return -EBADFD;
	mark_own_until_stop();
	return smig_hold_check() ?: smig_pass_begin(arg, own_bitmap);
}

static int stay_read_only(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			  unsigned long flags)
{
	return flags & VM_WRITE ? -EACCES : 0;
}

/* Under smig.lock, state SOURCE: what is made here goes with the move. */
int smig_image_map_buffer(struct vm_area_struct *vma)
{
	static const struct vm_operations_struct buffer_ops = { .mprotect = stay_read_only };

	vma->vm_ops = &buffer_ops;
	return make_buffer() ?: remap_vmalloc_range(vma, buffer, 0);
}

static void mark_live(unsigned long pfn, unsigned long nr)
{
	smig_bitmap_set(live_bitmap, pfn, nr);
}

static void mark_live_ptes(pmd_t *pmd, void *ignore)
{
	pte_t *pte = pte_offset_kernel(pmd, 0);
	unsigned int i;

	for (i = 0; i < PTRS_PER_PTE; i++, pte++)
		if (pte_present(*pte) && pfn_valid(pte_pfn(*pte)) &&
		    (pte_write(*pte) || PageAnon(pfn_to_page(pte_pfn(*pte)))))
			mark_live(pte_pfn(*pte), 1);
}

static void mark_live_leaf(u64 *entry, unsigned long nr, void *ignore)
{
	mark_live(smig_walk_leaf_pfn(entry, nr), nr);
}

/* Processes that run on during the stop: whoever called CAPTURE, and EXEMPT. */
static void mark_live_processes(void)
{
	struct task_struct *leader, *task;

	rcu_read_lock();
	for_each_process_thread(leader, task)
		if (task->mm && !(task->flags & PF_KTHREAD) &&
		    (task->flags & (PF_NOFREEZE | PF_SUSPEND_TASK)))
			smig_walk_frozen(task->mm, NULL, mark_live_ptes, mark_live_leaf);
	rcu_read_unlock();
}

static int copy_kernel_page(unsigned long pfn)
{
	const void *from = smig_ram_map(pfn);

	if (!memchr_inv(from, 0, PAGE_SIZE)) {
		__set_bit(pfn, zero_bitmap);
		zero_pages++;
		return 0;
	}
	if (nr_shadow + list_room >= smig_nr_held)
		return -ENOSPC;
	copy_page(page_address(smig_held[nr_shadow]), (void *)from);
	shadow_pfn[nr_shadow++] = pfn;
	return 0;
}

static int send_page(unsigned long pfn, enum smig_class class)
{
	__set_bit(pfn, send_bitmap);
	send_pages++;
	send_by_class[class]++;
	return class == SMIG_CLASS_KERNEL ? copy_kernel_page(pfn) : 0;
}

/* A frame of the image.  0 or -ENOSPC. */
static int take_page(unsigned long pfn, enum smig_class class)
{
	__set_bit(pfn, image_bitmap);
	image_pages++;
	return smig_pass_must_send(pfn, class, verifying) ? send_page(pfn, class) : 0;
}

/* Frames from @pfn up to @end, in order.  0 or -ENOSPC. */
static int take_range(unsigned long pfn, unsigned long end)
{
	unsigned long run, valid_up_to = 0;

	for (; pfn < end; pfn += run) {
		enum smig_class class;
		struct page *page;
		int ret;

		run = 1;
		/* all frames of a subsection have a struct page, or none has */
		if (pfn >= valid_up_to) {
			unsigned long next = ALIGN(pfn + 1, PAGES_PER_SUBSECTION);

			if (!pfn_valid(pfn)) {
				run = min(next, end) - pfn;
				class_pages[SMIG_CLASS_FREE] += run;
				continue;
			}
			valid_up_to = next;
		}
		page = pfn_to_page(pfn);
		if (test_bit(pfn, own_bitmap)) {
			class = SMIG_CLASS_OWN;
		} else if (smig_owed_has(pfn)) {
			/* in use, but the clone has it later */
			class = SMIG_CLASS_ANON;
		} else {
			class = smig_ram_classify(page, true);
			if (class == SMIG_CLASS_FREE) {
				run = smig_ram_free_run(page, pfn, end);
			} else {
				if (test_bit(pfn, live_bitmap))
					class = SMIG_CLASS_KERNEL;
				ret = take_page(pfn, class);
				if (ret)
					return ret;
			}
		}
		class_pages[class] += run;
	}
	return 0;
}

/*
 * Called by smig_arch_capture(): irqs off, one CPU, devices suspended.  0 or -ENOSPC.
 * It takes as long as much memory is in use, and the guest stands still.
 */
asmlinkage int smig_image_copy(void)
{
	unsigned int i;
	int ret = 0;

	mark_live_processes();
	smig_pass_find(verifying);
	smig_freeze_times_mark(&times, SMIG_STEP_FIND);
	for (i = 0; i < smig_ram.nr && !ret; i++)
		ret = take_range(smig_ram.range[i].start,
				 smig_ram.range[i].start + smig_ram.range[i].count);
	if (!ret)
		moved_events = count_moved_events();
	return ret;
}

static void fill_header(struct smig_image_header *header)
{
	memset(header, 0, sizeof(*header));
	header->magic = SMIG_HANDOVER_MAGIC;
	header->resume_va = (u64)smig_arch_resume;
	header->resume_pa = ((u64)vmalloc_to_pfn(smig_arch_resume) << PAGE_SHIFT) +
			    offset_in_page(smig_arch_resume);
	header->cr3 = smig_cpu_context.cr3 & ~0xfffULL;
	header->handover_pfn = vmalloc_to_pfn(&landing);
	header->top_pfn = smig_ram.top_pfn;
	header->image_pages = image_pages;
	header->zero_pages = zero_pages;
	header->page_table_levels = pgtable_l5_enabled() ? 5 : 4;
	header->vcpus = num_present_cpus();
	strscpy(header->release, init_utsname()->release, sizeof(header->release));
	strscpy(header->version, init_utsname()->version, sizeof(header->version));
}

/*
 * Returns 0 or an error on the source, 1 on the target.  Part of it runs after
 * the jump with whatever the trampoline left; no canary, no tracer.
 */
static noinline notrace int save_and_copy(void)
{
	int ret;

	smig_call(save_processor_state)();
	ret = smig_arch_capture();
	smig_call(restore_processor_state)();
	return ret;
}

/* The clone's first steps, irqs off: nothing of the source's must be used again. */
static void become_clone(void)
{
	smig_fence_net_forget_flows();
	smig_owed_become_clone();
	/* at once: a process that was not frozen may ask while devices resume */
	WRITE_ONCE(smig.state, SMIG_STATE_CLONE);
	memset(&times, 0, sizeof(times));
	times.last_tsc = landing.handover.jump_tsc;
	/* the CPU is another now, and so may be its rate */
	smig_clock_is_now(landing.handover.target_tsc_khz);
	smig_freeze_times_mark_until(&times, SMIG_STEP_JUMP, smig_cpu_context.arrived_tsc);
	smig_freeze_times_mark(&times, SMIG_STEP_RESTORE_CPU);
}

/*
 * Two machines continue from one generator's state: the clone's is changed
 * before anything can draw from it.  Irqs off, timekeeping resumed.
 */
void smig_image_mix_entropy(void)
{
	add_device_randomness(landing.handover.entropy, sizeof(landing.handover.entropy));
	smig_call(crng_reseed)(NULL);
}

/* At most @most frames of what the shadow does not take, for whichever processor wants them. */
static void give_back_on_source(unsigned long most)
{
	smig_hold_give_back(nr_shadow, most);
	smig_call(drain_all_pages)(NULL);
}

/*
 * The stop.  Under smig.lock, state SOURCE, prepared.  On success returns 0 on
 * both machines, told apart by arg->role; everything stays frozen and fenced.
 */
int smig_image_capture(struct smig_capture *arg)
{
	unsigned int sleep_flags;
	u32 step = 0;
	int ret;

	ret = smig_hold_check_stop();
	if (ret)
		return ret;
	if (arg->flags & SMIG_CAPTURE_VERIFY && !smig_pass_can_verify())
		return -EINVAL;
	if (arg->flags & SMIG_CAPTURE_OWE) {
		if (!smig_pass_following())
			return -EINVAL;
		ret = smig_owed_make_room();
		if (ret)
			return ret;
	}
	smig_owed.may_be_hot = arg->hot_pages;
	verifying = arg->flags & SMIG_CAPTURE_VERIFY;
	memset(class_pages, 0, sizeof(class_pages));
	memset(send_by_class, 0, sizeof(send_by_class));
	memset(&landing, 0, sizeof(landing));
	/* nonzero, so that it travels as data */
	landing.handover.magic = SMIG_HANDOVER_MAGIC;
	bitmap_zero(image_bitmap, smig_ram.top_pfn);
	bitmap_zero(send_bitmap, smig_ram.top_pfn);
	bitmap_zero(zero_bitmap, smig_ram.top_pfn);
	bitmap_zero(live_bitmap, smig_ram.top_pfn);
	image_pages = 0;
	zero_pages = 0;
	send_pages = 0;
	nr_shadow = 0;
	mark_own();

	smig_fence_net_remove();
	ret = smig_fence_net_install();
	if (ret)
		goto failed;
	ret = smig_fence_disk_find();
	if (ret)
		goto remove_net;
	smig_call(lru_add_drain_all)();

	sleep_flags = lock_system_sleep();
	smig_freeze_times_start(&times);
	ret = smig_freeze_down(&times, SMIG_FOR_CAPTURE, arg->flags & SMIG_CAPTURE_OWE, &step);
	if (ret)
		goto unlock_sleep;

	list_room = smig_owed_list_frames();
	smig_call(drain_local_pages)(NULL);
	/* in the image the fences are closed; the disks' has been since tasks were frozen */
	smig_fence_net_close();
	ret = save_and_copy();
	if (ret == 1) {
		become_clone();
		smig_clock_before_resume(&landing.handover);
		smig_freeze_up(&times, PMSG_RESTORE, true);
		arg->role = SMIG_ROLE_TARGET;
		goto captured;
	}
	step = SMIG_STEP_COPY + 1;
	if (!ret && smig_freeze_inject(SMIG_STEP_FIND)) {
		step = SMIG_STEP_FIND + 1;
		ret = -EIO;
	}
	if (!ret)
		ret = smig_freeze_inject(SMIG_STEP_COPY);
	smig_freeze_times_mark(&times, SMIG_STEP_COPY);
	smig_clock_before_resume(NULL);
	if (ret) {
		smig_pass_unfind();
		smig_owed_let_go();
		smig_fence_net_open();
		smig_freeze_up(&times, PMSG_RECOVER, false);
		smig_fence_disk_open();
		smig_freeze_thaw(&times);
		goto unlock_sleep;
	}
	smig_freeze_up(&times, PMSG_THAW, false);
	arg->role = SMIG_ROLE_SOURCE;

captured:
	unlock_system_sleep(sleep_flags);
	smig.tasks_frozen = true;
	if (arg->role == SMIG_ROLE_TARGET) {
		/* other parts of the kernel may want to know that there are two of us */
		smig_call(add_vmfork_randomness)(landing.handover.entropy,
						 sizeof(landing.handover.entropy));
		memcpy(arg->landing_us, landing.handover.landing_us, sizeof(arg->landing_us));
		memcpy(arg->clone_us, times.us, sizeof(arg->clone_us));
		arg->placed_direct = landing.handover.placed_direct;
		arg->placed_copied = landing.handover.placed_copied;
		if (copy_to_user(u64_to_user_ptr(arg->handover), landing.handover.blob,
				 SMIG_HANDOVER_LEN))
			pr_err("the hand-over does not reach the agent\n");
	} else {
		memcpy(arg->source_us, times.us, sizeof(arg->source_us));
		memcpy(arg->pages, class_pages, sizeof(arg->pages));
		arg->shadow_used = nr_shadow;
		arg->shadow_pages = smig_nr_held;
		memcpy(arg->send_by_class, send_by_class, sizeof(arg->send_by_class));
		arg->send_pages = send_pages;
		smig_pass_report(arg);
		arg->captured_mono_ns = smig_clock_captured_mono_ns();
		fill_header(&arg->header);
		/* so that nothing need be reclaimed for it */
		give_back_on_source(RESERVE_PAGES);
	}
	smig_owed_report(arg);
	return 0;

unlock_sleep:
	unlock_system_sleep(sleep_flags);
	smig_fence_disk_open();
remove_net:
	smig_fence_net_remove();
failed:
	arg->failed_step = step;
	arg->shadow_used = nr_shadow;
	arg->shadow_pages = smig_nr_held;
	smig.failed_step = step;
	smig.failed_errno = ret;
	return ret;
}

static int to_user(const unsigned long *bitmap, u64 ptr, u64 bytes)
{
	u64 need = BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long);

	if (bytes < need)
		return -EINVAL;
	return copy_to_user(u64_to_user_ptr(ptr), bitmap, need) ? -EFAULT : 0;
}

int smig_image_bitmap_to_user(u64 ptr, u64 bytes)
{
	return to_user(image_bitmap, ptr, bytes);
}

int smig_image_send_bitmap_to_user(u64 ptr, u64 bytes)
{
	return to_user(send_bitmap, ptr, bytes);
}

/* Index in the shadow, or -1.  Requests ascend, so the next one is tried first. */
static long find_shadow(u64 pfn)
{
	static unsigned long hint;
	long low = 0, high = (long)nr_shadow - 1;

	if (hint < nr_shadow && shadow_pfn[hint] == pfn)
		return hint++;
	while (low <= high) {
		long mid = low + (high - low) / 2;

		if (shadow_pfn[mid] == pfn) {
			hint = mid + 1;
			return mid;
		}
		if (shadow_pfn[mid] < pfn)
			low = mid + 1;
		else
			high = mid - 1;
	}
	return -1;
}

/* One page to @data, or into the buffer if that is NULL. */
static int put_page_out(const void *from, void __user *data, u32 index)
{
	size_t offset = (size_t)index * PAGE_SIZE;

	if (data)
		return copy_to_user(data + offset, from, PAGE_SIZE) ? -EFAULT : 0;
	copy_page(buffer + offset, (void *)from);
	return 0;
}

/* Process context, under smig.lock, state CAPTURED or GIVEN. */
int smig_image_read(const u64 *pfns, u8 *status, u32 nr, void __user *data, u32 *nr_data)
{
	u32 i, out = 0;
	int ret;

	for (i = 0; i < nr; i++) {
		u64 pfn = pfns[i];
		const void *from;
		long index;

		if (pfn >= smig_ram.top_pfn ||
		    !(test_bit(pfn, send_bitmap) || smig_owed_has(pfn)))
			return -EINVAL;
		if (test_bit(pfn, zero_bitmap)) {
			status[i] = SMIG_PAGE_ZERO;
			continue;
		}
		index = find_shadow(pfn);
		from = page_address(index >= 0 ? smig_held[index] : pfn_to_page(pfn));
		if (index < 0 && !memchr_inv(from, 0, PAGE_SIZE)) {
			status[i] = SMIG_PAGE_ZERO;
			continue;
		}
		ret = put_page_out(from, data, out);
		if (ret)
			return ret;
		status[i] = SMIG_PAGE_DATA;
		out++;
	}
	*nr_data = out;
	return 0;
}

/* Process context, under smig.lock, state SOURCE, tracking. */
int smig_image_read_live(const u64 *pfns, u8 *status, u32 nr, void __user *data, u32 *nr_data)
{
	u32 i, out = 0;
	int ret = smig_hold_check();

	for (i = 0; i < nr && !ret; i++)
		ret = pfns[i] >= smig_ram.top_pfn ? -EINVAL : 0;
	if (ret)
		return ret;
	smig_pass_renew(pfns, nr);
	for (i = 0; i < nr; i++) {
		void *to = buffer + (size_t)(data ? 0 : out) * PAGE_SIZE;

		status[i] = test_bit(pfns[i], own_bitmap) ? SMIG_PAGE_FREE :
							    smig_pass_read(pfns[i], to);
		if (status[i] != SMIG_PAGE_DATA)
			continue;
		if (data && copy_to_user(data + (size_t)out * PAGE_SIZE, to, PAGE_SIZE))
			return -EFAULT;
		out++;
	}
	*nr_data = out;
	return 0;
}

int smig_image_verify(void)
{
	return count_moved_events() == moved_events ? 0 : -EAGAIN;
}

/* Under smig.lock: fences open; tasks may still be frozen. */
void smig_image_open_fences(void)
{
	smig_fence_disk_open();
	smig_fence_net_open();
}

/*
 * Under smig.lock: the guest runs, on the source after a stop that came to
 * nothing or on the clone after go.  Memory and hooks stay until
 * smig_image_cleanup(): nobody should wait for that.
 */
void smig_image_thaw(u64 *us)
{
	unsigned int sleep_flags = lock_system_sleep();

	smig_freeze_times_start(&times);
	smig_image_open_fences();
	smig_owed_let_go();
	smig_freeze_thaw(&times);
	smig.tasks_frozen = false;
	unlock_system_sleep(sleep_flags);
	if (us)
		memcpy(us, times.us, sizeof(times.us));
}

/*
 * On a clone that runs, under smig.lock: some of the memory that the stop held is its
 * own again.  True while there is more.
 */
bool smig_image_give_back(void)
{
	return smig_hold_give_back(0, GIVE_BACK_PAGES);
}

/* On a source that is captured, under smig.lock: all that the shadow does not take goes back. */
void smig_image_give_back_rest(void)
{
	give_back_on_source(ULONG_MAX);
}

void smig_image_cleanup(void)
{
	smig_fence_net_remove();
	smig_fence_net_set_flows(NULL);
	smig_owed_cleanup();
	smig_pass_stop();
	drop_room();
	/* a mapping of it keeps its pages */
	vfree(buffer);
	buffer = NULL;
}
