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

#include "smig.h"
#include "symbols.h"

/* Frames given back just before the freeze, for the stop's own allocations: 8 MiB. */
#define RESERVE_PAGES 2048

/* Held from PREPARE to thaw; never part of the image. */
static struct page **held;
static unsigned long nr_held;

static u64 *shadow_pfn;		/* shadow_pfn[i] was copied to held[i]; ascending */
static unsigned long nr_shadow;
static unsigned long *image_bitmap;	/* frames of the image */
static unsigned long *zero_bitmap;	/* of these, KERNEL frames that were all-zero */
static unsigned long *own_bitmap;	/* held */
static unsigned long *live_bitmap;	/* writable by processes that are not frozen */
static u64 class_pages[SMIG_CLASS_SLOTS];
static u64 image_pages, zero_pages;
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

void smig_image_drop(void)
{
	while (nr_held)
		__free_page(held[--nr_held]);
	vfree(held);
	vfree(shadow_pfn);
	vfree(image_bitmap);
	vfree(zero_bitmap);
	vfree(own_bitmap);
	vfree(live_bitmap);
	held = NULL;
	shadow_pfn = NULL;
	image_bitmap = NULL;
	zero_bitmap = NULL;
	own_bitmap = NULL;
	live_bitmap = NULL;
	nr_shadow = 0;
}

/* Process context, guest running.  All or nothing. */
int smig_image_prepare(struct smig_prepare *arg)
{
	u64 pages[SMIG_CLASS_SLOTS] = {};
	u64 shadow, want, total;

	smig_image_drop();
	smig_call(lru_add_drain_all)();
	smig_ram_census(pages);
	shadow = pages[SMIG_CLASS_KERNEL] + smig_call(nr_blockdev_pages)();
	shadow += 3 * get_mm_rss(current->mm);
	shadow += shadow / 32 + 1024 + arg->extra_shadow_pages;
	want = max(shadow, arg->spare_pages);
	arg->needed_pages = want;
	arg->shadow_pages = 0;
	arg->available_pages = 0;
	if (want > smig_ram.pages)
		return -ENOMEM;
	total = want + RESERVE_PAGES;

	held = vmalloc(array_size(total, sizeof(*held)));
	shadow_pfn = vmalloc(array_size(want, sizeof(*shadow_pfn)));
	image_bitmap = vzalloc(smig_ram_bitmap_bytes());
	zero_bitmap = vzalloc(smig_ram_bitmap_bytes());
	own_bitmap = vzalloc(smig_ram_bitmap_bytes());
	live_bitmap = vzalloc(smig_ram_bitmap_bytes());
	if (!held || !shadow_pfn || !image_bitmap || !zero_bitmap || !own_bitmap || !live_bitmap)
		goto no_memory;
	while (nr_held < total) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL);

		if (!page)
			goto no_memory;
		held[nr_held++] = page;
		if (!(nr_held & 0xff)) {
			cond_resched();
			if (fatal_signal_pending(current))
				goto no_memory;
		}
	}
	while (nr_held > want)
		__free_page(held[--nr_held]);
	for (total = 0; total < nr_held; total++)
		if (page_to_pfn(held[total]) < smig_ram.top_pfn)
			__set_bit(page_to_pfn(held[total]), own_bitmap);
	arg->shadow_pages = nr_held;
	arg->available_pages = nr_held;
	return 0;

no_memory:
	arg->available_pages = nr_held;
	smig_image_drop();
	return -ENOMEM;
}

static void mark_live(unsigned long pfn, unsigned long nr)
{
	for (; nr; nr--, pfn++)
		if (pfn < smig_ram.top_pfn)
			__set_bit(pfn, live_bitmap);
}

static void mark_live_ptes(pmd_t *pmd)
{
	pte_t *pte = pte_offset_kernel(pmd, 0);
	unsigned int i;

	for (i = 0; i < PTRS_PER_PTE; i++, pte++)
		if (pte_present(*pte) && pfn_valid(pte_pfn(*pte)) &&
		    (pte_write(*pte) || PageAnon(pfn_to_page(pte_pfn(*pte)))))
			mark_live(pte_pfn(*pte), 1);
}

