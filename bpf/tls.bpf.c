// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause
/*
 * Plaintext of TLS calls: the programs. What a function's arguments mean comes with the probe's cookie (abi.h), so
 * that one pair of programs serves all that move bytes.
 */
#include "calls.h"
#include "go.h"
#include "peer.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool enter(struct pt_regs *ctx)
{
	struct mm_thread_key at = this_thread();
	__u64 hook = bpf_get_attach_cookie(ctx);
	struct mm_arguments arguments = {
		.connection = MM_ARG1(ctx),
		.buffer = MM_ARG2(ctx),
		.capacity = MM_ARG3(ctx),
		.sp = MM_SP(ctx) + (hook >> MM_HOOK_STACK_SHIFT & 0xffff),
		.hook = hook,
	};

	switch (form_of(hook)) {
	case MM_FORM_COUNT:
		arguments.capacity = (__u32)arguments.capacity; /* an int: the upper half of the register is anything */
		break;
	case MM_FORM_MOVED_4TH:
		arguments.moved = MM_ARG4(ctx);
		break;
	case MM_FORM_MOVED_5TH:
		arguments.moved = MM_ARG5(ctx);
		break;
	case MM_FORM_FILE:
		arguments.buffer = 0;
		arguments.capacity = MM_ARG4(ctx);
		break;
	}
	return enter_call(&at, &arguments);
}

/* A function that moves bytes begins. */
SEC("uprobe/call_enter")
int call_enter(struct pt_regs *ctx)
{
	enter(ctx);
	return 0;
}

static __always_inline int leave(struct pt_regs *ctx, __u64 sp)
{
	struct mm_thread_key at = this_thread();

	leave_call(&at, sp, MM_RESULT(ctx));
	return 0;
}

/* It has returned: the return address is off the stack. */
SEC("uretprobe/call_leave")
int call_leave(struct pt_regs *ctx)
{
	return leave(ctx, MM_SP_AT_ENTRY(ctx));
}

/* It is about to return, where a probe sits on the instruction that does it. */
SEC("uprobe/call_return")
int call_return(struct pt_regs *ctx)
{
	return leave(ctx, MM_SP(ctx));
}

/* Both in one, where the kernel has sessions (Linux 6.13): 1 spares a call of no interest its return probe. */
SEC("uprobe/call_session")
int call_session(struct pt_regs *ctx)
{
	if (MM_IP(ctx) == bpf_get_func_ip(ctx))
		return enter(ctx) ? 0 : 1;
	return leave(ctx, MM_SP_AT_ENTRY(ctx));
}

/* A connection seen from its birth is known to have no earlier bytes. */
SEC("uretprobe/new_leave")
int new_leave(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 ssl = MM_RESULT(ctx);
	struct mm_connection_key key;

	if (!ssl || !wanted(pid))
		return 0;
	key = connection_key(ssl, pid);
	connection_begin(&key, 0);
	return 0;
}

/* The same where only a function that the birth passes through is certain: it is given the connection. */
SEC("uprobe/begin_enter")
int begin_enter(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection_key key;

	if (!wanted(pid))
		return 0;
	key = connection_key(MM_ARG1(ctx), pid);
	connection_begin(&key, 0);
	return 0;
}

/* The SSL object is made ready for another connection. The library does so itself when a handshake begins: that
 * is none where no byte was moved. */
SEC("uprobe/clear_enter")
int clear_enter(struct pt_regs *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection *connection;
	struct mm_connection_key key;

	if (!wanted(pid))
		return 0;
	key = connection_key(MM_ARG1(ctx), pid);
	connection = map_lookup(connections, &key);
	if (!connection || (!connection->read_offset && !connection->write_offset && connection->state != MM_IGNORED))
		return 0;
	/* Not said for want of room: userspace finds out when the next connection speaks. */
	announce_end(&key, connection);
	connection_begin(&key, 0);
	return 0;
}

static __always_inline int server_name(__u64 ssl, __u64 name)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection *connection;
	struct mm_connection_key key;
	struct mm_record *r;
	long size;

	if (!name || !wanted(pid))
		return 0;
	key = connection_key(ssl, pid);
	connection = map_lookup(connections, &key);
	if (!connection || connection->state == MM_ENDED)
		connection = connection_begin(&key, 0);
	if (!connection || connection->state == MM_IGNORED)
		return 0;
	announce(&key, connection);
	r = ring_reserve(records, sizeof(*r) + MM_SNI_MAX);
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return 0;
	}
	fill_header(r, MM_SNI, &key, connection);
	size = bpf_probe_read_user_str(r + 1, MM_SNI_MAX, (void *)name);
	if (size <= 1) {
		ring_discard(r);
		return 0;
	}
	r->size = size - 1;
	ring_submit(r, BPF_RB_NO_WAKEUP);
	count(MM_COUNT_RECORDS, 1);
	return 0;
}

/* SSL_set_tlsext_host_name is this macro in OpenSSL: command 55, name type 0. */
SEC("uprobe/ctrl_enter")
int ctrl_enter(struct pt_regs *ctx)
{
	if ((int)MM_ARG2(ctx) != 55 || MM_ARG3(ctx) != 0)
		return 0;
	return server_name(MM_ARG1(ctx), MM_ARG4(ctx));
}

/* ... and a function in BoringSSL. */
SEC("uprobe/host_name_enter")
int host_name_enter(struct pt_regs *ctx)
{
	return server_name(MM_ARG1(ctx), MM_ARG2(ctx));
}

SEC("uprobe/free_enter")
int free_enter(struct pt_regs *ctx)
{
	return forget_connection(MM_ARG1(ctx));
}

SEC("raw_tracepoint/sched_process_exit")
int process_exit(void *ctx)
{
	struct mm_thread_key thread = this_thread();
	struct mm_connection_key key = { .pid = thread.pid };
	struct mm_connection nothing = {};
	__u32 pid = thread.pid;
	struct mm_record *r;
	__u64 *started;

	map_delete(threads, &thread);
	started = map_lookup(processes, &pid);
	if (!started || threads_alive() > 0)
		return 0;
	key.started_ns = *started;
	map_delete(processes, &pid);
	r = ring_reserve(records, sizeof(*r));
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return 0;
	}
	fill_header(r, MM_EXIT, &key, &nothing);
	ring_submit(r, wake_flag(false, wake_bytes_now(), sizeof(*r)));
	count(MM_COUNT_RECORDS, 1);
	return 0;
}
