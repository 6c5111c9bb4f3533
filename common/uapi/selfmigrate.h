/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * selfmigrate.h - the whole ABI between the agent and selfmigrate.ko.
 *
 * One misc device, /dev/selfmigrate (mode 0600, CAP_SYS_ADMIN).  Any number of
 * files may be open; one of them at a time owns the move (SMIG_IOC_BEGIN).
 * Closing that file before SMIG_IOC_COMMIT undoes everything: the guest is
 * thawed, fences open, memory is given back.  In OWING closing changes nothing.
 *
 * Every struct begins with `size` (bytes the caller knows) and `flags` (must be
 * 0 unless a flag is defined).  A shorter struct is filled up with zeros, a
 * longer one must end in zeros.  Pointers travel as __u64.  No implicit padding.
 *
 * errno, the same for every ioctl:
 *   EINVAL      a field is out of range, or reserved space is not zero
 *   E2BIG       the struct is longer than this module knows, and not zero there
 *   EFAULT      a pointer does not point at the caller's memory
 *   EPERM       the caller lacks CAP_SYS_ADMIN
 *   EBUSY       another file owns the move
 *   EBADFD      not in this state of the move (see enum smig_state)
 *   EOPNOTSUPP  this kernel or machine cannot do it; the kernel log names what
 *   ENOMEM      not enough free memory; out fields carry the figures
 *   ENOBUFS     the guest ran out of memory and got back what was held; PREPARE, OWE, PASS,
 *               READ and CAPTURE fail so from then on: close the file
 *   ENOSPC      the shadow or the spare frames do not suffice; undone, may retry
 *   EAGAIN      something moved under the capture; undone, may retry
 *   ENODATA     the image is incomplete
 *   EILSEQ      the image header contradicts itself or this machine
 *   EIO         a step failed; undone; out field `failed_step` names it
 */
#ifndef SELFMIGRATE_UAPI_H
#define SELFMIGRATE_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SMIG_ABI_VERSION 9
#define SMIG_DEVICE_NAME "selfmigrate"

/* What the module is doing; SMIG_IOC_STATUS reports it. */
enum smig_state {
	SMIG_STATE_IDLE = 1,	/* no move */
	SMIG_STATE_SOURCE,	/* begun on the source; guest runs */
	SMIG_STATE_CAPTURED,	/* source: guest frozen and fenced, image readable; still ours */
	SMIG_STATE_GIVEN,	/* source: committed; never runs the guest again */
	SMIG_STATE_TARGET,	/* begun on the target; landing environment runs */
	SMIG_STATE_LANDED,	/* target: frames held, vacant ones known, pages may be placed */
	SMIG_STATE_CLONE,	/* after the jump: guest frozen and fenced, waits for go */
	SMIG_STATE_OWING,	/* clone, released: the guest runs, pages are still owed to it */
};

/* Steps of a stop, a jump and a resume, in order; index of *_us arrays. */
enum smig_step {
	SMIG_STEP_NOTIFY = 0,		/* PM notifiers */
	SMIG_STEP_FREEZE_TASKS,		/* user processes */
	SMIG_STEP_FREEZE_KTHREADS,
	SMIG_STEP_FENCE_DISKS,		/* source: disks finish what they were given */
	SMIG_STEP_SUSPEND_DEVICES,
	SMIG_STEP_SUSPEND_NOIRQ,
	SMIG_STEP_CPUS_OFF,
	SMIG_STEP_SYSCORE_SUSPEND,
	SMIG_STEP_FIND,			/* source: what changed since it was last read */
	SMIG_STEP_COPY,			/* source: changed kernel pages into the shadow */
	SMIG_STEP_JUMP,			/* target: page copies of the trampoline */
	SMIG_STEP_RESTORE_CPU,		/* clone: registers, MTRRs, scheduler clock */
	SMIG_STEP_SYSCORE_RESUME,
	SMIG_STEP_CPUS_ON,
	SMIG_STEP_RESUME_NOIRQ,
	SMIG_STEP_RESUME_DEVICES,
	SMIG_STEP_THAW_KTHREADS,
	SMIG_STEP_THAW_TASKS,
	SMIG_STEP_NR,
};

#define SMIG_STEP_SLOTS 24		/* array length; spare slots are zero */

