// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause
/*
 * Plaintext of TLS calls. The entry of a hooked function stashes its arguments under the thread; its
 * return checks the result and copies what was really moved into the ring, to the last byte.
 *
 * What the shape answers to:
 *  - uprobe programs are preemptible: nothing is assembled in per-CPU scratch. Records are reserved in
 *    the ring itself, in size classes, and counters are atomic.
 *  - a byte is copied or counted as lost, never neither: the connection's offset advances either way,
 *    so userspace sees every gap at its place.
 *  - functions call each other (SSL_write_ex jumps into SSL_write_ex2; a callback of SSL_read writes), and
 *    one inode may be attached twice through two overlay mounts. The stack pointer tells whose return it
 *    is: a call is taken once, by the first return at its depth.
 */
#include "kernel.h"

#include "abi.h"
#include "maps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void count(__u32 counter, __u64 n)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		__sync_fetch_and_add(value, n);
}

static __always_inline struct mm_settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline bool wanted(__u32 pid)
{
	struct mm_settings *s = settings_now();

	if (!s || pid == s->own_pid)
		return false;
	return !s->only_listed_pids || bpf_map_lookup_elem(&pids, &pid);
}

static __always_inline __u64 process_started(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline struct mm_connection_key connection_key(__u64 ssl, __u32 pid)
{
	struct mm_connection_key key = { .ssl = ssl, .started_ns = process_started(), .pid = pid };

	return key;
}

/* Begins a connection, replacing what the SSL object held before. NULL where the map is full. */
static __always_inline struct mm_connection *connection_begin(const struct mm_connection_key *key, __u32 flags)
{
	struct mm_connection fresh = { .generation = bpf_ktime_get_boot_ns(), .flags = flags };
	__u32 pid = key->pid;
	__u64 started = key->started_ns;

	if (bpf_map_update_elem(&connections, key, &fresh, BPF_ANY)) {
		count(MM_LOST_CONNECTIONS_FULL, 1);
		return NULL;
	}
	bpf_map_update_elem(&processes, &pid, &started, BPF_ANY);
	return bpf_map_lookup_elem(&connections, key);
}

static __always_inline struct mm_connection *connection_of(const struct mm_connection_key *key)
{
	struct mm_connection *connection = bpf_map_lookup_elem(&connections, key);

	if (connection && connection->state != MM_ENDED)
		return connection;
	return connection_begin(key, MM_LATE);
}

/* Takes over a verdict that userspace left for this very connection. */
static __always_inline void learn_verdict(const struct mm_connection_key *key, struct mm_connection *connection)
{
	struct mm_verdict_key at = { .ssl = key->ssl, .generation = connection->generation, .pid = key->pid };
	__u32 *state;

	if (connection->state != MM_UNDECIDED)
		return;
	state = bpf_map_lookup_elem(&verdicts, &at);
	if (!state)
		return;
	connection->state = *state;
	bpf_map_delete_elem(&verdicts, &at);
}

/* A bulk transfer can fill the ring before userspace has told what it is, and cost the connections that matter
 * their place: without a verdict a connection has a share and no more. */
static __always_inline bool share_used_up(const struct mm_connection_key *key, struct mm_connection *connection)
{
	struct mm_settings *s = settings_now();

	if (connection->state != MM_UNDECIDED || !s || !s->undecided_bytes ||
	    connection->read_offset + connection->write_offset < s->undecided_bytes)
		return false;
	learn_verdict(key, connection);
	return connection->state != MM_INTERESTING;
}

/* Userspace sleeps until enough waits in the ring to be worth a wake-up (it also looks by itself every few
 * tens of milliseconds). The first bytes of a direction wake it at once, so that its verdict is early; after
 * that one record wakes it each time another wake_bytes have piled up. A wake-up is an interrupt to oneself,
 * microseconds in a virtual machine: far more than the record costs. */
static __always_inline __u64 wake_flag(bool now, __u32 record_size)
{
	struct mm_settings *s = settings_now();
	__u64 waiting;

	if (now || !s || !s->wake_bytes)
		return BPF_RB_FORCE_WAKEUP;
	waiting = bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA);
	if (waiting % s->wake_bytes < record_size && waiting >= s->wake_bytes)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void fill_header(struct mm_record *r, __u8 kind, const struct mm_connection_key *key,
					const struct mm_connection *connection)
{
	r->at_ns = bpf_ktime_get_boot_ns();
	r->started_ns = key->started_ns;
	r->ssl = key->ssl;
	r->generation = connection->generation;
	r->offset = 0;
	r->call_size = 0;
	r->read_offset = connection->read_offset;
	r->write_offset = connection->write_offset;
	r->pid = key->pid;
	r->size = 0;
	r->kind = kind;
	r->direction = MM_WRITE;
	r->flags = connection->flags;
	__builtin_memset(r->reserved, 0, sizeof(r->reserved));
}

/* One call's bytes on their way into the ring. Nothing in it changes while the call is copied, so that
 * the verifier sees the same state in every turn of the loop. */
struct mm_copy {
	struct mm_connection_key key;
	struct mm_connection *connection;
	__u64 from; /* user address of the call's first byte */
	__u64 size; /* bytes of the call */
	__u64 offset; /* of its first byte in its direction */
	__u32 direction;
};

static __always_inline __u64 *position(const struct mm_copy *copy)
{
	return copy->direction == MM_READ ? &copy->connection->read_offset : &copy->connection->write_offset;
}

/* Emits `size` bytes, 1 to `capacity`, that follow the first `done` of the call, as one record of that
 * payload class. */
static __always_inline void emit(const struct mm_copy *copy, __u64 done, __u32 size, const __u32 capacity)
{
	struct mm_record *r = bpf_ringbuf_reserve(&records, sizeof(*r) + capacity, 0);
	const void *from = (const void *)(copy->from + done);
	__u64 offset = copy->offset + done;
	__u32 masked = size;

	if (!r) {
		count(MM_LOST_RING_FULL, 1);
		count(MM_LOST_RING_FULL_BYTES, size);
		goto advance;
	}
	fill_header(r, MM_DATA, &copy->key, copy->connection);
	r->offset = offset;
	r->call_size = copy->size;
	r->size = size;
	r->direction = copy->direction;
	if (done + size == copy->size)
		r->flags |= MM_LAST;
	/* The bound must be in the register that the verifier sees; clang drops a C expression that it
	 * knows to be redundant. */
	asm volatile("%0 &= %1" : "+r"(masked) : "i"(capacity - 1));
	if (bpf_probe_read_user(r + 1, size == capacity ? capacity : masked, from)) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		count(MM_LOST_UNREADABLE, 1);
		count(MM_LOST_UNREADABLE_BYTES, size);
		goto advance;
	}
	bpf_ringbuf_submit(r, wake_flag(offset == 0, sizeof(*r) + capacity));
	count(MM_COUNT_RECORDS, 1);
	count(MM_COUNT_BYTES, size);
advance:
	/* After the record: userspace that reads this position knows that what is before it was either
	 * submitted or lost. */
	*position(copy) = offset + size;
}

