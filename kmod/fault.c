// SPDX-License-Identifier: GPL-2.0
/*
 * fault.c - whoever touches an owed page: learning of it, waiting, and how long it took.
 *
 * Two ways to learn of it.  Most faults are diverted at the entry of handle_mm_fault():
 * there one may sleep, and drop the mmap or VMA lock, so that a page on its way holds
 * up nobody but who needs it.  What goes past (get_user_pages() without leave to drop
 * the lock, khugepaged, whoever locks the folio itself) is seen by passive hooks where
 * the kernel goes to sleep on the page; and what goes past these, for the bit was set
 * only just then, has left its mark in the page's waiters flag, which is looked for
 * once a second.
 *
 * An owed folio is linked by its lru field into the queue of touched pages: for
 * read(), or for the work item that resolves in LOCAL.  Its private field says since
 * when it is waited for (nanoseconds, shifted by one; 0: nobody has waited) and, in bit
 * 0, whether it is in the queue.  When it is not, lru.prev holds when it was read.
 * All under queue_lock, and only while its bit is set: who has cleared the bit takes
 * the folio out of the queue under the same lock before it does anything else.
 *
 * Lost wake-ups: a waiter enters its bucket, then looks at the bit, then sleeps; who
 * gives the page back clears the bit first and goes through the bucket last.
 */
#include <linux/completion.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "hook.h"
#include "owed.h"
#include "smig.h"
#include "symbols.h"
#include "walk.h"

static bool divert = true;
module_param(divert, bool, 0600);
MODULE_PARM_DESC(divert, "test aid: N: faults are learned of by passive hooks alone, as where a live patch owns the fault handler");

#define QUEUED 1UL

static LIST_HEAD(queue);
static DEFINE_SPINLOCK(queue_lock);	/* with irqs off: hooks run anywhere */
static DECLARE_WAIT_QUEUE_HEAD(readers);

/* Under queue_lock. */
static struct {
	u64 faults, pages;
	u64 wait_ns, max_wait_ns, announce_ns, fetch_ns, install_ns, wake_ns;
	u64 by_log2_us[SMIG_LATENCY_SLOTS];
} figures;

/* A task that waits, on its own stack; in its bucket until it is served or gives up. */
struct waiter {
	struct hlist_node node;
	unsigned long pfn;
	u64 mapped_ns;
	struct completion mapped;
};

struct bucket {
	spinlock_t lock;	/* over the list */
	struct hlist_head waiters;
};

#define NR_BUCKETS 256
static struct bucket buckets[NR_BUCKETS];

static atomic_t inside;			/* tasks in diverted_fault() */
static struct workqueue_struct *works;

/* ---- the queue of touched pages ---- */

static unsigned long state_of(struct folio *folio)
{
	return (unsigned long)folio->private;
}

static void set_state(struct folio *folio, unsigned long state)
{
	folio->private = (void *)state;
}

static struct folio *folio_of(unsigned long pfn)
{
	return page_folio(pfn_to_page(pfn));
}

/* The folio is about to be owed; its bit is still clear. */
void smig_fault_adopt(struct folio *folio)
{
	folio->lru.next = NULL;
	folio->lru.prev = NULL;
	set_state(folio, 0);
}

/* Under queue_lock. */
static void dequeue(struct folio *folio, u64 now)
{
	list_del(&folio->lru);
	folio->lru.next = NULL;
	folio->lru.prev = (void *)(unsigned long)now;
	set_state(folio, state_of(folio) & ~QUEUED);
}

/* The caller has cleared the folio's bit.  Afterwards nothing here refers to it. */
struct smig_fault_times smig_fault_release(struct folio *folio)
{
	struct smig_fault_times times;
	unsigned long flags;

	spin_lock_irqsave(&queue_lock, flags);
	if (state_of(folio) & QUEUED)
		dequeue(folio, 0);
	times.first_ns = state_of(folio) >> 1;
	times.read_ns = (unsigned long)folio->lru.prev;
	set_state(folio, 0);
	spin_unlock_irqrestore(&queue_lock, flags);
	return times;
}

/* Any context. */
static void notrace enqueue(unsigned long pfn, bool again)
{
	unsigned long flags, state = QUEUED;
	struct folio *folio = NULL;
	bool news = false;

	spin_lock_irqsave(&queue_lock, flags);
	/* not a large page before, and not one after */
	if (smig_owed_has(pfn)) {
		folio = folio_of(pfn);
		state = state_of(folio);
	}
	if (!(state & QUEUED) && (!state || again)) {
		if (!state) {
			state = ktime_get_ns() << 1;
			figures.pages++;
		}
		set_state(folio, state | QUEUED);
		list_add_tail(&folio->lru, &queue);
		news = true;
	}
	spin_unlock_irqrestore(&queue_lock, flags);
	if (news && smig_owed_mode() == SMIG_OWED_MISSING)
		wake_up(&readers);
}

