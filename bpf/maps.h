/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * What the probes remember and what they share with userspace: one place for every map, its lifetime and
 * why it is of its kind.
 */
#ifndef MM_MAPS_H
#define MM_MAPS_H

#include "kernel.h"

#include "abi.h"

/* Knobs. One element; userspace sets it before anything is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mm_settings);
} settings SEC(".maps");

/* Processes to capture where settings.only_listed_pids says so. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} pids SEC(".maps");

/* A call that a thread is inside of. */
struct mm_call {
	__u64 sp; /* stack pointer at entry: tells whose return a return is */
	__u64 ssl;
	__u64 buffer;
	__u64 capacity;
	__u64 moved; /* address of the size_t that receives the count, 0 where the result is the count */
	__u64 hook; /* the probe's cookie */
	__u64 nested;
};

/* Calls within calls are real: node writes its first request from the callback that a read makes when
 * the handshake is done. Four deep is two more than was ever seen. */
#define DEPTH_MAX 4

struct mm_thread {
	__u64 depth;
	struct mm_call calls[DEPTH_MAX];
};

/* A thread is what runs one call at a time: a thread of the kernel, or a goroutine. */
struct mm_thread_key {
	__u64 id; /* of the thread, or the address of the goroutine */
	__u32 pid;
	__u32 reserved;
};

/* Made at a thread's first call, changed in place, removed when the thread exits. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct mm_thread_key);
	__type(value, struct mm_thread);
} threads SEC(".maps");

/* Never written: what a thread begins with, too large for the BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mm_thread);
} fresh_thread SEC(".maps");

/*
 * Position and verdict of every live connection. Removed by SSL_free; userspace removes those of dead
 * processes. A plain hash and not an LRU: evicting a live connection would restart its offsets in the
 * middle of a stream unseen, while a full hash refuses new ones and counts them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct mm_connection_key);
	__type(value, struct mm_connection);
} connections SEC(".maps");

/*
 * Connections that began and have not moved a byte yet: the first that does is known to have none before it. Apart
 * from `connections`, because a handshake in Go may fail, and a Conn be dropped, without anyone saying so. An LRU
 * may forget one, which then counts as late.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct mm_connection_key);
	__type(value, __u32);
} births SEC(".maps");

/* Processes that own connections: the exit of any other is of no interest. pid to start time. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} processes SEC(".maps");

/* Userspace to kernel; an entry lives until the connection's next call takes it over. An LRU may forget
 * one, which costs copies and never correctness. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct mm_verdict_key);
	__type(value, __u32);
} verdicts SEC(".maps");

/* By target: when one of its probes last fired, CLOCK_BOOTTIME, to about a second. A target that is used and never
 * fires is a fault that nothing else would show. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MM_TARGETS);
	__type(key, __u32);
	__type(value, __u64);
} fired SEC(".maps");

/* One element, so that one look-up serves all that a program counts. */
struct mm_counts {
	__u64 of[MM_COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mm_counts);
} counters SEC(".maps");

/* Kernel to userspace. The size is set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} records SEC(".maps");

/* Keeps the types that only userspace reads in the object's BTF, for the layout test. */
struct mm_record *unused_record __attribute__((unused));
struct mm_peer *unused_peer __attribute__((unused));
struct mm_process *unused_process __attribute__((unused));

/* Calls taken for a part of the one around them before that one is taken for a stale one, left by a
 * return that never came. */
#define NESTED_MAX 64

#endif /* MM_MAPS_H */