/* The end of a call, shorter than the largest class. Noinline: walked once by the verifier. */
static __noinline int emit_tail(struct mm_copy *copy, __u64 done, __u32 size)
{
	if (!copy || !copy->connection || !size)
		return 0;
	if (size <= 256)
		emit(copy, done, size, 256);
	else if (size <= 512)
		emit(copy, done, size, 512);
	else if (size <= 1024)
		emit(copy, done, size, 1024);
	else if (size <= 2048)
		emit(copy, done, size, 2048);
	else if (size <= 4096)
		emit(copy, done, size, 4096);
	else if (size <= 8192)
		emit(copy, done, size, 8192);
	else
		emit(copy, done, size, 16384);
	return 0;
}

static long emit_chunk(__u32 index, struct mm_copy *copy)
{
	emit(copy, (__u64)index * MM_CLASS_MAX, MM_CLASS_MAX, MM_CLASS_MAX);
	return 0;
}

static __always_inline void emit_all(struct mm_copy *copy)
{
	__u64 chunks = copy->size / MM_CLASS_MAX;
	__u64 done;

	if (bpf_core_enum_value_exists(enum bpf_func_id___mm, BPF_FUNC_loop___mm)) {
		if (chunks > MM_CHUNKS_WITH_LOOP)
			chunks = MM_CHUNKS_WITH_LOOP;
		if (chunks)
			bpf_loop(chunks, emit_chunk, copy, 0);
	} else {
		if (chunks > MM_CHUNKS_WITHOUT_LOOP)
			chunks = MM_CHUNKS_WITHOUT_LOOP;
		for (__u32 i = 0; i < MM_CHUNKS_WITHOUT_LOOP && i < chunks; i++)
			emit_chunk(i, copy);
	}
	done = chunks * MM_CLASS_MAX;
	if (copy->size - done < MM_CLASS_MAX) {
		emit_tail(copy, done, copy->size - done);
		return;
	}
	count(MM_LOST_CALL_TOO_LONG, 1);
	count(MM_LOST_CALL_TOO_LONG_BYTES, copy->size - done);
	*position(copy) = copy->offset + copy->size;
}