/* One CPU, irqs off, the mm's owner is not in its fault path: no lock is needed. */
static void mark_live_mm(struct mm_struct *mm)
{
	unsigned long addr = 0;

	while (addr < TASK_SIZE_MAX) {
		pgd_t *pgd = pgd_offset(mm, addr);
		unsigned long next = pgd_addr_end(addr, TASK_SIZE_MAX);
		p4d_t *p4d = pgd_present(*pgd) ? p4d_offset(pgd, addr) : NULL;
		pud_t *pud;
		pmd_t *pmd;

		if (p4d) {
			next = p4d_addr_end(addr, next);
			pud = p4d_present(*p4d) ? pud_offset(p4d, addr) : NULL;
			if (pud) {
				next = pud_addr_end(addr, next);
				pmd = pud_present(*pud) && !(pud_val(*pud) & _PAGE_PSE) ?
				      pmd_offset(pud, addr) : NULL;
				if (pmd) {
					next = pmd_addr_end(addr, next);
					if (pmd_present(*pmd) && (pmd_val(*pmd) & _PAGE_PSE))
						mark_live(pmd_pfn(*pmd), PTRS_PER_PMD);
					else if (pmd_present(*pmd))
						mark_live_ptes(pmd);
				}
			}
		}
		addr = next;
	}
}

/* Processes that run on during the stop: whoever called CAPTURE, and EXEMPT. */
static void mark_live_processes(void)
{
	struct task_struct *leader, *task;

	rcu_read_lock();
	for_each_process_thread(leader, task)
		if (task->mm && !(task->flags & PF_KTHREAD) &&
		    (task->flags & (PF_NOFREEZE | PF_SUSPEND_TASK)))
			mark_live_mm(task->mm);
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
	if (nr_shadow == nr_held)
		return -ENOSPC;
	copy_page(page_address(held[nr_shadow]), (void *)from);
	shadow_pfn[nr_shadow++] = pfn;
	return 0;
}

