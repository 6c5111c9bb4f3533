/* SPDX-License-Identifier: GPL-2.0 */
/*
 * jump_64.S - the instructions between two kernels.
 *
 * Assumed of the other image: it is the same kernel build, so this text is the
 * same text; its direct map, its KASLR bases and its CR3 are not ours.
 * Forbidden from smig_arch_leave on: the stack, per-CPU data, any address that
 * the temporary tables do not map (identity map of RAM, the trampoline's page,
 * the page of smig_arch_resume), interrupts, calls.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/asm-offsets.h>
#include <asm/frame.h>
#include <asm/ibt.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/processor-flags.h>
#include <asm/unwind_hints.h>

/* offsets in struct smig_cpu_context */
#define CTX_RSP		0
#define CTX_RBP		8
#define CTX_RBX		16
#define CTX_R12		24
#define CTX_R13		32
#define CTX_R14		40
#define CTX_R15		48
#define CTX_RFLAGS	56
#define CTX_CR3		64
#define CTX_GDT		72
#define CTX_GS_BASE	88
#define CTX_ARRIVED_TSC	96

/* commit fb799447ae29 ("x86,objtool: Split UNWIND_HINT_EMPTY in two") (in v6.4) */
#ifdef UNWIND_HINT_TYPE_END_OF_STACK
#define HINT_NO_STACK UNWIND_HINT_END_OF_STACK
#else
#define HINT_NO_STACK UNWIND_HINT_EMPTY
#endif

	.text

/*
 * Where the trampoline arrives, on the target, in the source's text.
 * In: r9 = the source's CR3, r8 = TSC after the copies.  Returns 1 from smig_arch_capture().
 */
	.balign 256, 0xcc
SYM_CODE_START(smig_arch_resume)
	HINT_NO_STACK
	ENDBR
	movq	%r9, %cr3
	leaq	smig_cpu_context(%rip), %rax
	movq	%r8, CTX_ARRIVED_TSC(%rax)
	movq	CTX_RSP(%rax), %rsp
	movq	CTX_RBP(%rax), %rbp
	movq	CTX_RBX(%rax), %rbx
	movq	CTX_R12(%rax), %r12
	movq	CTX_R13(%rax), %r13
	movq	CTX_R14(%rax), %r14
	movq	CTX_R15(%rax), %r15
	pushq	CTX_RFLAGS(%rax)
	popfq
	lgdt	CTX_GDT(%rax)
	/* C finds its per-CPU data through GS: set it before any C runs. */
	movq	%rax, %rsi
	movl	$MSR_GS_BASE, %ecx
	movl	CTX_GS_BASE(%rsi), %eax
	movl	CTX_GS_BASE + 4(%rsi), %edx
	wrmsr
	movl	$1, %eax
	RET
SYM_CODE_END(smig_arch_resume)

/*
 * int smig_arch_capture(void)
 * 0 or an error on the source, after smig_image_copy(); 1 on the target.
 */
	.balign 256, 0xcc
SYM_FUNC_START(smig_arch_capture)
	leaq	smig_cpu_context(%rip), %rax
	movq	%rsp, CTX_RSP(%rax)
	movq	%rbp, CTX_RBP(%rax)
	movq	%rbx, CTX_RBX(%rax)
	movq	%r12, CTX_R12(%rax)
	movq	%r13, CTX_R13(%rax)
	movq	%r14, CTX_R14(%rax)
	movq	%r15, CTX_R15(%rax)
	pushfq
	popq	CTX_RFLAGS(%rax)
	movq	%cr3, %rcx
	movq	%rcx, CTX_CR3(%rax)
	sgdt	CTX_GDT(%rax)
	movq	%rax, %rsi
	movl	$MSR_GS_BASE, %ecx
	rdmsr
	movl	%eax, CTX_GS_BASE(%rsi)
	movl	%edx, CTX_GS_BASE + 4(%rsi)
	FRAME_BEGIN
	call	smig_image_copy
	FRAME_END
	RET
SYM_FUNC_END(smig_arch_capture)

/*
 * void smig_arch_leave(u64 tables, u64 list, u64 resume, u64 cr3, u64 trampoline)
 * rdi = physical temporary tables, rsi = physical copy list, rdx = virtual
 * smig_arch_resume of the source, rcx = the source's CR3, r8 = the trampoline
 * in its safe page.  Does not return.
 */
SYM_CODE_START(smig_arch_leave)
	HINT_NO_STACK
	movq	%rcx, %r9
	ANNOTATE_RETPOLINE_SAFE
	jmp	*%r8
SYM_CODE_END(smig_arch_leave)

/* From here to smig_arch_trampoline_end: copied to the safe page, position independent. */
	.balign 256, 0xcc
SYM_CODE_START(smig_arch_trampoline)
	HINT_NO_STACK
	ENDBR
	movq	%rdi, %cr3
	/* global entries of the landing kernel must go */
	movq	%cr4, %rax
	andq	$~(X86_CR4_PGE | X86_CR4_PCIDE), %rax
	movq	%rax, %cr4
	movq	%rdi, %cr3
	movq	%rsi, %rbx
.Lcopy_page:
	testq	%rbx, %rbx
	jz	.Lcopied
	movq	8(%rbx), %r10
	leaq	16(%rbx), %r11
.Lcopy_pair:
	testq	%r10, %r10
	jz	.Lcopy_next
	movq	0(%r11), %rdi
	movq	8(%r11), %rsi
	leaq	4096(%rsi), %rsp
	/* a cache line at a time: string instructions are slow where they are emulated */
.Lcopy_line:
	movq	0(%rsi), %rax
	movq	8(%rsi), %rcx
	movq	16(%rsi), %r8
	movq	24(%rsi), %r12
	movq	32(%rsi), %r13
	movq	40(%rsi), %r14
	movq	48(%rsi), %r15
	movq	56(%rsi), %rbp
	movq	%rax, 0(%rdi)
	movq	%rcx, 8(%rdi)
	movq	%r8, 16(%rdi)
	movq	%r12, 24(%rdi)
	movq	%r13, 32(%rdi)
	movq	%r14, 40(%rdi)
	movq	%r15, 48(%rdi)
	movq	%rbp, 56(%rdi)
	addq	$64, %rsi
	addq	$64, %rdi
	cmpq	%rsp, %rsi
	jne	.Lcopy_line
	addq	$16, %r11
	decq	%r10
	jmp	.Lcopy_pair
.Lcopy_next:
	movq	0(%rbx), %rbx
	jmp	.Lcopy_page
.Lcopied:
	movq	%rdx, %r10
	rdtsc
	shlq	$32, %rdx
	orq	%rax, %rdx
	movq	%rdx, %r8
	ANNOTATE_RETPOLINE_SAFE
	jmp	*%r10
SYM_CODE_END(smig_arch_trampoline)

SYM_CODE_START(smig_arch_trampoline_end)
	HINT_NO_STACK
	ANNOTATE_NOENDBR	/* never executed */
	int3
SYM_CODE_END(smig_arch_trampoline_end)

	.data
	.balign 64
	.globl smig_cpu_context
smig_cpu_context:
	.fill 128, 1, 0