/* Classes of page frames. */
enum smig_class {
	SMIG_CLASS_FREE = 0,	/* in the buddy allocator */
	SMIG_CLASS_ANON,	/* anonymous user memory on the LRU */
	SMIG_CLASS_CACHE,	/* regular files' page cache, shmem, tmpfs */
	SMIG_CLASS_KERNEL,	/* everything the kernel may write while frozen */
	SMIG_CLASS_OWN,		/* the move's own memory; never travels */
	SMIG_CLASS_NR,
};

#define SMIG_CLASS_SLOTS 16

#define SMIG_RELEASE_LEN 64
#define SMIG_VERSION_LEN 128
#define SMIG_BUILD_ID_LEN 32
#define SMIG_CLOCKSOURCE_LEN 32
#define SMIG_SOURCE_ID_LEN 64
#define SMIG_MAX_RAM_RANGES 64
#define SMIG_MAX_FLOWS 8
#define SMIG_MAX_PORTS 4
#define SMIG_MAX_BATCH 1024		/* pages a READ or PLACE */
#define SMIG_HANDOVER_LEN 3072		/* bytes of the agents' part of the hand-over page */
#define SMIG_ENTROPY_LEN 64
#define SMIG_MAX_VCPUS 8

/* A run of page frames: [start, start + count). */
struct smig_pfn_range {
	__u64 start;
	__u64 count;
};

/* What this kernel is.  Usable in every state. */
struct smig_info {
	__u32 size;
	__u32 flags;
	__u32 abi_version;
	__u32 vcpus;			/* present CPUs */
	__u32 page_table_levels;	/* 4 or 5 */
	__u32 nr_ranges;		/* System RAM, ascending */
	__u64 tsc_khz;
	__u64 top_pfn;			/* exclusive; bitmaps have this many bits */
	__u64 ram_pages;
	__u64 free_pages;		/* now */
	char release[SMIG_RELEASE_LEN];
	char version[SMIG_VERSION_LEN];
	char clocksource[SMIG_CLOCKSOURCE_LEN];
	char source_id[SMIG_SOURCE_ID_LEN];	/* module build: both sides must have the same */
	struct smig_pfn_range ranges[SMIG_MAX_RAM_RANGES];
};

/* Who owns the guest as this module sees it.  Usable in every state, never blocks. */
struct smig_status {
	__u32 size;
	__u32 flags;
	__u32 state;			/* enum smig_state */
	__u32 failed_step;		/* enum smig_step + 1 of the last failure, 0 = none */
	__s32 failed_errno;		/* negative errno of that failure */
	__u32 owner_pid;		/* who called BEGIN; 0 = nobody */
	__u64 tx_dropped;		/* frames that a fence or a suspended device swallowed */
	__u64 rx_dropped;
};

/*
 * Become the owner of the move.  A target goes on with one CPU until the file is
 * closed.  When an owner's file was closed in GIVEN or
 * CLONE the state stays, and this adopts it (role SOURCE or TARGET).
 */
#define SMIG_ROLE_SOURCE 1
#define SMIG_ROLE_TARGET 2
struct smig_begin {
	__u32 size;
	__u32 flags;
	__u32 role;
	__u32 reserved;
};

/*
 * What may pass a closed fence, both ways: TCP between the two addresses of a
 * flow where one end uses one of its ports, and ARP or neighbour discovery for
 * `local` with `peer`'s network.  Replaces the list.  Also usable in CLONE,
 * where the list begins empty: after the jump nothing passes until it is set.
 */
struct smig_flow {
	__u32 family;			/* 4 or 6 */
	__u32 nr_ports;
	__u8 local[16];			/* network order; IPv4 in the first 4 bytes */
	__u8 peer[16];
	__u16 ports[SMIG_MAX_PORTS];	/* host order */
};

struct smig_flows {
	__u32 size;
	__u32 flags;
	__u32 nr_flows;
	__u32 reserved;
	struct smig_flow flows[SMIG_MAX_FLOWS];
};

/* Count frames by class while the guest runs (SOURCE; racy by nature). */
struct smig_census {
	__u32 size;
	__u32 flags;
	__u64 pages[SMIG_CLASS_SLOTS];
};

