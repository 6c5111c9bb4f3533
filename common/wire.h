/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * wire.h - every byte two agents exchange.  PROTOCOL.md is the prose.
 *
 *   source                                   target (landing environment)
 *     | --- HELLO ----------------------------> |
 *     | <-- WELCOME --------------------------- |
 *     | --- DESCRIBE (source machine) --------> |
 *     | <-- ACCEPT | REFUSE ------------------- |   check
 *     | --- CLOCK_ASK ------------------------> |
 *     | <-- CLOCK ----------------------------- |   a few times
 *     | --- LAND -----------------------------> |
 *     | <-- LANDED ---------------------------- |
 *     | --- VACANT... ------------------------> |   frames that will stay empty
 *     | --- PAGES | ZEROS... -----------------> |   passes, the guest runs (precopy)
 *     |            (stop and capture)           |
 *     | --- IMAGE, BITMAP..., PAGES | ZEROS... -> |
 *     | --- IMAGE_END ------------------------> |
 *     | <-- READY ----------------------------- |   whole, checked
 *     | --- JUMP -----------------------------> |
 *     |                                     (jump)
 *   source                                   clone (fenced, frozen)
 *     | <-- ALIVE ----------------------------- |   a new connection, to the control port
 *   COMMIT
 *     | --- GO | VOID | WAIT -----------------> |
 *     | <-- RELEASED -------------------------- |   fences open, guest runs
 *                  (pages are owed)
 *     | <-- OWED_HELLO ------------------------ |   two connections: demand and push
 *     | --- OWED_READY -----------------------> |
 *     | <-- FETCH... -------------------------- |   what somebody waits for (demand)
 *     | --- OWED_PAGES... --------------------> |   asked for, speculated (demand), pushed (push)
 *     | <-- OWED_TAKEN... --------------------- |   and installed
 *     | <-- DRAINED --------------------------- |   nothing is owed; on a control connection
 *
 * All integers are little-endian; structs are packed by their layout (no
 * implicit padding).  A frame is a header and `length` bytes of payload.
 * Versioning: WIRE_VERSION changes with any change of a struct or of a
 * meaning; both sides must have the same.  Zero is never a valid type, reason
 * or state.
 */
#ifndef SELFMIGRATE_WIRE_H
#define SELFMIGRATE_WIRE_H

#ifdef __KERNEL__
#error "the wire is the agents' business"
#endif
#include <stdint.h>

#define SMIG_WIRE_MAGIC 0x47494d53u /* "SMIG" */
#define SMIG_WIRE_VERSION 4u
#define SMIG_WIRE_DEFAULT_PORT 7077u
#define SMIG_WIRE_MAX_PAYLOAD (2u << 20)	/* no frame is longer */
#define SMIG_WIRE_MAX_TEXT (256u << 10)		/* JSON texts (DESCRIBE, ACCEPT, REFUSE) */
#define SMIG_WIRE_MAX_PAGES 256u		/* pages a PAGES or OWED_PAGES frame */
#define SMIG_WIRE_MAX_FETCH 256u		/* page numbers a FETCH frame */
#define SMIG_WIRE_MAX_RANGES 4096u		/* ranges a ZEROS frame */
#define SMIG_WIRE_BITMAP_CHUNK (1u << 20)	/* bytes a BITMAP or VACANT frame */
#define SMIG_WIRE_MAX_TOP_PFN (1ull << 28)	/* 1 TiB of frames */
#define SMIG_WIRE_ID_LEN 16u
#define SMIG_WIRE_HANDOVER_LEN 3072u
#define SMIG_WIRE_CLASSES 16u
#define SMIG_WIRE_STEPS 24u

enum smig_wire_type {
	SMIG_WIRE_HELLO = 1,
	SMIG_WIRE_WELCOME = 2,
	SMIG_WIRE_DESCRIBE = 3,
	SMIG_WIRE_ACCEPT = 4,
	SMIG_WIRE_REFUSE = 5,
	SMIG_WIRE_CLOCK_ASK = 6,
	SMIG_WIRE_CLOCK = 7,
	SMIG_WIRE_LAND = 8,
	SMIG_WIRE_LANDED = 9,
	SMIG_WIRE_IMAGE = 10,
	SMIG_WIRE_BITMAP = 11,
	SMIG_WIRE_PAGES = 12,
	SMIG_WIRE_ZEROS = 13,
	SMIG_WIRE_IMAGE_END = 14,
	SMIG_WIRE_READY = 15,
	SMIG_WIRE_JUMP = 16,
	SMIG_WIRE_FAILED = 17,
	SMIG_WIRE_ALIVE = 18,
	SMIG_WIRE_GO = 19,
	SMIG_WIRE_VOID = 20,
	SMIG_WIRE_WAIT = 21,
	SMIG_WIRE_RELEASED = 22,
	SMIG_WIRE_ABORT = 23,
	SMIG_WIRE_VACANT = 24,
	SMIG_WIRE_OWED_HELLO = 25,
	SMIG_WIRE_OWED_READY = 26,
	SMIG_WIRE_FETCH = 27,
	SMIG_WIRE_OWED_PAGES = 28,
	SMIG_WIRE_OWED_TAKEN = 29,
	SMIG_WIRE_DRAINED = 30,
};