/* A call that cannot be followed leaves its connection at an unknown position: what comes next in the
 * same SSL object is a new, late connection and not a silent hole in this one. */
static __always_inline void end_connection(const struct mm_connection_key *key)
{
	struct mm_connection *connection = bpf_map_lookup_elem(&connections, key);

	if (connection)
		connection->state = MM_ENDED;
}

static __always_inline struct mm_thread *thread_of(__u64 id)
{
	struct mm_thread *thread = bpf_map_lookup_elem(&threads, &id);
	__u32 zero = 0;

	if (thread)
		return thread;
	thread = bpf_map_lookup_elem(&fresh_thread, &zero);
	if (!thread || bpf_map_update_elem(&threads, &id, thread, BPF_NOEXIST))
		return NULL;
	return bpf_map_lookup_elem(&threads, &id);
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

static __always_inline int enter(struct pt_regs *ctx, __u32 direction, __u64 moved)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 sp = MM_SP(ctx), ssl = MM_ARG1(ctx), buffer = MM_ARG2(ctx);
	struct mm_connection *connection;
	struct mm_connection_key key;
	struct mm_thread *thread;
	struct mm_call *call;

	if (!wanted(id >> 32))
		return 0;
	key = connection_key(ssl, id >> 32);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (connection) {
		learn_verdict(&key, connection);
		if (connection->state == MM_IGNORED) {
			count(MM_COUNT_IGNORED_CALLS, 1);
			return 0;
		}
	}
	thread = thread_of(id);
	if (!thread)
		goto lost;
	drop_stale(thread, sp);
	if (thread->depth) {
		call = call_at(thread, thread->depth - 1);
		/* The library at work on the same buffer is one call, and the outer one knows the result. */
		if (call->sp != sp && call->ssl == ssl && call->buffer == buffer && call->direction == direction &&
		    call->nested < NESTED_MAX) {
			call->nested++;
			count(MM_COUNT_NESTED, 1);
			return 0;
		}
		/* The same depth is a tail jump: the inner function takes the place of the outer one, whose
		 * return then finds nothing. */
		if (call->sp == sp)
			thread->depth--;
	}
	if (thread->depth >= DEPTH_MAX)
		goto lost;
	call = call_at(thread, thread->depth);
	call->sp = sp;
	call->ssl = ssl;
	call->buffer = buffer;
	call->capacity = MM_ARG3(ctx);
	call->moved = moved;
	call->direction = direction;
	call->nested = 0;
	thread->depth++;
	return 0;
lost:
	count(MM_LOST_CALLS_FULL, 1);
	end_connection(&key);
	return 0;
}

