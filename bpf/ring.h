/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * Records on their way into the ring: counting, when to wake the reader, the header that all have.
 */
#ifndef MM_RING_H
#define MM_RING_H

#include "maps.h"

static __always_inline struct mm_counts *counts_now(void)
{
	__u32 zero = 0;

	return map_lookup(counters, &zero);
}

static __always_inline void count(const enum mm_counter counter, __u64 n)
{
	struct mm_counts *counts = counts_now();

	if (counts)
		__sync_fetch_and_add(&counts->of[counter], n);
}

static __always_inline struct mm_settings *settings_now(void)
{
	__u32 zero = 0;

	return map_lookup(settings, &zero);
}

/* Whether this process is to be captured. */
static __always_inline bool wanted(__u32 pid)
{
	struct mm_settings *s = settings_now();

	if (!s || pid == s->own_pid)
		return false;
	return !s->only_listed_pids || map_lookup(pids, &pid);
}

/* Userspace sleeps until enough waits in the ring to be worth a wake-up (it also looks by itself every few
 * tens of milliseconds). The first bytes of a direction wake it at once, so that its verdict is early; after
 * that one record wakes it each time another wake_bytes have piled up. A wake-up is an interrupt to oneself,
 * microseconds in a virtual machine: far more than the record costs. */
static __always_inline __u64 wake_flag(bool now, __u64 wake_bytes, __u32 record_size)
{
	/* The record waits already: less than wake_bytes is its own remainder, and more than the record. */
	if (now || !wake_bytes || ring_waiting(records) % wake_bytes < record_size)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline __u64 wake_bytes_now(void)
{
	struct mm_settings *s = settings_now();

	return s ? s->wake_bytes : 0;
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

#endif /* MM_RING_H */