/*
 * Who may run the guest, as each side knows it.  The source's states come
 * first, then the target's and the clone's.  PROTOCOL.md has the table of
 * every message and every failure in every state.
 */
enum smig_session_state {
	/* source: the guest is the source's until GIVEN */
	SMIG_SOURCE_CHECKING = 1,
	SMIG_SOURCE_LANDING,		/* target is making room */
	SMIG_SOURCE_PASSING,		/* memory is prepared, then travels while the guest runs */
	SMIG_SOURCE_STOPPING,		/* stop and capture */
	SMIG_SOURCE_SENDING,		/* stop image on its way */
	SMIG_SOURCE_AWAITING_READY,
	SMIG_SOURCE_AWAITING_ALIVE,	/* JUMP is sent */
	SMIG_SOURCE_GIVEN,		/* committed, GO is sent or will be */
	SMIG_SOURCE_OWING,		/* the guest runs there; pages are still asked for and pushed */
	SMIG_SOURCE_FINISHED,		/* nothing is owed: RELEASED has arrived, or DRAINED */
	SMIG_SOURCE_ROLLED_BACK,	/* the guest runs here again, the epoch is void */
	/* target: the guest is never the target's */
	SMIG_TARGET_LISTENING = 32,
	SMIG_TARGET_CHECKING,
	SMIG_TARGET_LANDED,
	SMIG_TARGET_LOADING,		/* pages of passes, then the image */
	SMIG_TARGET_READY,
	SMIG_TARGET_JUMPING,		/* beyond it the clone speaks */
	SMIG_TARGET_GONE_BACK,		/* gave up this source; listens again */
	/* clone: the guest is the clone's from OWING or RELEASED on, not before GO has arrived */
	SMIG_CLONE_FENCED = 64,		/* must not run the guest; asks for GO without end */
	SMIG_CLONE_OWING,		/* runs the guest; pages of it are still on the source */
	SMIG_CLONE_RELEASED,		/* runs the guest; all of it is here */
	SMIG_CLONE_REFUSED,		/* VOID has arrived: resets this VM */
};

/* 24 bytes before every payload.  checksum: XXH64, seed 0, of this header with checksum 0, then the payload. */
struct smig_wire_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t length;	/* payload bytes */
	uint32_t sequence;	/* 0, 1, 2 … in each direction of a connection */
	uint64_t checksum;
};

/* HELLO: first frame of the source. */
struct smig_wire_hello {
	uint8_t epoch[SMIG_WIRE_ID_LEN];	/* random, names this move */
	uint32_t flags;				/* SMIG_WIRE_INSECURE must be set until authentication exists */
	uint32_t reserved;
};
#define SMIG_WIRE_INSECURE 1u

/* WELCOME: first frame of the target. */
struct smig_wire_welcome {
	uint8_t boot_nonce[SMIG_WIRE_ID_LEN];	/* random, one per start of `receive` */
	uint32_t flags;
	uint32_t reserved;
};

/* CLOCK_ASK goes source -> target with the source's clock; CLOCK answers with both. */
struct smig_wire_clock {
	uint64_t source_mono_ns;	/* CLOCK_MONOTONIC, when asked */
	uint64_t target_mono_ns;	/* 0 in CLOCK_ASK */
};

/* LAND: what the target needs to know before the stop. */
struct smig_wire_land {
	uint64_t clock_offset_ns;	/* two's complement: source CLOCK_MONOTONIC - target CLOCK_MONOTONIC */
	uint64_t clock_error_ns;	/* half the best round trip */
	uint32_t control_port;		/* where the clone calls the source, on its stay address */
	uint32_t reserved;
};

struct smig_wire_landed {
	uint64_t held_pages;
	uint64_t footprint_pages;	/* frames the landing environment keeps */
	uint64_t vacant_pages;		/* so many frames the source must keep empty ... */
	uint64_t kernel_start;		/* ... these among them, as far as it can */
	uint64_t kernel_pages;
};

/* VACANT: like BITMAP; bits of frames that the image will not have.  Before any PAGES or ZEROS. */

