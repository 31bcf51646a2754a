/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause */
/*
 * Stops a process that runs code of a file nobody has examined, until userspace has. It stops itself, in its
 * own system call, before it has run one instruction of that file.
 *
 * Never for good: a process is in the map `holds` from after the stop until someone lets it go, and is only
 * stopped at all while the keeper (capture/discovery/keeper.py) has shown a sign of life.
 */
#ifndef MM_HOLD_H
#define MM_HOLD_H

#include "kernel.h"

#include "discover.h"

#define MM_SIGCONT 18
#define MM_SIGSTOP 19
#define MM_SECOND_NS 1000000000ULL

struct signal_struct___hold {
	int nr_threads;
	void *tty;
} MM_CORE;

struct task_struct___hold {
	__u32 ptrace;
	int tgid;
	struct task_struct___hold *real_parent;
	struct signal_struct___hold *signal;
} MM_CORE;

/* Set by userspace before anything is held; min_bytes 0: nothing is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mm_hold_settings);
} hold_settings SEC(".maps");

/* CLOCK_BOOTTIME until which a stop is allowed: the keeper moves it on for as long as it lives. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} hold_allowed_until SEC(".maps");

/* Who is stopped. Removed by whoever lets the process go. Preallocated, so that a stop can be recorded
 * without memory. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct mm_hold);
} holds SEC(".maps");

struct mm_hold_window {
	__u64 second;
	__u64 holds;
};

/* How many in this second. Two processors that begin a second at once may allow one hold too many. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mm_hold_window);
} hold_window SEC(".maps");

static __always_inline bool over_limit(__u64 now, __u64 per_second)
{
	__u32 zero = 0;
	struct mm_hold_window *window = map_lookup(hold_window, &zero);

	if (!window)
		return true;
	if (window->second != now / MM_SECOND_NS) {
		window->second = now / MM_SECOND_NS;
		window->holds = 0;
	}
	__sync_fetch_and_add(&window->holds, 1);
	return window->holds > per_second;
}

/* Whether the current process may be stopped; counts why not. */
static __always_inline bool may_hold(const struct mm_hold_settings *s, __u64 now)
{
	struct task_struct___hold *task = (void *)bpf_get_current_task();
	__u32 zero = 0;
	__u64 *until;

	if (BPF_CORE_READ(task, tgid) == s->sensor_pid || BPF_CORE_READ(task, real_parent, tgid) == s->sensor_pid)
		return false;
	if (!s->everybody && (__u32)bpf_get_current_uid_gid() != s->uid)
		return false;
	if (BPF_CORE_READ(task, signal, tty)) {
		count_discover(MM_NOT_HELD_TERMINAL);
		return false;
	}
	if (BPF_CORE_READ(task, signal, nr_threads) > 1) {
		count_discover(MM_NOT_HELD_THREADS);
		return false;
	}
	if (BPF_CORE_READ(task, ptrace)) {
		count_discover(MM_NOT_HELD_TRACED);
		return false;
	}
	until = map_lookup(hold_allowed_until, &zero);
	if (!until || *until < now) {
		count_discover(MM_NOT_HELD_ALONE);
		return false;
	}
	if (over_limit(now, s->per_second)) {
		count_discover(MM_NOT_HELD_LIMIT);
		return false;
	}
	return true;
}

/*
 * Stops the current process until `file` is examined. The stop comes before its record in the map: whoever
 * lets a process go removes the record and then continues it, so in whatever order these four meet, no stop
 * is left without a record. The first update only makes sure that there is room.
 */
static __always_inline void hold(const struct mm_file_key *file, __u64 size)
{
	__u32 zero = 0, pid = bpf_get_current_pid_tgid() >> 32;
	struct mm_hold_settings *s = map_lookup(hold_settings, &zero);
	__u64 now = bpf_ktime_get_boot_ns();
	struct mm_hold entry = { .file = *file, .since_ns = now, .started_ns = process_started() };
	bool held_anew;
	__u32 *state;

	if (!s || !s->min_bytes || size < s->min_bytes || !may_hold(s, now))
		return;
	/* It may wait for another file already: one program start maps several before it stops. */
	held_anew = !map_insert(holds, &pid, &entry);
	if (!held_anew && !map_lookup(holds, &pid)) {
		count_discover(MM_NOT_HELD_LIMIT);
		return;
	}
	if (bpf_send_signal(MM_SIGSTOP)) {
		if (held_anew)
			map_delete(holds, &pid);
		return;
	}
	if (map_update(holds, &pid, &entry)) {
		bpf_send_signal(MM_SIGCONT);
		count_discover(MM_NOT_HELD_LIMIT);
		return;
	}
	/* Examined meanwhile, by a look that may have been too early to see the record. */
	state = map_lookup(examined, file);
	if ((!state || *state == MM_EXAMINED) && !bpf_send_signal(MM_SIGCONT)) {
		map_delete(holds, &pid);
		return;
	}
	if (held_anew)
		count_discover(MM_HELD);
}

#endif /* MM_HOLD_H */
