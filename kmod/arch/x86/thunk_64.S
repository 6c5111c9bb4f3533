/* SPDX-License-Identifier: GPL-2.0 */
/*
 * thunk_64.S - a thunk for every function of symbols.h: smig_thunk_NAME goes to
 * where smig_symbol_NAME points, by a return.
 *
 * Assumed of the callee: the C calling convention, not variadic (rax is free).
 */
#include <linux/linkage.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>
#include "symbols.h"

.macro THUNK name
SYM_CODE_START(smig_thunk_\name)
	UNWIND_HINT_FUNC
	ANNOTATE_NOENDBR	/* called directly only */
	pushq	smig_symbol_\name(%rip)
	RET
SYM_CODE_END(smig_thunk_\name)
.endm

#define THUNK_OF(name, ret, args) THUNK name;

	.text
SMIG_REQUIRED_CALLS(THUNK_OF)
SMIG_OPTIONAL_CALLS(THUNK_OF)
