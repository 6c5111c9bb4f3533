// SPDX-License-Identifier: GPL-2.0
/*
 * pass.c - which pages the target lacks: passes over a running guest, and what
 * is left for the stop.
 *
 * A frame is *wanted* when its contents must be read again, *sent* when they
 * were read once and the hash of what was read is known.
 *
 * Invariant, with tracking on: a frame in use that is neither wanted nor marked
 * nor written according to a page table holds what was read of it.
 *
 * A pass reads stretch by stretch.  Before each it takes marks first, then clears
 * page tables, then flushes TLBs; only then is anything read.  So a write falls
 * before the reading, or it is noted for the next pass.  That much would be true
 * with one stretch; with short ones little time lies between the clearing and the
 * reading, and what was written until then is not read once more for it.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#include "owed.h"
#include "smig.h"
#include "symbols.h"

#define MAX_SHOWN 16

#define LEAST_STRETCH (4 * SMIG_MAX_BATCH)	/* pages */
#define LONG_STRETCH 64		/* times of what its preparation took: the next is shorter */
#define SHORT_STRETCH 16	/* the next is longer */

bool smig_following;		/* hooks note what changes */

static unsigned long *marks;	/* by hooks, at any time */
static unsigned long *sticky;	/* written by user space in ways that leave no trace */
static unsigned long *quiet;	/* a device may write there unseen: looked at in the stop */
static unsigned long *wanted;
static unsigned long *sent;
static unsigned long *chosen;	/* of these, what the current pass reads */
static unsigned long *hot;	/* anonymous, and written a good deal before it */
static u64 *hashes;		/* by frame, of what was read */
static u64 *masked_hashes;	/* the same without accessed and dirty bits; only to verify */
static unsigned long *tables;	/* frames of page tables; only to verify */
static u64 passes;
static bool hashing;		/* what has changed is told by hashes alone */
static bool found;		/* this capture knows what has changed */

static struct {
	struct smig_stretch frames;
	unsigned long pages;	/* chosen ones that the next is to have */
	bool unsure;		/* some of its pages may be written unseen */
	u64 begun_ns, prepared_ns;
} stretch;

static struct {
	u64 same, missed, verified;
	u64 kernel_us, user_us;
	unsigned long shown[MAX_SHOWN];
} result;

/* Any context. */
void notrace smig_pass_mark(unsigned long pfn, unsigned long nr)
{
	for (; nr && pfn < smig_ram.top_pfn; nr--, pfn++)
		if (!test_bit(pfn, marks))
			set_bit(pfn, marks);
}

/* Under smig.lock. */
void smig_pass_mark_sticky(unsigned long pfn)
{
	smig_bitmap_set(sticky, pfn, 1);
}

/* All that following changes takes. */
static const struct {
	void **at;
	bool hashes;	/* a word a frame, not a bit */
	bool verify;	/* only to verify */
} buffers[] = {
	{ (void **)&marks },
	{ (void **)&sticky },
	{ (void **)&quiet },
	{ (void **)&wanted },
	{ (void **)&sent },
	{ (void **)&chosen },
	{ (void **)&hot },
	{ (void **)&hashes, .hashes = true },
	{ (void **)&masked_hashes, .hashes = true, .verify = true },
	{ (void **)&tables, .verify = true },
};

static size_t buffer_bytes(unsigned int i)
{
	return buffers[i].hashes ? array_size(smig_ram.top_pfn, sizeof(u64)) :
				   smig_ram_bitmap_bytes();
}

static void free_all(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buffers); i++) {
		vfree(*buffers[i].at);
		*buffers[i].at = NULL;
	}
}

static int allocate_all(bool verify)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buffers); i++) {
		if (buffers[i].verify && !verify)
			continue;
		*buffers[i].at = vzalloc(buffer_bytes(i));
		if (!*buffers[i].at)
			return -ENOMEM;
	}
	return 0;
}