static void resolve_queued(struct work_struct *work)
{
	unsigned long flags, pfn;
	struct folio *folio;

	while (smig_owed_mode() == SMIG_OWED_LOCAL) {
		spin_lock_irqsave(&queue_lock, flags);
		folio = list_first_entry_or_null(&queue, struct folio, lru);
		if (folio) {
			pfn = folio_pfn(folio);
			dequeue(folio, 0);
		}
		spin_unlock_irqrestore(&queue_lock, flags);
		if (!folio)
			break;
		smig_owed_resolve(pfn);
		cond_resched();
	}
}

static DECLARE_WORK(resolve_work, resolve_queued);

/* Somebody waits for the page, or is about to.  Any context. */
static void notrace touched(unsigned long pfn)
{
	enum smig_owed_mode mode = smig_owed_mode();

	/* in LOCAL it is resolved whenever it is met in the queue, so again is harmless */
	enqueue(pfn, mode == SMIG_OWED_LOCAL);
	if (mode == SMIG_OWED_LOCAL)
		queue_work(works, &resolve_work);
}

/* All owed pages on whose lock somebody sleeps.  Process context. */
void smig_fault_find_waiters(void)
{
	unsigned long pfn;

	/* the bitmap stays until smig_fault_unwatch() has returned */
	for_each_set_bit(pfn, smig_owed.bitmap, smig_ram.top_pfn) {
		if (folio_test_waiters(folio_of(pfn)))
			touched(pfn);
		cond_resched();
	}
}

static void look_for_waiters(struct work_struct *work);
static DECLARE_DELAYED_WORK(look_work, look_for_waiters);

static void look_for_waiters(struct work_struct *work)
{
	enum smig_owed_mode mode = smig_owed_mode();

	if (mode == SMIG_OWED_NONE)
		return;
	if (mode != SMIG_OWED_HELD)
		smig_fault_find_waiters();
	queue_delayed_work(works, &look_work, HZ);
}

/* Pages may be owed from now on. */
void smig_fault_watch(void)
{
	queue_delayed_work(works, &look_work, HZ);
}

/* Nothing is owed any more, and the mode says so.  Process context. */
void smig_fault_unwatch(void)
{
	cancel_delayed_work_sync(&look_work);
	cancel_work_sync(&resolve_work);
}

/* The mode is HELD: waits for whoever still resolves because it was not, a moment ago. */
void smig_fault_settle(void)
{
	flush_work(&resolve_work);
}

/* ---- waiting ---- */

static struct bucket *bucket_of(unsigned long pfn)
{
	return &buckets[pfn % NR_BUCKETS];
}

/*
 * The page is mapped again: wakes who waited for it.  @install_ns: when INSTALL was
 * called, 0 where it was not; @times of the page.  Process context.
 */
void smig_fault_mapped(unsigned long pfn, u64 install_ns, struct smig_fault_times times)
{
	struct bucket *bucket = bucket_of(pfn);
	u64 now = ktime_get_ns();
	struct hlist_node *next;
	struct waiter *waiter;

	spin_lock(&bucket->lock);
	hlist_for_each_entry_safe(waiter, next, &bucket->waiters, node) {
		if (waiter->pfn != pfn)
			continue;
		hlist_del_init(&waiter->node);
		waiter->mapped_ns = now;
		/* the lock keeps the waiter's stack until we are done */
		complete(&waiter->mapped);
	}
	spin_unlock(&bucket->lock);
	if (!install_ns || !times.first_ns)
		return;
	spin_lock_irq(&queue_lock);
	if (times.read_ns)
		figures.fetch_ns += install_ns - min(times.read_ns, install_ns);
	figures.install_ns += now - install_ns;
	spin_unlock_irq(&queue_lock);
}

static void note_wait(u64 begun_ns, u64 mapped_ns)
{
	u64 now = ktime_get_ns(), waited = now - begun_ns;
	unsigned int slot = min_t(unsigned int, fls64(waited / NSEC_PER_USEC),
				  SMIG_LATENCY_SLOTS - 1);

	spin_lock_irq(&queue_lock);
	figures.faults++;
	figures.wait_ns += waited;
	figures.max_wait_ns = max(figures.max_wait_ns, waited);
	figures.by_log2_us[slot]++;
	if (mapped_ns)
		figures.wake_ns += now - mapped_ns;
	spin_unlock_irq(&queue_lock);
}

static bool still_owed(unsigned long pfn)
{
	bool owed;

	rcu_read_lock();
	owed = smig_owed_mode() >= SMIG_OWED_HELD && smig_owed_has(pfn);
	rcu_read_unlock();
	return owed;
}