/*
 * Get the memory a stop needs, before anything is frozen (SOURCE).  May reclaim
 * clean cache, never kills.  `spare_pages`: frames that must hold nothing of the
 * guest from now to the capture, the shadow included, so that the target has
 * room for its landing environment; `vacant_bitmap` names them.  Of these frames
 * [avoid_start, avoid_start + avoid_pages) are taken first, as far as what lies
 * there can be moved: see struct smig_land.  What the stop itself allocates is kept
 * besides.  Called again it only adds to what is held.  ENOMEM: nothing was added.
 * ENOBUFS: nothing is held any more.
 *
 * SMIG_PREPARE_SPARE: passes come before the stop, and another call after them.
 * Only the spares are held; what the shadow must take is known by then, and what the
 * stop allocates must be there, but is not kept (nor is what an earlier call kept).
 */
#define SMIG_PREPARE_SPARE	0x1

struct smig_prepare {
	__u32 size;
	__u32 flags;
	__u64 spare_pages;		/* in */
	__u64 extra_shadow_pages;	/* in: above the module's own estimate */
	__u64 vacant_bitmap;		/* in: buffer of top_pfn bits, or 0; filled */
	__u64 vacant_bitmap_bytes;	/* in: its length, a multiple of 8 */
	__u64 shadow_pages;		/* out: held */
	__u64 needed_pages;		/* out: shadow and spare, and what the stop allocates */
	__u64 available_pages;		/* out: what could be had */
	__u64 avoid_start;		/* in */
	__u64 avoid_pages;		/* in: 0: none */
	__u64 avoided_pages;		/* out: of these, held now */
};

/*
 * Follow every change of memory from now on (SOURCE), so that pages can be sent
 * while the guest runs; with SMIG_TRACK_OFF no more.  Following ends by itself
 * when the move does.  ENOMEM, EAGAIN: this kernel's own mappings could not be
 * split; nothing was changed, and SMIG_TRACK_HASH needs no split.
 */
#define SMIG_TRACK_OFF 1
#define SMIG_TRACK_VERIFY 2	/* take down what SMIG_CAPTURE_VERIFY needs */
#define SMIG_TRACK_HASH 4	/* trust no page table: every pass reads all, the stop hashes all */
struct smig_track {
	__u32 size;
	__u32 flags;
	__u64 split_leaves;		/* out: large leaves of kernel page tables split up */
	__u64 split_us;			/* out */
};

/*
 * Begin the next pass (SOURCE, tracking): what changed up to now becomes what is
 * to be read.  READ then gives contents, and what it has read counts as unchanged
 * from there on.  A pass is best read by ascending frames: READ prepares those that
 * come next as well, and writes between that and the reading count as changes.
 */
#define SMIG_PASS_NO_ANON 1	/* leaves out what could be owed: anonymous memory */
/*
 * Leaves out anonymous memory of which much was written since the last PASS (in the first
 * one: ever), by page tables' dirty bits, 2 MiB of an address space at a time.  To be read
 * in the end: the less time there is to write it again.  SMIG_TRACK_HASH knows of none.
 */
#define SMIG_PASS_NO_HOT 2
#define SMIG_PASS_UNREAD 4	/* only what no pass has read yet; the rest is left for the next */
struct smig_pass {
	__u32 size;
	__u32 flags;
	__u64 bitmap;			/* in: buffer of top_pfn bits; filled: frames to read */
	__u64 bitmap_bytes;		/* in: its length, a multiple of 8 */
	__u64 pages;			/* out: its set bits */
	__u64 changed_pages;		/* out: of these, read before and changed since */
	__u64 in_use_pages;		/* out: frames that are not free */
	__u64 number;			/* out: 1, 2, ... */
	__u64 kernel_us;		/* out: look at the kernel's page tables */
	__u64 user_us;			/* out: at the processes' */
	__u64 user_ptes;		/* out: entries that may have been written through */
};

/*
 * Mark as owed what the target lacks of anonymous memory (SOURCE, tracking), shortly
 * before the stop: such a page is left out of the image and stays on the source
 * until the clone asks for it.  A process that touches a marked page while the
 * guest still runs here unmarks it, and it goes in the stop.  Never marked: pages
 * of processes that a stop does not freeze and of process 1, and pages that
 * anybody but page tables refers to (pinned, in the swap cache, under writeback,
 * merged, huge ones that do not split).  Everything that undoes the move unmarks.
 */