/* Called by smig_arch_capture(): irqs off, one CPU, devices suspended.  0 or -ENOSPC. */
asmlinkage int smig_image_copy(void)
{
	unsigned int i;
	int ret;

	mark_live_processes();
	for (i = 0; i < smig_ram.nr; i++) {
		unsigned long pfn = smig_ram.range[i].start;
		unsigned long end = pfn + smig_ram.range[i].count;

		while (pfn < end) {
			struct page *page = pfn_valid(pfn) ? pfn_to_page(pfn) : NULL;
			enum smig_class class = SMIG_CLASS_FREE;
			unsigned long run = 1;

			if (page)
				class = smig_ram_classify(page, true);
			if (class == SMIG_CLASS_FREE) {
				run = page ? smig_ram_free_run(page, pfn, end) : 1;
			} else if (test_bit(pfn, own_bitmap)) {
				class = SMIG_CLASS_OWN;
			} else {
				if (test_bit(pfn, live_bitmap))
					class = SMIG_CLASS_KERNEL;
				__set_bit(pfn, image_bitmap);
				image_pages++;
				if (class == SMIG_CLASS_KERNEL) {
					ret = copy_kernel_page(pfn);
					if (ret)
						return ret;
				}
			}
			class_pages[class] += run;
			pfn += run;
		}
	}
	moved_events = count_moved_events();
	return 0;
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

/*
 * The stop.  Under smig.lock, state SOURCE, prepared.  On success returns 0 on
 * both machines, told apart by arg->role; everything stays frozen and fenced.
 */
int smig_image_capture(struct smig_capture *arg)
{
	unsigned int sleep_flags;
	u32 step = 0;
	int ret;

	if (!held)
		return -EBADFD;
	memset(class_pages, 0, sizeof(class_pages));
	memset(&landing, 0, sizeof(landing));
	/* nonzero, so that it travels as data */
	landing.handover.magic = SMIG_HANDOVER_MAGIC;
	bitmap_zero(image_bitmap, smig_ram.top_pfn);
	bitmap_zero(zero_bitmap, smig_ram.top_pfn);
	bitmap_zero(live_bitmap, smig_ram.top_pfn);
	image_pages = 0;
	zero_pages = 0;
	nr_shadow = 0;

	smig_fence_net_remove();
	ret = smig_fence_net_install();
	if (ret)
		return ret;
	ret = smig_fence_disk_find();
	if (ret)
		goto remove_net;
	smig_call(lru_add_drain_all)();

	sleep_flags = lock_system_sleep();
	smig_freeze_times_start(&times);
	ret = smig_freeze_down(&times, SMIG_FOR_CAPTURE, &step);
	if (ret)
		goto unlock_sleep;

	smig_call(drain_local_pages)(NULL);
	/* in the image the fences are closed */
	smig_fence_net_close();
	smig_fence_disk_close();
	ret = save_and_copy();
	if (ret == 1) {
		become_clone();
		smig_clock_before_resume(&landing.handover);
		smig_freeze_up(&times, PMSG_RESTORE, true);
		arg->role = SMIG_ROLE_TARGET;
		goto captured;
	}
	if (!ret)
		ret = smig_freeze_inject(SMIG_STEP_COPY);
	smig_freeze_times_mark(&times, SMIG_STEP_COPY);
	smig_clock_before_resume(NULL);
	if (ret) {
		smig_fence_disk_open();
		smig_fence_net_open();
		step = SMIG_STEP_COPY + 1;
		smig_freeze_up(&times, PMSG_RECOVER, false);
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
		arg->shadow_pages = nr_held;
		arg->captured_mono_ns = smig_clock_captured_mono_ns();
		fill_header(&arg->header);
	}
	return 0;

unlock_sleep:
	unlock_system_sleep(sleep_flags);
	smig_fence_disk_open();
remove_net:
	smig_fence_net_remove();
	arg->failed_step = step;
	arg->shadow_used = nr_shadow;
	arg->shadow_pages = nr_held;
	smig.failed_step = step;
	smig.failed_errno = ret;
	return ret;
}

int smig_image_bitmap_to_user(u64 ptr, u64 bytes)
{
	u64 need = BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long);

	if (bytes < need)
		return -EINVAL;
	return copy_to_user(u64_to_user_ptr(ptr), image_bitmap, need) ? -EFAULT : 0;
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

/* Process context, under smig.lock, state CAPTURED or GIVEN. */
int smig_image_read(const u64 *pfns, u8 *status, u32 nr, void __user *data, u32 *nr_data)
{
	u32 i, out = 0;

	for (i = 0; i < nr; i++) {
		u64 pfn = pfns[i];
		const void *from;
		long index;

		if (pfn >= smig_ram.top_pfn || !test_bit(pfn, image_bitmap))
			return -EINVAL;
		if (test_bit(pfn, zero_bitmap)) {
			status[i] = SMIG_PAGE_ZERO;
			continue;
		}
		index = find_shadow(pfn);
		from = page_address(index >= 0 ? held[index] : pfn_to_page(pfn));
		if (index < 0 && !memchr_inv(from, 0, PAGE_SIZE)) {
			status[i] = SMIG_PAGE_ZERO;
			continue;
		}
		if (copy_to_user(data + (size_t)out * PAGE_SIZE, from, PAGE_SIZE))
			return -EFAULT;
		status[i] = SMIG_PAGE_DATA;
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
	smig_freeze_thaw(&times);
	smig.tasks_frozen = false;
	unlock_system_sleep(sleep_flags);
	if (us)
		memcpy(us, times.us, sizeof(times.us));
}

void smig_image_cleanup(void)
{
	smig_fence_net_remove();
	smig_fence_net_set_flows(NULL);
	smig_image_drop();
}
