/* SPDX-License-Identifier: GPL-2.0 */
/*
 * smig.h - what the module's files tell each other.
 *
 * There is one move at a time; its state is `smig`, guarded by smig.lock (a
 * mutex held over every ioctl that changes it).  On the clone the same object
 * goes on: it is part of the image.
 */
#ifndef SMIG_H
#define SMIG_H

#ifdef pr_fmt
#undef pr_fmt
#endif
#define pr_fmt(fmt) "selfmigrate: " fmt

#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/pm.h>
#include <linux/types.h>

#include "selfmigrate.h"

struct file;
struct mm_struct;
struct page;
struct vm_area_struct;

/* The page of the image through which the target speaks to the clone. */
#define SMIG_HANDOVER_MAGIC 0x68616e646f766572ULL
struct smig_handover {
	u64 magic;
	u64 valid;
	u64 source_mono_ns;	/* CLOCK_MONOTONIC of the source at target_tsc */
	u64 target_tsc;
	u64 target_tsc_khz;
	u64 jump_tsc;		/* when the trampoline was entered */
	u64 landing_us[SMIG_STEP_SLOTS];
	u64 placed_direct;
	u64 placed_copied;
	u32 blob_len;
	u32 reserved;
	u8 entropy[SMIG_ENTROPY_LEN];
	u8 blob[SMIG_HANDOVER_LEN];
};

/* Times of one descent into suspension and the way back. */
struct smig_times {
	u64 last_tsc;
	u64 us[SMIG_STEP_SLOTS];
};

struct smig_move {
	struct mutex lock;		/* over every ioctl that changes the move */
	enum smig_state state;
	struct file *owner;		/* NULL: nobody, or closed in GIVEN, CLONE or OWING */
	pid_t owner_pid;
	u32 failed_step;
	s32 failed_errno;
	bool tasks_frozen;		/* user space and kernel threads, after a capture */
	bool pinned;			/* the module holds a reference to itself */
	bool shut_out;			/* suspend, kexec and CPU hotplug are refused */
};

extern struct smig_move smig;

/* main.c */
int smig_main_shut_out(void);
void smig_main_let_in(void);
void smig_main_own_pm(bool own);

/* chardev.c */
int smig_chardev_register(void);
void smig_chardev_unregister(void);

/* ram.c: System RAM and the class of a frame */
struct smig_ram {
	unsigned int nr;
	struct smig_pfn_range range[SMIG_MAX_RAM_RANGES];
	u64 pages;
	u64 top_pfn;
};

extern struct smig_ram smig_ram;
int smig_ram_scan(void);
size_t smig_ram_bitmap_bytes(void);
bool smig_ram_contains(u64 pfn);
enum smig_class smig_ram_classify(struct page *page, bool frozen);
unsigned long smig_ram_free_run(struct page *page, unsigned long pfn, unsigned long end);
void smig_ram_census(u64 *pages, const unsigned long *without, const unsigned long *nor);
bool smig_ram_is_free(struct page *page);
void smig_ram_mark_vmalloc(unsigned long *bitmap, const void *start, size_t bytes);
void smig_bitmap_set(unsigned long *bitmap, unsigned long pfn, unsigned long nr);
int smig_ram_window_init(void);
void smig_ram_window_exit(void);
const void *smig_ram_map(unsigned long pfn);

/* hold.c: frames held for the move */
extern struct page **smig_held;
extern unsigned long smig_nr_held;
int smig_hold_room(unsigned long max);
int smig_hold(unsigned long nr, unsigned long reserve, u64 avoid, u64 nr_avoid,
	      u64 *avoided, u64 *reached);
void smig_hold_mark(unsigned long *bitmap);
void smig_hold_mark_reserve(unsigned long *bitmap);
unsigned long smig_hold_all(void);
int smig_hold_check(void);
int smig_hold_check_stop(void);
int smig_hold_free_reserve(void);
bool smig_hold_give_back(unsigned long keep, unsigned long most);
void smig_hold_drop(void);
int smig_hold_init(void);
void smig_hold_exit(void);

/* image.c: shadow, capture, reading of the image */
int smig_image_prepare(struct smig_prepare *arg);
int smig_image_capture(struct smig_capture *arg);
int smig_image_read(const u64 *pfns, u8 *status, u32 nr, void __user *data, u32 *nr_data);
int smig_image_read_live(const u64 *pfns, u8 *status, u32 nr, void __user *data, u32 *nr_data);
int smig_image_verify(void);
int smig_image_bitmap_to_user(u64 ptr, u64 bytes);
void smig_image_open_fences(void);
void smig_image_thaw(u64 *us);
bool smig_image_give_back(void);
void smig_image_give_back_rest(void);
void smig_image_cleanup(void);
void smig_image_mix_entropy(void);
asmlinkage int smig_image_copy(void);

int smig_image_track(struct smig_track *arg);
int smig_image_begin_pass(struct smig_pass *arg);
int smig_image_send_bitmap_to_user(u64 ptr, u64 bytes);
int smig_image_map_buffer(struct vm_area_struct *vma);

/* pass.c: what the target lacks */
extern bool smig_following;
static inline bool smig_pass_following(void)
{
	return READ_ONCE(smig_following);
}

