/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * Calls under way. The entry of a probed function stashes its arguments with the thread, its return takes them
 * off, checks the result and copies what was really moved.
 *
 * Functions call each other (SSL_write_ex jumps into SSL_write_ex2; a callback of SSL_read writes), and one inode
 * may be probed twice through two overlay mounts. The stack pointer tells whose return a return is: a call is
 * taken once, by the first return at its depth.
 */
#ifndef MM_CALLS_H
#define MM_CALLS_H

#include "copy.h"

/* A call as its probe found it. */
struct mm_arguments {
	__u64 connection;
	__u64 buffer;
	__u64 capacity;
	__u64 moved; /* address of the count of bytes moved; 0 where the result is the count */
	__u64 sp; /* at the function's first instruction */
	__u64 hook; /* the probe's cookie */
};

static __always_inline struct mm_thread_key this_thread(void)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct mm_thread_key key = { .id = (__u32)id, .pid = id >> 32 };

	return key;
}

static __always_inline __u32 direction_of(__u64 hook)
{
	return hook & MM_HOOK_READ ? MM_READ : MM_WRITE;
}

static __always_inline __u32 form_of(__u64 hook)
{
	return hook >> MM_HOOK_FORM_SHIFT & MM_HOOK_FORM_MASK;
}

/* Notes that a target works, about once a second. */
static __always_inline void note_fired(__u64 hook)
{
	__u32 target = hook >> MM_HOOK_TARGET_SHIFT;
	__u64 *at = map_lookup(fired, &target);
	__u64 now;

	if (!at || !target)
		return;
	now = bpf_ktime_get_boot_ns();
	if (now - *at > 1000000000ULL)
		*at = now;
}

static __always_inline struct mm_thread *thread_of(const struct mm_thread_key *key)
{
	struct mm_thread *thread = map_lookup(threads, key);
	__u32 zero = 0;

	if (thread)
		return thread;
	thread = map_lookup(fresh_thread, &zero);
	if (!thread || map_insert(threads, key, thread))
		return NULL;
	return map_lookup(threads, key);
}

/* The call at a depth below DEPTH_MAX; the mask is for the verifier, in a form that clang keeps. */
static __always_inline struct mm_call *call_at(struct mm_thread *thread, __u64 depth)
{
	asm volatile("%0 &= %1" : "+r"(depth) : "i"(DEPTH_MAX - 1));
	return &thread->calls[depth];
}

/* Leaves the calls that the stack pointer says are over: their returns were never seen. */
static __always_inline void drop_stale(struct mm_thread *thread, __u64 sp)
{
	for (int i = 0; i < DEPTH_MAX; i++) {
		if (!thread->depth || call_at(thread, thread->depth - 1)->sp >= sp)
			return;
		thread->depth--;
		count(MM_COUNT_STALE, 1);
	}
}

/* Stashes a call. False where its return is of no interest: an ignored connection, or a part of the call around. */
static __always_inline bool enter_call(const struct mm_thread_key *at, const struct mm_arguments *arguments)
{
	struct mm_connection_key key;
	struct mm_connection *connection;
	struct mm_thread *thread;
	struct mm_call *call;

	if (!wanted(at->pid))
		return false;
	note_fired(arguments->hook);
	key = connection_key(arguments->connection, at->pid);
	connection = map_lookup(connections, &key);
	if (connection) {
		learn_verdict(&key, connection);
		if (connection->state == MM_IGNORED) {
			count(MM_COUNT_IGNORED_CALLS, 1);
			return false;
		}
	}
	thread = thread_of(at);
	if (!thread)
		goto lost;
	drop_stale(thread, arguments->sp);
	if (thread->depth) {
		call = call_at(thread, thread->depth - 1);
		/* The library at work on the same buffer is one call, and the outer one knows the result. */
		if (call->sp != arguments->sp && call->ssl == arguments->connection &&
		    call->buffer == arguments->buffer && direction_of(call->hook) == direction_of(arguments->hook) &&
		    call->nested < NESTED_MAX) {
			call->nested++;
			count(MM_COUNT_NESTED, 1);
			return false;
		}
		/* The same depth is a tail jump: the inner function takes the place of the outer one, whose
		 * return then finds nothing. */
		if (call->sp == arguments->sp)
			thread->depth--;
	}
	if (thread->depth >= DEPTH_MAX)
		goto lost;
	call = call_at(thread, thread->depth);
	call->sp = arguments->sp;
	call->ssl = arguments->connection;
	call->buffer = arguments->buffer;
	call->capacity = arguments->capacity;
	call->moved = arguments->moved;
	call->hook = arguments->hook;
	call->nested = 0;
	thread->depth++;
	return true;
lost:
	count(MM_LOST_CALLS_FULL, 1);
	end_connection(&key);
	return false;
}

/* Bytes that the call moved, 0 where it moved none or its result makes no sense. */
static __always_inline __u64 bytes_moved(const struct mm_call *call, __u64 result)
{
	__u32 success = call->hook >> MM_HOOK_SUCCESS_SHIFT & 0xffff;
	__u64 moved = result;

	if (form_of(call->hook) == MM_FORM_GO || form_of(call->hook) == MM_FORM_FILE) {
		if ((__s64)result <= 0)
			return 0;
	} else if (success ? (__u32)result != success : (int)result <= 0) {
		return 0;
	} else if (!call->moved) {
		moved = (__u32)result;
	} else if (bpf_probe_read_user(&moved, sizeof(moved), (void *)call->moved)) {
		moved = ~0ULL;
	}
	if (moved <= call->capacity && moved <= MM_CALL_MAX)
		return moved;
	count(MM_LOST_BAD_RETURN, 1);
	return 0;
}

/* Takes the call that is returning off the thread's stack; false where it was none of its own. */
static __always_inline bool take_call(struct mm_thread *thread, __u64 sp, struct mm_call *taken)
{
	struct mm_call *call;

	drop_stale(thread, sp);
	if (!thread->depth)
		return false;
	call = call_at(thread, thread->depth - 1);
	if (call->sp != sp)
		return false;
	*taken = *call;
	thread->depth--;
	return true;
}

/* The call that returns with the stack pointer `sp`, as it was at its first instruction. */
static __always_inline void leave_call(const struct mm_thread_key *at, __u64 sp, __u64 result)
{
	struct mm_thread *thread = map_lookup(threads, at);
	struct mm_copy copy = {};
	struct mm_call call;

	if (!thread || !take_call(thread, sp, &call))
		return;
	copy.size = bytes_moved(&call, result);
	if (!copy.size)
		return;
	copy.key = connection_key(call.ssl, at->pid);
	copy.connection = connection_of(&copy.key);
	if (!copy.connection) {
		count(MM_LOST_CONNECTIONS_FULL_BYTES, copy.size);
		return;
	}
	copy.from = call.buffer;
	copy.direction = direction_of(call.hook);
	copy.offset = *position(&copy);
	count(MM_COUNT_CALLS, 1);
	if (share_used_up(&copy.key, copy.connection)) {
		count(MM_LOST_UNDECIDED, 1);
		count(MM_LOST_UNDECIDED_BYTES, copy.size);
		*position(&copy) += copy.size;
		return;
	}
	announce(&copy.key, copy.connection);
	emit_all(&copy);
}

#endif /* MM_CALLS_H */