struct smig_owe {
	__u32 size;
	__u32 flags;
	__u64 owed_pages;		/* out: marked now, all calls together */
	__u64 skipped_pages;		/* out: lacking and anonymous, but not to be owed */
	__u64 mark_us;			/* out */
};

/* What the target's kernel must know to jump; opaque to the agents, sent as is. */
struct smig_image_header {
	__u64 magic;
	__u64 resume_va;
	__u64 resume_pa;
	__u64 cr3;
	__u64 handover_pfn;
	__u64 top_pfn;
	__u64 image_pages;		/* set bits of the image bitmap */
	__u64 zero_pages;		/* of these, kernel pages all-zero at the capture */
	__u32 page_table_levels;
	__u32 vcpus;
	char release[SMIG_RELEASE_LEN];
	char version[SMIG_VERSION_LEN];
};

/*
 * The stop and the capture (SOURCE, prepared).  Returns twice: first on the
 * source with role SMIG_ROLE_SOURCE (state CAPTURED), and, if the image jumps,
 * on the target with role SMIG_ROLE_TARGET (state CLONE), `handover` holding
 * what the target's agent left there.  The calling thread must be the only one
 * of its process, with all memory locked.  On error everything is undone; but what
 * PREPARE kept for a stop may be gone with it: PREPARE again, or CAPTURE is EBADFD.
 *
 * Without TRACK everything of the image must be sent.  With it `send_bitmap`
 * leaves out what was read and has not changed since.  SMIG_CAPTURE_VERIFY hashes
 * also those pages, counts as missed what changed unnoticed, and has it sent; it
 * needs SMIG_TRACK_VERIFY.
 */
#define SMIG_CAPTURE_VERIFY 1
#define SMIG_CAPTURE_OWE 2	/* OWE once more when all is frozen, for what was touched since */
struct smig_capture {
	__u32 size;
	__u32 flags;
	__u32 role;			/* out */
	__u32 failed_step;		/* out: enum smig_step + 1 */
	__u64 handover;			/* in: buffer of SMIG_HANDOVER_LEN bytes */
	__u64 image_bitmap;		/* in: buffer of top_pfn bits, 64-bit words; filled */
	__u64 image_bitmap_bytes;	/* in: its length, a multiple of 8 */
	__u64 shadow_used;		/* out */
	__u64 shadow_pages;		/* out: held */
	__u64 pages[SMIG_CLASS_SLOTS];	/* out: frames by class */
	__u64 captured_mono_ns;		/* out: CLOCK_MONOTONIC of the capture */
	__u64 source_us[SMIG_STEP_SLOTS];	/* out: steps of the stop on the source */
	__u64 landing_us[SMIG_STEP_SLOTS];	/* out, clone: the landing environment's way down */
	__u64 clone_us[SMIG_STEP_SLOTS];	/* out, clone: jump and resume steps */
	__u64 placed_direct;		/* out, clone: pages written straight to their frame */
	__u64 placed_copied;		/* out, clone: pages the trampoline had to copy */
	struct smig_image_header header;	/* out */
	__u64 send_bitmap;		/* in: like image_bitmap; filled: what must be sent */
	__u64 send_bitmap_bytes;	/* in: its length, a multiple of 8 */
	__u64 send_pages;		/* out: its set bits */
	__u64 same_pages;		/* out: suspected, but hashed as when they were read */
	__u64 missed_pages;		/* out, VERIFY: changed unnoticed */
	__u64 verified_pages;		/* out, VERIFY: believed unchanged and hashed */
	__u64 find_kernel_us;		/* out: scan of the kernel's page tables */
	__u64 find_user_us;		/* out: scan of the processes' page tables */
	__u64 send_by_class[SMIG_CLASS_SLOTS];	/* out */
	__u64 owed_pages;		/* out: owed at the capture; not in the image */
	__u64 owe_us;			/* out: marking in the stop (SMIG_CAPTURE_OWE) */
	/*
	 * SMIG_CAPTURE_OWE leaves a process alone that has touched few pages since OWE:
	 * they are its working set, which it would ask for at once, and go in the stop.
	 * Counted by process: what it shares with one that is not left alone is owed.
	 */
	__u64 hot_pages;		/* in: at most so many; out: such pages */
};