/* Until the page is there, or the task is killed.  No lock is held. */
static void wait_for_page(unsigned long pfn, bool killable)
{
	struct waiter waiter = { .pfn = pfn };
	struct bucket *bucket = bucket_of(pfn);
	u64 begun = ktime_get_ns();

	init_completion(&waiter.mapped);
	spin_lock(&bucket->lock);
	hlist_add_head(&waiter.node, &bucket->waiters);
	spin_unlock(&bucket->lock);
	/* the time-out is a net below a net: no path is known on which it is needed */
	while (still_owed(pfn)) {
		long left = killable ?
			wait_for_completion_killable_timeout(&waiter.mapped, HZ) :
			wait_for_completion_timeout(&waiter.mapped, HZ);

		if (left)
			break;
		enqueue(pfn, false);
	}
	spin_lock(&bucket->lock);
	if (!hlist_unhashed(&waiter.node))
		hlist_del_init(&waiter.node);
	spin_unlock(&bucket->lock);
	if (smig_owed.total)
		note_wait(begun, waiter.mapped_ns);
}

/* The owed page that an address stands for.  The caller holds what keeps its tables. */
static bool notrace owed_at(struct mm_struct *mm, unsigned long address, unsigned long *pfn)
{
	bool owed = false;
	pmd_t *middle, pmd;

	rcu_read_lock();
	middle = smig_walk_middle_entry(mm, address);
	if (!middle)
		goto unlock;
	pmd = READ_ONCE(*middle);
	if (!smig_walk_is_table(pmd_val(pmd)))
		goto unlock;
	owed = smig_owed_entry(READ_ONCE(*pte_offset_kernel(&pmd, address)), pfn);
unlock:
	rcu_read_unlock();
	return owed;
}

static void drop_lock(struct vm_area_struct *vma, unsigned int flags)
{
#ifdef CONFIG_PER_VMA_LOCK
	if (flags & FAULT_FLAG_VMA_LOCK) {
		vma_end_read(vma);
		return;
	}
#endif
	mmap_read_unlock(vma->vm_mm);
}