/* Process context, under smig.lock; also on the clone, whose hooks never run. */
void smig_pass_stop(void)
{
	if (!marks)
		return;
	/* an owed page is marked as changed when it ceases to be */
	smig_owed_unmark_all();
	WRITE_ONCE(smig_following, false);
	/* hooks run with preemption off */
	synchronize_rcu();
	smig_kdirty_merge();
	free_all();
	found = false;
}

/* Process context, under smig.lock, spares held. */
int smig_pass_start(struct smig_track *arg)
{
	u64 begun = ktime_get_ns();
	int ret;

	smig_pass_stop();
	ret = allocate_all(arg->flags & SMIG_TRACK_VERIFY);
	if (ret)
		goto failed;
	hashing = arg->flags & SMIG_TRACK_HASH;
	arg->split_leaves = 0;
	ret = hashing ? 0 : smig_kdirty_split(&arg->split_leaves);
	if (ret)
		goto failed;
	arg->split_us = (ktime_get_ns() - begun) / NSEC_PER_USEC;
	passes = 0;
	memset(&stretch, 0, sizeof(stretch));
	stretch.frames.chosen = chosen;
	stretch.pages = LEAST_STRETCH;
	WRITE_ONCE(smig_following, true);
	return 0;

failed:
	free_all();
	return ret;
}

/* Frames of the kernel's that a stop now would have to send whole.  @own: they never travel. */
u64 smig_pass_unsent_kernel(const unsigned long *own)
{
	u64 pages[SMIG_CLASS_SLOTS] = {};

	smig_ram_census(pages, sent, own);
	return pages[SMIG_CLASS_KERNEL];
}

/*
 * Whether the target lacks what the frame holds; a write that so far only a page table
 * entry knows of is for the caller to see.  Under smig.lock, following changes.
 */
bool smig_pass_lacks(unsigned long pfn)
{
	return !test_bit(pfn, sent) || test_bit(pfn, wanted) || test_bit(pfn, marks);
}

bool smig_pass_can_verify(void)
{
	return masked_hashes;
}

/* What is of no use on the target, and large. */
void smig_pass_mark_own(unsigned long *own)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buffers); i++)
		if (*buffers[i].at)
			smig_ram_mark_vmalloc(own, *buffers[i].at, buffer_bytes(i));
}

static void take_marks(void)
{
	unsigned long i, nr = BITS_TO_LONGS(smig_ram.top_pfn);

	for (i = 0; i < nr; i++)
		if (READ_ONCE(marks[i]))
			wanted[i] |= xchg(&marks[i], 0);
}

/*
 * Rings, buffers posted for reception and other memory that a driver shares with
 * its device come from the page allocator as they are, and nothing tells them from
 * other frames without any mark of their own.  A process' pages are pinned for as
 * long as a device may write them.
 */
static bool may_be_shared_with_device(struct page *page)
{
	struct page *head = compound_head(page);

	/* of a large piece only the first frame is counted as in use */
	if (!(head->flags & GENMASK(NR_PAGEFLAGS - 1, 0) & ~BIT(PG_head)) && !head->mapping)
		return atomic_read(&head->_mapcount) == -1;
	return PageLRU(head) && folio_maybe_dma_pinned(page_folio(head));
}

/* What is owed, or is to be left out: not for this pass to read. */
static bool left_out(struct page *page, unsigned long pfn, u32 flags)
{
	if (smig_owed_has(pfn))
		return true;
	if (flags & SMIG_PASS_NO_HOT && test_bit(pfn, hot))
		return true;
	if (flags & SMIG_PASS_UNREAD && test_bit(pfn, sent))
		return true;
	return flags & SMIG_PASS_NO_ANON && smig_ram_classify(page, false) == SMIG_CLASS_ANON;
}

/*
 * Frames in use that are wanted, or were never read.  A free frame is forgotten:
 * if it comes into use, a hook marks it.
 */