/*
 * The owed pages with what is known of each, for whoever decides which to send
 * unasked (CAPTURED or GIVEN): entries [start, start + nr) of owed_pages, in the
 * order of spaces and addresses.  A page mapped in several places is listed once.
 * With the first entries all memory that was held for the stop, but for the shadow, is
 * free for the caller: at least twice what the entries take, and 4 bytes for each frame.
 */
struct smig_owed_page {
	__u64 pfn;
	__u64 address;		/* where it is mapped, page aligned */
	__u64 file;		/* which file's private copy it is; 0: none, anonymous */
	__u64 file_page;	/* its page number in that file; 0 without one */
	__u32 space;		/* number of the address space, 1, 2, ... */
	__u32 area;		/* number of the mapping, distinct over all spaces */
};

struct smig_owed_list {
	__u32 size;
	__u32 flags;
	__u64 start;		/* in */
	__u64 entries;		/* in: struct smig_owed_page[nr]; filled */
	__u32 nr;		/* in */
	__u32 nr_out;		/* out: entries written; fewer at the end of the list */
};

/*
 * Clone: contents of owed pages (CLONE or OWING).  data holds nr pages in order of
 * pfns, or is 0 with SMIG_INSTALL_ZERO.  A page that is not missing (any more) is
 * passed over.  When the last page has come, OWING becomes SOURCE.
 */
#define SMIG_INSTALL_DEMAND 0	/* asked for by a fault */
#define SMIG_INSTALL_SPECULATED 1	/* came with such a page */
#define SMIG_INSTALL_PUSHED 2
#define SMIG_INSTALL_ORIGIN 3	/* mask of the three */
#define SMIG_INSTALL_ZERO 4
struct smig_install {
	__u32 size;
	__u32 flags;
	__u64 pfns;		/* in: __u64[nr] */
	__u64 data;		/* in */
	__u32 nr;		/* in */
	__u32 installed;	/* out: pages that were missing until now */
	__u32 awaited;		/* out: how many of these somebody waited for */
	__u32 reserved;
	__u64 left;		/* out: pages still missing */
};

/*
 * What read() of the device gives in OWING, oldest first, whole records only; poll()
 * says readable; 0 bytes: nothing is owed any more.  A page is announced once; whoever
 * lost a connection has all that is waited for announced anew with SMIG_OWED_REPEAT.
 */
struct smig_fault {
	__u64 pfn;
	__u64 mono_ns;		/* when somebody first waited for it */
};

#define SMIG_LATENCY_SLOTS 32

/* How the owed phase goes (CLONE, OWING, and SOURCE after it until the file is closed). */
#define SMIG_OWED_REPEAT 1	/* announce anew what is waited for now */
struct smig_owed_status {
	__u32 size;
	__u32 flags;
	__u64 owed_pages;	/* at the capture */
	__u64 left_pages;
	__u64 demand_faults;	/* faults that waited, also for pages in flight */
	__u64 demand_pages;	/* distinct pages that a fault waited for */
	__u64 speculated_pages;	/* installed as SPECULATED, never waited for */
	__u64 speculated_used;	/* of these, touched since */
	__u64 pushed_pages;	/* installed as PUSHED, never waited for */
	__u64 pushed_used;	/* of these, touched since */
	__u64 freed_pages;	/* missing when their last user let go of them */
	__u64 wait_ns;		/* sum over demand_faults */
	__u64 max_wait_ns;
	__u64 wait_by_log2_us[SMIG_LATENCY_SLOTS];	/* waits of [2^(i-1), 2^i) us */
	__u64 announce_ns;	/* sum over demand_pages: fault to read() ... */
	__u64 fetch_ns;		/* ... read() to INSTALL ... */
	__u64 install_ns;	/* ... INSTALL to the page being mapped ... */
	__u64 wake_ns;		/* sum over demand_faults: mapped to running on */
};