int smig_pass_start(struct smig_track *arg);
u64 smig_pass_unsent_kernel(const unsigned long *own);
void smig_pass_stop(void);
bool smig_pass_can_verify(void);
int smig_pass_begin(struct smig_pass *arg, const unsigned long *own);
void smig_pass_renew(const u64 *pfns, u32 nr);
u8 smig_pass_read(unsigned long pfn, void *to);
bool smig_pass_lacks(unsigned long pfn);
void smig_pass_mark(unsigned long pfn, unsigned long nr);
void smig_pass_mark_sticky(unsigned long pfn);
void smig_pass_mark_own(unsigned long *own);
void smig_pass_find(bool verify);
void smig_pass_unfind(void);
bool smig_pass_must_send(unsigned long pfn, enum smig_class class, bool verify);
void smig_pass_report(struct smig_capture *arg);

/* tracker.c: what processes write */
struct smig_stretch {		/* frames that a pass reads next: [start, end), if chosen */
	const unsigned long *chosen;
	unsigned long start, end;
};

struct smig_user_scan {
	unsigned long *bitmap;
	unsigned long *tables;
};

int smig_tracker_init(void);
void smig_tracker_exit(void);
int smig_tracker_look(unsigned long *bitmap, unsigned long *hot, u64 *entries);
int smig_tracker_protect(unsigned long *bitmap, const struct smig_stretch *stretch);
void smig_tracker_scan(struct smig_user_scan *scan);

/* kdirty.c: what the kernel writes */
int smig_kdirty_split(u64 *leaves);
void smig_kdirty_merge(void);
void smig_kdirty_find(unsigned long *bitmap, unsigned long *tables, bool clear);

/* freeze.c: the way down to one quiet CPU, and back */
enum smig_purpose { SMIG_FOR_CAPTURE, SMIG_FOR_JUMP };
int smig_freeze_down(struct smig_times *t, enum smig_purpose purpose, bool owe, u32 *failed_step);
void smig_freeze_up(struct smig_times *t, pm_message_t message, bool new_machine);
void smig_freeze_thaw(struct smig_times *t);
void smig_freeze_times_start(struct smig_times *t);
void smig_freeze_times_mark_until(struct smig_times *t, enum smig_step step, u64 tsc);
void smig_freeze_times_mark(struct smig_times *t, enum smig_step step);
int smig_freeze_inject(enum smig_step step);

/* clock.c: time goes on over the stop and over the jump */
void smig_clock_measure(void);
void smig_clock_is_now(u64 khz);
u64 smig_clock_tsc_khz(void);
void smig_clock_before_suspend(void);
void smig_clock_before_resume(const struct smig_handover *handover);
void smig_clock_after_resume(void);
u64 smig_clock_captured_mono_ns(void);

/* fence_net.c, fence_disk.c */
void smig_fence_net_init(void);
void smig_fence_net_exit(void);
int smig_fence_net_install(void);
void smig_fence_net_remove(void);
void smig_fence_net_close(void);
void smig_fence_net_open(void);
void smig_fence_net_forget_flows(void);
int smig_fence_net_set_flows(const struct smig_flows *flows);
void smig_fence_net_counts(u64 *tx, u64 *rx);
int smig_fence_disk_find(void);
int smig_fence_disk_close(void);
void smig_fence_disk_open(void);

/* land.c: the target's memory */
int smig_land_hold(struct smig_land *arg);
int smig_land_image(const struct smig_image_header *header, const unsigned long *bitmap);
int smig_land_place(const u64 *pfns, u32 nr, const void __user *data, u64 *distinct);
int smig_land_vacant(const unsigned long *bitmap);
void smig_land_give_back(void);
bool smig_land_complete(void);
void *smig_land_find(u64 pfn);
void *smig_land_spare(void);
u64 smig_land_copy_list(void);
void smig_land_counts(u64 *direct, u64 *copied);
const struct smig_image_header *smig_land_header(void);

/* jump.c */
int smig_jump(const struct smig_jump *arg, const void *blob, u32 *failed_step);
int smig_jump_cpus_off(void);
void smig_jump_cpus_on(void);

/* arch/x86/jump_64.S */
struct smig_cpu_context {
	u64 rsp, rbp, rbx, r12, r13, r14, r15, rflags;
	u64 cr3;
	u8 gdt[16];
	u64 gs_base;
	u64 arrived_tsc;	/* when the trampoline had copied everything */
} __packed;

extern struct smig_cpu_context smig_cpu_context;
asmlinkage int smig_arch_capture(void);
void smig_arch_resume(void);
asmlinkage void smig_arch_leave(u64 tables, u64 list, u64 resume, u64 cr3, u64 trampoline);
extern char smig_arch_trampoline[], smig_arch_trampoline_end[];

/* Copy list of the trampoline: pages of physical address pairs. */
#define SMIG_COPY_PAIRS 255
struct smig_copy_page {
	u64 next;		/* physical, 0 ends */
	u64 nr;
	struct {
		u64 to;
		u64 from;
	} pair[SMIG_COPY_PAIRS];
};

#endif
