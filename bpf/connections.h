/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * Connections: one use of an SSL object by one process. Their positions, their verdicts, and what userspace is
 * told of their beginning and end.
 */
#ifndef MM_CONNECTIONS_H
#define MM_CONNECTIONS_H

#include "ring.h"

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

	if (map_update(connections, key, &fresh)) {
		count(MM_LOST_CONNECTIONS_FULL, 1);
		return NULL;
	}
	map_update(processes, &pid, &started);
	return map_lookup(connections, key);
}

static __always_inline struct mm_connection *connection_of(const struct mm_connection_key *key)
{
	struct mm_connection *connection = map_lookup(connections, key);

	if (connection && connection->state != MM_ENDED)
		return connection;
	return connection_begin(key, map_delete(births, key) ? MM_LATE : 0);
}

/* Takes over a verdict that userspace left for this very connection. */
static __always_inline void learn_verdict(const struct mm_connection_key *key, struct mm_connection *connection)
{
	struct mm_verdict_key at = { .ssl = key->ssl, .generation = connection->generation, .pid = key->pid };
	__u32 *state;

	if (connection->state != MM_UNDECIDED)
		return;
	state = map_lookup(verdicts, &at);
	if (!state)
		return;
	connection->state = *state;
	map_delete(verdicts, &at);
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

/* A call that cannot be followed leaves its connection at an unknown position: what comes next in the
 * same SSL object is a new, late connection and not a silent hole in this one. */
static __always_inline void end_connection(const struct mm_connection_key *key)
{
	struct mm_connection *connection = map_lookup(connections, key);

	if (connection)
		connection->state = MM_ENDED;
}

/* Tells userspace of a connection before anything else is told of it. Where the ring has no room, the next record
 * tries again. */
static __always_inline void announce(const struct mm_connection_key *key, struct mm_connection *connection)
{
	__u64 user = bpf_get_current_uid_gid();
	struct mm_process *process;
	struct mm_record *r;

	if (connection->flags & MM_ANNOUNCED)
		return;
	r = ring_reserve(records, sizeof(*r) + sizeof(*process));
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return;
	}
	fill_header(r, MM_OPEN, key, connection);
	r->size = sizeof(*process);
	process = (struct mm_process *)(r + 1);
	process->cgroup = bpf_get_current_cgroup_id();
	process->uid = (__u32)user;
	process->gid = user >> 32;
	if (bpf_get_current_comm(process->comm, sizeof(process->comm)))
		process->comm[0] = 0;
	connection->flags |= MM_ANNOUNCED;
	ring_submit(r, BPF_RB_NO_WAKEUP);
	count(MM_COUNT_RECORDS, 1);
}

/* Says that the SSL object serves this connection no longer. False where the ring had no room for it. */
static __always_inline bool announce_end(const struct mm_connection_key *key, struct mm_connection *connection)
{
	struct mm_record *r;

	/* Nobody wants to hear more, or nobody has heard of it. */
	if (connection->state == MM_IGNORED)
		return true;
	if (!connection->read_offset && !connection->write_offset && !(connection->flags & MM_ANNOUNCED))
		return true;
	r = ring_reserve(records, sizeof(*r));
	if (!r) {
		count(MM_LOST_CONTROL, 1);
		return false;
	}
	fill_header(r, MM_FREE, key, connection);
	ring_submit(r, wake_flag(false, wake_bytes_now(), sizeof(*r)));
	count(MM_COUNT_RECORDS, 1);
	return true;
}

/* The end of a connection. */
static __always_inline int forget_connection(__u64 ssl)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_connection *connection;
	struct mm_connection_key key;

	if (!wanted(pid))
		return 0;
	key = connection_key(ssl, pid);
	connection = map_lookup(connections, &key);
	if (!connection)
		return 0;
	if (announce_end(&key, connection))
		map_delete(connections, &key);
	else
		connection->state = MM_ENDED;
	return 0;
}

#endif /* MM_CONNECTIONS_H */