/*
 * Read pages: of the captured image (CAPTURED, GIVEN), or, in a pass, of the
 * running guest (SOURCE, tracking).  pfns[i] becomes the page at data + k * 4096,
 * k counting the pages whose status[i] is SMIG_PAGE_DATA.  With data 0 the pages
 * lie in the module's buffer, which mmap() of the device at offset 0 shows
 * (SMIG_BUFFER_PAGES pages, read-only, MAP_SHARED); nr is at most that then.
 */
#define SMIG_PAGE_DATA 1
#define SMIG_PAGE_ZERO 2
#define SMIG_PAGE_SAME 3	/* pass: as it was read before */
#define SMIG_PAGE_FREE 4	/* pass: not in use any more */
#define SMIG_PAGE_LATER 5	/* pass: cannot be read now, comes again */
#define SMIG_BUFFER_PAGES 256
struct smig_read {
	__u32 size;
	__u32 flags;
	__u64 pfns;			/* in: __u64[nr] */
	__u64 status;			/* out: __u8[nr] */
	__u64 data;			/* in: room for nr * 4096 bytes, or 0 */
	__u32 nr;			/* in */
	__u32 nr_data;			/* out: pages with data */
};

/* COMMIT, source: the guest is the target's; closing never thaws again (CAPTURED -> GIVEN). */

/*
 * THAW, source: undo the stop, keep the move begun (CAPTURED -> SOURCE).  Some of what was
 * held has gone back to the guest, and what was to stay vacant is not any more.
 */
struct smig_plain {
	__u32 size;
	__u32 flags;
};

/*
 * Clone: the guest runs here from now on (CLONE -> SOURCE, or OWING if pages are
 * owed to it).  Only after go.
 * With SMIG_RELEASE_FENCES_ONLY the fences open and tasks stay frozen, so that
 * the new place can be announced first; call again without it.  Closing the
 * file gives the move's memory back.
 */
#define SMIG_RELEASE_FENCES_ONLY 1
struct smig_release {
	__u32 size;
	__u32 flags;
	__u64 fence_open_mono_ns;	/* out, FENCES_ONLY: when the fences opened */
	__u64 clone_us[SMIG_STEP_SLOTS];	/* out: thaw steps */
};

/*
 * The calling thread will not be frozen by a stop (supervisor, page server);
 * with SMIG_EXEMPT_CLEAR it will be again.  Usable in every state.  Fences and
 * reclaim rules apply to it as to the stop process: lock memory first.
 */
#define SMIG_EXEMPT_CLEAR 1

/*
 * Target: hold all memory but a reserve (TARGET).  Again: forgets what was placed;
 * with another reserve gives all back first.
 */
struct smig_land {
	__u32 size;
	__u32 flags;
	__u64 reserve_pages;		/* in: keep free above the watermarks; 0 = default */
	__u64 held_pages;		/* out */
	__u64 footprint_pages;		/* out: ram_pages - held_pages */
	__u64 vacant_pages;		/* out: so many frames suffice for VACANT */
	__u64 kernel_start;		/* out: where the landing kernel itself lies; pages */
	__u64 kernel_pages;		/* of these frames are copied in the jump, and slowly */
};

/*
 * Target: frames that will not be part of the image (TARGET or LANDED -> LANDED).
 * Forgets pages placed before.  Those that are held here take pages whose own
 * frame is not: they must suffice for all (ENOSPC otherwise).
 */
struct smig_vacant {
	__u32 size;
	__u32 flags;
	__u64 bitmap;			/* in: top_pfn bits, 64-bit words */
	__u64 bitmap_bytes;
};

/* Target: which frames the image has (LANDED).  Pages placed before stay placed. */
struct smig_image {
	__u32 size;
	__u32 flags;
	__u64 image_bitmap;		/* in: top_pfn bits, 64-bit words */
	__u64 image_bitmap_bytes;
	struct smig_image_header header;
};

/*
 * Target: put pages where the jump finds them (LANDED).  data holds nr pages in
 * order of pfns; with SMIG_PLACE_ZERO data is ignored and the frames are zeroed.
 * A page placed twice keeps the newer contents.  Pages of the image that were
 * never placed make JUMP fail with ENODATA.
 */
#define SMIG_PLACE_ZERO 1
struct smig_place {
	__u32 size;
	__u32 flags;
	__u64 pfns;			/* in: __u64[nr] */
	__u64 data;			/* in */
	__u32 nr;
	__u32 reserved;
	__u64 distinct_placed;		/* out: distinct pages placed so far */
};