/* IMAGE: struct smig_image_header, field by field. */
struct smig_wire_image {
	uint64_t magic;
	uint64_t resume_va;
	uint64_t resume_pa;
	uint64_t cr3;
	uint64_t handover_pfn;
	uint64_t top_pfn;
	uint64_t image_pages;
	uint64_t zero_pages;
	uint32_t page_table_levels;
	uint32_t vcpus;
	uint8_t release[64];
	uint8_t version[128];
};

/* BITMAP: this, then 64-bit words of the image bitmap from byte offset `offset` on. */
struct smig_wire_bitmap {
	uint64_t offset;
};

/* PAGES: this, then u64 pfns[count], then count * 4096 bytes, or one LZ4 block that becomes so many. */
struct smig_wire_pages {
	uint32_t count;
	uint32_t flags;
};
#define SMIG_WIRE_PAGES_LZ4 1u

/* ZEROS: this, then count of {u64 start, u64 pages}. */
struct smig_wire_zeros {
	uint32_t count;
	uint32_t flags;
};

struct smig_wire_range {
	uint64_t start;
	uint64_t pages;
};

struct smig_wire_image_end {
	uint64_t data_pages;	/* sent in PAGES, passes included; a page sent twice counts twice */
	uint64_t zero_pages;	/* sent in ZEROS, likewise */
	uint64_t digest;	/* sum modulo 2^64 of the checksums of all VACANT, IMAGE, BITMAP, PAGES and ZEROS frames */
};

/* READY repeats what arrived; the source compares. */
struct smig_wire_ready {
	uint64_t data_pages;
	uint64_t zero_pages;
	uint64_t digest;
};

/* FAILED, ABORT: UTF-8 text for a person follows; the sender gives this move up. */
enum smig_wire_reason {
	SMIG_REASON_PROTOCOL = 1,
	SMIG_REASON_REFUSED = 2,
	SMIG_REASON_NO_MEMORY = 3,
	SMIG_REASON_DEVICE = 4,		/* the module or a device of the machine failed */
	SMIG_REASON_BUSY = 5,
	SMIG_REASON_TIMEOUT = 6,
	SMIG_REASON_CANCELLED = 7,
	SMIG_REASON_INTEGRITY = 8,	/* counts or digest differ */
};
struct smig_wire_failed {
	uint32_t reason;
	uint32_t text_length;
};

/* ALIVE: first frame of the clone; again on every new connection until answered with GO or VOID. */
struct smig_wire_alive {
	uint8_t epoch[SMIG_WIRE_ID_LEN];
	uint8_t boot_nonce[SMIG_WIRE_ID_LEN];
	uint8_t drawn[SMIG_WIRE_ID_LEN];	/* fresh from the clone's random generator */
};

/* VOID, WAIT, RELEASED and DRAINED answer with the same epoch and nonce. */
struct smig_wire_verdict {
	uint8_t epoch[SMIG_WIRE_ID_LEN];
	uint8_t boot_nonce[SMIG_WIRE_ID_LEN];
};

/*
 * GO: the same, and what only the source could measure, for the report that the
 * clone prints.  Times are the source's CLOCK_MONOTONIC; 0 = not known.
 */
struct smig_wire_go {
	uint8_t epoch[SMIG_WIRE_ID_LEN];
	uint8_t boot_nonce[SMIG_WIRE_ID_LEN];
	uint64_t data_pages;
	uint64_t zero_pages;
	uint64_t payload_bytes;		/* of all image frames, headers included */
	uint64_t read_ns;		/* of the sending: time that READ took */
	uint64_t captured_ns;		/* CAPTURE returned */
	uint64_t image_end_ns;		/* IMAGE_END handed to the kernel */
	uint64_t ready_ns;		/* READY arrived */
	uint64_t jump_ns;		/* JUMP sent */
	uint64_t alive_ns;		/* ALIVE arrived */
	uint64_t commit_ns;		/* COMMIT returned */
	uint64_t image_pages;		/* what CAPTURE said on the source: see struct smig_capture */
	uint64_t shadow_pages;
	uint64_t shadow_used;
	uint64_t class_pages[SMIG_WIRE_CLASSES];	/* by enum smig_class */
	uint64_t source_us[SMIG_WIRE_STEPS];		/* by enum smig_step */
	/* The passes; data_pages, zero_pages, payload_bytes and read_ns above are the stop's alone. */
	uint64_t passes;
	uint64_t pass_data_pages;
	uint64_t pass_zero_pages;
	uint64_t pass_same_pages;	/* dirty, but as they were sent */
	uint64_t pass_payload_bytes;
	uint64_t pass_ns;		/* from the first pass to the stop */
	uint64_t stop_reason;		/* enum smig_wire_stop_reason */
	uint64_t send_pages;		/* what CAPTURE found to be sent in the stop ... */
	uint64_t same_pages;
	uint64_t missed_pages;		/* ... and, verifying, to have changed unnoticed */
	uint64_t verified_pages;
	uint64_t find_kernel_us;
	uint64_t find_user_us;
	uint64_t pass_read_ns;		/* what READ took of the passes' time */
	uint64_t hashed;		/* 1: changes were told by hashes alone, 0: by page tables and hooks */
	uint64_t send_by_class[SMIG_WIRE_CLASSES];
	uint64_t owed_pages;		/* stay on the source until they are asked for or pushed */
	uint64_t owe_us;		/* marking them, of the stop's time */
	uint64_t hot_pages;		/* went in the stop for they were in use just before it */
	uint64_t repeated_pages;	/* distinct pages that passes and stop sent more than once */
};