static void choose(const unsigned long *own, struct smig_pass *arg)
{
	unsigned long known = 0;	/* up to here */
	unsigned int i;

	bitmap_zero(chosen, smig_ram.top_pfn);
	for (i = 0; i < smig_ram.nr; i++) {
		unsigned long pfn = smig_ram.range[i].start;
		unsigned long end = pfn + smig_ram.range[i].count;

		/* what the kernel wrote between ranges is no memory that travels */
		bitmap_clear(wanted, known, pfn - known);
		known = end;
		while (pfn < end) {
			struct page *page = pfn_to_online_page(pfn);
			unsigned long run = 1;

			if (!page || smig_ram_is_free(page)) {
				run = page ? smig_ram_free_run(page, pfn, end) : 1;
				bitmap_clear(wanted, pfn, run);
				bitmap_clear(sent, pfn, run);
			} else if (test_bit(pfn, own)) {
				__clear_bit(pfn, wanted);
				/* some of it is the guest's again by the stop */
				__clear_bit(pfn, sent);
			} else {
				bool shared = may_be_shared_with_device(page);

				arg->in_use_pages++;
				/* nobody will look there in the stop any more */
				if (test_bit(pfn, quiet) && !shared)
					__set_bit(pfn, wanted);
				__assign_bit(pfn, quiet, shared);
				if (test_bit(pfn, sent) && test_bit(pfn, wanted))
					arg->changed_pages++;
				if (!test_bit(pfn, sent) || hashing)
					__set_bit(pfn, wanted);
				/* left out it stays wanted */
				if (test_bit(pfn, wanted) && !left_out(page, pfn, arg->flags)) {
					__set_bit(pfn, chosen);
					arg->pages++;
				}
			}
			pfn += run;
			if (!(pfn & 0xfff))
				cond_resched();
		}
	}
}

/* Process context, under smig.lock. */
int smig_pass_begin(struct smig_pass *arg, const unsigned long *own)
{
	u64 begun, looked_at, harvested_at;
	u64 need = BITS_TO_LONGS(smig_ram.top_pfn) * sizeof(long);
	int ret;

	if (!smig_following)
		return -EBADFD;
	if (arg->bitmap_bytes % 8 || arg->bitmap_bytes < need)
		return -EINVAL;
	arg->pages = 0;
	arg->changed_pages = 0;
	arg->in_use_pages = 0;
	begun = ktime_get_ns();
	take_marks();
	bitmap_zero(hot, smig_ram.top_pfn);
	ret = hashing ? 0 : smig_tracker_look(wanted, hot, &arg->user_ptes);
	if (ret)
		return ret;
	looked_at = ktime_get_ns();
	if (!hashing)
		smig_kdirty_find(wanted, NULL, false);
	harvested_at = ktime_get_ns();
	choose(own, arg);
	stretch.frames.end = 0;
	arg->number = ++passes;
	arg->user_us = (looked_at - begun) / NSEC_PER_USEC;
	arg->kernel_us = (harvested_at - looked_at) / NSEC_PER_USEC;
	return copy_to_user(u64_to_user_ptr(arg->bitmap), chosen, need) ? -EFAULT : 0;
}

#define HASH_K 0x9fb21c651e98df25ULL
#define HASH_SEEDS { 0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL, \
		     0xa4093822299f31d0ULL, 0x082efa98ec4e6c89ULL }

/* Four lanes, so that multiplications overlap; every word takes part with its place. */
static __always_inline void hash_four(u64 *lane, u64 a, u64 b, u64 c, u64 d)
{
	lane[0] = (rol64(lane[0], 23) ^ a) * HASH_K;
	lane[1] = (rol64(lane[1], 23) ^ b) * HASH_K;
	lane[2] = (rol64(lane[2], 23) ^ c) * HASH_K;
	lane[3] = (rol64(lane[3], 23) ^ d) * HASH_K;
}

static __always_inline u64 hash_end(const u64 *lane)
{
	u64 sum = lane[0] ^ rol64(lane[1], 17) ^ rol64(lane[2], 31) ^ rol64(lane[3], 47);

	sum *= HASH_K;
	return sum ^ (sum >> 32);
}

static u64 hash_words(const u64 *w, u64 mask)
{
	u64 lane[4] = HASH_SEEDS;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / 8; i += 4)
		hash_four(lane, w[i] & mask, w[i + 1] & mask, w[i + 2] & mask, w[i + 3] & mask);
	return hash_end(lane);
}