/*
 * Target: leave the landing environment (LANDED).  Returns only on failure, and
 * then everything is undone.  source_mono_ns is what the source's
 * CLOCK_MONOTONIC reads at the moment the target's reads local_mono_ns.
 */
struct smig_jump {
	__u32 size;
	__u32 flags;
	__u32 failed_step;		/* out: enum smig_step + 1 */
	__u32 handover_len;
	__u64 handover;			/* in: at most SMIG_HANDOVER_LEN bytes for the clone */
	__u64 source_mono_ns;
	__u64 local_mono_ns;
	__u8 entropy[SMIG_ENTROPY_LEN];	/* in: changes the clone's random generator */
};

/* The numbers carry no size: a struct may grow and keep its number. */
#define SMIG_IOC_TYPE 0xB5
#define SMIG_IOC_INFO	_IO(SMIG_IOC_TYPE, 0x01)	/* struct smig_info */
#define SMIG_IOC_STATUS	_IO(SMIG_IOC_TYPE, 0x02)	/* struct smig_status */
#define SMIG_IOC_BEGIN	_IO(SMIG_IOC_TYPE, 0x03)	/* struct smig_begin */
#define SMIG_IOC_FLOWS	_IO(SMIG_IOC_TYPE, 0x04)	/* struct smig_flows */
#define SMIG_IOC_EXEMPT	_IO(SMIG_IOC_TYPE, 0x05)	/* struct smig_plain */
#define SMIG_IOC_CENSUS	_IO(SMIG_IOC_TYPE, 0x10)	/* struct smig_census */
#define SMIG_IOC_PREPARE	_IO(SMIG_IOC_TYPE, 0x11)	/* struct smig_prepare */
#define SMIG_IOC_CAPTURE	_IO(SMIG_IOC_TYPE, 0x12)	/* struct smig_capture */
#define SMIG_IOC_READ	_IO(SMIG_IOC_TYPE, 0x13)	/* struct smig_read */
#define SMIG_IOC_VERIFY	_IO(SMIG_IOC_TYPE, 0x14)	/* struct smig_plain */
#define SMIG_IOC_COMMIT	_IO(SMIG_IOC_TYPE, 0x15)	/* struct smig_plain */
#define SMIG_IOC_THAW	_IO(SMIG_IOC_TYPE, 0x16)	/* struct smig_plain */
#define SMIG_IOC_TRACK	_IO(SMIG_IOC_TYPE, 0x17)	/* struct smig_track */
#define SMIG_IOC_PASS	_IO(SMIG_IOC_TYPE, 0x18)	/* struct smig_pass */
#define SMIG_IOC_OWE	_IO(SMIG_IOC_TYPE, 0x19)	/* struct smig_owe */
#define SMIG_IOC_OWED_LIST _IO(SMIG_IOC_TYPE, 0x1a)	/* struct smig_owed_list */
#define SMIG_IOC_LAND	_IO(SMIG_IOC_TYPE, 0x20)	/* struct smig_land */
#define SMIG_IOC_IMAGE	_IO(SMIG_IOC_TYPE, 0x21)	/* struct smig_image */
#define SMIG_IOC_PLACE	_IO(SMIG_IOC_TYPE, 0x22)	/* struct smig_place */
#define SMIG_IOC_JUMP	_IO(SMIG_IOC_TYPE, 0x23)	/* struct smig_jump */
#define SMIG_IOC_VACANT	_IO(SMIG_IOC_TYPE, 0x24)	/* struct smig_vacant */
#define SMIG_IOC_RELEASE	_IO(SMIG_IOC_TYPE, 0x30)	/* struct smig_release */
#define SMIG_IOC_INSTALL _IO(SMIG_IOC_TYPE, 0x31)	/* struct smig_install */
#define SMIG_IOC_OWED_STATUS _IO(SMIG_IOC_TYPE, 0x32)	/* struct smig_owed_status */

/*
 * SMIG_IOC_VERIFY (CAPTURED): nothing that is sent from where it is was reclaimed
 * or moved since the capture; EAGAIN if it was: THAW and begin anew.
 */

#endif /* SELFMIGRATE_UAPI_H */
