/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * Go's crypto/tls. A goroutine moves between threads and its stack moves in memory, so a call belongs to the
 * goroutine, and its depth is counted from the top of the goroutine's stack. Go checks its own return
 * addresses: returns are probed at the instructions that make them and never through a uretprobe.
 *
 * Registers as Go's ABIInternal has them since 1.17: (*Conn, slice of bytes) in, (int, error) out.
 */
#ifndef MM_GO_H
#define MM_GO_H

#include "calls.h"

#define GO_STACK_HI 8 /* of runtime.g, where every version of Go has had it */

/* Reads which goroutine runs and where its stack begins. */
static __always_inline bool goroutine(struct pt_regs *ctx, struct mm_thread_key *at, __u64 *top)
{
	at->id = MM_GO_G(ctx);
	at->pid = bpf_get_current_pid_tgid() >> 32;
	return !bpf_probe_read_user(top, sizeof(*top), (void *)(at->id + GO_STACK_HI));
}

SEC("uprobe/go_enter")
int go_enter(struct pt_regs *ctx)
{
	__u64 hook = bpf_get_attach_cookie(ctx), top;
	struct mm_thread_key at = {};
	struct mm_arguments arguments = {
		.connection = MM_GO_ARG1(ctx),
		.buffer = MM_GO_ARG2(ctx),
		.capacity = MM_GO_ARG3(ctx),
		.hook = hook,
	};

	if (!goroutine(ctx, &at, &top)) {
		count(MM_LOST_CALLS_FULL, 1);
		return 0;
	}
	arguments.sp = MM_SP(ctx) + (hook >> MM_HOOK_STACK_SHIFT & 0xffff) - top;
	enter_call(&at, &arguments);
	return 0;
}

/* Goroutines come and go without a word: nothing is kept of one that is in no call. */
SEC("uprobe/go_return")
int go_return(struct pt_regs *ctx)
{
	struct mm_thread_key at = {};
	struct mm_thread *thread;
	__u64 top;

	if (!goroutine(ctx, &at, &top))
		return 0;
	leave_call(&at, MM_SP(ctx) - top, MM_RESULT(ctx));
	thread = map_lookup(threads, &at);
	if (thread && !thread->depth)
		map_delete(threads, &at);
	return 0;
}

SEC("uprobe/go_close_enter")
int go_close_enter(struct pt_regs *ctx)
{
	return forget_connection(MM_GO_ARG1(ctx));
}

#endif /* MM_GO_H */