/*
 * Copies a frame that may vanish from the direct map at any moment (module
 * memory that is being freed, secret memory): then it is false.  The hash is
 * hash_page()'s of the copy.
 */
static bool copy_frame(u64 *to, const u64 *from, u64 *hash, bool *zero)
{
	u64 lane[4] = HASH_SEEDS;
	u64 a, b, c, d, any = 0;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / 8; i += 4) {
		__get_kernel_nofault(&a, from + i, u64, vanished);
		__get_kernel_nofault(&b, from + i + 1, u64, vanished);
		__get_kernel_nofault(&c, from + i + 2, u64, vanished);
		__get_kernel_nofault(&d, from + i + 3, u64, vanished);
		to[i] = a;
		to[i + 1] = b;
		to[i + 2] = c;
		to[i + 3] = d;
		any |= a | b | c | d;
		hash_four(lane, a, b, c, d);
	}
	*hash = hash_end(lane);
	*zero = !any;
	return true;

vanished:
	return false;
}

static u64 hash_page(const void *page)
{
	return hash_words(page, ~0ULL);
}

static u64 masked_hash(const void *page)
{
	return hash_words(page, ~(u64)(_PAGE_ACCESSED | _PAGE_DIRTY));
}

/* As many pages as take a multiple of the time that their preparation takes. */
static void adapt_stretch(u64 now_ns)
{
	u64 took_ns = now_ns - stretch.begun_ns;

	if (took_ns < SHORT_STRETCH * stretch.prepared_ns)
		stretch.pages = min_t(u64, 2 * stretch.pages, smig_ram.top_pfn);
	else if (took_ns > LONG_STRETCH * stretch.prepared_ns)
		stretch.pages = max_t(u64, stretch.pages / 2, LEAST_STRETCH);
}

/*
 * Before these frames are read.  If one of them lies beyond the stretch, another
 * begins with the first of them: what they hold is read anew, whatever has been
 * written since the pass began.  Where that cannot be had its pages count as written.
 */
void smig_pass_renew(const u64 *pfns, u32 nr)
{
	unsigned long pfn = pfns[0], end = pfns[nr - 1] + 1, left;
	u64 begun_ns;

	if (hashing || (pfn >= stretch.frames.start && end <= stretch.frames.end))
		return;
	begun_ns = ktime_get_ns();
	if (stretch.frames.end)
		adapt_stretch(begun_ns);
	stretch.frames.start = pfn;
	for (left = stretch.pages; left && pfn < smig_ram.top_pfn; left--)
		pfn = find_next_bit(chosen, smig_ram.top_pfn, pfn) + 1;
	stretch.frames.end = min_t(u64, max(pfn, end), smig_ram.top_pfn);
	take_marks();
	stretch.unsure = smig_tracker_protect(wanted, &stretch.frames);
	smig_kdirty_find(wanted, NULL, true);
	smig_call(flush_tlb_all)();
	stretch.begun_ns = begun_ns;
	stretch.prepared_ns = ktime_get_ns() - begun_ns;
}

/* One frame of the running guest into @to, a whole page; the answer is a page status. */
u8 smig_pass_read(unsigned long pfn, void *to)
{
	struct page *page = smig_ram_contains(pfn) ? pfn_to_online_page(pfn) : NULL;
	bool again, zero;
	u64 hash;

	if (!page)
		return SMIG_PAGE_FREE;
	/* first: what is written from here on is another mark */
	__clear_bit(pfn, wanted);
	/* what it has become since the pass began */
	if (may_be_shared_with_device(page))
		__set_bit(pfn, quiet);
	if (stretch.unsure)
		smig_pass_mark(pfn, 1);
	again = __test_and_clear_bit(pfn, sent);
	if (smig_ram_is_free(page))
		return SMIG_PAGE_FREE;
	if (!copy_frame(to, page_address(page), &hash, &zero))
		return SMIG_PAGE_LATER;
	if (masked_hashes)
		masked_hashes[pfn] = masked_hash(to);
	__set_bit(pfn, sent);
	if (again && hashes[pfn] == hash)
		return SMIG_PAGE_SAME;
	hashes[pfn] = hash;
	return zero ? SMIG_PAGE_ZERO : SMIG_PAGE_DATA;
}

