/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * The bytes of one call, into the ring to the last one: in records of their real size, reserved in the ring
 * itself, because programs are preemptible and anything per CPU would be another program's a moment later. A byte
 * is copied or counted as lost, never neither: the connection's offset advances either way, so that userspace
 * sees every gap at its place.
 */
#ifndef MM_COPY_H
#define MM_COPY_H

#include "connections.h"

/* One call's bytes on their way into the ring. Nothing in it changes while the call is copied, so that
 * the verifier sees the same state in every turn of the loop. */
struct mm_copy {
	struct mm_connection_key key;
	struct mm_connection *connection;
	struct mm_counts *counts;
	__u64 wake_bytes;
	__u64 from; /* user address of the call's first byte */
	__u64 size; /* bytes of the call */
	__u64 offset; /* of its first byte in its direction */
	__u32 direction;
};

static __always_inline __u64 *position(const struct mm_copy *copy)
{
	__u64 written = copy->direction ^ MM_READ;

	/* Without a branch, of which a long call's loop can have few: write_offset follows read_offset. The mask is
	 * for the verifier, in a form that clang keeps. */
	asm volatile("%0 &= 1" : "+r"(written));
	return &copy->connection->read_offset + written;
}

static __always_inline void tally(const struct mm_copy *copy, const enum mm_counter counter, __u64 n)
{
	__sync_fetch_and_add(&copy->counts->of[counter], n);
}

/* Emits `size` bytes, 1 to `capacity`, that follow the first `done` of the call, as one record of that
 * payload class. */
static __always_inline void emit(const struct mm_copy *copy, __u64 done, __u32 size, const __u32 capacity)
{
	struct mm_record *r = ring_reserve(records, sizeof(*r) + capacity);
	const void *from = (const void *)(copy->from + done);
	__u64 offset = copy->offset + done;
	__u32 masked = size;

	if (!r) {
		tally(copy, MM_LOST_RING_FULL, 1);
		tally(copy, MM_LOST_RING_FULL_BYTES, size);
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
		ring_discard(r);
		tally(copy, MM_LOST_UNREADABLE, 1);
		tally(copy, MM_LOST_UNREADABLE_BYTES, size);
		goto advance;
	}
	ring_submit(r, wake_flag(offset == 0, copy->wake_bytes, sizeof(*r) + capacity));
	tally(copy, MM_COUNT_RECORDS, 1);
	tally(copy, MM_COUNT_BYTES, size);
advance:
	/* After the record: userspace that reads this position knows that what is before it was either
	 * submitted or lost. */
	*position(copy) = offset + size;
}

/* The end of a call, shorter than the largest class. Noinline: walked once by the verifier. */
static __noinline int emit_tail(struct mm_copy *copy, __u64 done, __u32 size)
{
	if (!copy || !copy->connection || !copy->counts || !size)
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

#ifdef MM_BCC
#define emit_chunk_alone(copy, index) emit_chunk(index, copy)
#else
/*
 * A turn of the loop where the kernel has no bpf_loop. A global function is walked by the verifier once, and not
 * again at every turn, which would be more than it is willing to walk. What points into a map cannot be handed to
 * one: it looks the connection and the counters up again.
 */
__noinline int emit_chunk_alone(struct mm_copy *copy, __u32 index)
{
	struct mm_copy own;

	if (!copy)
		return 0;
	own = *copy;
	own.counts = counts_now();
	own.connection = map_lookup(connections, &own.key);
	if (!own.counts)
		return 0;
	if (own.connection)
		emit_chunk(index, &own);
	else
		tally(&own, MM_LOST_CONNECTIONS_FULL_BYTES, MM_CLASS_MAX);
	return 0;
}
#endif

static __always_inline void emit_all(struct mm_copy *copy)
{
	struct mm_connection *connection = copy->connection;
	struct mm_counts *counts = counts_now();
	__u64 chunks = copy->size / MM_CLASS_MAX;
	__u64 done;

	if (!counts)
		return;
	copy->counts = counts;
	copy->wake_bytes = wake_bytes_now();
	if (has_bpf_loop()) {
		if (chunks > MM_CHUNKS_WITH_LOOP)
			chunks = MM_CHUNKS_WITH_LOOP;
		if (chunks)
			bpf_loop(chunks, emit_chunk, copy, 0);
	} else {
		if (chunks > MM_CHUNKS_WITHOUT_LOOP)
			chunks = MM_CHUNKS_WITHOUT_LOOP;
		for (__u64 i = 0; i < MM_CHUNKS_WITHOUT_LOOP && i < chunks; i++) {
			/* Or clang, which can count too, drops the bound that the verifier sees. */
			asm volatile("" : "+r"(i));
			emit_chunk_alone(copy, i);
		}
		/* After such a call the verifier takes what the memory held for mere numbers. */
		copy->connection = connection;
		copy->counts = counts;
	}
	done = chunks * MM_CLASS_MAX;
	if (copy->size - done < MM_CLASS_MAX) {
		emit_tail(copy, done, copy->size - done);
		return;
	}
	tally(copy, MM_LOST_CALL_TOO_LONG, 1);
	tally(copy, MM_LOST_CALL_TOO_LONG_BYTES, copy->size - done);
	*position(copy) = copy->offset + copy->size;
}

#endif /* MM_COPY_H */
