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

/* In mm_call.moved, which Go has no other use for: `buffer` counts from the top of the stack. */
#define GO_ON_STACK 1

/* The goroutine that runs, which is who makes the call, and the bounds of its stack. */
struct mm_goroutine {
	struct mm_thread_key at;
	__u64 low;
	__u64 top;
};

static __always_inline bool goroutine(struct pt_regs *ctx, struct mm_goroutine *self)
{
	self->at.id = MM_GO_G(ctx);
	self->at.pid = bpf_get_current_pid_tgid() >> 32;
	return !bpf_probe_read_user(&self->low, 2 * sizeof(__u64), (void *)self->at.id);
}

SEC("uprobe/go_enter")
int go_enter(struct pt_regs *ctx)
{
	__u64 hook = bpf_get_attach_cookie(ctx);
	struct mm_goroutine self = {};
	struct mm_arguments arguments = {
		.connection = MM_GO_ARG1(ctx),
		.buffer = MM_GO_ARG2(ctx),
		.capacity = MM_GO_ARG3(ctx),
		.hook = hook,
	};

	if (!goroutine(ctx, &self)) {
		count(MM_LOST_CALLS_FULL, 1);
		return 0;
	}
	arguments.sp = MM_SP(ctx) + (hook >> MM_HOOK_STACK_SHIFT & 0xffff) - self.top;
	/* A buffer on the stack moves with it. */
	if (arguments.buffer >= self.low && arguments.buffer < self.top) {
		arguments.buffer -= self.top;
		arguments.moved = GO_ON_STACK;
	}
	enter_call(&self.at, &arguments);
	return 0;
}

/* Goroutines come and go without a word: nothing is kept of one that is in no call. */
SEC("uprobe/go_return")
int go_return(struct pt_regs *ctx)
{
	struct mm_goroutine self = {};
	struct mm_thread *thread;
	struct mm_call *call;
	__u64 sp;

	if (!goroutine(ctx, &self))
		return 0;
	thread = map_lookup(threads, &self.at);
	if (!thread)
		return 0;
	sp = MM_SP(ctx) - self.top;
	drop_stale(thread, sp);
	call = call_at(thread, thread->depth - 1);
	if (thread->depth && call->moved == GO_ON_STACK) {
		call->buffer += self.top;
		call->moved = 0;
	}
	leave_call(&self.at, sp, MM_RESULT(ctx));
	if (!thread->depth)
		map_delete(threads, &self.at);
	return 0;
}

/*
 * The wrappers that a Conn is given for its handshake: closures, and what they close over is the Conn. Whatever was
 * at its address before was dropped without a Close, and the garbage collector has been there.
 */
SEC("uprobe/go_birth_enter")
int go_birth_enter(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32, one = 1;
	struct mm_connection_key key;
	__u64 conn, transport;

	if (!wanted(pid) || bpf_probe_read_user(&conn, sizeof(conn), (void *)(MM_GO_CLOSURE(ctx) + sizeof(conn))))
		return 0;
	/* QUIC borrows the handshake of a Conn without a transport, and moves its bytes itself. */
	if (bpf_probe_read_user(&transport, sizeof(transport), (void *)conn) || !transport)
		return 0;
	forget_connection(conn);
	key = connection_key(conn, pid);
	map_update(births, &key, &one);
	return 0;
}

SEC("uprobe/go_close_enter")
int go_close_enter(struct pt_regs *ctx)
{
	return forget_connection(MM_GO_ARG1(ctx));
}

#endif /* MM_GO_H */