static void want_address(const void *address)
{
	unsigned int level;
	pte_t *entry = lookup_address((unsigned long)address, &level);

	if (entry && level == PG_LEVEL_4K)
		smig_bitmap_set(wanted, pte_pfn(*entry), 1);
}

/*
 * The stop: one CPU, interrupts off, devices suspended.  Notes all that has
 * changed since it was read; hooks are off from here on, also in the image.
 */
void smig_pass_find(bool verify)
{
	struct smig_user_scan scan = { .bitmap = wanted, .tables = verify ? tables : NULL };
	u64 begun = rdtsc_ordered(), scanned, khz = smig_clock_tsc_khz();
	int cpu;

	memset(&result, 0, sizeof(result));
	found = smig_following;
	if (!found)
		return;
	WRITE_ONCE(smig_following, false);
	take_marks();
	bitmap_or(wanted, wanted, sticky, smig_ram.top_pfn);
	bitmap_or(wanted, wanted, quiet, smig_ram.top_pfn);
	if (hashing)
		return;
	if (scan.tables)
		bitmap_zero(tables, smig_ram.top_pfn);
	smig_tracker_scan(&scan);
	scanned = rdtsc_ordered();
	smig_kdirty_find(wanted, scan.tables, false);
	/* with page table isolation the CPU enters on a stack that another mapping shows */
	for_each_possible_cpu(cpu) {
		want_address(per_cpu_ptr(&cpu_tss_rw, cpu));
		want_address((char *)per_cpu_ptr(&cpu_tss_rw, cpu) + PAGE_SIZE);
	}
	result.user_us = mul_u64_u64_div_u64(scanned - begun, 1000, khz);
	result.kernel_us = mul_u64_u64_div_u64(rdtsc_ordered() - scanned, 1000, khz);
}

/* The capture failed: the guest runs on, and so does the tracking.  Interrupts off. */
void smig_pass_unfind(void)
{
	if (found)
		WRITE_ONCE(smig_following, true);
	found = false;
}

/* Interrupts off.  Whether the target lacks this frame of the image. */
bool smig_pass_must_send(unsigned long pfn, enum smig_class class, bool verify)
{
	const void *page;

	if (!found)
		return true;
	if (!test_bit(pfn, sent))
		return true;
	if (hashing || test_bit(pfn, wanted)) {
		/* what the kernel has touched mostly is as it was; processes mean their writes */
		if ((class != SMIG_CLASS_KERNEL && !hashing) ||
		    hash_page(smig_ram_map(pfn)) != hashes[pfn])
			return true;
		result.same++;
		return false;
	}
	if (!verify)
		return false;
	result.verified++;
	page = smig_ram_map(pfn);
	if (hash_page(page) == hashes[pfn])
		return false;
	/* the CPU itself sets bits in page tables; the clone's sets them anew */
	if (test_bit(pfn, tables) && masked_hash(page) == masked_hashes[pfn])
		return false;
	if (result.missed < MAX_SHOWN)
		result.shown[result.missed] = pfn;
	result.missed++;
	return true;
}

/* Process context, after the capture. */
void smig_pass_report(struct smig_capture *arg)
{
	u64 i;

	arg->same_pages = result.same;
	arg->missed_pages = result.missed;
	arg->verified_pages = result.verified;
	arg->find_kernel_us = result.kernel_us;
	arg->find_user_us = result.user_us;
	for (i = 0; i < min_t(u64, result.missed, MAX_SHOWN); i++) {
		struct page *page = pfn_to_page(result.shown[i]);

		pr_err("frame %lx changed unnoticed: flags %lx, %d references, mapping %lx, reserved %d, slab %d\n",
		       result.shown[i], page->flags, page_count(page),
		       (unsigned long)page->mapping & 3, PageReserved(page), PageSlab(page));
	}
}