/* Why the passes ended. */
enum smig_wire_stop_reason {
	SMIG_STOP_NO_PASSES = 1,	/* stop-copy */
	SMIG_STOP_WITHIN_LIMIT = 2,	/* the expected stop is short enough */
	SMIG_STOP_NO_GAIN = 3,		/* another pass would find as much */
	SMIG_STOP_MAX_PASSES = 4,
	SMIG_STOP_ASKED = 5,		/* switch-now */
	SMIG_STOP_OWED = 6,		/* the rest can be fetched afterwards */
};

/* What an owed-page connection is for.  On demand nothing that can wait is sent. */
enum smig_wire_owed_role {
	SMIG_OWED_DEMAND = 1,	/* FETCH, and what is sent because of it */
	SMIG_OWED_PUSH = 2,	/* everything else, unasked */
};

/*
 * OWED_HELLO: first frame of the clone on an owed-page connection.  A connection with
 * the same role as an older one takes its place, and what the older one had sent
 * and nobody had taken is to be sent again.
 */
struct smig_wire_owed_hello {
	uint8_t epoch[SMIG_WIRE_ID_LEN];
	uint8_t boot_nonce[SMIG_WIRE_ID_LEN];
	uint32_t role;
	uint32_t flags;
};
#define SMIG_WIRE_OWED_AFRESH 1u	/* count nothing as taken: pages are missing that were */

/* OWED_READY: the answer; how the source goes about it, for the report. */
struct smig_wire_owed_ready {
	uint64_t owed_pages;
	uint64_t sent_before;	/* of these, pages that a pass had sent */
	uint64_t mean_run_x100;	/* owed pages side by side in one mapping, mean times 100 */
	uint32_t speculation;	/* 1 << enum smig_wire_speculation ... */
	uint32_t order;		/* enum smig_wire_push_order */
};

/* Which pages go along with one that is asked for. */
enum smig_wire_speculation {
	SMIG_SPECULATE_FILE_SINGLE = 0,	/* private copies of the same mapping of a file, beside it */
	SMIG_SPECULATE_FILE_MULTI = 1,	/* the same part of the file in other mappings of it */
	SMIG_SPECULATE_ANON_SINGLE = 2,	/* the same anonymous mapping, beside it */
	SMIG_SPECULATE_ANON_MULTI = 3,	/* the process's other anonymous mappings, where it was last */
	SMIG_SPECULATE_PPM = 4,		/* what followed such a step before */
	SMIG_SPECULATE_NR
};

enum smig_wire_push_order {
	SMIG_PUSH_SEQUENTIAL = 1,	/* by address */
	SMIG_PUSH_OUTWARD = 2,		/* away from the latest faults, on both sides */
};

/* FETCH: this, then u64 pfns[count]: somebody waits for these. */
struct smig_wire_fetch {
	uint32_t count;
	uint32_t flags;
};
#define SMIG_WIRE_FETCH_AGAIN 1u	/* send them whatever was sent: an answer may be lost */

/*
 * OWED_PAGES: this, then u64 pfns[count], then u64 zeros[zero_count], then count * 4096
 * bytes.  count + zero_count is 1 to SMIG_WIRE_MAX_PAGES.
 */
struct smig_wire_owed_pages {
	uint32_t count;
	uint32_t zero_count;
	uint32_t origin;	/* enum smig_wire_owed_origin */
	uint32_t reserved;
};
enum smig_wire_owed_origin {
	SMIG_OWED_ASKED = 1,
	SMIG_OWED_SPECULATED = 2,
	SMIG_OWED_PUSHED = 3,
};

/* OWED_TAKEN: so many OWED_PAGES frames of this connection are installed, all of them counted. */
struct smig_wire_owed_taken {
	uint64_t frames;
};

#endif /* SELFMIGRATE_WIRE_H */