/* 0: the kernel's own handler is to go on; else what the fault comes to. */
static vm_fault_t meet_owed(struct vm_area_struct *vma, unsigned long address, unsigned int flags)
{
	unsigned long pfn;

	if (!owed_at(vma->vm_mm, address, &pfn))
		return 0;
	if (smig_owed_mode() == SMIG_OWED_LOCAL) {
		smig_owed_resolve(pfn);
		return 0;
	}
	/* an installer that waits for what it is to install would wait for good */
	if (current == READ_ONCE(smig_owed.installer))
		return VM_FAULT_SIGBUS;
	enqueue(pfn, false);
	/* who may not drop the lock sleeps in the kernel's own handler */
	if (!(flags & FAULT_FLAG_ALLOW_RETRY))
		return 0;
	if (flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;
	drop_lock(vma, flags);
	wait_for_page(pfn, flags & FAULT_FLAG_KILLABLE);
	return VM_FAULT_RETRY;
}

/* Stands in for handle_mm_fault() where an owed page was seen. */
static noinline vm_fault_t diverted_fault(struct vm_area_struct *vma, unsigned long address,
					  unsigned int flags, struct pt_regs *regs)
{
	vm_fault_t ret;

	atomic_inc(&inside);
	ret = meet_owed(vma, address, flags);
	if (!ret)
		ret = handle_mm_fault(vma, address, flags, regs);
	/* also so that the call above is no jump: the hook knows it by where it returns to */
	atomic_dec(&inside);
	return ret;
}

/* At the entry of handle_mm_fault(), which will return to @parent; preemption is off. */
void notrace smig_fault_divert(struct vm_area_struct *vma, unsigned long address,
			       unsigned long parent, struct ftrace_regs *regs)
{
	unsigned long pfn;

	if (READ_ONCE(divert) && !within_module(parent, THIS_MODULE) &&
	    owed_at(vma->vm_mm, address, &pfn))
		SMIG_HOOK_DIVERT(regs, (unsigned long)diverted_fault);
}

/* ---- passive hooks ---- */

/* migration_entry_wait_on_locked(entry, ...): under the table's lock, about to sleep */
SMIG_HOOK_FUNCTION(on_entry_wait)
{
	swp_entry_t entry = { .val = SMIG_HOOK_ARGUMENT(regs, 0) };
	unsigned long pfn;

	if (smig_owed_mode() == SMIG_OWED_NONE || !is_migration_entry(entry))
		return;
	pfn = swp_offset_pfn(entry);
	if (smig_owed_has(pfn))
		touched(pfn);
}

/* __folio_lock(folio), ...: about to sleep on the lock itself */
SMIG_HOOK_FUNCTION(on_folio_lock)
{
	struct folio *folio = (void *)SMIG_HOOK_ARGUMENT(regs, 0);

	if (smig_owed_mode() != SMIG_OWED_NONE && smig_owed_has(folio_pfn(folio)))
		touched(folio_pfn(folio));
}

static struct smig_hook functions[] = {
	{ "migration_entry_wait_on_locked", true, SMIG_HOOK(on_entry_wait) },
	{ "__folio_lock", true, SMIG_HOOK(on_folio_lock) },
	{ "__folio_lock_killable", true, SMIG_HOOK(on_folio_lock) },
	{ "__folio_lock_or_retry", true, SMIG_HOOK(on_folio_lock) },
};

/* Process context, at load.  All or nothing. */
int smig_fault_init(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < NR_BUCKETS; i++) {
		spin_lock_init(&buckets[i].lock);
		INIT_HLIST_HEAD(&buckets[i].waiters);
	}
	/* neither a freeze nor a lack of memory stops it: others wait for what it does */
	works = alloc_workqueue("selfmigrate", WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
	if (!works)
		return -ENOMEM;
	ret = smig_hook_set(functions, ARRAY_SIZE(functions));
	if (ret)
		destroy_workqueue(works);
	return ret;
}

/* Nothing is owed, and no fault is diverted any more.  Process context. */
void smig_fault_exit(void)
{
	smig_hook_unset(functions, ARRAY_SIZE(functions));
	/*
	 * Whoever was diverted has counted itself before it went to sleep, and is back in
	 * the kernel's text soon after it has left the count.
	 */
	synchronize_rcu_tasks();
	while (atomic_read(&inside))
		schedule_timeout_uninterruptible(1);
	synchronize_rcu_tasks();
	smig_fault_unwatch();
	destroy_workqueue(works);
}

/* ---- announcements and figures ---- */

void smig_fault_forget_figures(void)
{
	memset(&figures, 0, sizeof(figures));
}

void smig_fault_figures(struct smig_owed_status *arg)
{
	spin_lock_irq(&queue_lock);
	arg->demand_faults = figures.faults;
	arg->demand_pages = figures.pages;
	arg->wait_ns = figures.wait_ns;
	arg->max_wait_ns = figures.max_wait_ns;
	memcpy(arg->wait_by_log2_us, figures.by_log2_us, sizeof(arg->wait_by_log2_us));
	arg->announce_ns = figures.announce_ns;
	arg->fetch_ns = figures.fetch_ns;
	arg->install_ns = figures.install_ns;
	arg->wake_ns = figures.wake_ns;
	spin_unlock_irq(&queue_lock);
}

/* Announces anew all that was waited for and has not come.  Under smig.lock. */
void smig_fault_repeat(void)
{
	unsigned long pfn;

	/* installing takes smig.lock, so a page that is owed here stays so */
	if (smig_owed_mode() != SMIG_OWED_MISSING)
		return;
	for_each_set_bit(pfn, smig_owed.bitmap, smig_ram.top_pfn)
		if (READ_ONCE(folio_of(pfn)->private))
			enqueue(pfn, true);
}

static bool next_announced(struct smig_fault *fault)
{
	struct folio *folio;
	u64 now = ktime_get_ns();

	spin_lock_irq(&queue_lock);
	folio = list_first_entry_or_null(&queue, struct folio, lru);
	if (folio) {
		fault->pfn = folio_pfn(folio);
		fault->mono_ns = state_of(folio) >> 1;
		figures.announce_ns += now - min(fault->mono_ns, now);
		dequeue(folio, now);
	}
	spin_unlock_irq(&queue_lock);
	return folio;
}

static bool readable(void)
{
	return smig_owed_mode() != SMIG_OWED_MISSING || !list_empty_careful(&queue);
}

void smig_fault_wake_readers(void)
{
	wake_up_all(&readers);
}

/* Whole records; 0: nothing is owed any more.  Process context, no lock held. */
ssize_t smig_fault_read(char __user *to, size_t bytes, bool wait)
{
	struct smig_fault fault;
	size_t done = 0;
	int ret;

	if (bytes < sizeof(fault))
		return -EINVAL;
	for (;;) {
		while (bytes - done >= sizeof(fault) && next_announced(&fault)) {
			if (copy_to_user(to + done, &fault, sizeof(fault)))
				return -EFAULT;
			done += sizeof(fault);
		}
		if (done || smig_owed_mode() != SMIG_OWED_MISSING)
			return done;
		if (!wait)
			return -EAGAIN;
		ret = wait_event_interruptible(readers, readable());
		if (ret)
			return ret;
	}
}

__poll_t smig_fault_poll(struct file *file, struct poll_table_struct *table)
{
	poll_wait(file, &readers, table);
	return readable() ? EPOLLIN | EPOLLRDNORM : 0;
}