/* Bytes that the call moved, 0 where it moved none or its result makes no sense. */
static __always_inline __u64 bytes_moved(struct pt_regs *ctx, const struct mm_call *call)
{
	int result = MM_RESULT(ctx);
	__u64 moved = 0;

	if (result <= 0)
		return 0;
	if (!call->moved)
		moved = result;
	else if (bpf_probe_read_user(&moved, sizeof(moved), (void *)call->moved))
		moved = ~0ULL;
	if (moved <= call->capacity)
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

static __always_inline int leave(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct mm_thread *thread = bpf_map_lookup_elem(&threads, &id);
	struct mm_copy copy = {};
	struct mm_call call;

	if (!thread || !take_call(thread, MM_SP_AT_ENTRY(ctx), &call))
		return 0;
	copy.size = bytes_moved(ctx, &call);
	if (!copy.size)
		return 0;
	copy.key = connection_key(call.ssl, id >> 32);
	copy.connection = connection_of(&copy.key);
	if (!copy.connection) {
		count(MM_LOST_CONNECTIONS_FULL_BYTES, copy.size);
		return 0;
	}
	copy.from = call.buffer;
	copy.direction = call.direction;
	copy.offset = *position(&copy);
	count(MM_COUNT_CALLS, 1);
	if (share_used_up(&copy.key, copy.connection)) {
		count(MM_LOST_UNDECIDED, 1);
		count(MM_LOST_UNDECIDED_BYTES, copy.size);
		*position(&copy) += copy.size;
		return 0;
	}
	emit_all(&copy);
	return 0;
}

SEC("uprobe/read_enter")
int read_enter(struct pt_regs *ctx)
{
	return enter(ctx, MM_READ, 0);
}

SEC("uprobe/read_ex_enter")
int read_ex_enter(struct pt_regs *ctx)
{
	return enter(ctx, MM_READ, MM_ARG4(ctx));
}

SEC("uprobe/write_enter")
int write_enter(struct pt_regs *ctx)
{
	return enter(ctx, MM_WRITE, 0);
}

SEC("uprobe/write_ex_enter")
int write_ex_enter(struct pt_regs *ctx)
{
	return enter(ctx, MM_WRITE, MM_ARG4(ctx));
}

SEC("uprobe/write_ex2_enter")
int write_ex2_enter(struct pt_regs *ctx)
{
	return enter(ctx, MM_WRITE, MM_ARG5(ctx));
}

SEC("uretprobe/read_leave")
int read_leave(struct pt_regs *ctx)
{
	return leave(ctx);
}

SEC("uretprobe/read_ex_leave")
int read_ex_leave(struct pt_regs *ctx)
{
	return leave(ctx);
}

SEC("uretprobe/write_leave")
int write_leave(struct pt_regs *ctx)
{
	return leave(ctx);
}

SEC("uretprobe/write_ex_leave")
int write_ex_leave(struct pt_regs *ctx)
{
	return leave(ctx);
}

SEC("uretprobe/write_ex2_leave")
int write_ex2_leave(struct pt_regs *ctx)
{
	return leave(ctx);
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

static __always_inline int server_name(__u64 ssl, __u64 name)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection_key key;
	struct mm_connection *connection;
	struct mm_record *r;
	long size;

	if (!name || !wanted(pid))
		return 0;
	key = connection_key(ssl, pid);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (!connection || connection->state == MM_ENDED)
		connection = connection_begin(&key, 0);
	if (!connection || connection->state == MM_IGNORED)
		return 0;
	r = bpf_ringbuf_reserve(&records, sizeof(*r) + MM_SNI_MAX, 0);
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return 0;
	}
	fill_header(r, MM_SNI, &key, connection);
	size = bpf_probe_read_user_str(r + 1, MM_SNI_MAX, (void *)name);
	if (size <= 1) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	r->size = size - 1;
	connection->flags |= MM_NAMED;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
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
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection_key key;
	struct mm_connection *connection;
	struct mm_record *r;

	if (!wanted(pid))
		return 0;
	key = connection_key(MM_ARG1(ctx), pid);
	connection = bpf_map_lookup_elem(&connections, &key);
	if (!connection)
		return 0;
	/* Nobody has heard of it, or nobody wants to hear more. */
	if (connection->state == MM_IGNORED)
		goto forget;
	if (!connection->read_offset && !connection->write_offset && !(connection->flags & MM_NAMED))
		goto forget;
	r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		connection->state = MM_ENDED;
		return 0;
	}
	fill_header(r, MM_FREE, &key, connection);
	bpf_ringbuf_submit(r, wake_flag(false, sizeof(*r)));
	count(MM_COUNT_RECORDS, 1);
forget:
	bpf_map_delete_elem(&connections, &key);
	return 0;
}

SEC("raw_tracepoint/sched_process_exit")
int process_exit(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 pid = thread >> 32;
	struct mm_connection nothing = {};
	struct mm_connection_key key = { .pid = pid };
	struct mm_record *r;
	__u64 *started;

	bpf_map_delete_elem(&threads, &thread);
	started = bpf_map_lookup_elem(&processes, &pid);
	if (!started || BPF_CORE_READ(task, signal, live.counter) > 0)
		return 0;
	key.started_ns = *started;
	bpf_map_delete_elem(&processes, &pid);
	r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return 0;
	}
	fill_header(r, MM_EXIT, &key, &nothing);
	bpf_ringbuf_submit(r, wake_flag(false, sizeof(*r)));
	count(MM_COUNT_RECORDS, 1);
	return 0;
}
